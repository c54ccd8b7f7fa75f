"""A forecast as files of the trade: IONEX 1.0 and NetCDF with the CF conventions.

NetCDF needs the extra `iono` or `data` (netCDF4); without it the other files are written.
"""

import pathlib
import shutil
import sys
import tempfile
from collections.abc import Mapping

import numpy as np

from stp_jax import netcdf as cf
from stp_jax import report
from stp_jax.data import georeference, ionex_writer
from stp_jax.data.clip_store import StoreError
from stp_jax.data.ionex_file import MISSING, Maps

EXTRA = "no NetCDF: netCDF4 is missing; pip install 'stp_jax[iono]'"
# 'TECU' is no unit that udunits knows.
_CF_UNITS = {'TECU': '1e16 m-2'}


def write(out, result: Mapping, card: Mapping) -> None:
  """Writes every file of a forecast, all or none.

  `forecast.npz`, `*_GIM.INX` (gridded TEC only), `forecast.nc` (with netCDF4), and with matplotlib
  `maps/lead_<hours>h.png` and `forecast.gif`. What could not be written is said in one line.

  Args:
    out: the folder; files of an earlier forecast there are replaced.
    result: of `predict.issue`. card: what headers and titles say: `name`, `step`, `cadence_hours`,
      `data`, see `report.forecast_maps`; `grid` and `licence` of the store.
  """
  out = pathlib.Path(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=out.parent) as folder:
    folder = pathlib.Path(folder)
    np.savez_compressed(folder / 'forecast.npz', **{
        k: v for k, v in result.items() if v is not None and k != 'fields'})
    try:
      ionex(folder, result, card)
    except StoreError as error:
      print(f'predict: no IONEX file: {error}', file=sys.stderr)
    for make, extra, modules in (
        (lambda: netcdf(folder, result, card), EXTRA, ('netCDF4', 'cftime')),
        (lambda: _pictures(folder, result, card), report.EXTRA, ('matplotlib', 'PIL'))):
      try:
        make()
      except ImportError as error:
        if (error.name or '').split('.')[0] not in modules:
          raise
        print(extra, file=sys.stderr)
    out.mkdir(exist_ok=True)
    for old in out.glob('*_GIM.INX'):  # of another issue time: its name would stay
      old.unlink()
    # The arrays last: where they lie, the forecast is whole.
    for path in sorted(folder.iterdir(), key=lambda p: p.name == 'forecast.npz'):
      target = out / path.name
      if target.is_dir():
        shutil.rmtree(target)
      path.replace(target)


def _pictures(folder: pathlib.Path, result: Mapping, card: Mapping) -> None:
  from stp_jax.report import forecast_maps
  # Of a radar, only what it sees: elsewhere a forecast is the net's habit.
  fields = result.get('fields')
  shown = result if fields is None else dict(result, forecast=fields[..., 0])
  forecast_maps.write(folder, card, shown)


def _gridded(result: Mapping) -> bool:
  shape = np.shape(result['forecast'])[1:]
  return all(result.get(k) is not None and len(result[k]) == n
             for k, n in zip(('latitude', 'longitude'), shape))


