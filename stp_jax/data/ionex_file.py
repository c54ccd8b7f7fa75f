"""Reads one IONEX file: global or regional maps of vertical total electron content (TEC).

Format: S. Schaer, W. Gurtner, J. Feltens, IONEX: the ionosphere map exchange format, version 1
(IGS, 1998). Labels stand in columns 61 to 80, values in lines of 16 five-digit integers.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from stp_jax.data import ionex_header
from stp_jax.data.ionex_header import Axis
from stp_jax.data.text_file import TextFile

MISSING = 65535  # stored; 9999 in the file, whatever the exponent
_FILE_MISSING = 9999
_KINDS = ('TEC', 'RMS', 'HEIGHT')


@dataclasses.dataclass(frozen=True)
class Maps:
  """The maps of one file, north first and west first, without a doubled last meridian.

  Attributes:
    epochs: datetime64[m] `[n]`, increasing.
    tec, rms: uint16 `[n, H, W]` in 0.1 TECU, 65535 where there is no value.
    latitude, longitude: degrees, `[H]` falling and `[W]` rising.
    interval: minutes between maps, 0 where the file does not say.
  """
  epochs: np.ndarray
  tec: np.ndarray
  rms: np.ndarray
  latitude: tuple[float, ...]
  longitude: tuple[float, ...]
  interval: int


def _cells(rows: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
  """Five-character integers of whole rows: values int32 `[rows, n]`, readable bool `[rows]`."""
  cells = np.frombuffer(b''.join(rows), np.uint8).reshape(len(rows), -1, 5)
  digit = cells - np.uint8(48)  # wraps: below '0' becomes large
  number, minus, space = digit < 10, cells == 45, cells == 32
  # blanks, then perhaps a minus, then digits up to the last column
  follows = np.where(number[..., :-1] | minus[..., :-1], number[..., 1:], space[..., :-1])
  good = number[..., -1] & follows.all(-1)
  value = (np.where(number, digit, 0).astype(np.int32) * [10000, 1000, 100, 10, 1]).sum(-1)
  return np.where(minus.any(-1), -value, value).astype(np.int32), good.all(-1)


def _raw(text: TextFile, rows, exponents, lines, negative: str, kind: str) -> np.ndarray:
  """uint16 `[rows, n]` in 0.1 TECU."""
  value, good = _cells(rows)
  if not good.all():
    raise text.error('values are not 16 integers of 5 characters a line', lines[int(good.argmin())])
  missing = value == _FILE_MISSING
  scaled = np.rint(value * np.array([10.0 ** (e + 1) for e in exponents])[:, None])
  bad = (scaled < 0) & ~missing
  if bad.any():
    row = int(bad.any(1).argmax())
    if negative == 'error':
      raise text.error(
          f'negative {kind} {value[row][bad[row]][0]}; look at the file, or choose --negative zero '
          'or --negative missing', lines[row])
    missing |= bad & (negative == 'missing')
    scaled = np.maximum(scaled, 0)
  bad = (scaled >= MISSING) & ~missing
  if bad.any():
    row = int(bad.any(1).argmax())
    raise text.error(f'{kind} of {scaled[row].max() / 10:g} TECU is not credible', lines[row])
  return np.where(missing, MISSING, scaled).astype(np.uint16)


def _map(text: TextFile, kind: str, header: Mapping, negative: str):
  """One map block behind its START line: epoch, uint16 `[H, W]` in the header's order."""
  latitude, longitude = header['latitude'], header['longitude']
  epoch, exponent = None, header['exponent']
  rows, exponents, numbers, others = {}, {}, {}, 0
  end = b'END OF %s MAP' % kind.encode()
  while True:
    line = text.next()
    if line is None:
      raise text.error(f'the file ends inside a {kind} map; download it again')
    label = ionex_header.label(line)
    if label == end:
      break
    if label == b'EPOCH OF CURRENT MAP':
      epoch = ionex_header.epoch(text, line)
    elif label == b'EXPONENT':
      exponent = ionex_header.exponent(text, line)
    elif label == ionex_header.ROW:
      row = _row_index(text, line, latitude, longitude)
      if row in rows:
        raise text.error(f'latitude {latitude.values[row]:g} comes twice in one {kind} map')
      numbers[row], exponents[row] = text.number + 1, exponent
      rows[row] = _values(text, kind, longitude.size)
    elif label == b'COMMENT' and others < 1000:
      others += 1
    else:
      raise text.error(f'unexpected line in a {kind} map: {line.decode("ascii", "replace")!r}')
  if epoch is None:
    raise text.error(f'a {kind} map without EPOCH OF CURRENT MAP')
  if len(rows) != latitude.size:
    lacking = next(i for i in range(latitude.size) if i not in rows)
    raise text.error(f'a {kind} map lacks latitude {latitude.values[lacking]:g}')
  if kind == 'HEIGHT':
    return epoch, None
  order = range(latitude.size)
  return epoch, _raw(
      text, [rows[i] for i in order], [exponents[i] for i in order], [numbers[i] for i in order],
      negative, kind)


