"""The IONEX reader: values, orientation, packing; bad files are in test_ionex_damage.py."""

import gzip

import numpy as np
import pytest

from stp_jax.data import ionex_file
from stp_jax.data.clip_store import StoreError
from tests.data import ionex_text


def _read(tmp_path, name='codg3230.12i', negative='error', **options) -> ionex_file.Maps:
  return ionex_file.read(ionex_text.write(tmp_path, name, **options), negative)


def test_values_epochs_and_axes(tmp_path):
  tec = np.arange(13 * 35).reshape(13, 5, 7)
  tec[2, 1, 3] = 9999
  maps = _read(tmp_path, tec=tec, rms=tec[::-1] % 90)
  assert maps.tec.shape == (13, 5, 6) and maps.tec.dtype == np.uint16
  expected = np.where(tec == 9999, 65535, tec)[:, :, :6]
  np.testing.assert_array_equal(maps.tec, expected)
  np.testing.assert_array_equal(maps.rms, (tec[::-1] % 90)[:, :, :6])
  np.testing.assert_array_equal(
      maps.epochs, np.datetime64('2012-11-18', 'm') + np.arange(13) * np.timedelta64(120, 'm'))
  assert maps.latitude == (40, 20, 0, -20, -40)
  assert maps.longitude == (-180, -120, -60, 0, 60, 120)
  assert maps.interval == 120


def test_no_rms_maps_give_missing_values(tmp_path):
  assert (_read(tmp_path).rms == 65535).all()


@pytest.mark.parametrize('header, inside, factor', [(-1, None, 1), (0, None, 10), (-2, None, 0.1),
                                                    (-1, 0, 10), (0, -1, 1)])
def test_exponents(tmp_path, header, inside, factor):
  tec = np.full((2, 5, 7), 40)
  tec[0, 0, 0] = 9999  # missing whatever the exponent
  maps = _read(tmp_path, count=2, tec=tec, exponent=header, map_exponent=inside)
  assert maps.tec[0, 0, 0] == 65535
  assert (maps.tec[1] == round(40 * factor)).all()


def test_orientation_south_first_and_from_greenwich(tmp_path):
  tec = np.arange(35).reshape(1, 5, 7)
  maps = _read(tmp_path, count=1, tec=tec, latitudes=(-40.0, 40.0, 20.0),
               longitudes=(0.0, 360.0, 60.0))
  assert maps.latitude == (40, 20, 0, -20, -40)
  assert maps.longitude == (-180, -120, -60, 0, 60, 120)
  np.testing.assert_array_equal(maps.tec[0, 0], [31, 32, 33, 28, 29, 30])


def test_regional_grid_over_the_date_line_is_not_torn(tmp_path):
  maps = _read(tmp_path, count=1, longitudes=(160.0, 200.0, 10.0))
  assert maps.longitude == (160, 170, 180, 190, 200)


def test_wide_rows_need_several_lines(tmp_path):
  tec = np.arange(5 * 73).reshape(1, 5, 73)
  maps = _read(tmp_path, count=1, tec=tec, longitudes=(-180.0, 180.0, 5.0))
  np.testing.assert_array_equal(maps.tec[0], tec[0, :, :72])


def test_height_maps_and_a_missing_end_of_file_are_accepted(tmp_path):
  maps = _read(tmp_path, height=True, end=False)
  assert len(maps.epochs) == 13


def test_hour_24_is_the_next_midnight(tmp_path):
  text = ionex_text.text().replace('  2012    11    19     0', '  2012    11    18    24')
  (tmp_path / 'a.12i').write_text(text)
  assert ionex_file.read(tmp_path / 'a.12i').epochs[-1] == np.datetime64('2012-11-19T00:00')


def test_gzip_is_told_by_content(tmp_path):
  plain = _read(tmp_path)
  for name in ('codg3230.12i.gz', 'codg3230.12i.Z'):
    (tmp_path / name).write_bytes(gzip.compress(ionex_text.text().encode()))
    np.testing.assert_array_equal(ionex_file.read(tmp_path / name).tec, plain.tec)


def test_negative_values(tmp_path):
  tec = np.full((1, 5, 7), 40)
  tec[0, 2, 1] = -3
  with pytest.raises(StoreError, match=r'codg3230.12i:\d+: negative TEC -3'):
    _read(tmp_path, count=1, tec=tec)
  assert _read(tmp_path, count=1, tec=tec, negative='zero').tec[0, 2, 1] == 0
  assert _read(tmp_path, count=1, tec=tec, negative='missing').tec[0, 2, 1] == 65535


def test_value_too_large_and_rms_maps_that_lack(tmp_path):
  with pytest.raises(StoreError, match=r'TEC of 9.99e\+06 TECU is not credible|is not credible'):
    _read(tmp_path, count=1, tec=np.full((1, 5, 7), 9998), exponent=2)
  with pytest.raises(StoreError, match='3 RMS maps for 13 TEC maps'):
    _read(tmp_path, rms=np.full((3, 5, 7), 9))


COUNTS = {
    'CKMG0020.22I.gz': 25, 'CKMG0080.09I.gz': 13, 'CKMG0090.21I.gz': 25, 'CODG0080.20I.gz': 25}


def test_every_real_file_is_read(realdata):
  files = sorted((realdata / 'tec').iterdir())
  assert len(files) == 20
  for path in files:
    maps = ionex_file.read(path)
    assert maps.tec.shape == (COUNTS.get(path.name, 13), 71, 72), path.name
    assert maps.latitude[0] == 87.5 and maps.latitude[-1] == -87.5
    assert maps.longitude[0] == -180 and maps.longitude[-1] == 175
    assert 0 < maps.tec.mean() < 600 and maps.tec.max() < 1300
    assert (maps.rms == 65535).all() == path.name.startswith('CKMG')


def test_real_values(realdata):
  """The first row printed in CODE's file of 18 November 2012, and the peak of 13 February 2012."""
  maps = ionex_file.read(realdata / 'tec' / 'CODG3230.12I.gz')
  np.testing.assert_array_equal(maps.tec[0, 0, :8], [123, 124, 125, 126, 127, 127, 128, 128])
  peaks = ionex_file.read(realdata / 'tec' / 'CODG0440.12I').tec.max((1, 2))
  np.testing.assert_array_equal(  # as its header lists them
      peaks, [816, 798, 755, 709, 738, 766, 640, 688, 744, 712, 756, 744, 789])
