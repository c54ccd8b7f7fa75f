"""The frame of SimVP v2's translators (arXiv:2211.12509): blocks, and 1 x 1 convolutions where the
width changes; and the parts that several blocks share."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.depthwise import DepthwiseConv2D
from stp_jax.models.layers.norms import BatchNorm, DropPath
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


class Block(nn.Module):
  """What every block is told. `__call__(x [B, h, w, C], train) -> x` keeps the shape.

  Fields that only some blocks have (layer scale, windows) are declared by those: asking another
  block for one is an error.

  Attributes:
    index: position in the translator.
    changes_width: whether a 1 x 1 convolution to another width follows.
    ignores: which of the settings below the block has no use for.
  """
  mlp_ratio: float = 8.0
  drop: float = 0.0
  drop_path: float = 0.0
  index: int = 0
  changes_width: bool = False
  dtype: jnp.dtype | None = None

  ignores: ClassVar[tuple[str, ...]] = ()

  def branch(self, y: Array, train: bool) -> Array:
    """Inside `__call__`: what joins the residual stream; at least float32, dropped in training."""
    return DropPath(self.drop_path)(wide(y), train)


class ScaledBlock(Block):
  """A block whose branches are scaled per channel before they join the residual stream.

  Attributes:
    layer_scale_init: None = the block's own.
  """
  layer_scale_init: float | None = None

  def layer_scale(self, name: str, channels: int, start: float) -> Array:
    """Inside `__call__`: the parameter `[channels]`."""
    start = start if self.layer_scale_init is None else self.layer_scale_init
    return self.param(name, nn.initializers.constant(start), (channels,))


def drop_path_rates(last: float, floor: float, depth: int) -> list[float]:
  """Stochastic depth per block: linear from `floor`, and `last` for the last one."""
  return [*np.linspace(floor, last, depth).tolist()[:-1], last]


class MetaBlock(nn.Module):
  """A block at the width it receives, then a 1 x 1 convolution if the next width differs."""
  block: type[Block]
  features: int
  fields: dict
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    changes = x.shape[-1] != self.features
    x = self.block(**self.fields, changes_width=changes, dtype=self.dtype, name='block')(x, train)
    return Conv2D(self.features, 1, dtype=self.dtype, name='reduction')(x) if changes else x


class MetaFormer(nn.Module):
  """`depth` blocks: T * hid_S -> hidden, hidden ..., hidden -> T * hid_S channels.

  Attributes:
    options: fields that only this kind of block has.
  """
  block: type[Block]
  hidden: int
  depth: int
  options: Mapping[str, Any]
  mlp_ratio: float = 8.0
  drop: float = 0.0
  drop_path: float = 0.0
  drop_path_floor: float = 0.0
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: fewer than two blocks."""
    if self.depth < 2:
      raise ValueError(f'SimVP: N_T must be at least 2, got {self.depth}')
    channels = x.shape[-1]
    rates = drop_path_rates(self.drop_path, self.drop_path_floor, self.depth)
    for i, rate in enumerate(rates):
      fields = dict(
          mlp_ratio=self.mlp_ratio, drop=self.drop, drop_path=rate, index=i, **self.options)
      features = channels if i == self.depth - 1 else self.hidden
      x = MetaBlock(self.block, features, fields, self.dtype, name=f'enc_{i}')(x, train)
    return x


class DWConv(nn.Module):
  """Upstream wraps this depthwise convolution; the name is part of its checkpoints."""
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return DepthwiseConv2D(3, initializer='he_out', dtype=self.dtype, name='dwconv')(x)


class MixMlp(nn.Module):
  """1 x 1 to `hidden`, depthwise 3 x 3, GELU, 1 x 1 back."""
  hidden: int
  drop: float = 0.0
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    conv = lambda features, name: Conv2D(
        features, 1, initializer='he_out', dtype=self.dtype, name=name)
    drop = lambda y: nn.Dropout(self.drop)(y, deterministic=False) if train and self.drop else y
    y = DWConv(self.dtype, name='dwconv')(conv(self.hidden, 'fc1')(x))
    y = drop(nn.gelu(y, approximate=False))
    return drop(conv(x.shape[-1], 'fc2')(y))


class Attention(nn.Module):
  """1 x 1, GELU, a gating unit, 1 x 1, and a short cut; `gate` is the unit's class."""
  gate: type[nn.Module]
  initializer: str = 'he_out'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = lambda name: Conv2D(
        x.shape[-1], 1, initializer=self.initializer, dtype=self.dtype, name=name)
    y = nn.gelu(conv('proj_1')(x), approximate=False)
    y = self.gate(initializer=self.initializer, dtype=self.dtype, name='spatial_gating_unit')(y)
    return conv('proj_2')(y) + x


def large_kernel(
    x: Array, features: int, initializer: str, dtype: jnp.dtype | None, kernel_size: int = 21,
    dilation: int = 3,
) -> Array:
  """Inside a compact module: depthwise 5 x 5, dilated depthwise, 1 x 1; `[B, h, w, features]`.

  The receptive field is `kernel_size`: (2 dilation - 1) and kernel_size / dilation, made odd.
  """
  near, far = 2 * dilation - 1, kernel_size // dilation
  far += (far + 1) % 2
  y = DepthwiseConv2D(near, initializer=initializer, dtype=dtype, name='conv0')(x)
  y = DepthwiseConv2D(far, dilation, initializer=initializer, dtype=dtype, name='conv_spatial')(y)
  return Conv2D(features, 1, initializer=initializer, dtype=dtype, name='conv1')(y)


class GatedBlock(ScaledBlock):
  """Batch norm, attention, layer scale; batch norm, MLP, layer scale; both with stochastic depth.

  Subclasses choose the gating unit and the initialisation of the attention's convolutions.
  """
  gate: type[nn.Module] | None = None
  attention_init: str = 'he_out'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same, at least float32 as a residual stream."""
    channels = x.shape[-1]
    scales = [self.layer_scale(f'layer_scale_{i}', channels, 1e-2) for i in (1, 2)]
    y = Attention(self.gate, self.attention_init, self.dtype, name='attn')(
        BatchNorm(name='norm1')(x, train))
    x = x + self.branch(scales[0] * y, train)
    y = MixMlp(int(channels * self.mlp_ratio), self.drop, self.dtype, name='mlp')(
        BatchNorm(name='norm2')(x, train), train)
    return x + self.branch(scales[1] * y, train)
