"""Bilinear warping by a flow (torch's `grid_sample` with aligned corners, in pixels)."""

import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

PADDINGS = ('border', 'zeros')
GRIDS = ('exact', 'upstream')


def _places(shift: Array, axis: int, n: int, grid: str) -> Array:
  """Pixel coordinates 0 to n - 1 along an axis of `shift` `[..., H', W']`, plus the shift."""
  count, lead = shift.shape[axis], (slice(None), *[None] * (-1 - axis))
  if grid == 'exact' or min(n, count) == 1:
    return shift + jnp.arange(count, dtype=shift.dtype)[lead]
  # As torch's linspace from -1 to 1 and grid_sample's way back from there to pixels round it.
  # (Its linspace multiplies and adds with one rounding.)
  dtype, index = shift.dtype, np.arange(count)
  half, step = np.asarray((n - 1) / 2, dtype), float(np.asarray(2, dtype) / (count - 1))
  line = np.where(index < count // 2, step * index - 1, 1 - step * index[::-1]).astype(dtype)
  return (shift / half + line[lead] + 1) * half


def warp(image: Array, flow: Array, padding: str = 'border', grid: str = 'exact') -> Array:
  """Samples pixel (row, column) at (row + flow[..., 1], column + flow[..., 0]).

  Args:
    image: `[B, H, W, C]`.
    flow: `[B, ..., H', W', 2]` in pixels, the column's first; several flows fetch from one image.
    padding: what lies outside. border: the nearest pixel; there, and on the outermost rows and
      columns themselves, the result does not depend on the flow across the border. zeros.
    grid: exact, or upstream: torch's usual detour through coordinates in [-1, 1] misses some whole
      pixels by a rounding error. It shows only in the gradient of a flow that is exactly zero: on
      a pixel the slope is that to the next one, just before it that from the previous one.

  Returns:
    `[B, ..., H', W', C]`, of the image's type.

  Raises:
    ValueError: unknown padding or grid.
  """
  if padding not in PADDINGS:
    raise ValueError(f'warp: padding {padding!r}: one of {" ".join(PADDINGS)}')
  if grid not in GRIDS:
    raise ValueError(f'warp: grid {grid!r}: one of {" ".join(GRIDS)}')
  b, h, w, c = image.shape
  flow = wide(flow)
  pixels = image.reshape(b, h * w, c)
  axes = []
  for axis, n in ((-2, h), (-1, w)):
    place = _places(flow[..., -1 - axis], axis, n, grid)
    if padding == 'border':
      # `where`, not `clip`, whose gradient at the border is half that of the inside.
      place = jnp.where(place > 0, jnp.where(place < n - 1, place, n - 1), 0)
    low = jnp.floor(place)
    share = place - low
    axes.append([(low, 1 - share), (low + 1, share)])
  total = 0
  for y, y_share in axes[0]:
    for x, x_share in axes[1]:
      weight = y_share * x_share
      if padding == 'zeros':
        weight = jnp.where((y >= 0) & (y <= h - 1) & (x >= 0) & (x <= w - 1), weight, 0)
      # Clipped before they become whole numbers: a wild flow must not wrap around.
      row, column = (jnp.clip(at, 0, n - 1).astype(jnp.int32) for at, n in ((y, h), (x, w)))
      index = row * w + column
      corner = jnp.take_along_axis(pixels, index.reshape(b, -1, 1), 1, mode='clip')
      total = total + wide(corner).reshape(*weight.shape, c) * weight[..., None]
  return total.astype(image.dtype)
