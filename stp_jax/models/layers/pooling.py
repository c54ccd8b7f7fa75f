"""Max pooling by two along any axes, as torch's with kernel and stride 2."""

from collections.abc import Sequence

import jax.numpy as jnp

from stp_jax.typing import Array


def halve(x: Array, axes: Sequence[int]) -> Array:
  """The largest of each pair (of each 2 x 2, ...) along `axes`; an odd last one is left out.

  Its gradient goes to the first of equals.
  """
  for axis in sorted((a % x.ndim for a in axes), reverse=True):
    n = x.shape[axis] // 2
    pairs = x[(slice(None),) * axis + (slice(0, 2 * n),)]
    pairs = pairs.reshape(*x.shape[:axis], n, 2, *x.shape[axis + 1:])
    first, second = (jnp.take(pairs, i, axis + 1) for i in range(2))
    # `where`, not a maximum: that finds out where its result came from by comparing again, and a
    # compiler that computes the values twice, with other rounding, makes its gradient 0 / 0.
    x = jnp.where(first >= second, first, second)
  return x
