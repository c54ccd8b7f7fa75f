"""UniFormer (Li et al. 2022, arXiv:2201.09450): local blocks first, global ones after."""

import flax.linen as nn

from stp_jax.models.layers.attention import SelfAttention
from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.depthwise import DepthwiseConv2D
from stp_jax.models.layers.mlp import Mlp
from stp_jax.models.layers.norms import BatchNorm, LayerNorm
from stp_jax.models.layers.precision import wide
from stp_jax.models.simvp.translators.metaformer import ScaledBlock
from stp_jax.typing import Array


class UniFormerBlock(ScaledBlock):
  """A convolution in the first block and where the width changes; attention with layer scale else.

  Only the attention block has a layer scale.
  """

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: attention and C does not divide by 8 heads."""
    local = self.index == 0 or self.changes_width
    position = DepthwiseConv2D(
        3, initializer='he_out' if local else 'torch', dtype=self.dtype, name='pos_embed')
    x = x + wide(position(x))
    return self._local(x, train) if local else self._global(x, train)

  def _local(self, x, train):
    channels = x.shape[-1]
    conv = lambda name: Conv2D(channels, 1, initializer='he_out', dtype=self.dtype, name=name)
    y = conv('conv1')(BatchNorm(name='norm1')(x, train))
    y = DepthwiseConv2D(5, initializer='he_out', dtype=self.dtype, name='attn')(y)
    x = x + self.branch(conv('conv2')(y), train)
    y = Mlp(int(channels * self.mlp_ratio), self.drop, pointwise=True, initializer='he_out',
            dtype=self.dtype, name='mlp')(BatchNorm(name='norm2')(x, train), train)
    return x + self.branch(y, train)

  def _global(self, x, train):
    channels = x.shape[-1]
    gammas = [self.layer_scale(f'gamma_{i}', channels, 1e-6) for i in (1, 2)]
    tokens = x.reshape(x.shape[0], -1, channels)
    y = SelfAttention(drop=self.drop, dtype=self.dtype, name='attn')(
        LayerNorm(name='norm1')(tokens), train)
    tokens = tokens + self.branch(gammas[0] * y, train)
    y = Mlp(int(channels * self.mlp_ratio), self.drop, dtype=self.dtype, name='mlp')(
        LayerNorm(name='norm2')(tokens), train)
    return (tokens + self.branch(gammas[1] * y, train)).reshape(x.shape)
