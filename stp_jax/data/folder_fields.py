"""Variables of NetCDF files and zarr stores as clips; see `folder`."""

import contextlib
import functools
import numbers
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stp_jax.data import folder_clips as clips
from stp_jax.data import folder_packed
from stp_jax.data import folder_packing as packings
from stp_jax.data.clip_store import StoreError
from stp_jax.data.folder_clips import Bad, BadFrame, Clip, Found

_TIMES = ('time', 't', 'valid_time', 'date', 'frame', 'step')
_NAMES = {'Y': ('lat', 'latitude', 'y', 'row', 'rows', 'rlat'),
          'X': ('lon', 'longitude', 'x', 'column', 'columns', 'rlon')}
_DEGREES = {'Y': 'degrees_north', 'X': 'degrees_east'}
_BLOCK = 16 << 20
_CHANNELS = 16
# What libraries raise on a file that is no such file, or a damaged one.
_ERRORS = (OSError, ValueError, KeyError, IndexError, RuntimeError, AttributeError)


@contextlib.contextmanager
def _dataset(path: pathlib.Path) -> Iterator[Any]:
  xarray = clips.module('xarray', 'reading NetCDF and zarr', '"stp_jax[data]"')
  words = dict(mask_and_scale=False, decode_timedelta=False)
  if path.is_dir():
    clips.module('zarr', 'reading zarr', '"stp_jax[geo]"')
    words |= dict(engine='zarr', chunks=None)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of calendars and consolidated metadata
    with xarray.open_dataset(path, **words) as data:
      yield data


def _variable(data, wanted: str, path: pathlib.Path) -> str:
  there = {k: v for k, v in data.data_vars.items()
           if v.dtype.kind in 'biuf' and sum(n > 1 for n in v.shape) >= 2}
  listed = ', '.join(f'{k}{list(v.dims)} {v.dtype}' for k, v in there.items()) or 'none'
  if wanted and wanted not in there:
    raise StoreError(f'{path}: no variable {wanted}; there are: {listed}')
  if not wanted and not there:
    every = ', '.join(f'{k}{list(v.dims)} {v.dtype}' for k, v in data.data_vars.items())
    raise StoreError(f'{path}: no variable of frames in it; there are: {every or "none"}')
  if not wanted and len(there) != 1:
    raise StoreError(f'{path}: choose with --variable: {listed}')
  return wanted or next(iter(there))


def _axes(field, path: pathlib.Path) -> dict[str, str]:
  """{'T', 'H', 'W', 'C': dimension}; T and C only where there is such a one."""
  left = [d for d in field.dims]
  axes = {}
  for d in left:
    coordinate = field.coords.get(d)
    kind = '' if coordinate is None else coordinate.dtype.kind
    if kind == 'M' or (kind == 'O' and d in field.indexes) or d.lower() in _TIMES:
      axes.setdefault('T', d)
  for letter, axis in (('H', 'Y'), ('W', 'X')):
    for d in left:
      told = dict(getattr(field.coords.get(d), 'attrs', {}))
      if (told.get('axis') == axis or told.get('units') == _DEGREES[axis]
          or d.lower() in _NAMES[axis]):
        axes.setdefault(letter, d)
  left = [d for d in left if d not in axes.values()]
  for letter in 'WH':
    if letter not in axes and left:
      axes[letter] = left.pop()
  wide = [d for d in left if field.sizes[d] > 1]
  if not {'H', 'W'} <= set(axes) or len(wide) > 1 or (
      wide and field.sizes[wide[0]] > _CHANNELS):
    raise StoreError(f'{path}: {field.name} has the dimensions {dict(field.sizes)}; time, rows, '
                     f'columns and up to {_CHANNELS} levels are read: select some of them first')
  return axes | ({'C': wide[0]} if wide else {})


def _clock(data, field, axes: dict[str, str], name: str
           ) -> tuple[np.ndarray | None, np.ndarray | None]:
  """(datetime64[s] of the frames, their order by time where the file has another).

  The time of a single frame may be a scalar. Raises StoreError for a time that is there twice.
  """
  if 'T' in axes:
    values = field.coords.get(axes['T'])
    # Other calendars than ours (of 360 days) have no dates that a clock knows.
    if values is None or values.dtype.kind != 'M':
      return None, None
    return _rising(values.values, name)
  for key in ('valid_time', 'time'):
    if key in data.variables and data[key].size == 1 and data[key].dtype.kind == 'M':
      return _rising(data[key].values.reshape(1), name)
  return None, None


