"""The IONEX reader on bad, cut and damaged files: one line that names the file, never a crash."""

import gzip
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import ionex_file
from stp_jax.data.clip_store import StoreError
from tests.data import ionex_text


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
    'junk between maps': (_changed('END OF TEC MAP      \n', 'END OF TEC MAP\njunk\n'),
                          'unexpected line'),
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
