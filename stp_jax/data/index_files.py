"""Readers of the index files that `indices` offers; the layouts are listed there."""

import dataclasses
import pathlib

import numpy as np

from stp_jax.data.clip_store import StoreError
from stp_jax.data.text_file import TextFile

_MAX_DAYS = 100_000
_MAX_LINES = 1_000_000  # a line is a day or a comment
_BLOCKS = b'OBSERVED', b'DAILY_PREDICTED', b'MONTHLY_PREDICTED'
_NAMES = {'f107': 1, 'r': 1, 'kp': 8, 'ap': 8}


@dataclasses.dataclass(frozen=True)
class Table:
  """Dense daily tables from day `first` on, NaN where there is no value.

  `observed` and `forecast` hold f107 `[N, 1]`, r `[N, 1]`, kp `[N, 8]` (Kp x 10), ap `[N, 8]` (nT);
  `observed` ends with the last observed day.
  """
  first: np.datetime64
  observed: dict[str, np.ndarray]
  forecast: dict[str, np.ndarray]


def read(path: str | pathlib.Path, f107: str) -> Table:
  """Tells the layout by the content; `f107` is 'observed' or 'adjusted'.

  Raises:
    StoreError: an unknown layout, or names file and line of what cannot be read.
  """
  with TextFile(path, _MAX_LINES) as text:
    line = text.next()
    if line.startswith(b'DATE,'):
      return _table(text, *_csv(text, line, f107))
    if line.startswith(b'DATATYPE CssiSpaceWeather'):
      return _table(text, *_celestrak(text, f107))
    if line.startswith(b'#'):
      return _table(text, *_gfz(text, f107))
    raise text.error(
        'unknown layout; CelesTrak SW-All.txt or .csv and GFZ Kp_ap_Ap_SN_F107_since_1932.txt are '
        'read')


def _day(text: TextFile, year, month, day) -> np.datetime64:
  try:
    date = np.datetime64(f'{int(year):04d}-{int(month):02d}-{int(day):02d}', 'D')
    if not 1900 <= int(year) <= 2200:
      raise ValueError
    return date
  except ValueError:
    raise text.error('the line does not begin with a date') from None


def _values(text: TextFile, fields: dict[str, list], scale_kp: float = 1.0) -> dict[str, list]:
  """Numbers; NaN for blanks. Absurd ones are an error: shifted columns must not pass."""
  limits = {'f107': (20, 1000), 'r': (0, 1000), 'kp': (0, 90), 'ap': (0, 400)}
  result = {}
  for name, words in fields.items():
    try:
      numbers = [float(w) if w.strip() else np.nan for w in words]
    except ValueError:
      raise text.error(f'{name}: {b" ".join(words).decode("ascii", "replace")!r} is no number'
                       ) from None
    if name == 'kp':
      numbers = [np.rint(n * scale_kp) for n in numbers]
    low, high = limits[name]
    bad = [n for n in numbers if not (np.isnan(n) or low <= n <= high)]
    if bad:
      raise text.error(f'{name} of {bad[0]:g} is not credible; is the line shifted?')
    result[name] = numbers
  return result


def _celestrak(text: TextFile, f107: str):
  """Fixed columns I4,I3,I3,I5,I3,8I3,I4,8I4,I4,F4.1,I2,I4,F6.1,I2,5F6.1, in named blocks."""
  observed, forecast, block, promised, count = {}, {}, None, {}, 0
  while (line := text.next()) is not None:
    words = line.split()
    if not words or line.startswith(b'#'):
      continue
    if words[0].startswith(b'NUM_') and len(words) == 2:
      if not words[1].isdigit():
        raise text.error('NUM_..._POINTS without a number')
      name = words[0][4:].removesuffix(b'_POINTS')
      if name not in _BLOCKS:
        raise text.error(f'unknown block {name.decode("ascii", "replace")!r}')
      promised[name] = int(words[1])
    elif words[0] == b'BEGIN' and len(words) == 2:
      block, count = words[1], 0
      if block not in _BLOCKS:
        raise text.error(f'unknown block {block.decode("ascii", "replace")!r}')
    elif words[0] == b'END':
      if count != promised.get(block, count):
        raise text.error(f'{count} lines, NUM_{block.decode()}_POINTS promises {promised[block]}; '
                         'download it again')
      block = None
    elif block:
      day = _day(text, line[:4], line[4:7], line[7:10])
      at = 92 if f107 == 'adjusted' else 112
      row = _values(text, {
          'f107': [line[at:at + 6]], 'r': [line[88:92]],
          'kp': [line[18 + 3 * i:21 + 3 * i] for i in range(8)],
          'ap': [line[46 + 4 * i:50 + 4 * i] for i in range(8)]})
      target = observed if block == b'OBSERVED' else forecast
      if day in observed or day in forecast:
        raise text.error(f'{day} comes twice')
      target[day] = row
      count += 1
      if block == b'MONTHLY_PREDICTED':  # one line stands for its month
        following = (day.astype('datetime64[M]') + 1).astype('datetime64[D]')
        forecast |= {d: row for d in np.arange(day, following) if d not in forecast}
  if block or b'OBSERVED' not in promised:
    raise text.error('the file ends early; download it again')
  return observed, forecast


