"""The header and the typed fields of an IONEX file; see `ionex_file`."""

import dataclasses

import numpy as np

from stp_jax.data.text_file import TextFile

ROW = b'LAT/LON1/LON2/DLON/H'
_MAX_CELLS, _MAX_MAPS, _MAX_LINES = 1 << 20, 3000, 50_000


@dataclasses.dataclass(frozen=True)
class Axis:
  """`first, first + step, ...`, `size` values, degrees, as the header states it."""
  first: float
  step: float
  size: int

  @property
  def values(self) -> np.ndarray:
    return self.first + self.step * np.arange(self.size)


def number(text: TextFile, line: bytes, columns: slice, what: str, kind=float
           ) -> float | int:
  """The number in `columns`; a StoreError that names the field when it is none."""
  try:
    value = kind(line[columns])
    if b'_' in line[columns] or not abs(value) < 1e9:  # also refuses NaN
      raise ValueError
    return value
  except ValueError:
    raise text.error(f'{what} is {line[columns].decode("ascii", "replace")!r}, '
                     'not a sensible number') from None


def _axis(text: TextFile, line: bytes, what: str, limit: float) -> Axis:
  first, last, step = (
      number(text, line, slice(2 + 6 * i, 8 + 6 * i), what) for i in range(3))
  if abs(first) > limit or abs(last) > limit or step == 0 or abs(step) > limit:
    raise text.error(f'{what}: {first} to {last} by {step} degrees is no grid')
  steps = (last - first) / step
  if not 1 <= steps <= _MAX_CELLS or abs(steps - round(steps)) > 0.01:
    raise text.error(f'{what}: {first} to {last} is not a whole number of steps of {step}')
  return Axis(first, step, round(steps) + 1)


def label(line: bytes) -> bytes:
  """Columns 61 to 80, which say what a line is."""
  return line[60:80].strip()


def header(text: TextFile) -> dict:
  """Reads up to END OF HEADER: `maps`, `latitude`, `longitude`, `interval` [min], `exponent`.

  Raises:
    StoreError: a missing, unreadable or absurd field, with its line.
  """
  line = text.next()
  if label(line) != b'IONEX VERSION / TYPE' or line[20:21] != b'I':
    raise text.error('no IONEX file: the first line lacks IONEX VERSION / TYPE')
  fields = {'exponent': -1, 'interval': 0}
  while (line := text.next()) is not None:
    name = label(line)
    if name == b'END OF HEADER':
      break
    if text.number > _MAX_LINES:
      raise text.error('the header does not end')
    if name == b'# OF MAPS IN FILE':
      fields['maps'] = number(text, line, slice(0, 6), '# OF MAPS IN FILE', int)
      if not 1 <= fields['maps'] <= _MAX_MAPS:
        raise text.error(f'# OF MAPS IN FILE is {fields["maps"]}; 1 to {_MAX_MAPS} are read')
    elif name == b'MAP DIMENSION':
      if number(text, line, slice(0, 6), 'MAP DIMENSION', int) != 2:
        raise text.error('three-dimensional maps; only MAP DIMENSION 2 is read')
    elif name == b'LAT1 / LAT2 / DLAT':
      fields['latitude'] = _axis(text, line, 'LAT1 / LAT2 / DLAT', 90)
    elif name == b'LON1 / LON2 / DLON':
      fields['longitude'] = _axis(text, line, 'LON1 / LON2 / DLON', 360)
    elif name == b'INTERVAL':
      fields['interval'] = number(text, line, slice(0, 6), 'INTERVAL', int) // 60
    elif name == b'EXPONENT':
      fields['exponent'] = exponent(text, line)
  else:
    raise text.error('the file ends inside the header; download it again')
  needed = {'maps': '# OF MAPS IN FILE', 'latitude': 'LAT1 / LAT2 / DLAT',
            'longitude': 'LON1 / LON2 / DLON'}
  for field, name in needed.items():
    if field not in fields:
      raise text.error(f'the header lacks {name}')
  if fields['latitude'].size * fields['longitude'].size > _MAX_CELLS:
    raise text.error(
        f'a grid of {fields["latitude"].size} x {fields["longitude"].size} points; at most '
        f'{_MAX_CELLS} are read')
  return fields


def exponent(text: TextFile, line: bytes) -> int:
  """Values are in units of 10**exponent TECU."""
  value = number(text, line, slice(0, 6), 'EXPONENT', int)
  if not -6 <= value <= 2:
    raise text.error(f'EXPONENT {value}: TEC in units of 1e{value} TECU is not credible')
  return value


def epoch(text: TextFile, line: bytes) -> np.datetime64:
  """datetime64[m]; hour 24 is the next midnight, as some centres write it."""
  year, month, day, hour, minute, second = (
      number(text, line, slice(6 * i, 6 * i + 6), 'EPOCH OF CURRENT MAP', int) for i in range(6))
  try:
    if not (1980 <= year <= 2200 and 0 <= hour <= 24 and 0 <= minute < 60 and 0 <= second <= 60):
      raise ValueError
    midnight = np.datetime64(f'{year:04d}-{month:02d}-{day:02d}', 'm')
  except ValueError:
    raise text.error(f'EPOCH OF CURRENT MAP is {line[:36].decode("ascii", "replace").strip()!r}, '
                     'not a date') from None
  return midnight + np.timedelta64(60 * hour + minute + (second >= 30), 'm')
