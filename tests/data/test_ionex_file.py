"""The IONEX reader: values, orientation, packing, and what it says about bad files."""

import gzip
import re
import time

import ionex_text
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import ionex_file
from stp_jax.data.clip_store import StoreError


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


def _changed(old, new, count=1):
  return lambda text: text.replace(old, new, count)


BAD = {
    'empty': (lambda t: '', 'empty file'),
    'login page': (lambda t: '\n<!DOCTYPE html><html>Earthdata Login</html>'.lstrip(), 'web page'),
    'other text': (lambda t: 'hello\nworld\n', ':1: no IONEX file'),
    'navigation file': (_changed('IONOSPHERE', 'NAVIGATION'), ':1: no IONEX file'),
    'cut in the header': (lambda t: t[:300], 'ends inside the header'),
    'cut in a map': (lambda t: t[:2500], '1 TEC maps, the header promises 13|between maps'),
    'cut between maps': (lambda t: t[:t.index('     5' + ' ' * 54 + 'START')],
                         '4 TEC maps, the header promises 13'),
    'more maps promised': (_changed('    13', '    25'), '13 TEC maps, the header promises 25'),
    'fewer maps promised': (_changed('    13  ', '     4  '), 'more maps than the 4 of the header'),
    'a billion maps': (_changed('    13  ', '999999  '), 'OF MAPS IN FILE is 999999'),
    'no map count': (_changed('# OF MAPS IN FILE', 'COMMENT'), 'lacks # OF MAPS'),
    'zero step': (_changed(' -20.0  ', '   0.0  '), 'LAT1 / LAT2 / DLAT'),
    'tiny step': (_changed('  60.0  ', '  0.01  '), 'LON1|LON2|longitudes'),
    'latitude of 400': (_changed('  40.0 -40.0', ' 400.0 -40.0'), 'is no grid'),
    'not a number': (_changed('  40.0 -40.0', '   nan -40.0'), "'   nan', not a sensible number"),
    'exponent 30': (_changed('    -1', '    30'), 'EXPONENT 30'),
    'three dimensions': (_changed('     2  ', '     3  '), 'three-dimensional'),
    'month 13': (_changed('  2012    11', '  2012    13'), 'not a date'),
    'year 1': (_changed('  2012    11', '     1    11'), 'not a date'),
    'maps out of order': (
        _changed('  2012    11    18     4', '  2012    11    18     1'), 'does not follow'),
    'letters in a row': (lambda t: re.sub('(DLON/H\n)....', r'\1 1x1', t, count=1),
                         ':14: values are not 16 integers'),
    'shifted row': (lambda t: t.replace('LON1/LON2/DLON/H\n', 'LON1/LON2/DLON/H\n ', 1),
                    '7 values in 35 characters'),
    'latitude twice': (lambda t: t.replace('    20.0-180', '    40.0-180', 1), 'comes twice'),
    'latitude off grid': (lambda t: t.replace('    20.0-180', '    25.0-180', 1), 'not on the'),
    'latitude lost': (lambda t: _without(t, '    20.0-180'), 'lacks latitude 20'),
    'other longitudes': (lambda t: t.replace('    20.0-180.0', '    20.0-170.0', 1), 'not those'),
    'a line of a megabyte': (lambda t: t + 'x' * 1_000_000, 'more than 1000 characters'),
    'junk between maps': (_changed('END OF TEC MAP      \n', 'END OF TEC MAP\njunk\n'), 'unexpected line'),
}


def _without(text: str, begin: str) -> str:
  lines = text.split('\n')
  i = next(i for i, line in enumerate(lines) if line.startswith(begin))
  return '\n'.join(lines[:i] + lines[i + 2:])


@pytest.mark.parametrize('case', BAD)
def test_bad_file_gets_one_line_that_names_it(tmp_path, case):
  change, message = BAD[case]
  path = tmp_path / 'codg3230.12i'
  text = ionex_text.text()
  path.write_text(change(text))
  assert change(text) != text
  with pytest.raises(StoreError, match=message) as caught:
    ionex_file.read(path)
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_value_too_large_and_rms_maps_that_lack(tmp_path):
  with pytest.raises(StoreError, match=r'TEC of 9.99e\+06 TECU is not credible|is not credible'):
    _read(tmp_path, count=1, tec=np.full((1, 5, 7), 9998), exponent=2)
  with pytest.raises(StoreError, match='3 RMS maps for 13 TEC maps'):
    _read(tmp_path, rms=np.full((3, 5, 7), 9))


def test_damaged_gzip(tmp_path):
  packed = gzip.compress(ionex_text.text().encode())
  path = tmp_path / 'codg3230.12i.gz'
  path.write_bytes(packed[:len(packed) // 2])
  with pytest.raises(StoreError, match='ends early'):
    ionex_file.read(path)
  path.write_bytes(packed[:200] + b'\0\0\0\0' + packed[204:])
  with pytest.raises(StoreError, match=r'damaged packed file|unexpected|characters|integers'):
    ionex_file.read(path)
  # the checksum stands behind END OF FILE
  path.write_bytes(packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:])
  with pytest.raises(StoreError, match='damaged packed file'):
    ionex_file.read(path)


def test_a_packed_bomb_is_refused_in_bounded_time(tmp_path):
  path = tmp_path / 'codg3230.12i.gz'
  begin = time.monotonic()
  path.write_bytes(gzip.compress(b'\n' * 50_000_000))
  with pytest.raises(StoreError, match='no IONEX file'):
    ionex_file.read(path)
  head = ionex_text.text().split('END OF HEADER')[0].rstrip(' ')
  path.write_bytes(gzip.compress(head.encode() + b'\n' * 20_000_000))
  with pytest.raises(StoreError, match='header does not end'):
    ionex_file.read(path)
  assert time.monotonic() - begin < 20


_TEXT = ionex_text.text(count=3, rms=np.full((3, 5, 7), 9)).encode()
_PACKED = gzip.compress(_TEXT, mtime=0)


def _outcome(path):
  try:
    return ionex_file.read(path)
  except StoreError as error:
    assert str(path) in str(error) and '\n' not in str(error)
    return None


@settings(max_examples=150, deadline=2000)
@given(cut=st.integers(0, len(_PACKED) - 1))
def test_truncated_gzip_is_never_read(tmp_path_factory, cut):
  path = tmp_path_factory.getbasetemp() / 'codg3230.12i.gz'
  path.write_bytes(_PACKED[:cut])
  assert _outcome(path) is None


@settings(max_examples=150, deadline=2000)
@given(cut=st.integers(0, len(_TEXT) - 1))
def test_truncated_text_is_an_error_or_the_same_values(tmp_path_factory, cut):
  path = tmp_path_factory.getbasetemp() / 'codg3230.12i'
  path.write_bytes(_TEXT)
  whole = ionex_file.read(path)
  path.write_bytes(_TEXT[:cut])
  maps = _outcome(path)
  if maps is not None:  # the RMS maps may be gone altogether: a file without them is legal
    np.testing.assert_array_equal(maps.tec, whole.tec)
    assert (maps.rms == whole.rms).all() or (maps.rms == 65535).all()


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.tuples(st.integers(0, len(_TEXT) - 1), st.integers(0, 255)), min_size=1,
                max_size=4))
def test_flipped_bytes_never_crash_the_reader(tmp_path_factory, flips):
  changed = bytearray(_TEXT)
  for at, byte in flips:
    changed[at] = byte
  path = tmp_path_factory.getbasetemp() / 'codg3230.12i'
  path.write_bytes(bytes(changed))
  maps = _outcome(path)
  assert maps is None or maps.tec.dtype == np.uint16


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
