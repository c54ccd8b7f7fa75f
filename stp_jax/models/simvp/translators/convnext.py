"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545), the block of timm."""

import flax.linen as nn

from stp_jax.models.layers.depthwise import DepthwiseConv2D
from stp_jax.models.layers.mlp import Mlp
from stp_jax.models.layers.norms import LayerNorm
from stp_jax.models.simvp.translators.metaformer import ScaledBlock
from stp_jax.typing import Array


class ConvNeXtBlock(ScaledBlock):
  """Depthwise 7 x 7, layer norm, MLP, layer scale, one short cut around all of it."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    channels = x.shape[-1]
    gamma = self.layer_scale('gamma', channels, 1e-6)
    y = DepthwiseConv2D(7, initializer='he_out', dtype=self.dtype, name='conv_dw')(x)
    y = LayerNorm(1e-6, name='norm')(y)
    y = Mlp(
        int(channels * self.mlp_ratio), self.drop, pointwise=True, initializer='he_out',
        dtype=self.dtype, name='mlp')(y, train)
    return x + self.branch(gamma * y, train)