def _row_index(text: TextFile, line: bytes, latitude: Axis, longitude: Axis) -> int:
  lat, first, last, step = (
      ionex_header.number(text, line, slice(2 + 6 * i, 8 + 6 * i), ionex_header.ROW.decode())
      for i in range(4))
  stated = longitude.first, longitude.values[-1], longitude.step
  if np.abs(np.subtract((first, last, step), stated)).max() > 0.01:
    raise text.error(f'longitudes {first} to {last} by {step} are not those of the header')
  position = (lat - latitude.first) / latitude.step
  if abs(position - round(position)) > 0.01 or not 0 <= round(position) < latitude.size:
    raise text.error(f'latitude {lat} is not on the grid of the header')
  return round(position)


def _values(text: TextFile, kind: str, size: int) -> bytes:
  """The characters of one row: `5 * size` of them, over lines of 16 values."""
  pieces = []
  for start in range(0, size, 16):
    line = text.next()
    if line is None:
      raise text.error(f'the file ends inside a {kind} map; download it again')
    wanted = 5 * min(16, size - start)
    if len(line.rstrip()) != wanted:
      raise text.error(f'{wanted // 5} values in {wanted} characters belong here, not '
                       f'{line.decode("ascii", "replace")!r}')
    pieces.append(line[:wanted])
  return b''.join(pieces)


def _oriented(stack: np.ndarray, latitude: Axis, longitude: Axis):
  """North first, west first, a closing meridian dropped, a whole circle starting at -180 or after.

  Returns the stack `[n, H, W]` and both axes as tuples.
  """
  lat, lon = latitude.values, longitude.values
  if latitude.step > 0:
    stack, lat = stack[:, ::-1], lat[::-1]
  if longitude.step < 0:
    stack, lon = stack[:, :, ::-1], lon[::-1]
  if abs(lon[-1] - lon[0] - 360) < 0.01:
    stack, lon = stack[:, :, :-1], lon[:-1]
  if abs(len(lon) * abs(longitude.step) - 360) < 0.01:
    wrapped = (lon + 180) % 360 - 180
    order = np.argsort(wrapped, kind='stable')
    stack, lon = stack[:, :, order], wrapped[order]
  plain = lambda axis: tuple(float(np.round(v, 4)) for v in axis)
  return stack, plain(lat), plain(lon)


def read(path: str | pathlib.Path, negative: str = 'error') -> Maps:
  """Reads a plain, gzip'ed or compress'ed IONEX file.

  An EXPONENT inside a map holds to the end of that map. HEIGHT maps are read over. Values finer
  than 0.1 TECU are rounded to it. END OF FILE is not required (the IGS rapid maps lack it), but as
  many maps as the header promises are, of TEC and, where there is one, of RMS.

  Args:
    path: the file.
    negative: what a negative value is: 'error', 'zero' or 'missing'.

  Raises:
    StoreError: names file and line, for everything that is not a complete, credible IONEX file.
  """
  with TextFile(path) as text:
    header = ionex_header.header(text)
    found, heights, others = {'TEC': {}, 'RMS': {}}, 0, 0
    while (line := text.next()) is not None:
      label = ionex_header.label(line)
      if label == b'END OF FILE':
        break
      kind = next((k for k in _KINDS if label == f'START OF {k} MAP'.encode()), None)
      others += kind is None
      if kind is None and (others > 1000 or (line.strip() and label != b'COMMENT')):
        raise text.error(f'unexpected line {line.decode("ascii", "replace")!r} between maps')
      if kind is None:
        continue
      if heights + sum(map(len, found.values())) >= 3 * header['maps']:
        raise text.error(f'more maps than the {header["maps"]} of the header')
      epoch, values = _map(text, kind, header, negative)
      if kind == 'HEIGHT':
        heights += 1
        continue
      if found[kind] and epoch <= max(found[kind]):
        raise text.error(f'{kind} map of {epoch} does not follow that of {max(found[kind])}')
      found[kind][epoch] = values
    if line is not None:  # read on: a gzip file keeps its checksum at the end
      for _ in range(1000):
        if text.next() is None:
          break
    tec, rms = found['TEC'], found['RMS']
    if header['maps'] not in (len(tec), len(tec) + len(rms) + heights) or not tec:
      raise text.error(f'{len(tec)} TEC maps, the header promises {header["maps"]}; download it '
                       'again')
    if rms and list(rms) != list(tec):
      raise text.error(f'{len(rms)} RMS maps for {len(tec)} TEC maps, or of other epochs; download '
                       'it again')
  epochs = np.array(list(tec), 'datetime64[m]')
  values, lat, lon = _oriented(np.stack(list(tec.values())), header['latitude'],
                               header['longitude'])
  errors = np.full_like(values, MISSING)
  if rms:
    errors = _oriented(np.stack(list(rms.values())), header['latitude'], header['longitude'])[0]
  interval = header['interval']
  if len(epochs) > 1:  # the maps themselves know better than the header
    interval = int(np.diff(epochs).min().astype(int))
  return Maps(epochs, values, errors, lat, lon, max(interval, 0))
