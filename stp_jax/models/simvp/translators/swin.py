"""The block of the Swin transformer (Liu et al. 2021, arXiv:2103.14030): attention in windows."""

import einops
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.attention import WindowAttention
from stp_jax.models.layers.mlp import Mlp
from stp_jax.models.layers.norms import LayerNorm
from stp_jax.models.simvp.translators.metaformer import Block
from stp_jax.typing import Array

SHIFT_MASKS = ('standard', 'upstream')


def window_and_shift(
    height: int, width: int, index: int, window_size: int | None = None) -> tuple[int, int]:
  """Side of the windows, and by how much block `index` shifts them: half of it in odd blocks.

  Args:
    window_size: None is upstream's rule: 7 where it divides the height, else height // 16 within
      4 to 8; one window of the shorter side, unshifted, where that is no larger.
  """
  window = window_size or (7 if height % 7 == 0 else min(8, max(4, height // 16)))
  if min(height, width) <= window:
    return min(height, width), 0
  return window, window // 2 if index % 2 else 0


def visible(height: int, width: int, window: int, shift: int, shift_mask: str
            ) -> np.ndarray | None:
  """Which pixels of a window see each other; None: all.

  Padding is seen by nobody. Rolling brings the first rows and columns next to the last ones, which
  are not their neighbours.

  Args:
    height, width: of the image before it is padded to whole windows.

  Returns:
    bool `[windows, N, N]` (query, key), windows row by row, N = window ** 2.
  """
  def labels(n):
    padded = -(-n // window) * window
    label = np.where(np.arange(padded) < n, 0, 2)
    if shift and shift_mask == 'standard':
      label[:shift] = 1  # the last window holds them beside the far edge
    return np.roll(label, -shift).reshape(-1, window)

  rows, columns = labels(height), labels(width)
  label = rows[:, None, :, None] * 3 + columns[None, :, None, :]
  # Beyond the edge in one direction is beyond the edge.
  label = np.where((rows == 2)[:, None, :, None] | (columns == 2)[None, :, None, :], 9, label)
  label = label.reshape(-1, window ** 2)
  seen = label[:, :, None] == label[:, None, :]
  return None if seen.all() else seen


class SwinBlock(Block):
  """Attention in windows, shifted in every other block, then an MLP; each after a layer norm.

  Attributes:
    window_size: None = upstream's rule (`window_and_shift`). Any frame size is padded to whole
      windows; upstream stops where they do not fit.
    shift_mask: standard: pixels that only the cyclic shift made neighbours do not see each other.
      upstream: they do (its mask is built, stored and never passed on).
  """
  window_size: int | None = None
  shift_mask: str = 'standard'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: a setting out of range, fewer than 8 channels."""
    if self.shift_mask not in SHIFT_MASKS:
      raise ValueError(f'SimVP: shift_mask {self.shift_mask!r}: one of {" ".join(SHIFT_MASKS)}')
    if self.window_size is not None and self.window_size < 1:
      raise ValueError(f'SimVP: window_size {self.window_size} must be at least 1')
    h, w, channels = x.shape[1:]
    window, shift = window_and_shift(h, w, self.index, self.window_size)
    y = LayerNorm(name='norm1')(x)
    y = jnp.pad(y, ((0, 0), (0, -h % window), (0, -w % window), (0, 0)))
    rows = y.shape[1] // window
    y = jnp.roll(y, (-shift, -shift), (1, 2))
    y = einops.rearrange(y, 'b (i h) (j w) c -> b (i j) (h w) c', h=window, w=window)
    seen = visible(h, w, window, shift, self.shift_mask)
    y = WindowAttention(window, drop=self.drop, dtype=self.dtype, name='attn')(
        y, train, None if seen is None else seen[:, None])
    y = einops.rearrange(y, 'b (i j) (h w) c -> b (i h) (j w) c', h=window, i=rows)
    y = jnp.roll(y, (shift, shift), (1, 2))[:, :h, :w]
    x = x + self.branch(y, train)
    y = Mlp(int(channels * self.mlp_ratio), self.drop, dtype=self.dtype, name='mlp')(
        LayerNorm(name='norm2')(x), train)
    return x + self.branch(y, train)
