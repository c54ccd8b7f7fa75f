"""The IONEX writer: the reader returns what was written, and the header is a valid one."""

import datetime
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stp_jax.data import ionex_file, ionex_folder, ionex_writer
from stp_jax.data.clip_store import StoreError
from stp_jax.data.ionex_file import MISSING, Maps


def _maps(count=3, latitude=(40., 20., 0., -20.), longitude=(-180., -60., 60.), seed=0, hours=2):
  draw = np.random.default_rng(seed).integers(0, 1500, (2, count, len(latitude), len(longitude)))
  epochs = np.datetime64('2012-11-20T02:00', 'm') + np.arange(count) * np.timedelta64(60 * hours)
  return Maps(epochs, *draw.astype(np.uint16), tuple(latitude), tuple(longitude), 60 * hours)


def _equal(one: Maps, other: Maps):
  for field in ('epochs', 'tec', 'rms'):
    np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
  assert (one.latitude, one.longitude) == (other.latitude, other.longitude)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_maps_come_back_exactly(tmp_path_factory, data):
  rows, columns, count = (data.draw(st.integers(2, n)) for n in (5, 40, 3))
  step = data.draw(st.sampled_from([0.5, 2.5, 5.0]))
  shape = (count, rows, columns)
  values = st.integers(0, 65535).filter(lambda v: v not in (9999,))
  tec, rms = (data.draw(hnp.arrays(np.uint16, shape, elements=values, fill=st.just(MISSING)))
              for _ in range(2))
  lat = tuple(float(np.round(60 - step * i, 4)) for i in range(rows))
  lon = tuple(float(np.round(-90 + step * i, 4)) for i in range(columns))
  maps = Maps(_maps(count).epochs, tec, rms, lat, lon, 120)
  path = tmp_path_factory.getbasetemp() / 'any.12i'
  _equal(ionex_file.read(ionex_writer.write(path, maps)), maps)
  assert all(len(line) <= 80 for line in path.read_text().splitlines())


def test_header_fields_stand_in_their_columns(tmp_path):
  path = ionex_writer.write(
      tmp_path / 'a.INX', _maps(), run_by='desk', description=['a forecast'], comments=['x' * 99],
      created=datetime.datetime(2012, 11, 20, 3, 4))
  lines = path.read_text().splitlines()
  head = lines[:next(i for i, v in enumerate(lines) if v[60:].strip() == 'END OF HEADER') + 1]
  fields = {line[60:].strip(): line[:60] for line in head}
  assert all(len(line) == 80 for line in head)
  assert float(fields['IONEX VERSION / TYPE'][:8]) == 1.0
  assert fields['IONEX VERSION / TYPE'][20] == 'I'
  assert fields['IONEX VERSION / TYPE'][40:43] == 'MIX'
  assert fields['PGM / RUN BY / DATE'].split() == ['stp_jax', 'desk', '20-Nov-12', '03:04']
  assert fields['EPOCH OF FIRST MAP'].split() == ['2012', '11', '20', '2', '0', '0']
  assert fields['EPOCH OF LAST MAP'].split() == ['2012', '11', '20', '6', '0', '0']
  assert int(fields['INTERVAL'][:6]) == 7200 and int(fields['# OF MAPS IN FILE'][:6]) == 3
  assert fields['MAPPING FUNCTION'][2:6] == 'NONE' and int(fields['MAP DIMENSION'][:6]) == 2
  assert float(fields['ELEVATION CUTOFF'][:8]) == 0 and float(fields['BASE RADIUS'][:8]) == 6371
  assert fields['HGT1 / HGT2 / DHGT'][2:20] == ' 450.0 450.0   0.0'
  assert fields['LAT1 / LAT2 / DLAT'][2:20] == '  40.0 -20.0 -20.0'
  assert fields['LON1 / LON2 / DLON'][2:20] == '-180.0 180.0 120.0'
  assert int(fields['EXPONENT'][:6]) == -1 and 'OBSERVABLES USED' in fields
  # the closing meridian repeats the first
  row = lines[lines.index(head[-1]) + 4]
  assert len(row) == 20 and row[:5] == row[15:]
  assert lines[-1][60:].strip() == 'END OF FILE'


def test_without_rms_and_name(tmp_path):
  maps = _maps()
  maps = Maps(maps.epochs, maps.tec, np.full_like(maps.tec, MISSING), maps.latitude,
              maps.longitude, 120)
  name = ionex_writer.name('stp', maps.epochs[0], 4, 120)
  assert name == 'STP0OPSPRD_20123250200_04D_02H_GIM.INX'
  path = ionex_writer.write(tmp_path / name, maps)
  assert 'RMS MAP' not in path.read_text()
  _equal(ionex_file.read(path), maps)
  assert ionex_folder.files(tmp_path, None) == ([path], 'stp-prd')
  assert [p.name for p in tmp_path.iterdir()] == [name]


def test_quantised():
  np.testing.assert_array_equal(
      ionex_writer.quantised(np.array([0.04, 12.34, -3, np.nan, 5000.0])),
      [0, 123, 0, MISSING, ionex_writer.MOST])


@pytest.mark.parametrize('change, message', [
    (dict(latitude=(40., 20., 0., -30.)), 'latitudes 40 to -30 are not evenly spaced'),
    (dict(latitude=(40., 39.75, 39.5, 39.25)), 'tenths of a degree'),
    (dict(latitude=(40.,)), 'at least two')])
def test_what_the_format_cannot_hold(tmp_path, change, message):
  with pytest.raises(StoreError, match=message):
    ionex_writer.write(tmp_path / 'a.12i', _maps(**change))
  assert not list(tmp_path.iterdir())


def test_bad_values(tmp_path):
  maps = _maps()
  maps.tec[1, 2, 1] = 9999
  with pytest.raises(StoreError, match=r'999\.9 TECU'):
    ionex_writer.write(tmp_path / 'a.12i', maps)
  with pytest.raises(StoreError, match='do not rise'):
    ionex_writer.write(tmp_path / 'a.12i', Maps(
        maps.epochs[::-1], maps.rms, maps.rms, maps.latitude, maps.longitude, 120))


def test_every_real_file_comes_back(realdata, tmp_path):
  paths = sorted((realdata / 'tec').iterdir())
  assert paths
  for path in paths:
    maps = ionex_file.read(path)
    copy = ionex_writer.write(tmp_path / re.sub(r'\.gz$', '', path.name), maps)
    again = ionex_file.read(copy)
    _equal(again, maps)
    assert again.interval == maps.interval, path.name
    copy.unlink()
