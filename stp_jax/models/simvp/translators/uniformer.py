"""UniFormer (Li et al. 2022, arXiv:2201.09450): local blocks first, global ones after."""

import flax.linen as nn

from stp_jax.models.layers.uniformer import add_position, global_block, local_block
from stp_jax.models.simvp.translators.metaformer import ScaledBlock
from stp_jax.typing import Array


class UniFormerBlock(ScaledBlock):
  """A convolution in the first block and where the width changes; attention with layer scale else.

  Only the attention block has a layer scale.
  """

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: attention and C does not divide by 8 heads."""
    branch = lambda y: self.branch(y, train)
    common = dict(mlp_ratio=self.mlp_ratio, drop=self.drop, train=train, dtype=self.dtype)
    if self.index == 0 or self.changes_width:
      return local_block(x, branch, batch_statistics=train, initializer='he_out', **common)
    x = add_position(x, 'torch', self.dtype)
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    gammas = tuple(self.layer_scale(f'gamma_{i}', x.shape[-1], 1e-6) for i in (1, 2))
    return global_block(
        tokens, gammas, branch, initializer='trunc_normal', **common).reshape(x.shape)