def ionex(folder: pathlib.Path, result: Mapping, card: Mapping) -> pathlib.Path | None:
  """Writes the forecast's TEC and RMS maps; None for frames that are no gridded TEC.

  Args:
    folder: exists.
    result: of `predict.issue`: `forecast` `[T, H, W]`, `times`, `latitude`, `longitude`, `units`,
      and `rms` `[T, H, W]` or None.
    card: `name`, `step`, `cadence_hours`, `data`; they make up the header.

  Raises:
    StoreError: a grid that the format cannot hold.
  """
  if result['units'] != 'TECU' or not _gridded(result):
    return None
  times = np.asarray(result['times'], 'datetime64[m]')
  minutes = round(card['cadence_hours'] * 60)
  tec = ionex_writer.quantised(result['forecast'])
  rms = result.get('rms')
  rms = np.full_like(tec, MISSING) if rms is None else ionex_writer.quantised(rms)
  maps = Maps(times, tec, rms, tuple(result['latitude']), tuple(result['longitude']), minutes)
  maps = _north_first(maps)
  days = -(-len(times) * minutes // 1440)
  issued = str(result['issue_time'])
  lines = [f'Forecast of vertical TEC issued {issued} UT',
           f'by the network {card["name"]}, step {card["step"]}',
           *(f'from {d["description"]}' for d in card['data'])]
  comments = [f'RMS: {result["rms_source"]}'[i:i + 60] for i in range(
      0, len(f'RMS: {result["rms_source"]}'), 60)] if result.get('rms_source') else []
  return ionex_writer.write(
      folder / ionex_writer.name('STP', times[0], days, minutes), maps, run_by=card['name'],
      description=lines, comments=comments)


def _north_first(maps: Maps) -> Maps:
  if maps.latitude[0] > maps.latitude[-1]:
    return maps
  return Maps(maps.epochs, maps.tec[:, ::-1], maps.rms[:, ::-1], maps.latitude[::-1],
              maps.longitude, maps.interval)


def netcdf(folder: pathlib.Path, result: Mapping, card: Mapping) -> pathlib.Path:
  """Writes `forecast.nc`: `tec` (or `frame`), `rms`, `spread` `[time, latitude, longitude]`.

  Raises:
    ImportError: netCDF4 is not installed.
  """
  import netCDF4
  path, grid = folder / 'forecast.nc', card.get('grid', {})
  fields = result.get('fields')
  if fields is not None and georeference.is_placed(grid) and (
      'x' in grid or fields.shape[-1] > 1):  # a radar's projection, or several variables
    return cf.write(
        path, fields, result['times'], np.datetime64(result['issue_time'], 'm'), grid,
        units=result['units'], cadence_hours=card['cadence_hours'], **cf.words(card))
  forecast = np.asarray(result['forecast'], np.float32)
  times = np.asarray(result['times'], 'datetime64[m]')
  issued = np.datetime64(result['issue_time'], 'm')
  electrons = result['units'] == 'TECU'
  name = 'tec' if electrons else 'frame'
  gridded = _gridded(result)
  axes = ('latitude', 'longitude') if gridded else ('row', 'column')
  units = _CF_UNITS.get(result['units'], result['units'])
  with netCDF4.Dataset(path, 'w', format='NETCDF4') as file:
    file.setncatts(dict(
        Conventions='CF-1.8', title=f'Forecast of {card["name"]}',
        source=f'stp_jax, network {card["name"]}, step {card["step"]}, from '
               + '; '.join(d['description'] for d in card['data']),
        history=f'issued {issued} UT'))
    for axis, size in zip(('time', *axes), forecast.shape):
      file.createDimension(axis, size)
    epoch = np.datetime64('1970-01-01', 'm')
    numbers = lambda t: (t - epoch).astype(np.int64).astype(float) / 60
    clock = dict(units='hours since 1970-01-01 00:00:00', calendar='standard')
    _variable(file, 'time', ('time',), 'f8', numbers(times), standard_name='time', axis='T',
              **clock)
    _variable(file, 'forecast_reference_time', (), 'f8', numbers(issued),
              standard_name='forecast_reference_time', **clock)
    _variable(file, 'forecast_period', ('time',), 'f8', (times - issued).astype(float) / 60,
              standard_name='forecast_period', units='hours')
    if gridded:
      for axis, unit, letter in (('latitude', 'degrees_north', 'Y'),
                                 ('longitude', 'degrees_east', 'X')):
        _variable(file, axis, (axis,), 'f8', np.asarray(result[axis], float), standard_name=axis,
                  units=unit, axis=letter)
    more = dict(coordinates='forecast_reference_time forecast_period', units=units)
    scale = 'TECU (1e16 electrons per square metre)' if electrons else result['units']
    what = 'vertical total electron content' if electrons else 'frame'
    for key, values, text in (
        (name, forecast, f'{what}, {scale}'),
        ('rms', result.get('rms'), f'expected root mean square error, {scale}'),
        ('spread', result.get('spread'), f'standard deviation of the ensemble, {scale}')):
      if values is None:
        continue
      extra = dict(comment=result['rms_source']) if key == 'rms' else {}
      if key == name:
        extra['ancillary_variables'] = ' '.join(
            k for k in ('rms', 'spread') if result.get(k) is not None)
      extra = {k: v for k, v in extra.items() if v}
      _variable(file, key, ('time', *axes), 'f4', np.asarray(values, np.float32), fill=True,
                long_name=text, **more, **extra)
  return path


def _variable(file, name, dimensions, kind, values, fill: bool = False, **attributes) -> None:
  made = file.createVariable(name, kind, dimensions, zlib=bool(dimensions),
                             fill_value=np.float32(np.nan) if fill else None)
  made.setncatts(attributes)
  made[...] = values
