"""Draws small IONEX files for the tests."""

import pathlib

import numpy as np

LATITUDES, LONGITUDES = (40.0, -40.0, -20.0), (-180.0, 180.0, 60.0)  # 5 x 7, 5 x 6 stored


def _line(content: str, label: str) -> str:
  return f'{content:<60}{label:<20}'


def _axis(axis) -> str:
  return '  ' + ''.join(f'{v:6.1f}' for v in axis)


def _size(axis) -> int:
  return round((axis[1] - axis[0]) / axis[2]) + 1


def _block(kind, number, epoch, values, latitudes, longitudes, exponent=None) -> list[str]:
  when = epoch.astype('datetime64[s]').item()
  stamp = (when.year, when.month, when.day, when.hour, when.minute, when.second)
  lines = [_line(f'{number:6d}', f'START OF {kind} MAP'),
           _line(''.join(f'{v:6d}' for v in stamp), 'EPOCH OF CURRENT MAP')]
  if exponent is not None:
    lines.append(_line(f'{exponent:6d}', 'EXPONENT'))
  for i, row in enumerate(values):
    latitude = latitudes[0] + i * latitudes[2]
    head = '  ' + ''.join(f'{v:6.1f}' for v in (latitude, *longitudes, 450.0))
    lines.append(_line(head, 'LAT/LON1/LON2/DLON/H'))
    for start in range(0, len(row), 16):
      lines.append(''.join(f'{v:5d}' for v in row[start:start + 16]))
  return [*lines, _line(f'{number:6d}', f'END OF {kind} MAP')]


def text(
    first='2012-11-18', hours=2.0, count=13, tec=None, rms=None, latitudes=LATITUDES,
    longitudes=LONGITUDES, exponent=-1, map_exponent=None, promised=None, end=True, height=False,
    interval=None, seed=0,
) -> str:
  """An IONEX file; `tec` and `rms` int `[count, lat, lon]` as printed, drawn unless given."""
  shape = (count, _size(latitudes), _size(longitudes))
  tec = np.random.default_rng(seed).integers(0, 1500, shape) if tec is None else np.asarray(tec)
  epochs = np.datetime64(first, 'm') + np.round(np.arange(count) * hours * 60).astype('m8[m]')
  lines = [
      _line('     1.0            IONOSPHERE MAPS     GNSS', 'IONEX VERSION / TYPE'),
      _line('drawn by a test', 'COMMENT'),
      _line(f'{round(hours * 3600) if interval is None else interval:6d}', 'INTERVAL'),
      _line(f'{count if promised is None else promised:6d}', '# OF MAPS IN FILE'),
      _line('     2', 'MAP DIMENSION'),
      _line('   450.0 450.0   0.0', 'HGT1 / HGT2 / DHGT'),
      _line(_axis(latitudes), 'LAT1 / LAT2 / DLAT'),
      _line(_axis(longitudes), 'LON1 / LON2 / DLON'),
      _line(f'{exponent:6d}', 'EXPONENT'),
      _line('', 'END OF HEADER')]
  for kind, stack in (('TEC', tec), ('RMS', rms), ('HEIGHT', tec if height else None)):
    for i, values in enumerate(() if stack is None else stack):
      lines += _block(kind, i + 1, epochs[i], values, latitudes, longitudes, map_exponent)
  return '\n'.join(lines + [_line('', 'END OF FILE')] * end) + '\n'


def write(folder: pathlib.Path, name: str, **options) -> pathlib.Path:
  """Writes `text(**options)` to a file of this name."""
  path = folder / name
  path.write_text(text(**options))
  return path
