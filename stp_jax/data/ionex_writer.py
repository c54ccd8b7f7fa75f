"""Writes global or regional TEC maps as an IONEX 1.0 file that GNSS tools read.

Format: S. Schaer, W. Gurtner, J. Feltens, IONEX: the ionosphere map exchange format, version 1
(IGS, 1998). `ionex_file.read` returns the maps exactly.
"""

import datetime
import pathlib
from collections.abc import Sequence

import numpy as np

from stp_jax import files
from stp_jax.data.clip_store import StoreError
from stp_jax.data.ionex_file import MISSING, Maps

_FILE_MISSING = 9999  # what stands in the file; so 999.9 TECU itself cannot be written
MOST = 9998  # 0.1 TECU: the largest value that a forecast is written with
_HEIGHT = 450.0  # km, of the single layer, as all analysis centres have it


def quantised(tecu: np.ndarray) -> np.ndarray:
  """TECU (NaN = missing, negatives become 0) as uint16 in 0.1 TECU, 65535 = missing."""
  tecu = np.asarray(tecu, np.float64)
  value = np.clip(np.rint(np.nan_to_num(tecu) * 10), 0, MOST)
  return np.where(np.isfinite(tecu), value, MISSING).astype(np.uint16)


def name(producer: str, first: np.datetime64, days: int, minutes: int) -> str:
  """A long product name of the IGS: `STP0OPSPRD_20123250200_04D_02H_GIM.INX`."""
  when = first.astype('datetime64[s]').item()
  step = f'{minutes // 60:02d}H' if minutes % 60 == 0 and minutes < 6000 else f'{minutes:02d}M'
  return (f'{producer.upper():.3}0OPSPRD_{when:%Y%j%H%M}_{min(max(days, 1), 99):02d}D_{step}_'
          'GIM.INX')


def _line(content: str, label: str) -> str:
  return f'{content:<60.60}{label:<20}\n'


def _stamp(epoch: np.datetime64) -> str:
  when = epoch.astype('datetime64[s]').item()
  return ''.join(f'{v:6d}' for v in (
      when.year, when.month, when.day, when.hour, when.minute, when.second))


def _axis(values: Sequence[float], what: str) -> tuple[float, float, float]:
  """First, last and step in tenths of a degree, which is all that the format holds."""
  values = np.asarray(values, float)
  if len(values) < 2:
    raise StoreError(f'IONEX: {len(values)} {what}s; at least two make a grid')
  step = (values[-1] - values[0]) / (len(values) - 1)
  even = values[0] + step * np.arange(len(values))
  if abs(values - even).max() > 1e-3 or step == 0:
    raise StoreError(f'IONEX: {what}s {values[0]:g} to {values[-1]:g} are not evenly spaced')
  if abs(np.rint([values[0] * 10, step * 10]) / 10 - [values[0], step]).max() > 1e-4:
    raise StoreError(f'IONEX: {what}s from {values[0]:g} by {step:g} degrees; the format holds '
                     'tenths of a degree')
  return round(values[0], 1), round(even[-1], 1), round(step, 1)


def _maps(kind: str, stack: np.ndarray, epochs: np.ndarray, latitude: Sequence[float],
          longitude: tuple[float, float, float]):
  west, east, step = longitude
  for number, (epoch, values) in enumerate(zip(epochs, stack), 1):
    yield _line(f'{number:6d}', f'START OF {kind} MAP')
    yield _line(_stamp(epoch), 'EPOCH OF CURRENT MAP')
    for lat, row in zip(latitude, values):
      numbers = (lat, west, east, step, _HEIGHT)
      yield _line('  ' + ''.join(f'{v:6.1f}' for v in numbers), 'LAT/LON1/LON2/DLON/H')
      for start in range(0, len(row), 16):
        yield ''.join(f'{v:5d}' for v in row[start:start + 16].tolist()) + '\n'
    yield _line(f'{number:6d}', f'END OF {kind} MAP')


