"""Lines on a world map: coasts, the magnetic equator, the terminator. Degrees north and east.

The coasts are Natural Earth's (1:110 million, public domain), thinned and rounded to a tenth of a
degree; see `data/tables/README.md`.
"""

import functools
import pathlib

import numpy as np

from stp_jax.data import magnetic

_COASTS = pathlib.Path(__file__).resolve().parents[1] / 'data' / 'tables' / 'coastline.txt'
_EQUINOX = np.datetime64('2000-01-01T12:00', 'm')  # J2000, the epoch of the solar elements below


@functools.cache
def coastline() -> np.ndarray:
  """`[N, 2]` longitude -180..180 and latitude, lines separated by NaN."""
  lines = []
  for text in _COASTS.read_text().splitlines():
    if text and not text.startswith('#'):
      lines += [np.array(text.split(), float).reshape(-1, 2) / 10, [[np.nan, np.nan]]]
  return np.concatenate(lines)


def magnetic_equator() -> np.ndarray:
  """`[N, 2]`: where quasi-dipole latitude is 0, see `data.magnetic`; of 2012."""
  east, north = np.arange(-180, 181, 2.5), np.arange(30, -30.5, -0.5)
  latitude = magnetic.latitude(north, east)
  row = np.argmax(latitude < 0, 0)  # the first one south of it
  above, below = (np.take_along_axis(latitude, r[None], 0)[0] for r in (row - 1, row))
  return np.stack([east, north[row - 1] - 0.5 * above / (above - below)], 1)


def subsolar_point(time: np.datetime64) -> tuple[float, float]:
  """Longitude and latitude under the Sun at `time` (UT).

  The Sun's mean elements of the Astronomical Almanac, good to 0.01 degrees over 1950-2050.
  """
  days = (np.datetime64(time, 's') - _EQUINOX).astype('timedelta64[s]').astype(float) / 86400
  mean = np.deg2rad((280.460 + 0.9856474 * days) % 360)
  anomaly = np.deg2rad((357.528 + 0.9856003 * days) % 360)
  ecliptic = mean + np.deg2rad(1.915) * np.sin(anomaly) + np.deg2rad(0.020) * np.sin(2 * anomaly)
  tilt = np.deg2rad(23.439 - 4e-7 * days)
  latitude = np.arcsin(np.sin(tilt) * np.sin(ecliptic))
  ascension = np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic))
  sidereal = (280.46062 + 360.98564737 * days) % 360
  longitude = (np.rad2deg(ascension) - sidereal + 180) % 360 - 180
  return float(longitude), float(np.rad2deg(latitude))


def terminator(time: np.datetime64) -> np.ndarray:
  """`[N, 2]`: where the Sun's centre stands on the horizon at `time`, without refraction."""
  east, north = np.deg2rad(subsolar_point(time))
  # The great circle a quarter turn from the subsolar point, by the bearing from there.
  bearing = np.linspace(0, 2 * np.pi, 721)
  latitude = np.arcsin(np.cos(north) * np.cos(bearing))
  longitude = east + np.arctan2(np.sin(bearing), -np.sin(north) * np.cos(bearing))
  return np.rad2deg(np.stack([longitude, latitude], 1))


def wrapped(line: np.ndarray, west: float) -> np.ndarray:
  """The line with longitudes in `west`..`west` + 360, cut (by NaN) where it leaves the map."""
  line = np.array(line, float)
  line[:, 0] = (line[:, 0] - west) % 360 + west
  jump = np.flatnonzero(np.abs(np.diff(line[:, 0])) > 180) + 1
  return np.insert(line, jump, np.nan, axis=0)
