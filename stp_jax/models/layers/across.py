"""Batch statistics where each device computes on its own rows (`sharding.per_shard`)."""

import contextlib
import contextvars

import jax
from jax import lax

from stp_jax.models.layers.context import held
from stp_jax.typing import Array

_AXES: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar('axes', default=())


def devices_on(axes: tuple[str, ...]) -> contextlib.AbstractContextManager[None]:
  """While this is traced, a batch is the part of one device along the mesh axes `axes`."""
  return held(_AXES, axes)


def mean(x: Array) -> Array:
  """The mean over all devices' parts, which are equally large; `x` where nothing is split."""
  return lax.pmean(x, _AXES.get()) if _AXES.get() else x


def count() -> int:
  """How many parts a batch has."""
  return jax.lax.axis_size(_AXES.get()) if _AXES.get() else 1
