"""Quasi-dipole latitude of a grid, for the channel `magnetic_latitude`.

Where a field line of the Earth reaches its highest point orders the ionosphere better than the
geographic latitude does: the crests of the equatorial anomaly lie at 15 to 20 degrees on either
side of the magnetic equator. Quasi-dipole coordinates are those of Richmond (1995, J. Geomagn.
Geoelectr. 47, 191); the table comes from the fit of Emmert et al. (2010, doi:10.1029/2010JA015326)
to the reference field, see tables/README.md. It is of 2012: the magnetic equator has moved by
about a degree at most in the ten years on either side.
"""

import functools
import importlib.resources
from collections.abc import Sequence

import numpy as np

_STEP = 2.5, 5.0  # degrees of the table


@functools.cache
def _table() -> np.ndarray:
  """`[73, 73]` degrees: latitude 90 to -90, longitude -180 to 180."""
  path = importlib.resources.files('stp_jax.data') / 'tables' / 'magnetic_latitude.npy'
  with path.open('rb') as file:
    table = np.load(file) / 100
  return np.concatenate([table, table[:, :1]], 1)


def latitude(rows: Sequence[float], columns: Sequence[float]) -> np.ndarray:
  """Quasi-dipole latitude of a grid, linear between the nodes of the table.

  Args:
    rows: `[H]` geographic latitudes. columns: `[W]` longitudes, -180 to 360; degrees.

  Returns:
    float32 `[H, W]`, degrees, positive in the north.

  Raises:
    ValueError: a latitude beyond a pole.
  """
  rows, columns = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
  if not (np.abs(rows) <= 90).all():
    raise ValueError(f'latitudes from {rows.min():g} to {rows.max():g} degrees: -90 to 90')
  table = _table()
  y = (90 - rows) / _STEP[0]
  x = (columns + 180) % 360 / _STEP[1]
  top = np.minimum(y.astype(int), len(table) - 2)
  left = np.minimum(x.astype(int), len(table[0]) - 2)
  down, right = (y - top)[:, None], x - left
  upper, lower = (
      table[i][:, left] * (1 - right) + table[i][:, left + 1] * right for i in (top, top + 1))
  return (upper * (1 - down) + lower * down).astype(np.float32)
