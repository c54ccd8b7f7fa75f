"""One radar rain map of a file: KNMI composites (HDF5) and BoM accumulations (NetCDF)."""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from stp_jax.data import archives
from stp_jax.data.clip_store import StoreError

MISSING = 65535
STEP = 0.002  # mm, of rain that files do not have in integers
SUFFIXES = {'knmi': ('.h5', '.hdf5', '.hdf'), 'bom': ('.nc', '.nc4')}
MINUTES = {'knmi': 5, 'bom': 10}
LICENCES = {
    'knmi': 'KNMI radar composites: open data of the Royal Netherlands Meteorological Institute',
    'bom': 'Commonwealth of Australia, Bureau of Meteorology: bom.gov.au/other/copyright.shtml'}


class BadFile(StoreError):
  """A file that cannot be read; the message names it."""


@dataclasses.dataclass(frozen=True)
class RainMap:
  """Rain that fell until `time`.

  Attributes:
    raw: uint16 `[H, W]` as stored in the file, north first; 65535 where there is no value.
    time: end of the accumulation, datetime64[m] UT. minutes: of the accumulation.
    scale: mm per unit of `raw`. coded: the file has floats, of which `raw` is made.
    grid: what the file tells of its projection.
  """
  raw: np.ndarray
  time: np.datetime64
  minutes: int
  scale: float
  grid: dict
  coded: bool = False


def _module(name: str):
  try:
    return __import__(name)
  except ImportError as error:
    raise StoreError(f'reading radar files needs {name}: pip install "stp_jax[data]"') from error


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except StoreError:
    raise
  except (OSError, KeyError, ValueError, IndexError, AttributeError, RuntimeError) as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), '')
    raise BadFile(f'{path}: unreadable as a radar file ({reason.strip()})') from error


def _text(value) -> str:
  value = np.ravel(value)[0]
  return value.decode() if isinstance(value, bytes) else str(value)


def _knmi_time(value) -> np.datetime64:
  day, month, year, clock = re.fullmatch(
      r'(\d+)-(\w{3})-(\d{4});(\d\d:\d\d)(:[\d.]+)?', _text(value)).groups()[:4]
  months = 'JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC'.split()
  number = months.index(month.upper()) + 1
  return np.datetime64(f'{year}-{number:02d}-{int(day):02d}T{clock}', 'm')


def _knmi(path: pathlib.Path, pixels: bool) -> RainMap:
  with _module('h5py').File(path) as file:
    overview, image = file['overview'].attrs, file['image1']
    begin, end = (_knmi_time(overview[f'product_datetime_{k}']) for k in ('start', 'end'))
    told = image['calibration'].attrs
    formula = re.fullmatch(r'GEO\s*=\s*([-+.\deE]+)\s*\*\s*PV\s*([-+][-+.\deE]+)?',
                           _text(told['calibration_formulas']).strip())
    if formula is None or float(formula[2] or 0):
      raise BadFile(f'{path}: calibration {_text(told["calibration_formulas"])}; GEO=a*PV expected')
    quantity = _text(image.attrs.get('image_geo_parameter', 'ACCUMULATED_PRECIPITATION_[MM]'))
    if 'MM' not in quantity.upper():
      raise BadFile(f'{path}: holds {quantity}, not accumulated rain in mm')
    raw = np.zeros((0, 0), np.uint16)
    if pixels:
      raw = np.asarray(image['image_data'])
      if raw.dtype.kind not in 'iu':
        raise BadFile(f'{path}: pixels of type {raw.dtype}; integers expected')
      codes = {int(np.ravel(told[k])[0]) for k in told if k in (
          'calibration_missing_data', 'calibration_out_of_image')}
      raw = np.where(np.isin(raw, list(codes)), MISSING, raw).astype(np.uint16)
    group = file.get('geographic/map_projection')
    projection = '' if group is None else _text(group.attrs.get('projection_proj4_params', ''))
    return RainMap(raw, end, int((end - begin).astype(int)), float(formula[1]),
                   _knmi_grid(file, image['image_data'].shape, projection))


def _knmi_grid(file, shape: tuple[int, int], projection: str) -> dict:
  """Centres of the pixels in km: offsets count pixels from the projection's origin, rows south."""
  told = file['geographic'].attrs if 'geographic' in file else {}
  one = lambda name, default: float(np.ravel(told.get(name, default))[0])
  width, height = one('geo_pixel_size_x', 1.0), one('geo_pixel_size_y', -1.0)
  grid = dict(projection=projection, pixel_km=round(width, 4))
  if projection and 'geo_row_offset' in told and 'geo_column_offset' in told:
    inside = 0.0 if _text(told.get('geo_pixel_def', 'LU')).startswith('C') else 0.5
    grid |= dict(
        x=((one('geo_column_offset', 0) + inside + np.arange(shape[1])) * width).tolist(),
        y=((one('geo_row_offset', 0) + inside + np.arange(shape[0])) * height).tolist(),
        xy_units='km')
  return grid


