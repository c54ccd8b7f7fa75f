"""NASA's hourly OMNI2 files: Dst, solar wind and interplanetary field on a clock.

Layout: fixed columns of `omni2_YYYY.dat` (J. King and N. Papitashvili, J. Geophys. Res. 110 (2005);
55 words, in the extended files 56 and 57), fill values all nines. A value is an average over its
hour and counts as available when the hour is over, as in the Channel Mixer Layer's data; the final
file itself is published weeks later, so a forecast of today has no such drivers.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from stp_jax.data.clip_store import StoreError
from stp_jax.data.text_file import TextFile

# Widths of the words 1 to 55.
_WIDTHS = (
    4, 4, 3, 5, 3, 3, 4, 4, *[6] * 14, 9, 6, 6, 6, 6, 6, 6, 9, 6, 6, 6, 6, 6, 7, 7, 6, 3, 4, 6, 5,
    10, 9, 9, 9, 9, 9, 3, 4, 6, 6, 6, 6, 5)
_ENDS = np.cumsum(_WIDTHS)
# name: word (from 1), fill value, units, credible range
WORDS = {
    'dst': (41, 99999, 'nT', (-2000, 500)),
    'plasma_speed': (25, 9999, 'km/s', (0, 3000)),
    'field_magnitude': (9, 999.9, 'nT', (0, 300)),
    'sigma_b': (19, 999.9, 'nT', (0, 300)),
    'proton_density': (24, 999.9, '1/cm3', (0, 500)),
    'flow_pressure': (29, 99.99, 'nPa', (0, 99.9)),
    'electric_field': (36, 999.99, 'mV/m', (-300, 300)),
    'magnetosonic_mach': (55, 99.9, '1', (0, 99))}
_MAX_HOURS = 100 * 8784


def is_omni(line: bytes) -> bool:
  """Whether a first line looks like an OMNI2 record: year, day, hour in their columns."""
  try:
    year, day, hour = int(line[:4]), int(line[4:8]), int(line[8:11])
  except ValueError:
    return False
  return 1900 <= year <= 2200 and 1 <= day <= 366 and 0 <= hour <= 23 and len(line) >= _ENDS[53]


def _record(text: TextFile, line: bytes) -> tuple[int, dict[str, float]]:
  """Hours since 1900 and the values, NaN where the file holds its fill value."""
  if len(line) < _ENDS[-1]:
    raise text.error(f'{len(line)} characters, {_ENDS[-1]} belong to the 55 words of an OMNI2 '
                     'record; download it again')
  try:
    year, day, hour = int(line[:4]), int(line[4:8]), int(line[8:11])
    if not (1900 <= year <= 2200 and 1 <= day <= 366 and 0 <= hour <= 23):
      raise ValueError
  except ValueError:
    raise text.error('the line does not begin with year, day of year and hour') from None
  begin = np.datetime64(f'{year:04d}', 'D') - np.datetime64('1900', 'D')
  values = {}
  for name, (word, fill, _, (low, high)) in WORDS.items():
    field = line[_ENDS[word - 2]:_ENDS[word - 1]]
    try:
      value = float(field)
    except ValueError:
      raise text.error(f'{name} is {field.decode("ascii", "replace")!r}, not a number') from None
    if abs(value - fill) < 1e-6:
      value = np.nan
    elif not low <= value <= high:
      raise text.error(f'{name} of {value:g} is not credible; is the line shifted?')
    values[name] = value
  return 24 * (int(begin.astype(int)) + day - 1) + hour, values


def paths(source: str | pathlib.Path) -> list[pathlib.Path]:
  """The OMNI2 files of a folder (`omni2_*.dat`, packed or not), or the one file.

  Raises:
    StoreError: nothing there.
  """
  source = pathlib.Path(source)
  if not source.is_dir():
    return [source]
  found = sorted(p for p in source.iterdir() if p.is_file() and p.name.startswith('omni2_'))
  if not found:
    raise StoreError(f'{source}: no omni2_YYYY.dat')
  return found


def read(sources: Sequence[str | pathlib.Path]) -> tuple[np.datetime64, dict[str, np.ndarray]]:
  """First day and dense hourly series by name, NaN where a value is missing.

  Args:
    sources: files, of any years in any order.

  Returns:
    datetime64[D], and `{name: float64 [hours]}` for every name of WORDS.

  Raises:
    StoreError: names file and line of what cannot be read; an hour that comes twice.
  """
  rows: dict[int, dict[str, float]] = {}
  for path in sources:
    with TextFile(path, 2 * _MAX_HOURS) as text:  # a line is an hour, or blank
      while (line := text.next()) is not None:
        if not line.strip():
          continue
        hour, values = _record(text, line)
        if hour in rows:
          raise text.error(f'{np.datetime64("1900", "h") + hour} comes twice')
        rows[hour] = values
  if not rows:
    raise StoreError(f'{sources[0]}: no record')
  first = min(rows) // 24 * 24
  count = max(rows) + 1 - first
  if count > _MAX_HOURS:
    raise StoreError(f'{sources[0]}: {count} hours between the first and the last record; refused')
  series = {name: np.full(count, np.nan) for name in WORDS}
  for hour, values in rows.items():
    for name, value in values.items():
      series[name][hour - first] = value
  return np.datetime64('1900', 'D') + first // 24, series
