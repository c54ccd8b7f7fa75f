"""Where the pixels of a store lie: what its `grid` says, cut and resized with the frames, as CF.

A grid has either `latitude` `[H]` and `longitude` `[W]` (degrees, of centres), or `x` `[W]` and `y`
`[H]` in `xy_units` of a `projection`: a proj4 string, or attributes of a CF grid mapping. It may
name its `variable` (name, standard_name, long_name), or `variables`, one a channel.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# CF conventions, appendix F: parameters that proj4 has under another name.
_PARAMETERS = {
    'lat_0': 'latitude_of_projection_origin', 'x_0': 'false_easting', 'y_0': 'false_northing',
    'a': 'semi_major_axis', 'b': 'semi_minor_axis', 'rf': 'inverse_flattening'}
_CENTRE = {'stere': 'longitude_of_projection_origin', 'aea': 'longitude_of_central_meridian',
           'lcc': 'longitude_of_central_meridian', 'laea': 'longitude_of_projection_origin',
           'tmerc': 'longitude_of_central_meridian', 'merc': 'longitude_of_projection_origin'}
_NAMES = {'stere': 'stereographic', 'aea': 'albers_conical_equal_area',
          'lcc': 'lambert_conformal_conic', 'laea': 'lambert_azimuthal_equal_area',
          'tmerc': 'transverse_mercator', 'merc': 'mercator'}
_ELLIPSOIDS = {'WGS84': (6378137.0, 298.257223563), 'GRS80': (6378137.0, 298.257222101)}


def is_placed(grid: Mapping[str, Any]) -> bool:
  """Whether every pixel has a place on the Earth."""
  return {'latitude', 'longitude'} <= set(grid) or {'x', 'y'} <= set(grid)


def same_places(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  """Whether two grids have the same latitudes and longitudes; one that does not say has any."""
  for name in ('latitude', 'longitude'):
    if one.get(name) is None or other.get(name) is None:
      continue
    a, b = np.asarray(one[name], float), np.asarray(other[name], float)
    if a.shape != b.shape:
      return False
    # 180 and -180 degrees are one meridian.
    apart = (a - b + 180) % 360 - 180 if name == 'longitude' else a - b
    if not np.allclose(apart, 0, atol=1e-3):
      return False
  return True


def places(grid: Mapping[str, Any]) -> str:
  """A grid in words: 'latitudes 87.5 to -87.5 (71), longitudes -180 to 175 (72)'."""
  found = []
  for name in ('latitude', 'longitude'):
    values = np.ravel(np.asarray([] if grid.get(name) is None else grid[name], float))
    found.append(f'{name}s {values[0]:g} to {values[-1]:g} ({len(values)})' if len(values) else
                 f'no {name}s')
  return ', '.join(found)


def _means(values: Sequence[float], block: int) -> np.ndarray:
  whole = len(values) // block * block
  return np.asarray(values, float)[:whole].reshape(-1, block).mean(1)


def _resampled(values: Sequence[float], count: int) -> np.ndarray:
  # Ends lie half a pixel inside: beyond the outer centres the step goes on.
  values = np.asarray(values, float)
  places = (np.arange(count) + 0.5) * len(values) / count - 0.5
  if len(values) < 2:
    return np.repeat(values, count)
  base = np.clip(np.floor(places).astype(int), 0, len(values) - 2)
  return values[base] + (places - base) * (values[base + 1] - values[base])


def shaped(grid: Mapping[str, Any], rows: slice = slice(None), columns: slice = slice(None),
           block: int = 1, size: tuple[int, int] | None = None) -> dict[str, Any]:
  """The grid of frames that were cropped, averaged over blocks, then resized."""
  result = dict(grid)
  for names, part, axis in ((('latitude', 'y'), rows, 0), (('longitude', 'x'), columns, 1)):
    for name in names:
      if name in grid:
        values = _means(list(grid[name])[part], block)
        result[name] = (_resampled(values, size[axis]) if size else values).tolist()
  if 'pixel_km' in grid and 'x' in result and len(result['x']) > 1:
    unit = {'km': 1.0, 'm': 1e-3}.get(grid.get('xy_units', ''), 0)
    if unit:
      result['pixel_km'] = round(abs(result['x'][1] - result['x'][0]) * unit, 4)
  return result


def cf_mapping(projection: str | Mapping[str, Any], xy_units: str = 'm') -> dict[str, Any]:
  """Attributes of a CF grid mapping: lengths in metres; {} for a projection that CF has not.

  Args:
    projection: CF attributes as they are, or '+proj=stere +lat_0=90 ...' whose lengths are in
      `xy_units` (a proj4 string in km has a and b in km).
  """
  if not isinstance(projection, str):
    return dict(projection) if 'grid_mapping_name' in projection else {}
  told = dict(re.findall(r'\+(\w+)=(\S+)', projection))
  kind = told.get('proj', '')
  if kind in ('longlat', 'latlong'):
    return dict(grid_mapping_name='latitude_longitude')
  if kind not in _NAMES:
    return {}
  number = lambda k: float(told[k])
  metres = 1000.0 if told.get('units') == 'km' or (
      'a' in told and number('a') < 1e5) else 1.0
  result: dict[str, Any] = dict(grid_mapping_name=_NAMES[kind])
  for key, name in _PARAMETERS.items():
    if key in told:
      result[name] = number(key) * (metres if key in ('a', 'b', 'x_0', 'y_0') else 1)
  if told.get('ellps', told.get('datum')) in _ELLIPSOIDS and 'a' not in told:
    result['semi_major_axis'], result['inverse_flattening'] = _ELLIPSOIDS[
        told.get('ellps', told.get('datum'))]
  if 'R' in told:
    result['earth_radius'] = number('R') * (1000.0 if number('R') < 1e5 else 1.0)
  centre = _CENTRE[kind]
  if kind == 'stere' and abs(float(told.get('lat_0', 0))) == 90:
    result['grid_mapping_name'] = 'polar_stereographic'
    centre = 'straight_vertical_longitude_from_pole'
  result[centre] = float(told.get('lon_0', 0))
  parallels = [number(k) for k in ('lat_1', 'lat_2', 'lat_ts') if k in told]
  if parallels:
    result['standard_parallel'] = parallels if len(parallels) > 1 else parallels[0]
  scale = told.get('k', told.get('k_0'))
  if scale is not None:
    key = 'scale_factor_at_central_meridian' if kind == 'tmerc' else (
        'scale_factor_at_projection_origin')
    result[key] = float(scale)
  return result