def _csv(text: TextFile, header: bytes, f107: str):
  names = header.decode('ascii', 'replace').strip().split(',')
  column = 'F10.7_ADJ' if f107 == 'adjusted' else 'F10.7_OBS'
  needed = ['DATE', 'ISN', column, 'F10.7_DATA_TYPE', *(f'{k}{i + 1}' for k in ('KP', 'AP')
                                                        for i in range(8))]
  lacking = [n for n in needed if n not in names]
  if lacking:
    raise text.error(f'the header lacks {" ".join(lacking)}')
  place = {n: names.index(n) for n in needed}
  observed, forecast = {}, {}
  while (line := text.next()) is not None:
    if not line.strip():
      continue
    words = line.split(b',')
    if len(words) != len(names):
      raise text.error(f'{len(words)} columns, the header has {len(names)}')
    parts = words[0].split(b'-')
    day = _day(text, *parts) if len(parts) == 3 else _day(text, b'', b'', b'')
    row = _values(text, {
        'f107': [words[place[column]]], 'r': [words[place['ISN']]],
        'kp': [words[place[f'KP{i + 1}']] for i in range(8)],
        'ap': [words[place[f'AP{i + 1}']] for i in range(8)]})
    kind = words[place['F10.7_DATA_TYPE']].strip()
    if kind not in (b'OBS', b'INT', b'PRD', b'PRM'):
      raise text.error(f'F10.7_DATA_TYPE {kind.decode("ascii", "replace")!r}; known: OBS INT PRD '
                       'PRM')
    if day in observed or day in forecast:
      raise text.error(f'{day} comes twice')
    (observed if kind in (b'OBS', b'INT') else forecast)[day] = row
    if kind == b'PRM':
      following = (day.astype('datetime64[M]') + 1).astype('datetime64[D]')
      forecast |= {d: row for d in np.arange(day, following) if d not in forecast}
  return observed, forecast


def _gfz(text: TextFile, f107: str):
  """Words: year month day days days_m Bsr dB Kp1-8 ap1-8 Ap SN F10.7obs F10.7adj D; -1 missing."""
  observed = {}
  while (line := text.next()) is not None:
    words = line.split()
    if not words or line.startswith(b'#'):
      continue
    if len(words) != 28:
      raise text.error(f'{len(words)} columns, 28 belong here; download it again')
    day = _day(text, *words[:3])
    if day in observed:
      raise text.error(f'{day} comes twice')
    words = [b'' if w.startswith(b'-') else w for w in words]
    observed[day] = _values(text, {
        'f107': [words[26 if f107 == 'adjusted' else 25]], 'r': [words[24]], 'kp': words[7:15],
        'ap': words[15:23]}, scale_kp=10)
  return observed, {}


def _table(text: TextFile, observed: dict, forecast: dict) -> Table:
  if not observed:
    raise StoreError(f'{text.path}: no observed day')
  first = min(observed)
  tables = []
  for rows in (observed, forecast):
    days = int((max(rows, default=first) - first).astype(int)) + 1
    if days > _MAX_DAYS:
      raise StoreError(f'{text.path}: {days} days between the first and the last; refused')
    table = {name: np.full((days, size), np.nan) for name, size in _NAMES.items()}
    for day, row in rows.items():
      i = int((day - first).astype(int))
      if i >= 0:
        for name, numbers in row.items():
          table[name][i] = numbers
    tables.append(table)
  return Table(first, *tables)
