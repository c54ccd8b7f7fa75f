"""Where pixels lie: through crops, blocks and sizes; proj4 strings as CF; KNMI's corners."""

import numpy as np
import pytest

from stp_jax.data import folder, georeference, radar_files

KNMI = ('+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752 +x_0=0 +y_0=0')


def test_coordinates_follow_the_pixels():
  grid = dict(x=np.arange(12.0).tolist(), y=(-np.arange(8.0)).tolist(), xy_units='km',
              pixel_km=1.0, projection=KNMI)
  cut = georeference.shaped(grid, slice(2, 8), slice(4, 12), block=2)
  assert cut['y'] == [-2.5, -4.5, -6.5] and cut['x'] == [4.5, 6.5, 8.5, 10.5]
  assert cut['pixel_km'] == 2.0 and cut['projection'] == KNMI
  sized = georeference.shaped(grid, size=(4, 24))
  np.testing.assert_allclose(sized['y'], [-0.5, -2.5, -4.5, -6.5])
  # Smaller pixels reach to the outer edges: their centres lie outside those of the larger ones.
  np.testing.assert_allclose(sized['x'][:3], [-0.25, 0.25, 0.75])
  assert grid['x'][0] == 0.0 and georeference.shaped({}, size=(4, 4)) == {}
  assert georeference.is_placed(sized) and not georeference.is_placed(dict(projection=KNMI))


@pytest.mark.parametrize('text, expected', [
    (KNMI, dict(grid_mapping_name='polar_stereographic', latitude_of_projection_origin=90.0,
                straight_vertical_longitude_from_pole=0.0, standard_parallel=60.0,
                semi_major_axis=6378137.0, semi_minor_axis=6356752.0, false_easting=0.0,
                false_northing=0.0)),
    ('+proj=lcc +lat_1=30 +lat_2=60 +lat_0=46 +lon_0=9 +ellps=WGS84',
     dict(grid_mapping_name='lambert_conformal_conic', standard_parallel=[30.0, 60.0],
          latitude_of_projection_origin=46.0, longitude_of_central_meridian=9.0,
          semi_major_axis=6378137.0, inverse_flattening=298.257223563)),
    (dict(grid_mapping_name='albers_conical_equal_area', standard_parallel=[-18.0, -36.0]),
     dict(grid_mapping_name='albers_conical_equal_area', standard_parallel=[-18.0, -36.0])),
    ('+proj=robin +lon_0=0', {}), ('', {})])
def test_projections_as_cf(text, expected):
  assert georeference.cf_mapping(text) == expected


def _degrees(x, y):
  """Latitude and longitude of KNMI's plane (polar stereographic, Snyder 1987, eq. 20-16 ff.)."""
  a, b, scale = 6378.137, 6356.752, np.deg2rad(60)
  e = np.sqrt(1 - (b / a) ** 2)
  t = lambda p: np.tan(np.pi / 4 - p / 2) / ((1 - e * np.sin(p)) / (1 + e * np.sin(p))) ** (e / 2)
  m = np.cos(scale) / np.sqrt(1 - (e * np.sin(scale)) ** 2)
  level = np.hypot(x, y) * t(scale) / (a * m)
  lat = np.pi / 2 - 2 * np.arctan(level)
  for _ in range(10):
    lat = np.pi / 2 - 2 * np.arctan(
        level * ((1 - e * np.sin(lat)) / (1 + e * np.sin(lat))) ** (e / 2))
  return np.rad2deg(lat), np.rad2deg(np.arctan2(x, -y))


def test_the_corners_of_a_real_composite(realdata):
  h5py = pytest.importorskip('h5py')
  path = sorted((realdata / 'radar' / 'knmi').iterdir())[0]
  grid = radar_files.read(path, 'knmi', pixels=False).grid
  with h5py.File(path) as file:
    lon, lat = file['geographic'].attrs['geo_product_corners'].reshape(4, 2).T
  half = 0.5  # the corners are those of the outer pixels
  for corner, (x, y) in enumerate([(grid['x'][0] - half, grid['y'][-1] - half),
                                   (grid['x'][0] - half, grid['y'][0] + half),
                                   (grid['x'][-1] + half, grid['y'][0] + half),
                                   (grid['x'][-1] + half, grid['y'][-1] - half)]):
    np.testing.assert_allclose(_degrees(x, y), (lat[corner], lon[corner]), atol=2e-3)


def test_own_projected_netcdf_keeps_its_places(tmp_path):
  """`prepare folder` of a CF file: coordinates, mapping and the variable's names, resized."""
  xarray = pytest.importorskip('xarray')
  pytest.importorskip('netCDF4')
  times = np.datetime64('2020-01-01', 'ns') + np.arange(12) * np.timedelta64(10, 'm')
  plane = lambda axis, n: (axis, np.arange(float(n))[::-1 if axis == 'y' else 1] * 1000.0, dict(
      standard_name=f'projection_{axis}_coordinate', units='m'))
  rain = np.random.default_rng(0).random((12, 16, 20)).astype(np.float32)
  xarray.Dataset(
      dict(rate=(('time', 'y', 'x'), rain, dict(
          units='mm h-1', standard_name='rainfall_rate', grid_mapping='crs')),
          crs=((), 0, dict(grid_mapping_name='albers_conical_equal_area',
                           standard_parallel=[-18.0, -36.0]))),
      dict(time=times, y=plane('y', 16), x=plane('x', 20))).to_netcdf(tmp_path / 'a.nc')
  store = folder.prepare(in_dir=tmp_path / 'a.nc', out=tmp_path / 's', size='32x20',
                         variable='rate', window=4)
  grid = store.meta['grid']
  assert len(grid['y']) == 32 and len(grid['x']) == 20 and grid['xy_units'] == 'm'
  assert grid['projection']['standard_parallel'] == [-18.0, -36.0]
  assert grid['variable'] == dict(name='rate', standard_name='rainfall_rate', units='mm h-1')
  assert georeference.is_placed(grid) and store.streams['frames'].units == 'mm h-1'