def _rising(times: np.ndarray, name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
  if np.isnat(times).any():
    raise StoreError(f'{name}: frame {int(np.isnat(times).argmax())} has no time; give it one, or '
                     'leave it out')
  order = np.argsort(times, kind='stable')
  steps = np.diff(times[order]).astype(int)
  if (steps == 0).any():
    one, two = order[(steps == 0).argmax():][:2].tolist()
    raise StoreError(f'{name}: frames {one} and {two} have one time, '
                     f'{times[one].astype("M8[s]")}; keep each time once')
  times = times[order]
  whole = times.astype('M8[s]')
  times = whole if (np.diff(whole).astype(int) > 0).all() else times.astype('M8[ms]')
  return times, None if (np.diff(order) == 1).all() else order


def _ordered(field, axes: dict[str, str]):
  field = field.isel({d: 0 for d in field.dims if d not in axes.values()})
  return field.transpose(*(axes[x] for x in 'THWC' if x in axes))


def _packed(field, missing: float | None) -> folder_packed.Packed:
  return folder_packed.of({**field.encoding, **field.attrs}, field.dtype, missing)


def _read_field(path: pathlib.Path, name: str, missing: float | None, order: np.ndarray | None,
                start: int, stop: int
                ) -> Iterator[np.ndarray | BadFrame]:
  try:
    with _dataset(path) as data:
      field = data[name]
      axes, packed = _axes(field, path), _packed(field, missing)
      field = _ordered(field, axes)
      if 'T' not in axes:
        values = packed(field.values)
        yield values if 'C' in axes else values[..., None]
        return
      step = max(1, _BLOCK // max(1, field.nbytes // max(1, len(field))))
      for first in range(start, stop, step):
        where = slice(first, min(first + step, stop))
        values = packed(field[where if order is None else order[where]].values)
        yield from values if 'C' in axes else values[..., None]
  except StoreError:
    raise
  except _ERRORS as error:
    yield BadFrame(f'{path}: unreadable ({(str(error).splitlines() or [""])[0]})')


def _numbered(field, dimension: str):
  """A dimension's coordinate, if it has one of numbers: xarray counts where there is none."""
  found = field.coords[dimension] if dimension in field.coords else None
  if found is None or found.dtype.kind not in 'iuf':
    return None
  told = packings.packing({**found.encoding, **found.attrs})  # coordinates may be packed as well
  return found.copy(data=told.decoded(found.values))


def _grid(data, field, axes: dict[str, str]) -> dict[str, Any]:
  """What `data.georeference` describes: degrees, or projected coordinates and their mapping."""
  result, told = {}, {}
  for letter, name, axis in (('H', 'latitude', 'Y'), ('W', 'longitude', 'X')):
    values = _numbered(field, axes[letter])
    if values is None:
      continue
    if values.attrs.get('units') == _DEGREES[axis] or axes[letter].lower() in (name, name[:3]):
      result[name] = values.values.tolist()
    elif values.attrs.get('standard_name') == f'projection_{axis.lower()}_coordinate':
      result[axis.lower()] = values.values.tolist()
      told['xy_units'] = str(values.attrs.get('units', 'm'))
  if len(result) != 2:
    return {}
  mapping = data.variables.get({**field.encoding, **field.attrs}.get('grid_mapping', ''))
  if told and mapping is not None:
    told['projection'] = {k: v.tolist() if hasattr(v, 'tolist') else v
                          for k, v in mapping.attrs.items()}
  words = {k: str(field.attrs[k]) for k in ('standard_name', 'long_name', 'units')
           if k in field.attrs}
  return result | told | dict(variable=dict(name=str(field.name), **words))


def _place(data, field, axes: dict[str, str]) -> packings.Place:
  """Coordinates of rows and columns, whatever they are called."""
  found = [_numbered(field, axes[letter]) for letter in 'HW']
  values = [None if v is None else v.values for v in found]
  mapping = data.variables.get({**field.encoding, **field.attrs}.get('grid_mapping', ''))
  told = {} if mapping is None else mapping.attrs
  system = ' '.join(f'{k}={v}' for k, v in sorted(told.items())
                    if k == 'grid_mapping_name' or isinstance(v, numbers.Real))
  return packings.Place(tuple(values), 'longitude' in _grid(data, field, axes), system)


def netcdf(base: pathlib.Path, paths: Sequence[pathlib.Path], variable: str, bad: Bad,
           missing: float | None = None) -> Found:
  """A variable of NetCDF files or zarr stores; those of one folder are joined by their times.

  Args:
    missing: the value that means none, instead of what the files say; see `folder_packed`.
  """
  found = Found('fields', [], '', files=packings.Files())
  for folder, group in clips.folders(base, paths):
    parts = []
    for path in group:
      name = clips.below(base, path)
      try:
        with _dataset(path) as data:
          key = _variable(data, variable, path)
          field = data[key]
          axes, packed = _axes(field, path), _packed(field, missing)
          if not found.layout:
            found.grid = _grid(data, field, axes)
            found.layout = ', '.join(f'{d}: {x}' for x, d in axes.items()) + f' of {key}'
          size = {x: field.sizes[d] for x, d in axes.items()}
          told = {**field.encoding, **field.attrs}
          found.notes += [n for n in packed.notes if n not in found.notes]
          times, order = _clock(data, field, axes, name)
          read = found.files.reading(
              name, functools.partial(_read_field, path, key, missing, order),
              packings.packing(packed.told(told)),
              packings.text(told.get('units')), _place(data, field, axes))
          parts.append(Clip(
              name, size.get('T', 1), (size['H'], size['W'], size.get('C', 1)), packed.dtype,
              read, times))
          found.sizes.setdefault((size['H'], size['W']), name)
      except StoreError:
        raise
      except _ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), '')
        error = BadFrame(f'{path}: unreadable ({reason.strip()})')
        bad(error, name)
        parts.append(clips.gap(name, error))
    found.clips += clips.joined(folder, parts)
  if not found.clips:
    raise StoreError(f'{paths[0]}: none of the {len(paths)} files can be read')
  return found
