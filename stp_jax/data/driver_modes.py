"""The other way of seeing the future: honest scores beside those of the originals' protocol.

A forecast that reads solar and geomagnetic drivers is scored twice, with drivers as they were known
when it was issued (`persist`) and with those measured later (`observed`), so that neither number is
taken for the other.
"""

from collections.abc import Sequence

import numpy as np

from stp_jax.data import forcings, pipeline
from stp_jax.data.spec import DataSpec

_CHUNK = 256  # windows


def drivers(task) -> tuple[str, ...]:
  """The columns that the model is fed and whose future nobody knows at issue time."""
  spec = task.spec
  ahead = dict(zip(spec.columns, spec.known_ahead))
  return tuple(c for c in forcings.scalars(task.channels)
               if c not in spec.filled and not ahead.get(c, True))


def other(task) -> str:
  """The mode to stand beside that of the config; '' where the mode changes nothing."""
  if not drivers(task):
    return ''
  return 'persist' if task.config.data.future_forcings == 'observed' else 'observed'


def complete(
    found: Sequence[pipeline.WindowSource], spec: DataSpec, columns: Sequence[str], mode: str,
    t_in: int,
) -> bool:
  """Whether every window holds every value of `columns` that `mode` shows to a forecast."""
  where = [spec.columns.index(c) for c in columns]
  for source in found:
    for begin in range(0, len(source), _CHUNK):
      end = min(begin + _CHUNK, len(source))
      rows = np.stack([source[i]['columns'] for i in range(begin, end)])
      parts = dict(zip(pipeline.PARTS, np.split(rows, 4, -1)))
      if np.isnan(pipeline.selected(parts, spec, mode, t_in)[..., where]).any():
        return False
  return True
