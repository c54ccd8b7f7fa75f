"""Bilinear resizing by whole factors, half-pixel centres, no antialiasing (torch's `interpolate`).

For a whole factor every output pixel of one phase reads the same two neighbours with the same
weights: slices and sums instead of gathers, in both directions of differentiation.
"""

import jax.numpy as jnp
from jax import lax

from stp_jax.typing import Array


def _shrink(x: Array, factor: int, axis: int) -> Array:
  """An even factor falls between two pixels, an odd one on a pixel."""
  take = lambda first: lax.slice_in_dim(x, first, None, factor, axis)
  if factor % 2:
    return take(factor // 2)
  return (take(factor // 2 - 1) + take(factor // 2)) / 2


def _enlarge(x: Array, factor: int, axis: int) -> Array:
  """Phase r of a pixel lies (r + 1/2) / factor - 1/2 pixels from its centre."""
  n = x.shape[axis]
  edge = lambda first: lax.slice_in_dim(x, first, first + 1, 1, axis)
  padded = jnp.concatenate([edge(0), x, edge(n - 1)], axis)
  phases = []
  for r in range(factor):
    place = (r + 0.5) / factor + 0.5  # in `padded`, from the pixel before: 0.5 to 1.5
    low = int(place)
    a, b = (lax.slice_in_dim(padded, low + k, low + k + n, 1, axis) for k in (0, 1))
    share = place - low
    phases.append(a * (1 - share) + b * share if share else a)
  return jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], n * factor, *x.shape[axis + 1:])


def shrink(x: Array, factor: int) -> Array:
  """`[..., H, W, C]` -> `[..., H / factor, W / factor, C]`.

  Raises:
    ValueError: H or W does not divide by the factor.
  """
  h, w = x.shape[-3:-1]
  if factor == 1:
    return x
  if h % factor or w % factor:
    raise ValueError(f'frames of {h} x {w} do not divide by {factor}; pad them')
  return _shrink(_shrink(x, factor, x.ndim - 3), factor, x.ndim - 2)


def enlarge(x: Array, factor: int) -> Array:
  """`[..., H, W, C]` -> `[..., H factor, W factor, C]`; edge pixels are repeated outwards."""
  if factor == 1:
    return x
  return _enlarge(_enlarge(x, factor, x.ndim - 3), factor, x.ndim - 2)
