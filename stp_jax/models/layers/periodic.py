"""Columns that go round: within `periodic_columns` convolutions wrap in longitude.

What zero padding adds at the left and the right edge of a map is a wall at 180 degrees. Every layer
that convolves (`layers.conv`, `depthwise`, `transposed`, and `conv3d` by way of `conv`) asks here
when it is traced, so no backbone has a field for it. Rows keep their zeros. Warps, max pooling with
edges and windows of attention do as they always do.
"""

import contextlib
import contextvars

import jax.numpy as jnp

from stp_jax.models.layers.context import held
from stp_jax.typing import Array

_ON = contextvars.ContextVar('periodic columns', default=False)


def periodic_columns(on: bool = True) -> contextlib.AbstractContextManager[None]:
  """Within it, convolutions read columns beyond one edge from the other; decided at tracing."""
  return held(_ON, on)


def is_periodic() -> bool:
  """Whether columns go round."""
  return _ON.get()


def extended(x: Array, left: int, right: int) -> Array:
  """`[B, H, W, C]` -> `[B, H, left + W + right, C]`; any number of turns."""
  return jnp.pad(x, ((0, 0), (0, 0), (left, right), (0, 0)), mode='wrap')
