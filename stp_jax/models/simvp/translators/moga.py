"""MogaNet, multi-order gated aggregation (Li et al. 2022, arXiv:2211.03295)."""

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.depthwise import DepthwiseConv2D
from stp_jax.models.layers.norms import BatchNorm
from stp_jax.models.layers.precision import wide
from stp_jax.models.simvp.translators.metaformer import ScaledBlock
from stp_jax.typing import Array


def _plane(module: nn.Module, name: str, channels: int, start: float = 1e-5) -> Array:
  """A factor per channel; upstream keeps it as `[1, C, 1, 1]`, here `[1, 1, 1, C]`."""
  return module.param(name, nn.initializers.constant(start), (1, 1, 1, channels))


class MultiOrder(nn.Module):
  """Depthwise contexts of three sizes: 1/8 of the channels near, 3/8 wider, 4/8 widest."""
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]
    filtered = lambda y, k, dilation, name: DepthwiseConv2D(
        k, dilation, initializer='he_out', dtype=self.dtype, name=name)(y)
    near, middle, wide_ = jnp.split(
        filtered(x, 5, 1, 'DW_conv0'), [channels // 8, channels // 2], -1)
    y = jnp.concatenate(
        [near, filtered(middle, 5, 2, 'DW_conv1'), filtered(wide_, 7, 3, 'DW_conv2')], -1)
    return Conv2D(channels, 1, initializer='he_out', dtype=self.dtype, name='PW_conv')(y)


class Aggregation(nn.Module):
  """What differs from the mean is stressed, then SiLU(gate) * SiLU(contexts), and a short cut."""
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: C does not divide by 8."""
    channels = x.shape[-1]
    if channels % 8:
      raise ValueError(
          f'SimVP moga: {channels} channels do not divide by 8; choose multiples of 8 for '
          'T * hid_S and hid_T')
    conv = lambda name: Conv2D(
        channels, 1, initializer='he_out', dtype=self.dtype, name=name)
    y = wide(conv('proj_1')(x))
    y = y + _plane(self, 'sigma', channels) * (y - jnp.mean(y, (1, 2), keepdims=True))
    y = nn.silu(y)
    gate, value = conv('gate')(y), MultiOrder(self.dtype, name='value')(y)
    return wide(conv('proj_2')(nn.silu(gate) * nn.silu(value))) + x


class Reallocation(nn.Module):
  """1 x 1 to `hidden`, depthwise 3 x 3, GELU, what one common plane cannot tell, 1 x 1 back."""
  hidden: int
  drop: float = 0.0
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    conv = lambda features, name: Conv2D(
        features, 1, initializer='he_out', dtype=self.dtype, name=name)
    gelu = lambda y: nn.gelu(y, approximate=False)
    drop = lambda y: nn.Dropout(self.drop)(y, deterministic=not train)
    y = conv(self.hidden, 'fc1')(x)
    y = DepthwiseConv2D(3, initializer='he_out', dtype=self.dtype, name='dwconv')(y)
    y = drop(gelu(y))
    common = gelu(conv(1, 'decompose')(y))
    y = wide(y) + _plane(self, 'sigma', self.hidden) * wide(y - common)
    return drop(conv(x.shape[-1], 'fc2')(y))


class MogaBlock(ScaledBlock):
  """Batch norm, aggregation; batch norm, reallocation; both with layer scale."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same."""
    channels = x.shape[-1]
    start = 1e-5 if self.layer_scale_init is None else self.layer_scale_init
    scales = [_plane(self, f'layer_scale_{i}', channels, start) for i in (1, 2)]
    y = Aggregation(self.dtype, name='attn')(BatchNorm(name='norm1')(x, train))
    x = x + self.branch(scales[0] * y, train)
    y = Reallocation(int(channels * self.mlp_ratio), self.drop, self.dtype, name='mlp')(
        BatchNorm(name='norm2')(x, train), train)
    return x + self.branch(scales[1] * y, train)
