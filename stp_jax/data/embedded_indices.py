"""Real solar and geomagnetic indices for the embedded ionosphere, and values derived from them."""

import dataclasses
import functools
import gzip
import importlib.resources

import numpy as np

from stp_jax.data import clip_store

KP10 = np.array([  # Kp x 10, in thirds rounded to integers, of the 28 values ap can take
    0, 3, 7, 10, 13, 17, 20, 23, 27, 30, 33, 37, 40, 43, 47, 50, 53, 57, 60, 63, 67, 70, 73, 77, 80,
    83, 87, 90])
AP = np.array([
    0, 2, 3, 4, 5, 6, 7, 9, 12, 15, 18, 22, 27, 32, 39, 48, 56, 67, 80, 94, 111, 132, 154, 179, 207,
    236, 300, 400])


@dataclasses.dataclass(frozen=True)
class Drivers:
  """Real solar and geomagnetic indices.

  Attributes:
    days: datetime64[D] `[N]`, ascending; years that nobody needs are left out.
    f107: observed F10.7 `[N]`, solar flux units, measured at 20 UT, without radio bursts.
    ap: `[N, 8]`, nT (2 nT units), by 3-hour interval.
  """
  days: np.ndarray
  f107: np.ndarray
  ap: np.ndarray

  def rows(self, first: np.datetime64, last: np.datetime64) -> slice:
    """The rows of `first..last` (days); raises StoreError where the table has a gap."""
    start, stop = np.searchsorted(self.days, [first, last + 1])
    if stop - start != (last - first).astype(int) + 1:
      raise clip_store.StoreError(
          f'drivers.csv.gz: no F10.7 and ap for all of {first} to {last}; years of the table are '
          'in data/tables/README.md')
    return slice(start, stop)


@functools.cache
def drivers() -> Drivers:
  """The committed table of real indices (see data/tables/README.md for sources and rights)."""
  file = importlib.resources.files('stp_jax') / 'data' / 'tables' / 'drivers.csv.gz'
  lines = gzip.decompress(file.read_bytes()).decode().split()[1:]
  rows = [line.split(',') for line in lines]
  days = np.array([r[0] for r in rows], 'datetime64[D]')
  return Drivers(
      days=days, f107=without_bursts(days, np.array([float(r[1]) for r in rows])),
      ap=np.array([[int(v) for v in r[2:]] for r in rows], float))


def without_bursts(days: np.ndarray, f107: np.ndarray) -> np.ndarray:
  """F10.7 held to 1.4 times the median of the three days before.

  Flares during the measurement leave values such as 938.6 sfu (7 March 2011), which say nothing
  about the ionosphere and outweigh all others in a regression. Only the past is looked at, so a
  value stays available at the end of its day.
  """
  limit = 1.4 * np.median(np.stack([f107[2:-1], f107[1:-2], f107[:-3]]), 0)
  adjacent = days[3:] - days[:-3] == np.timedelta64(3, 'D')
  result = f107.copy()
  result[3:] = np.where(adjacent, np.minimum(f107[3:], limit), f107[3:])
  return result


def kp10(ap: np.ndarray) -> np.ndarray:
  """Kp x 10 of each ap, by the table that defines ap (Bartels; both are the same index)."""
  return KP10[np.abs(np.asarray(ap)[..., None] - AP).argmin(-1)].astype(float)


def sunspot_proxy(f107: np.ndarray) -> np.ndarray:
  """R from F10.7: F10.7 = 63.7 + 0.728 R + 8.9e-4 R^2 (ITU-R P.371-8, R12 and Phi12) solved for R.

  The relation holds for 12-month means; used on a daily value it is a proxy and no sunspot number.
  """
  excess = np.maximum(np.asarray(f107) - 63.7, 0)
  return (np.sqrt(0.728 ** 2 + 4 * 8.9e-4 * excess) - 0.728) / (2 * 8.9e-4)


def effective_f107(table: Drivers, times: np.ndarray) -> np.ndarray:
  """Mean of daily and centred 81-day F10.7, linear between 20 UT values; `times` datetime64[m]."""
  first, last = times[0].astype('datetime64[D]') - 1, times[-1].astype('datetime64[D]') + 1
  daily = table.f107[table.rows(first - 40, last + 40)]
  smooth = np.convolve(daily, np.full(81, 1 / 81), 'valid')
  nodes = np.arange(first, last + 1).astype('datetime64[m]') + np.timedelta64(20 * 60, 'm')
  return np.interp(times.astype(float), nodes.astype(float), (daily[40:-40] + smooth) / 2)


def hourly_ap(table: Drivers, times: np.ndarray, hours: int) -> np.ndarray:
  """ap `[T, hours]` of 0, 1, 2... hours before each time, linear between interval centres."""
  first, last = times[0].astype('datetime64[D]') - 3, times[-1].astype('datetime64[D]') + 1
  rows = table.rows(first, last)
  centres = (table.days[rows].astype('datetime64[m]')[:, None]
             + np.arange(90, 1440, 180).astype('timedelta64[m]')).ravel()
  wanted = times[:, None] - (60 * np.arange(hours)).astype('timedelta64[m]')
  return np.interp(wanted.astype(float), centres.astype(float), table.ap[rows].ravel())
