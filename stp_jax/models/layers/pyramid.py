"""Laplacian pyramids, for losses that compare images scale by scale."""

import jax.numpy as jnp

from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def _blur(x: Array) -> Array:
  """`[..., H, W, C]` by the 5 x 5 binomial filter, mirrored at the borders; same size."""
  for axis in (x.ndim - 3, x.ndim - 2):
    n = x.shape[axis]
    pads = [(0, 0)] * x.ndim
    pads[axis] = (2, 2)
    padded = jnp.pad(x, pads, mode='reflect')
    at = [slice(None)] * axis
    x = sum(weight * padded[(*at, slice(k, k + n))] for k, weight in enumerate(_BINOMIAL))
  return x


def laplacian_pyramid(x: Array, levels: int) -> list[Array]:
  """What a blur at each of `levels` halvings takes away, finest first; the remainder is dropped.

  Args:
    x: `[..., H, W, C]`; an odd side is halved upwards.
  """
  pyramid, x = [], wide(x)
  for _ in range(levels):
    h, w = x.shape[-3:-1]
    small = _blur(x)[..., ::2, ::2, :]
    spread = jnp.zeros((*x.shape[:-3], 2 * small.shape[-3], 2 * small.shape[-2], x.shape[-1]),
                       x.dtype).at[..., ::2, ::2, :].set(small)
    pyramid.append(x - 4 * _blur(spread)[..., :h, :w, :])
    x = small
  return pyramid


def laplacian_distance(a: Array, b: Array, levels: int) -> Array:
  """Mean absolute difference of the pyramids of `[B, H, W, C]`, summed over the levels: `[B]`."""
  # The pyramid is linear: that of the difference is the difference of the two.
  return sum(jnp.mean(jnp.abs(level), (1, 2, 3)) for level in laplacian_pyramid(a - b, levels))
