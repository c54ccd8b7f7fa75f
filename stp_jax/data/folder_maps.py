"""GeoTIFF files, and what an importer of pysteps reads, as clips; see `folder`."""

import contextlib
import functools
import pathlib
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stp_jax.data import folder_clips as clips
from stp_jax.data import folder_layout
from stp_jax.data import folder_packing as packings
from stp_jax.data.clip_store import StoreError
from stp_jax.data.folder_clips import Bad, BadFrame, Clip, Found


@contextlib.contextmanager
def _geotiff(path: pathlib.Path) -> Iterator[Any]:
  rasterio = clips.module('rasterio', 'reading GeoTIFF', '"stp_jax[geo]"')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # a TIFF may lack its georeference
    with rasterio.open(path) as file:
      yield file


def _read_geotiff(path, layout: str, start: int, stop: int) -> Iterator[np.ndarray | BadFrame]:
  try:
    with _geotiff(path) as file:
      if layout == 'CHW':
        yield file.read().transpose(1, 2, 0)
        return
      for band in range(start, stop):
        yield file.read(band + 1)[..., None]
  except StoreError:
    raise
  except Exception as error:  # rasterio's own classes, which a guarded import cannot name
    yield BadFrame(f'{path}: unreadable ({(str(error).splitlines() or [""])[0]})')


def geotiff(base: pathlib.Path, paths: Sequence[pathlib.Path], layout: str, bad: Bad) -> Found:
  """GeoTIFF files: up to 4 bands are the channels of a frame, more are frames; or as `layout`."""
  if layout and layout.upper() not in ('CHW', 'THW'):
    raise ValueError(f'--layout {layout}: bands of GeoTIFF are CHW or THW')
  found = Found('geotiff', [], '', files=packings.Files())
  for folder, group in clips.folders(base, paths):
    parts = []
    for path in group:
      name = clips.below(base, path)
      try:
        with _geotiff(path) as file:
          kind = layout.upper() or folder_layout.guess(
              types.SimpleNamespace(shape=(file.count, file.height, file.width)), name)
          if not found.layout:
            found.picture = file.dtypes[0] == 'uint8' and file.crs is None
            found.layout = f'{kind} of {file.dtypes[0]}[{file.count}, {file.height}, {file.width}]'
            found.grid = _degrees(file)
          bands = (1, file.count) if kind == 'CHW' else (file.count, 1)
          parts.append(Clip(name, bands[0], (file.height, file.width, bands[1]), file.dtypes[0],
                            found.files.reading(
                                name, functools.partial(_read_geotiff, path, kind),
                                _packing(file, name), file.units[0] or '', _place(file))))
          found.sizes.setdefault((file.height, file.width), name)
      except StoreError:
        raise
      except Exception as error:  # see above
        error = BadFrame(f'{path}: unreadable ({(str(error).splitlines() or [""])[0]})')
        bad(error, name)
        parts.append(clips.gap(name, error))
    found.clips += clips.joined(folder, parts)
  if not found.clips:
    raise StoreError(f'{paths[0]}: none of the {len(paths)} files can be read')
  return found


def _packing(file, name: str) -> packings.Packing:
  several = {(float(s), float(o), n) for s, o, n in zip(file.scales, file.offsets, file.nodatavals)
             if n is None or not np.isnan(n)}
  if len(several) > 1:
    raise StoreError(f'{name}: bands that are packed differently (scale, offset, nodata: '
                     f'{" ".join(map(str, sorted(several, key=str)))}); unpack them first')
  missing = () if file.nodata is None or np.isnan(file.nodata) else (float(file.nodata),)
  return packings.Packing(float(file.scales[0]), float(file.offsets[0]), missing)


def _place(file) -> packings.Place:
  t = file.transform
  if t.is_identity:  # no georeference
    return packings.Place()
  system = str(file.crs or '')
  if t.b or t.d:
    return packings.Place(system=f'{system} {tuple(t)[:6]}')
  return packings.Place((t.f + t.e * (np.arange(file.height) + 0.5),
                         t.c + t.a * (np.arange(file.width) + 0.5)),
                        bool(file.crs and file.crs.is_geographic), system)


def _degrees(file) -> dict[str, list[float]]:
  """Latitudes and longitudes of the pixels' centres, where rows and columns follow them."""
  t = file.transform
  if file.crs is None or not file.crs.is_geographic or t.b or t.d:
    return {}
  return dict(latitude=(t.f + t.e * (np.arange(file.height) + 0.5)).tolist(),
              longitude=(t.c + t.a * (np.arange(file.width) + 0.5)).tolist())


def pysteps(base: pathlib.Path, paths: Sequence[pathlib.Path], importer: str, bad: Bad) -> Found:
  """A map a file, by an importer of pysteps; times are read from the files' names."""
  try:
    from pysteps import io
  except ImportError as error:
    raise StoreError('--pysteps needs pysteps: pip install pysteps') from error
  try:
    method = io.get_method(importer, 'importer')
  except ValueError as error:
    raise StoreError(f'--pysteps {importer}: {str(error).splitlines()[0]}') from error

  def load(path) -> tuple[np.ndarray, dict] | BadFrame:
    try:
      values, _, told = method(str(path))
    except Exception as error:  # importers raise whatever their readers do
      return BadFrame(f'{path}: unreadable by pysteps ({(str(error).splitlines() or [""])[0]})')
    return np.ma.filled(np.ma.asarray(values, np.float32), np.nan)[..., None], told

  def read(path, start, stop):
    got = load(path)
    yield got if isinstance(got, BadFrame) else got[0]

  found = Found(f'pysteps {importer}', [], '', files=packings.Files())
  for folder, group in clips.folders(base, paths):
    parts = []
    for path in group:
      got = load(path)
      name = clips.below(base, path)
      if isinstance(got, BadFrame):
        bad(got, name)
        parts.append(clips.gap(name, got))
        continue
      values, told = got
      found.layout = f'HW {list(values.shape[:2])}'
      parts.append(Clip(name, 1, values.shape, 'float32', found.files.reading(
          name, functools.partial(read, path), packings.Packing(),
          str(told.get('unit') or ''))))
      found.sizes.setdefault(values.shape[:2], name)
    found.clips += clips.joined(folder, parts)
  if not found.clips:
    raise StoreError(f'{paths[0]}: none of the {len(paths)} files can be read')
  return found
