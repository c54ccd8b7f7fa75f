"""The transformer block of ViT (Dosovitskiy et al. 2021, arXiv:2010.11929), without positions."""

import flax.linen as nn

from stp_jax.models.layers.attention import SelfAttention
from stp_jax.models.layers.mlp import Mlp
from stp_jax.models.layers.norms import LayerNorm
from stp_jax.models.simvp.translators.metaformer import Block
from stp_jax.typing import Array


class ViTBlock(Block):
  """Attention among all pixels, then an MLP, each after a layer norm."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: C does not divide by 8 heads."""
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    y = SelfAttention(drop=self.drop, dtype=self.dtype, name='attn')(
        LayerNorm(name='norm1')(tokens), train)
    tokens = tokens + self.branch(y, train)
    y = Mlp(int(x.shape[-1] * self.mlp_ratio), self.drop, dtype=self.dtype, name='mlp')(
        LayerNorm(name='norm2')(tokens), train)
    return (tokens + self.branch(y, train)).reshape(x.shape)
