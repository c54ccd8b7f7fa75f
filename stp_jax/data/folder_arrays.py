"""Arrays of npy, npz and HDF5 files as clips; see `folder`."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stp_jax.data import archives, folder_packed, npy_file
from stp_jax.data import folder_clips as clips
from stp_jax.data import folder_layout as layouts
from stp_jax.data import folder_packing as packings
from stp_jax.data.clip_store import StoreError
from stp_jax.data.folder_clips import Bad, BadFrame, Clip, Found
from stp_jax.data.png_samples import natural

_NUMBERS = 'biuf'


def _listed(there: Mapping[str, Any]) -> str:
  return ', '.join(f'{k} {v.dtype}{list(v.shape)}' for k, v in there.items()) or 'none'


def _chosen(there: Mapping[str, Any], variable: str, path: pathlib.Path) -> list[str]:
  """Names of the arrays to read: the one called `variable`, or all that end in it."""
  there = {k: v for k, v in there.items()
           if np.dtype(v.dtype).kind in _NUMBERS and len(v.shape) >= 2}
  if variable:
    wanted = variable.strip('/')
    names = [wanted] if wanted in there else [
        k for k in there if k.rpartition('/')[2] == wanted]
    if not names:
      raise StoreError(f'{path}: no array {variable}; there are: {_listed(there)}')
    return sorted(names, key=natural)
  if len(there) == 1:
    return list(there)
  raise StoreError(f'{path}: {"no array of frames in it" if not there else "several arrays"}; '
                   f'choose with --variable: {_listed(there)}')


@functools.lru_cache(maxsize=1)
def _unpacked(path: pathlib.Path, name: str) -> np.ndarray:
  # An array of a zip file can only be read whole.
  with np.load(path, allow_pickle=False) as file:
    return file[name]


@contextlib.contextmanager
def _open_npy(path: pathlib.Path) -> Iterator[np.ndarray]:
  yield npy_file.load(path)


@contextlib.contextmanager
def _open_npz(path: pathlib.Path, name: str) -> Iterator[np.ndarray]:
  yield _unpacked(path, name)


@contextlib.contextmanager
def _open_hdf5(path: pathlib.Path, name: str) -> Iterator[Any]:
  with clips.module('h5py', 'reading HDF5', '"stp_jax[data]"').File(path) as file:
    yield file[name]


def _npy(path: pathlib.Path, variable: str) -> dict[str, Callable]:
  if path.suffix.lower() == '.npy':
    return {'': functools.partial(_open_npy, path)}
  archives.check_npz(path)
  with np.load(path, allow_pickle=False) as file:
    names = file.files
    if len(names) != 1:  # their shapes decide, or are listed
      names = _chosen({n: file[n] for n in names if file[n].dtype != object}, variable, path)
  return {n: functools.partial(_open_npz, path, n) for n in names}


def _hdf5(path: pathlib.Path, variable: str) -> dict[str, Callable]:
  h5py = clips.module('h5py', 'reading HDF5', '"stp_jax[data]"')
  there = {}
  with h5py.File(path) as file:
    file.visititems(
        lambda name, item: there.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    names = _chosen(there, variable, path)
  return {n: functools.partial(_open_hdf5, path, n) for n in names}


def _arrays(path: pathlib.Path, name: str, opened: Callable, layout: str, found: Found,
            missing: float | None) -> list[Clip]:
  with opened() as array:
    told = dict(getattr(array, 'attrs', {}))
    layout = layouts.checked(layout, array.shape, name)
    count, length, shape = layouts.series(layout, array.shape)
    dtype = np.dtype(array.dtype).name
    if 0 in array.shape:
      raise StoreError(f'{name}: an empty array {list(array.shape)}; remove it')
    if np.dtype(array.dtype).kind not in _NUMBERS:
      raise StoreError(f'{name}: values of type {dtype}; integers or floats are read: convert them '
                       '(the parts of complex numbers as channels)')
    packed = folder_packed.of(told, array.dtype, missing)
  several = f'[{{:0{len(str(count - 1))}}}]' if count > 1 else ''

  def read(number: int, start: int, stop: int) -> Iterator[np.ndarray | BadFrame]:
    try:
      for frame in layouts.reader(opened, layout, number)(start, stop):
        yield packed(frame)
    except archives.ERRORS as error:
      reason = (str(error).splitlines() or [type(error).__name__])[0]
      yield BadFrame(f'{path}: unreadable ({reason})')

  found.notes += [n for n in packed.notes if n not in found.notes]
  if any(k in told for k in ('scale_factor', 'add_offset', 'units')):
    found.picture = False
  noted = lambda i: found.files.reading(
      name, functools.partial(read, i), packings.packing(packed.told(told)),
      packings.text(told.get('units')))
  return [Clip(name + several.format(i), length, shape, packed.dtype, noted(i))
          for i in range(count)]


def find(base: pathlib.Path, paths: Sequence[pathlib.Path], kind: str, variable: str, layout: str,
         bad: Bad, missing: float | None = None) -> Found:
  """The clips of npy, npz or HDF5 files; files of one frame make one clip a folder.

  Args:
    variable: of npz and HDF5; '' where there is one. layout: see `folder_layout`; '': guessed from
      the first file. missing: the value that means none, instead of what the files say.
  """
  found = Found(kind, [], '', files=packings.Files())
  chosen = layout
  for folder, group in clips.folders(base, paths):
    parts = []
    for path in group:
      name = clips.below(base, path)
      try:
        arrays = (_hdf5 if kind == 'hdf5' else _npy)(path, variable)
        for key, opened in arrays.items():
          if not chosen or not found.layout:
            with opened() as array:
              chosen = chosen or layouts.guess(array, name)
              found.picture = array.dtype == np.uint8  # those of 16 bits may be anything
              found.layout = (f'{chosen.upper()}{" as told" if layout else ", guessed from"} '
                              f'{array.dtype}{list(array.shape)}{f" of {key}" if key else ""}')
          shown = f'{name}:{key}' if len(arrays) > 1 else name
          parts += _arrays(path, shown, opened, chosen, found, missing)
      except archives.DamagedArchive as error:
        bad(shown := BadFrame(str(error)), name)
        parts.append(clips.gap(name, shown))
      except StoreError:
        raise
      except archives.ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), '')
        error = BadFrame(f'{path}: unreadable ({reason.strip()})')
        bad(error, name)
        parts.append(clips.gap(name, error))
    found.clips += clips.joined(folder, parts)
    for part in parts:
      if part.dtype:
        found.sizes.setdefault(part.shape[:2], part.name)
  if not found.clips:
    raise StoreError(f'{paths[0]}: none of the {len(paths)} files can be read')
  return found
