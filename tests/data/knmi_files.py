"""Radar composites in KNMI's HDF5 layout, made for tests."""

import numpy as np
import pytest

h5py = pytest.importorskip('h5py')

_MONTHS = 'JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC'.split()


def field(seed, size):
  return np.random.default_rng(seed).integers(0, 300, size).astype(np.uint16)


def write(folder, time, *, size=(8, 12), missing=True, formula='GEO=0.01*PV+0.0', seed=0,
          raw=None):
  """A file in KNMI's layout of these pixels, or random ones; returns them."""
  end = np.datetime64(time, 'm')
  raw = field(seed, size) if raw is None else raw
  raw[:, -2:] = 65535 if missing else 7
  word = lambda t: np.bytes_(f'{str(t)[8:10]}-{_MONTHS[int(str(t)[5:7]) - 1]}-{str(t)[:4]};'
                             f'{str(t)[11:]}:00.000')
  name = folder / f'RAD_NL25_{str(end).replace(":", "")}.h5'
  with h5py.File(name, 'w') as file:
    overview = file.create_group('overview').attrs
    overview['product_datetime_start'] = [word(end - np.timedelta64(5, 'm'))]
    overview['product_datetime_end'] = [word(end)]
    file['image1/image_data'] = raw
    file['image1'].attrs['image_geo_parameter'] = np.bytes_('ACCUMULATED_PRECIPITATION_[MM]')
    told = file.create_group('image1/calibration').attrs
    told['calibration_formulas'] = np.bytes_(formula)
    told['calibration_missing_data'] = told['calibration_out_of_image'] = [65535]
    place = file.create_group('geographic').attrs
    for key, value in dict(geo_column_offset=0.0, geo_row_offset=3650.0, geo_pixel_size_x=1.0,
                           geo_pixel_size_y=-1.0).items():
      place[key] = np.float32([value])
    place['geo_pixel_def'] = np.bytes_('LU')
    file.create_group('geographic/map_projection').attrs['projection_proj4_params'] = np.bytes_(
        '+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752 +x_0=0 +y_0=0')
  return raw
