"""Forecasts as NetCDF files by the CF conventions 1.8. Needs the extra `data` (xarray, netCDF4).

  time                     when each map is valid
  lead_time                how long after issue, along time (standard_name forecast_period)
  forecast_reference_time  when it was issued: the last map that it had seen
  y, x and crs             kilometres or metres of a projection; or latitude and longitude
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from stp_jax import files
from stp_jax.data import georeference
from stp_jax.metrics.events import known_units

EXTRA = "no NetCDF: xarray or netCDF4 is missing; pip install 'stp_jax[data]'"
FILL = np.float32(9.96921e36)  # netCDF's own for float32
# Name, units as UDUNITS writes them, attributes.
_KNOWN = {
    'dBZ': ('reflectivity', 'dBZ', dict(standard_name='equivalent_reflectivity_factor')),
    'mm': ('precipitation', 'mm', dict(
        standard_name='lwe_thickness_of_precipitation_amount', cell_methods='time: sum')),
    'mm/h': ('precipitation_rate', 'mm h-1', dict(standard_name='lwe_precipitation_rate')),
    'TECU': ('tec', '1e16 m-2', dict(long_name='vertical total electron content'))}


def missing() -> str:
  """Why no file can be written, in one line; '' where it can."""
  try:
    import netCDF4  # noqa: F401
    import xarray  # noqa: F401
  except ImportError:
    return EXTRA
  return ''


def words(card: Mapping[str, Any]) -> dict[str, str]:
  """Global attributes from a forecast's card: `name`, `step`, `data`, `licence`."""
  data = '; '.join(f'{d.get("name", "")}: {d.get("description", "")}' for d in card['data'])
  return dict(title=f'Forecast of {card["name"]}, step {card["step"]}',
              source=f'stp_jax, a neural network, from {data}', licence=card.get('licence', ''))


def variables(grid: Mapping[str, Any], units: str, channels: int) -> list[tuple[str, str, dict]]:
  """(name, units, attributes) of every channel: what the store tells, else what its units mean."""
  name, written, told = _KNOWN.get(known_units(units) or units, (
      'forecast', '1' if units in ('', 'of full scale') else units, {}))
  listed = list(grid.get('variables') or ([grid['variable']] if 'variable' in grid else []))
  result = []
  for i in range(channels):
    own = dict(listed[i]) if i < len(listed) else {}
    plain = name if channels == 1 else f'{name}_{i + 1}'
    own_name = str(own.pop('name', plain))
    attributes = {k: v for k, v in own.items() if k in ('standard_name', 'long_name') and v}
    result.append((own_name, str(own.get('units') or written), attributes or dict(told)))
  return result


def dataset(
    forecast: np.ndarray, times: np.ndarray, issued: np.datetime64, grid: Mapping[str, Any], *,
    units: str, cadence_hours: float, title: str = '', source: str = '', licence: str = '',
):
  """A CF dataset.

  Args:
    forecast: `[T, H, W, C]`, NaN where there is no value. times: datetime64 `[T]`, of validity.
    issued: time of the last input map. grid: see `data.georeference`. units: of the store.

  Returns:
    `xarray.Dataset`; each variable has the dimensions time and y, x or latitude, longitude.

  Raises:
    ValueError: a grid that places no pixels, or of another size.
  """
  import xarray
  if not georeference.is_placed(grid):
    raise ValueError('the store has no georeference: neither latitudes nor projected coordinates')
  projected = 'x' in grid and 'y' in grid
  rows, columns = ('y', 'x') if projected else ('latitude', 'longitude')
  sizes = len(grid[rows]), len(grid[columns])
  if forecast.shape[1:3] != sizes:
    raise ValueError(f'forecast of {forecast.shape[1]}x{forecast.shape[2]} pixels, but the grid '
                     f'has {sizes[0]}x{sizes[1]}')
  issued = np.datetime64(issued, 'm')
  leads = (np.asarray(times, 'datetime64[m]') - issued).astype(float)
  coordinates: dict[str, Any] = {
      'time': ('time', np.asarray(times, 'datetime64[ns]'),
               dict(standard_name='time', axis='T')),
      'lead_time': ('time', leads, dict(
          standard_name='forecast_period', long_name='time since issue', units='minutes')),
      'forecast_reference_time': ((), issued.astype('datetime64[ns]'), dict(
          standard_name='forecast_reference_time', long_name='time of issue'))}
  data, attached = {}, {}
  if projected:
    for name, axis in (('x', 'X'), ('y', 'Y')):
      coordinates[name] = (name, np.asarray(grid[name], float), dict(
          standard_name=f'projection_{name}_coordinate', units=grid.get('xy_units', 'm'),
          axis=axis))
    mapping = georeference.cf_mapping(grid.get('projection', ''), grid.get('xy_units', 'm'))
    if mapping:
      if isinstance(grid['projection'], str):
        mapping['proj4_params'] = grid['projection']
      data['crs'] = ((), np.int32(0), mapping)
      attached = dict(grid_mapping='crs')
  else:
    for name, unit, axis in (('latitude', 'degrees_north', 'Y'),
                             ('longitude', 'degrees_east', 'X')):
      coordinates[name] = (name, np.asarray(grid[name], float), dict(
          standard_name=name, units=unit, axis=axis))
  for i, (name, unit, told) in enumerate(variables(grid, units, forecast.shape[-1])):
    data[name] = (('time', rows, columns), forecast[..., i].astype(np.float32),
                  dict(told, units=unit, **attached))
  made = xarray.Dataset(data, coordinates, dict(
      Conventions='CF-1.8', title=title, source=source, license=licence,
      time_step=f'{60 * cadence_hours:g} minutes'))
  since = f'minutes since {str(issued).replace("T", " ")}:00'
  for name in ('time', 'forecast_reference_time'):
    made[name].encoding = dict(units=since, dtype='int64', calendar='standard', _FillValue=None)
  for name in made.variables:
    if name not in ('time', 'forecast_reference_time'):
      field = name in made.data_vars and name != 'crs'
      made[name].encoding = dict(_FillValue=FILL if field else None, **(
          dict(zlib=True, dtype='float32') if field else {}))
  return made


def write(path: pathlib.Path, *args, **kwargs) -> pathlib.Path:
  """Writes `dataset(...)`; the file is whole or not there."""
  with files.whole(path) as partial:
    dataset(*args, **kwargs).to_netcdf(partial, engine='netcdf4')
  return path
