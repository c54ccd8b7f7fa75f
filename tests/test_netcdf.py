"""Forecasts as CF NetCDF, read again with xarray."""

import numpy as np
import pytest

from stp_jax import netcdf

xarray = pytest.importorskip('xarray')
netCDF4 = pytest.importorskip('netCDF4')
TIMES = np.datetime64('2010-08-26T01:05', 'm') + 5 * np.arange(3)
PLANE = dict(x=[0.5, 1.5, 2.5, 3.5], y=[-10.5, -11.5], xy_units='km',
             projection='+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378.137 +b=6356.752')
DEGREES = dict(latitude=[60.0, 50.0], longitude=[0.0, 10.0, 20.0, 30.0])


def _write(path, grid, channels=1, units='mm', **more):
  forecast = np.random.default_rng(0).random((3, 2, 4, channels)).astype(np.float32)
  forecast[:, 0, 0] = np.nan
  netcdf.write(path, forecast, TIMES, np.datetime64('2010-08-26T01:00'), grid, units=units,
               cadence_hours=1 / 12, title='t', **more)
  return forecast


def test_a_projected_nowcast(tmp_path):
  forecast = _write(tmp_path / 'f.nc', PLANE, licence='open')
  with xarray.open_dataset(tmp_path / 'f.nc', decode_timedelta=False) as data:
    rain = data['precipitation']
    assert rain.dims == ('time', 'y', 'x') and rain.attrs['units'] == 'mm'
    assert rain.attrs['standard_name'] == 'lwe_thickness_of_precipitation_amount'
    np.testing.assert_array_equal(rain.values, forecast[..., 0])
    np.testing.assert_array_equal(data['time'].values.astype('M8[m]'), TIMES)
    np.testing.assert_array_equal(data['lead_time'].values, [5, 10, 15])
    assert data['lead_time'].attrs['standard_name'] == 'forecast_period'
    assert data['forecast_reference_time'].values == np.datetime64('2010-08-26T01:00')
    np.testing.assert_array_equal(data['y'].values, PLANE['y'])
    assert data['y'].attrs['standard_name'] == 'projection_y_coordinate'
    assert data['x'].attrs['units'] == 'km' and data.attrs['Conventions'] == 'CF-1.8'
    assert data['crs'].attrs['grid_mapping_name'] == 'polar_stereographic'
    assert data['crs'].attrs['standard_parallel'] == 60 and data.attrs['license'] == 'open'
  with netCDF4.Dataset(tmp_path / 'f.nc') as file:
    told = file['precipitation']
    assert told.grid_mapping == 'crs' and told._FillValue == netcdf.FILL
    told.set_auto_mask(False)
    assert (told[:, 0, 0] == netcdf.FILL).all() and not hasattr(file['x'], '_FillValue')


def test_degrees_and_named_variables(tmp_path):
  names = [dict(name='u10', units='m s-1', standard_name='eastward_wind'),
           dict(name='v10', units='m s-1', long_name='northward wind')]
  forecast = _write(tmp_path / 'f.nc', dict(DEGREES, variables=names), channels=2, units='m s-1')
  with xarray.open_dataset(tmp_path / 'f.nc', decode_timedelta=False) as data:
    assert data['u10'].dims == ('time', 'latitude', 'longitude')
    assert data['u10'].attrs['standard_name'] == 'eastward_wind'
    np.testing.assert_array_equal(data['v10'].values, forecast[..., 1])
    assert data['latitude'].attrs['units'] == 'degrees_north' and 'crs' not in data


@pytest.mark.parametrize('units, name, written', [
    ('dBZ', 'reflectivity', 'dBZ'), ('mm/h', 'precipitation_rate', 'mm h-1'),
    ('TECU', 'tec', '1e16 m-2'), ('of full scale', 'forecast', '1'), ('K', 'forecast', 'K')])
def test_units_as_udunits_writes_them(units, name, written):
  assert netcdf.variables({}, units, 1)[0][:2] == (name, written)


def test_what_has_no_place_is_one_line_and_leaves_nothing(tmp_path):
  with pytest.raises(ValueError, match='no georeference'):
    _write(tmp_path / 'f.nc', {})
  with pytest.raises(ValueError, match='2x4 pixels, but the grid has 3x4'):
    _write(tmp_path / 'f.nc', dict(DEGREES, latitude=[1.0, 2.0, 3.0]))
  assert not list(tmp_path.iterdir())
