"""Fields of WeatherBench's NetCDF folders, read a few frames at a time; see `weatherbench`."""

import dataclasses
import functools
import pathlib
import warnings

import numpy as np

from stp_jax.data import samples
from stp_jax.data.clip_store import StoreError
from stp_jax.data.samples import Unreadable, naming

# short name: folders it may be in, names of the variable in a file
_KNOWN = {
    't2m': (('2m_temperature',), ('t2m',)),
    'u10': (('10m_u_component_of_wind',), ('u10',)),
    'v10': (('10m_v_component_of_wind',), ('v10',)),
    'tcc': (('total_cloud_cover',), ('tcc',)),
    'tp': (('total_precipitation',), ('tp',)),
    'tisr': (('toa_incident_solar_radiation',), ('tisr',)),
    'r': (('relative_humidity',), ('r',)),
    'q': (('specific_humidity',), ('q',)),
    't': (('temperature', 'temperature_850'), ('t',)),
    'z': (('geopotential', 'geopotential_500'), ('z',)),
    'u': (('u_component_of_wind',), ('u',)),
    'v': (('v_component_of_wind',), ('v',))}
_GROUPS = {'uv10': 'u10+v10', 'mv': '+'.join(
    f'{name}@{level}' for name in 'rtuv' for level in (150, 500, 850))}


@dataclasses.dataclass(frozen=True)
class Field:
  """A variable, and the pressure level in hPa, None: the last one, or it has none."""
  short: str
  folders: tuple[str, ...]
  variables: tuple[str, ...]
  level: int | None = None


def fields(text: str) -> list[Field]:
  """The fields of `t2m`, `uv10`, `z@500+t@850`, ..., in that order.

  Raises:
    ValueError: an unknown name; those known are listed.
  """
  found = []
  for word in '+'.join(_GROUPS.get(w, w) for w in text.replace(',', '+').split('+')).split('+'):
    name, _, level = word.partition('@')
    if name not in _KNOWN or (level and not level.isdigit()):
      raise ValueError(f'--variables {text}: {word!r}; known are {" ".join([*_KNOWN, *_GROUPS])}, '
                       'with a level in hPa as in t@850')
    found.append(Field(word, *_KNOWN[name], int(level) if level else None))
  if len({f.short for f in found}) < len(found):
    raise ValueError(f'--variables {text}: one of them twice')
  return found