def write(
    path: str | pathlib.Path, maps: Maps, *, program: str = 'stp_jax', run_by: str = '',
    description: Sequence[str] = (), comments: Sequence[str] = (),
    created: datetime.datetime | None = None,
) -> pathlib.Path:
  """Writes `maps` (temp + rename), north first; on a whole circle the first meridian is repeated.

  Args:
    path: the file to make; its folder exists.
    maps: uint16 in 0.1 TECU, 65535 = no value. RMS maps that hold no value at all are left out.
    program, run_by: at most 20 characters each. description, comments: lines; cut at 60.
    created: the header's date; default now, UT.

  Returns:
    path.

  Raises:
    StoreError: what the format cannot hold: an uneven grid or one finer than 0.1 degrees, a value
      of exactly 999.9 TECU, epochs that do not rise, shapes that do not agree.
  """
  path, epochs = pathlib.Path(path), np.asarray(maps.epochs, 'datetime64[m]')
  shape = (len(epochs), len(maps.latitude), len(maps.longitude))
  if not len(epochs) or (np.diff(epochs) <= np.timedelta64(0)).any():
    raise StoreError(f'{path.name}: the epochs of {len(epochs)} maps do not rise')
  latitude = _axis(maps.latitude, 'latitude')
  longitude = _axis(maps.longitude, 'longitude')
  stacks = {}
  for kind, stack in (('TEC', maps.tec), ('RMS', maps.rms)):
    stack = np.asarray(stack)
    if stack.shape != shape:
      raise StoreError(f'{path.name}: {kind} maps {stack.shape}, the axes say {shape}')
    if (stack == _FILE_MISSING).any():
      raise StoreError(f'{path.name}: {kind} of 999.9 TECU, which means "no value" in the format')
    stack = np.where(stack == MISSING, _FILE_MISSING, stack.astype(np.int64))
    if kind == 'TEC' or (stack != _FILE_MISSING).any():
      stacks[kind] = stack
  if abs(longitude[2] * shape[2] - 360) < 0.05:
    stacks = {k: np.concatenate([v, v[:, :, :1]], 2) for k, v in stacks.items()}
    longitude = (longitude[0], round(longitude[0] + 360, 1), longitude[2])
  gaps = np.unique(np.diff(epochs).astype(int))
  interval = 60 * int(gaps[0] if len(gaps) == 1 else 0 if len(gaps) else maps.interval)
  created = created or datetime.datetime.now(datetime.UTC)
  date = f'{created:%d-%b-%y %H:%M}'
  head = [
      (f'{1.0:8.1f}{"":12}{"IONOSPHERE MAPS":<20}{"MIX":<20}', 'IONEX VERSION / TYPE'),
      (f'{program:<20.20}{run_by:<20.20}{date:<20.20}', 'PGM / RUN BY / DATE'),
      *((line, 'DESCRIPTION') for line in description),
      *((line, 'COMMENT') for line in comments),
      (_stamp(epochs[0]), 'EPOCH OF FIRST MAP'), (_stamp(epochs[-1]), 'EPOCH OF LAST MAP'),
      (f'{interval:6d}', 'INTERVAL'), (f'{len(epochs):6d}', '# OF MAPS IN FILE'),
      (f'  {"NONE":4}', 'MAPPING FUNCTION'), (f'{0.0:8.1f}', 'ELEVATION CUTOFF'),
      ('', 'OBSERVABLES USED'), (f'{6371.0:8.1f}', 'BASE RADIUS'), (f'{2:6d}', 'MAP DIMENSION'),
      (f'  {_HEIGHT:6.1f}{_HEIGHT:6.1f}{0.0:6.1f}', 'HGT1 / HGT2 / DHGT'),
      ('  ' + ''.join(f'{v:6.1f}' for v in latitude), 'LAT1 / LAT2 / DLAT'),
      ('  ' + ''.join(f'{v:6.1f}' for v in longitude), 'LON1 / LON2 / DLON'),
      (f'{-1:6d}', 'EXPONENT'),
      ('TEC/RMS values in 0.1 TECU; 9999, if no value available', 'COMMENT'),
      ('', 'END OF HEADER')]
  rows = latitude[0] + latitude[2] * np.arange(shape[1])
  with files.whole(path) as partial, partial.open(
      'w', encoding='ascii', errors='replace', newline='\n') as file:
    file.writelines(_line(*line) for line in head)
    for kind, stack in stacks.items():
      file.writelines(_maps(kind, stack, epochs, rows, longitude))
    file.write(_line('', 'END OF FILE'))
  return path
