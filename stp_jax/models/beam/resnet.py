"""Residual networks of basic blocks without their classifier (He et al. 2016, arXiv:1512.03385).

Names follow torchvision: `conv1`, `bn1`, `layer<i>_<j>/{conv1, bn1, conv2, bn2, downsample_<k>}`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import BatchNorm
from stp_jax.typing import Array

# Blocks per stage of the networks that consist of basic blocks.
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def max_pool(x: Array) -> Array:
  """3 x 3 maxima at every second pixel, edges padded: `[B, H, W, C]`, H' = (H - 1) // 2 + 1.

  A choice among nine shifted images: XLA's own window maximum has a gradient that scatters, which
  is slow on a CPU. Of equal pixels the first, row by row, has the gradient, as in torch.
  """
  low = jnp.asarray(-jnp.inf, x.dtype)
  for axis in (2, 1):
    size = (x.shape[axis] - 1) // 2 + 1
    edges = [(0, 0, 0)] * x.ndim
    # The window of the last place may end before the image does, or one pixel after it.
    edges[axis] = (1, 2 * size - x.shape[axis], 0)
    padded = jax.lax.pad(x, low, edges)
    a, b, c = (jax.lax.slice_in_dim(padded, k, k + 2 * size - 1, 2, axis) for k in range(3))
    x = _first_larger(_first_larger(a, b), c)
  return x


def _first_larger(a: Array, b: Array) -> Array:
  """The maximum, with all of the gradient going to one of both.

  `jnp.maximum` finds out by comparing them with the result, which a compiler may have rounded
  otherwise: then neither has any.
  """
  return jnp.where(a >= b, a, b)


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions and a shortcut, 1 x 1 where stride or channels change."""
  features: int
  stride: int = 1
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, H, W, C]` -> `[B, H', W', features]`, H' = (H - 1) // stride + 1."""
    def conv(size, stride, name):
      return Conv2D(self.features, size, stride, padding=size // 2, use_bias=False,
                    initializer='he_out', dtype=self.dtype, name=name)

    y = nn.relu(BatchNorm(name='bn1')(conv(3, self.stride, 'conv1')(x), train))
    y = BatchNorm(name='bn2')(conv(3, 1, 'conv2')(y), train)
    if self.stride > 1 or x.shape[-1] != self.features:
      x = conv(1, self.stride, 'downsample_0')(x)
      x = BatchNorm(name='downsample_1')(x, train)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """A trunk that is run stage by stage, so that something may happen between them.

  Attributes:
    depths: blocks per stage. widths: channels per stage; the first is the stem's too.
    fresh_stem: the first convolution starts as torch's default (the input is no photograph).
    remat: recompute each block in the backward pass.
    dtype: compute type; norms are float32.
  """
  depths: tuple[int, ...] = DEPTHS[18]
  widths: tuple[int, ...] = (64, 128, 256, 512)
  fresh_stem: bool = False
  remat: bool = False
  dtype: jnp.dtype | None = None

  def setup(self):
    self.conv1 = Conv2D(
        self.widths[0], 7, 2, padding=3, use_bias=False, dtype=self.dtype,
        initializer='torch' if self.fresh_stem else 'he_out')
    self.bn1 = BatchNorm()
    block = nn.remat(BasicBlock, static_argnums=(2,)) if self.remat else BasicBlock
    for i, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
      for j in range(depth):
        stride = 2 if i > 0 and j == 0 else 1
        setattr(self, f'layer{i + 1}_{j}', block(width, stride, dtype=self.dtype))

  def stem(self, x: Array, train: bool) -> Array:
    """`[B, H, W, C]` -> `[B, H / 4, W / 4, widths[0]]`, rounded up."""
    return max_pool(nn.relu(self.bn1(self.conv1(x), train)))

  def stage(self, x: Array, index: int, train: bool) -> Array:
    """Stage 0 keeps the size, each later one halves it (rounded up); `[B, h, w, widths[index]]`."""
    for j in range(self.depths[index]):
      x = getattr(self, f'layer{index + 1}_{j}')(x, train)
    return x

  def __call__(self, x: Array, train: bool) -> Array:
    """Features averaged over the image: `[B, H, W, C]` -> `[B, widths[-1]]`."""
    x = self.stem(x, train)
    for i in range(len(self.depths)):
      x = self.stage(x, i, train)
    return jnp.mean(x, (1, 2))
