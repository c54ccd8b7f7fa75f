"""Latitude and longitude as metres: UTM on the WGS84 ellipsoid, by Krueger's series.

Four terms of the series (Karney 2011, eq. 35, after Krueger 1912) are good to a tenth of a
micrometre inside a zone, so no library is needed for a handful of fixes.
"""

import pathlib

import numpy as np

_A, _F = 6378137.0, 1 / 298.257223563  # WGS84: semi-major axis [m], flattening
_SCALE, _EAST, _SOUTH = 0.9996, 500000.0, 1e7
_N = _F / (2 - _F)
_RADIUS = _A / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)  # of the rectifying sphere
_ALPHA = (
    _N / 2 - 2 * _N**2 / 3 + 5 * _N**3 / 16 + 41 * _N**4 / 180,
    13 * _N**2 / 48 - 3 * _N**3 / 5 + 557 * _N**4 / 1440,
    61 * _N**3 / 240 - 103 * _N**4 / 140,
    49561 * _N**4 / 161280)


def zone(longitude: float) -> int:
  """The UTM zone, 1 to 60, without the exceptions of Norway and Svalbard."""
  return int(np.floor((float(longitude) + 180) / 6)) % 60 + 1


def utm(latlon: np.ndarray, number: int | None = None) -> np.ndarray:
  """Easting and northing.

  Args:
    latlon: `[..., 2]` degrees, latitude first.
    number: the zone; None: that of the first element, for all of them. Differences of points of one
      call are then distances.

  Returns:
    float64 `[..., 2]` in metres.

  Raises:
    ValueError: no latitude or longitude at all.
  """
  latlon = np.asarray(latlon, np.float64)
  if not (np.abs(latlon[..., 0]) <= 90).all() or not (np.abs(latlon[..., 1]) <= 180).all():
    raise ValueError('latitude beyond 90 or longitude beyond 180 degrees')
  number = zone(latlon[..., 1].flat[0]) if number is None else number
  phi = np.deg2rad(latlon[..., 0])
  away = latlon[..., 1] - (6 * number - 183)
  away = np.deg2rad((away + 180) % 360 - 180)
  e = np.sqrt(_F * (2 - _F))
  conformal = np.sinh(np.arctanh(np.sin(phi)) - e * np.arctanh(e * np.sin(phi)))
  xi = np.arctan2(conformal, np.cos(away))
  eta = np.arcsinh(np.sin(away) / np.hypot(conformal, np.cos(away)))
  north, east = xi.copy(), eta.copy()
  for k, a in enumerate(_ALPHA, 1):
    north += a * np.sin(2 * k * xi) * np.cosh(2 * k * eta)
    east += a * np.cos(2 * k * xi) * np.sinh(2 * k * eta)
  scale = _SCALE * _RADIUS
  return np.stack(
      [_EAST + scale * east, scale * north + np.where(latlon[..., 0] < 0, _SOUTH, 0)], -1)


def read_fix(path: pathlib.Path) -> tuple[float, float]:
  """Latitude and longitude of a text file with these two numbers.

  Raises:
    ValueError: names the file.
  """
  try:
    values = [float(word) for word in path.read_text().replace(',', ' ').split()]
    if len(values) < 2 or not (abs(values[0]) <= 90 and abs(values[1]) <= 180):
      raise ValueError
  except (ValueError, UnicodeDecodeError):
    raise ValueError(f'{path}: expected latitude and longitude in degrees, one a line') from None
  return values[0], values[1]
