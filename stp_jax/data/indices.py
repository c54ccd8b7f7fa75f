"""Solar and geomagnetic indices from text files, with the time at which each value was published.

Three layouts are read, plain or packed, and told by their content:

  CelesTrak SW-All.txt / SW-Last5Years.txt    https://celestrak.org/SpaceData/SpaceWx-format.php
  CelesTrak SW-All.csv
  GFZ Kp_ap_Ap_SN_F107_since_1932.txt         J. Matzke et al., Space Weather 19 (2021)

and beside one of them, or alone, NASA's hourly OMNI2 files (see `omni`): Dst and the solar wind.

Observed values and the file's own predictions are kept apart: a prediction is never returned as an
observation.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from stp_jax.data import index_files, omni
from stp_jax.data.clip_store import Forcing, StoreError
from stp_jax.data.text_file import TextFile

# name: units, hours a value covers. Spellings and units are those of data/forcings.py.
_SERIES = {
    'f107': ('sfu', 24), 'r': ('1', 24), 'kp': ('Kp x 10', 3), 'ap': ('nT', 3),
    'f107_trailing81': ('sfu', 24), 'f107_centred81': ('sfu', 24),
    **{name: (units, 1) for name, (_, _, units, _) in omni.WORDS.items()}}
DRIVERS = ('f107', 'r', 'kp', 'ap')
CALENDAR = ('year', 'day', 'hour', 'month', 'date')


@dataclasses.dataclass(frozen=True)
class Values:
  """Drivers at given times, each `[T, F]` float64; see `Drivers.at`."""
  values: np.ndarray
  known: np.ndarray
  delay: np.ndarray
  forecast: np.ndarray
  filled: int = 0


def calendar(times: np.ndarray) -> np.ndarray:
  """`[T, 5]` float64: year, day of year, hour (with minutes), month, day of month, of UT times."""
  times = np.asarray(times, 'datetime64[m]')
  day, month, year = (times.astype(f'datetime64[{unit}]') for unit in 'DMY')
  number = lambda span: span.astype(np.int64)
  return np.stack([
      number(year) + 1970, number(day - year.astype('datetime64[D]')) + 1,
      number(times - day) / 60, number(month) % 12 + 1,
      number(day - month.astype('datetime64[D]')) + 1], -1).astype(np.float64)


def mean81(daily: np.ndarray, centred: bool) -> np.ndarray:
  """81-day running mean `[N]` of daily values `[N]`; NaN where the window is not complete.

  Day i's trailing mean covers i-80..i; the centred one i-40..i+40, known only 40 days later.
  """
  result = np.full(len(daily), np.nan)
  if len(daily) >= 81:
    means = np.lib.stride_tricks.sliding_window_view(daily, 81).mean(-1)
    result[40:len(daily) - 40] = means if centred else np.nan
    if not centred:
      result[80:] = means
  return result


class Drivers:
  """Indices of one file, or of one and OMNI2 files, on a clock.

  A daily value is available at the end of its day (24 UT; F10.7 is measured at 20 UT), a 3-hourly
  Kp or ap at the end of its interval, a centred 81-day mean 40 days after the end of its day; an
  hourly value of OMNI2 at the end of its hour.

  Attributes:
    paths: the files. names: the drivers that they give.
  """

  def __init__(self, table: index_files.Table | None, path='indices', hourly=None, paths=()):
    self.path, self.paths = pathlib.Path(path), [pathlib.Path(p) for p in paths or [path]]
    self.first = hourly[0] if table is None else table.first
    self.days = len(table.observed['f107']) if table else -(-len(hourly[1]['dst']) // 24)
    self._observed, self._forecast = {}, {}
    if table is not None:
      self._observed = {k: v.reshape(-1) for k, v in table.observed.items()}
      self._forecast = {k: v.reshape(-1) for k, v in table.forecast.items()}
      for name, centred in (('f107_trailing81', False), ('f107_centred81', True)):
        self._observed[name] = mean81(self._observed['f107'], centred)
        self._forecast[name] = np.full(len(self._observed['f107']), np.nan)
    for name, values in (hourly[1] if hourly else {}).items():
      shift = 24 * int((hourly[0] - self.first).astype(int))
      if -shift >= len(values):
        end = hourly[0] + (len(values) - 1) // 24
        raise StoreError(f'{self.paths[-1]}: OMNI2 ends on {end}, before {self.path} begins '
                         f'({self.first}); take OMNI2 files of later years or an index file that '
                         'begins earlier')
      self._observed[name] = np.concatenate(
          [np.full(max(shift, 0), np.nan), values[max(-shift, 0):]])
      self._forecast[name] = np.full(1, np.nan)
    self.names = tuple(n for n in _SERIES if n in self._observed and '81' not in n)

  @classmethod
  def read(cls, path: str | pathlib.Path, f107: str = 'observed') -> 'Drivers':
    """Reads a file, or several joined by '+': an index file, OMNI2 files or folders of them.

    `f107` is 'observed' (at Earth) or 'adjusted' (to 1 AU).

    Raises:
      StoreError: names file and line of what cannot be read. ValueError: two index files.
    """
    if f107 not in ('observed', 'adjusted'):
      raise ValueError(f'f107={f107!r}: choose observed or adjusted')
    words = [str(path)] if pathlib.Path(path).exists() else re.split('[,+]', str(path))
    hourly, daily = [], []
    for word in filter(None, words):
      for one in omni.paths(word):
        with TextFile(one) as text:
          (hourly if omni.is_omni(text.next()) else daily).append(one)
    if len(daily) > 1:
      raise ValueError(f'--indices {path}: {daily[0].name} and {daily[1].name} both give Kp and '
                       'F10.7; name one of them')
    return cls(index_files.read(daily[0], f107) if daily else None, (daily or hourly)[0],
               omni.read(hourly) if hourly else None, [*daily, *hourly])

  def last(self, name: str) -> np.datetime64:
    """The last day with an observation of `name`, datetime64[D]."""
    seen = np.flatnonzero(~np.isnan(self._observed[name]))
    if not len(seen):
      raise StoreError(f'{self.path}: no observed {name}')
    return self.first + int(seen[-1] * _SERIES[name][1] // 24)

  def forcings(self, names: Sequence[str] = DRIVERS) -> tuple[Forcing, ...]:
    """The store's description of these drivers; an unknown name lists the known ones."""
    for name in names:
      if name not in self._observed:
        raise ValueError(f'driver {name!r}: {" ".join(p.name for p in self.paths[:3])} gives '
                         f'{" ".join(self._observed)}')
    return tuple(Forcing(name, _SERIES[name][0]) for name in names)

  def at(
      self, times: np.ndarray, names: Sequence[str] = DRIVERS, *, missing: str = 'error',
      predicted: bool = False,
  ) -> Values:
    """Drivers at UT times `[T]` (datetime64).

    Args:
      times: the frames' times.
      names: of `names`, or 'f107_trailing81', 'f107_centred81'.
      missing: where there is no observation: 'error', or 'fill' with the newest one before it.
      predicted: leave it NaN instead, `delay` infinite, and rely on `known` and `forecast`.

    Returns:
      values: valid at the time. known: the newest available at the time. delay: hours from the
      time to the publication of `values`. forecast: the file's prediction, NaN within the observed
      block and where there is none. filled: how many values were missing.

    Raises:
      StoreError: a missing observation; says which, and to which date the file reaches.
    """
    self.forcings(names)
    if missing not in ('error', 'fill'):
      raise ValueError(f'missing_drivers={missing!r}: choose error or fill')
    times = np.asarray(times, 'datetime64[m]')
    hours = (times - self.first.astype('datetime64[m]')).astype(np.int64) / 60
    columns = [self._column(name, times, hours, missing, predicted) for name in names]
    stacked = [np.stack(parts, -1) for parts in list(zip(*columns))[:4]] if columns else [
        np.zeros((len(times), 0))] * 4
    return Values(*stacked, filled=sum(column[4] for column in columns))

  def _column(self, name, times, hours, missing, predicted):
    step, series = _SERIES[name][1], self._observed[name]
    lag = 40 * 24 if name.endswith('centred81') else 0
    # newest[i] is the last observation up to and with i, -1 before the first
    newest = np.maximum.accumulate(np.where(np.isnan(series), -1, np.arange(len(series))))
    look = lambda index: np.where(index >= 0, newest[np.clip(index, 0, len(series) - 1)], -1)
    index = np.floor(hours / step).astype(np.int64)
    source = look(np.floor((hours - lag) / step).astype(np.int64) - 1)
    if (source < 0).any():
      raise StoreError(
          f'{self.path}: no {name} was published before {times[source.argmin()]}; the file begins '
          f'with {self.first}, take one that begins earlier')
    known, inside = series[source], (index >= 0) & (index < len(series))
    values = np.where(inside, series[np.clip(index, 0, len(series) - 1)], np.nan)
    delay = (index + 1) * step + lag - hours
    gaps = np.isnan(values)
    if gaps.any() and predicted:
      delay = np.where(gaps, np.inf, delay)
    elif gaps.any() and missing == 'error':
      raise StoreError(
          f'{self.path}: no observed {name} at {times[gaps.argmax()]} (observations reach '
          f'{self.last(name)}); take a newer file, or choose --missing-drivers fill (the newest '
          'value before) or --predicted-drivers')
    elif gaps.any():
      values, delay = np.where(gaps, known, values), np.where(gaps, 0, delay)
    ahead = self._forecast[name]
    forecast = np.where(
        (index >= 0) & (index < len(ahead)), ahead[np.clip(index, 0, len(ahead) - 1)], np.nan)
    return values, known, delay, forecast, int(gaps.sum())
