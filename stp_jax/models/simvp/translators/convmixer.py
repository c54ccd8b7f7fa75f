"""ConvMixer (Trockman and Kolter 2022, arXiv:2201.09792)."""

from typing import ClassVar

import flax.linen as nn

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.depthwise import DepthwiseConv2D
from stp_jax.models.layers.norms import BatchNorm
from stp_jax.models.layers.precision import wide
from stp_jax.models.simvp.translators.metaformer import Block
from stp_jax.typing import Array


class ConvMixerBlock(Block):
  """Depthwise 11 x 11 with a short cut, then 1 x 1; each followed by GELU and batch norm."""
  ignores: ClassVar[tuple[str, ...]] = ('drop', 'drop_path')

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same. No short cut passes the second half: the stream starts anew."""
    gelu = lambda y: nn.gelu(y, approximate=False)
    y = DepthwiseConv2D(11, initializer='he_out', dtype=self.dtype, name='conv_dw')(x)
    x = x + BatchNorm(name='norm_1')(wide(gelu(y)), train)
    y = Conv2D(x.shape[-1], 1, initializer='he_out', dtype=self.dtype, name='conv_pw')(x)
    return BatchNorm(name='norm_2')(wide(gelu(y)), train)