def _rain_codes(raw: np.ndarray, rain, scale: float, path: pathlib.Path) -> np.ndarray:
  """uint16 of a variable's values, MISSING where there is none; floats in steps of STEP."""
  codes = np.concatenate([np.ravel(getattr(rain, k, -1)).astype(np.float64)
                          for k in ('_FillValue', 'missing_value')])
  floats = raw.dtype.kind == 'f'
  missing = ~(raw >= 0) | np.isin(raw, codes.astype(raw.dtype) if floats else [*codes, MISSING])
  if floats:
    raw = np.rint(np.where(missing, 0, raw).astype(np.float64) * (scale / STEP))
  if (most := np.where(missing, 0, raw).max(initial=0)) >= MISSING:
    step = STEP if floats else scale
    raise BadFile(f'{path}: precipitation of {most * step:g} mm, more than 16 bits hold in steps '
                  f'of {step:g} mm; is it a missing value?')
  return np.where(missing, MISSING, raw).astype(np.uint16)


def _bom(path: pathlib.Path, pixels: bool) -> RainMap:
  with contextlib.closing(_module('netCDF4').Dataset(path)) as file:
    if 'precipitation' not in file.variables:
      raise BadFile(f'{path}: no variable precipitation; it has {" ".join(file.variables)}')
    rain = file['precipitation']
    rain.set_auto_maskandscale(False)
    seconds = [int(np.ravel(file[name][...])[0]) for name in ('start_time', 'valid_time')]
    if float(getattr(rain, 'add_offset', 0)):
      raise BadFile(f'{path}: precipitation with add_offset {rain.add_offset}; 0 expected')
    coded, scale = rain.dtype.kind == 'f', float(getattr(rain, 'scale_factor', 1.0))
    raw = np.zeros((0, 0), np.uint16)
    y = np.asarray(file['y'][...])
    x = np.asarray(file['x'][...])
    if pixels:
      raw = np.asarray(rain[...])
      raw = _rain_codes(raw.reshape(raw.shape[-2:]), rain, scale, path)
      raw = raw[::-1] if y[0] < y[-1] else raw  # north first
    mapping = file.variables.get(getattr(rain, 'grid_mapping', ''))
    projection = {} if mapping is None else {
        k: np.ravel(mapping.getncattr(k)).tolist() for k in mapping.ncattrs()}
    projection = {k: v[0] if isinstance(v, list) and len(v) == 1 else v
                  for k, v in projection.items()}
    grid = dict(projection=projection, pixel_km=round(abs(float(x[1] - x[0])), 4),
                x=x.astype(float).tolist(), y=np.sort(y.astype(float))[::-1].tolist(),
                xy_units=str(getattr(file['x'], 'units', 'km')))
    return RainMap(
        raw, np.datetime64(seconds[1], 's').astype('datetime64[m]'),
        (seconds[1] - seconds[0]) // 60, STEP if coded else scale, grid, coded)


def read(path: pathlib.Path, network: str, pixels: bool = True) -> RainMap:
  """The map of one file; `pixels` False leaves `raw` empty, for a look at times.

  Raises:
    BadFile: names the file.
    StoreError: h5py or netCDF4 is not installed.
  """
  with _naming(path):
    return (_knmi if network == 'knmi' else _bom)(path, pixels)


def read_packed(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, int, str]:
  """A packed series: mm `[N, H, W]` float, times datetime64[m] `[N]`, minutes, network.

  An npz with `mm_per_5min` (KNMI) or `mm_per_10min` (BoM) and `time` or `valid_time_unix`.

  Raises:
    StoreError: names the file, which is no such npz, is damaged, or claims absurd sizes.
  """
  archives.check_npz(path, together=False)  # one of them is the data
  with _naming(path), np.load(path, allow_pickle=False) as file:
    key = next((k for k in file if re.fullmatch(r'mm_per_\d+min', k)), None)
    if key is None:
      raise BadFile(f'{path}: no array mm_per_<N>min; it has {" ".join(file)}')
    if 'valid_time_unix' in file:
      times = file['valid_time_unix'].astype('datetime64[s]').astype('datetime64[m]')
    else:
      times = np.array([f'{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:10]}:{t[10:12]}'
                        for t in file['time'].astype(str)], 'datetime64[m]')
    network = next((n for n in MINUTES if n in path.name.lower()), 'radar')
    return file[key], times, int(key.removeprefix('mm_per_').removesuffix('min')), network


def find(in_dir, network: str) -> tuple[str, list[pathlib.Path]]:
  """The radar files below a folder (or one file), and whose they are.

  Args:
    network: 'knmi', 'bom', or '' to tell by the files' suffix.

  Raises:
    StoreError: nothing there, or files of both.
  """
  if in_dir is None or not pathlib.Path(in_dir).exists():
    raise StoreError(f'--in {in_dir}: no such folder; name the one of the radar files')
  base = pathlib.Path(in_dir)
  every = sorted(p for p in base.rglob('*') if p.is_file()) if base.is_dir() else [base]
  if not base.is_dir() and base.suffix == '.npz':
    return 'packed', [base]
  found = {n: [p for p in every if p.suffix.lower() in s] for n, s in SUFFIXES.items()}
  there = [n for n, paths in found.items() if paths]
  if not network and len(there) > 1:
    raise StoreError(f'{base}: holds files of {" and ".join(there)}; choose with --network')
  network = network or (there[0] if there else '')
  if network not in found or not found[network]:
    raise StoreError(f'{base}: no file of {network or "KNMI (.h5) or BoM (.nc)"} among its '
                     f'{len(every)} files')
  return network, found[network]
