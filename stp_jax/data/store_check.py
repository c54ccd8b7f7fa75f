"""Whether the fields of a store's meta.json, and its arrays, are what their readers take them for.

A store may come from a disk that fails or from another hand: what is wrong is said when the store
is opened, with the field's name, not where an arithmetic operation stumbles over it in a run.
"""

import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# What is outside is no count or cadence, and minutes of a clip would overflow 64 bits.
_MOST = 1 << 36  # frames, pixels along an axis
_HOURS = (1e-12, 1e6)


def _must(good: bool, field: str, value: Any, what: str) -> None:
  if not good:
    raise ValueError(f'{field} is {repr(value)[:40]}, not {what}')


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, least: int, most: int) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _fields(tree: Any, field: str, what: Mapping[str, type]) -> None:
  _must(isinstance(tree, dict), field.strip(), tree, 'a dict')
  for name, kind in what.items():
    if name not in tree:
      raise ValueError(f'{field}{name} is missing')
    _must(isinstance(tree[name], kind), field + name, tree[name], f'a {kind.__name__}')


def fields(meta: Mapping[str, Any]) -> None:
  """Checks a meta.json, besides the names of streams and files.

  Raises:
    ValueError, OverflowError: a field that is missing or not what it must be, by its name.
  """
  _fields(meta, '', dict(
      name=str, description=str, licence=str, streams=dict, forcings=list, normalisation=dict,
      grid=dict, recipe=dict, card=dict, checksum=dict))
  cadence, frames = meta.get('cadence_hours'), meta.get('frames')
  _must(_is_number(cadence) and _HOURS[0] <= cadence <= _HOURS[1], 'cadence_hours', cadence,
        'the hours between two frames')
  _must(_is_count(frames, 0, _MOST), 'frames', frames, 'a number of frames')
  _must(bool(meta['streams']), 'streams', meta['streams'], 'any stream')
  for name, stream in meta['streams'].items():
    _stream(name, stream)
  for number, forcing in enumerate(meta['forcings']):
    _fields(forcing, f'forcings {number} ', dict(name=str, units=str, known_ahead=bool))
  scaling = meta['normalisation']
  for name in ('shift', 'divisor'):
    value = scaling.get(name, 1.0)
    _must(_is_number(value) and (value != 0 or name == 'shift'), f'normalisation {name}', value,
          'a number that scales')
  value = scaling.get('maximum')
  _must(value is None or _is_number(value), 'normalisation maximum', value, 'a number')
  _grid(meta['grid'], next(iter(meta['streams'].values()))['shape'])


def _stream(name: str, stream: Any) -> None:
  field = f'stream {name} '
  _fields(stream, field, dict(dtype=str, units=str))
  shape = stream.get('shape')
  _must(isinstance(shape, (list, tuple)) and len(shape) == 3
        and all(_is_count(n, 1, _MOST) for n in shape), f'{field}shape', shape,
        'height, width and channels')
  _must(np.dtype(stream['dtype']).kind in 'biuf', f'{field}dtype', stream['dtype'],
        'one of numbers')
  scale, offset, missing = (stream.get(k, v) for k, v in (
      ('scale', 1.0), ('offset', 0.0), ('missing', None)))
  _must(_is_number(scale) and scale != 0, f'{field}scale', scale, 'a number that scales')
  _must(_is_number(offset), f'{field}offset', offset, 'a number')
  _must(missing is None or missing != missing or _is_number(missing), f'{field}missing', missing,
        'a number')


def _grid(grid: Mapping[str, Any], shape: Iterable[int]) -> None:
  height, width, _ = shape
  rows = grid.get('rows', height)
  _must(_is_count(rows, 1, height), 'grid rows', rows, f'a number of rows up to {height}')
  for name, most in (('latitude', height), ('longitude', width)):
    values = grid.get(name, [])
    _must(isinstance(values, list) and len(values) <= most and all(map(_is_number, values)),
          f'grid {name}', values, f'a list of up to {most} degrees')


def columns(path: pathlib.Path, array: np.ndarray, frames: int, count: int) -> np.ndarray:
  """A file of forcings as it must be: numbers `[frames, count]`.

  Raises:
    ValueError: anything else, with the file's name.
  """
  if array.shape != (frames, count) or array.dtype.kind not in 'biuf':
    raise ValueError(f'{path.name} holds {array.dtype.name}{list(array.shape)}, meta.json says '
                     f'numbers{[frames, count]}')
  return array


def shard(folder: pathlib.Path, name: str, stream: Any, clip: int, place: tuple[int, int, int]
          ) -> None:
  """Whether the shard of a clip can hold that clip, by its size alone.

  Args:
    name, stream: of the store. place: `(shard, offset, length)` of clip number `clip`.

  Raises:
    ValueError, OSError: it cannot, or is not there.
  """
  number, offset, length = place
  file = folder / f'{name}-{number:05d}.npy'
  size = (offset + length) * math.prod(stream.shape) * np.dtype(stream.dtype).itemsize
  there = file.stat().st_size
  if there < size:
    raise ValueError(f'{file.name} has {there} bytes; frames to the end of clip {clip} take {size}')