class Series:
  """Fields of all files of a folder, as one series in time.

  Attributes:
    times: datetime64[m] `[N]`, rising. hours: between frames, mostly.
    units: of each field. latitude, longitude: degrees, in the files' order.
    paths: of the files.
  """

  def __init__(self, base: pathlib.Path, wanted: list[Field]):
    self._xarray = samples.module('xarray', 'reading NetCDF', 'data')
    self._fields, self._places, clocks = wanted, [], []
    self.paths, self.units = [], []
    grid = None
    for field in wanted:
      folder = next((base / f for f in field.folders if any((base / f).glob('*.nc'))), None)
      if folder is None:
        raise StoreError(f'{base}: no {field.folders[0]}/*.nc for {field.short}; it has '
                         f'{" ".join(sorted(p.name for p in base.iterdir())[:12])}')
      times, places = [], []
      for path in sorted(folder.glob('*.nc')):
        with naming(path, 'NetCDF'):
          data = self._open(path)
          units = str(data[self._variable(data, field, path)].attrs.get('units', '1'))
          here = [np.asarray(data[self._axis(data, names, path)].values, float) for names in (
              ('lat', 'latitude'), ('lon', 'longitude'))]
          clock = data['time'].values.astype('datetime64[m]')
        if grid is None:
          grid = here
        if any(a.shape != b.shape or not np.allclose(a, b) for a, b in zip(grid, here)):
          raise StoreError(f'{path}: a grid of {here[0].size}x{here[1].size}; other files have '
                           f'{grid[0].size}x{grid[1].size}; keep one resolution in the folder')
        times.append(clock)
        places += [(path, i) for i in range(len(clock))]
        self.paths += [path] if path not in self.paths else []
      clock = np.concatenate(times)
      order = np.argsort(clock, kind='stable')
      clock = clock[order]
      double = np.flatnonzero(np.diff(clock).astype(int) == 0)
      if len(double):
        one, other = (places[order[i]][0].name for i in (double[0], double[0] + 1))
        raise StoreError(f'{folder}: {one} and {other}: two fields of {clock[double[0]]}; keep one')
      clocks.append(clock)
      self._places.append([places[i] for i in order])
      self.units.append(units)
    # What every field has.
    self.times = functools.reduce(np.intersect1d, clocks)
    if len(self.times) < 2:
      raise StoreError(f'{base}: {len(self.times)} times that every field of '
                       f'{" ".join(f.short for f in wanted)} has; two at least')
    keep = [np.isin(c, self.times) for c in clocks]
    self._places = [[p for p, k in zip(places, kept) if k]
                    for places, kept in zip(self._places, keep)]
    self.hours = float(np.median(np.diff(self.times).astype(int))) / 60
    self.latitude, self.longitude = (g.tolist() for g in grid)

  @functools.lru_cache(maxsize=16)  # noqa: B019  open files, of one series a process
  def _open(self, path: pathlib.Path):
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of calendars
      return self._xarray.open_dataset(path, cache=False)

  @staticmethod
  def _axis(data, names: tuple[str, ...], path: pathlib.Path) -> str:
    found = next((n for n in names if n in data.variables), None)
    if found is None:
      raise Unreadable(f'{path}: no {names[0]}; it has {" ".join(map(str, data.variables))}')
    return found

  @staticmethod
  def _variable(data, field: Field, path: pathlib.Path) -> str:
    found = next((v for v in field.variables if v in data.data_vars), None)
    if found is None:
      raise Unreadable(f'{path}: no variable {field.variables[0]}; there are: '
                       f'{" ".join(map(str, data.data_vars)) or "none"}')
    return found

  def read(self, frames: np.ndarray) -> np.ndarray:
    """float32 `[len(frames), lat, lon, fields]` of these numbers of `times`, in units."""
    result = np.empty((len(frames), len(self.latitude), len(self.longitude), len(self._fields)),
                      np.float32)
    for c, (field, places) in enumerate(zip(self._fields, self._places)):
      start = 0
      while start < len(frames):  # consecutive frames of one file at once
        path, _ = places[frames[start]]
        stop = start
        while stop < len(frames) and places[frames[stop]][0] == path:
          stop += 1
        rows = [places[f][1] for f in frames[start:stop]]
        with naming(path, 'NetCDF'):
          result[start:stop, ..., c] = self._take(path, field, rows)
        start = stop
    return result

  def _take(self, path: pathlib.Path, field: Field, rows: list[int]) -> np.ndarray:
    data = self._open(path)
    value = data[self._variable(data, field, path)]
    level = next((n for n in ('level', 'plev', 'isobaricInhPa') if n in value.dims), None)
    if level is not None:
      there = data[level].values
      if field.level is not None and field.level not in there:
        raise Unreadable(f'{path}: no level {field.level} hPa; it has {there.tolist()}')
      value = value.isel({level: -1 if field.level is None else int(
          np.flatnonzero(there == field.level)[0])})
    elif field.level is not None and f'_{field.level}' not in path.parent.name:
      raise Unreadable(f'{path}: {field.variables[0]} has no levels; ask for {field.variables[0]}')
    step = np.diff(rows)
    # A slice is read at once; an index list of a NetCDF file, frame by frame.
    index = slice(rows[0], rows[-1] + 1, int(step[0])) if len(rows) > 1 and (
        step == step[0]).all() and step[0] > 0 else rows
    axes = [self._axis(data, names, path) for names in (('lat', 'latitude'), ('lon', 'longitude'))]
    return value.isel(time=index).transpose('time', *axes).values
