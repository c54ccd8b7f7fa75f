"""OMNI2 hourly files: columns, fill values, joined with an index file on one clock."""

import numpy as np
import pytest

from stp_jax.data import indices, omni
from stp_jax.data.clip_store import StoreError
from tests.data import test_indices

# Fortran formats of the 55 words, written out a second time: widths and decimals.
_FORMATS = (
    'I4 I4 I3 I5 I3 I3 I4 I4 ' + 'F6.1 ' * 14 + 'F9.0 F6.1 F6.0 F6.1 F6.1 F6.3 F6.2 F9.0 F6.1 F6.0 '
    'F6.1 F6.1 F6.3 F7.2 F7.2 F6.1 I3 I4 I6 I5 F10.2 F9.2 F9.2 F9.2 F9.2 F9.2 I3 I4 F6.1 F6.1 I6 '
    'I6 F5.1').split()
_FILL = {9: 999.9, 19: 999.9, 24: 999.9, 25: 9999, 29: 99.99, 36: 999.99, 41: 99999, 55: 99.9}


def line(year, day, hour, **words) -> str:
  """A record; `w25=450.0` sets word 25, everything else is 1."""
  text = ''
  for number, form in enumerate(_FORMATS, 1):
    value = {1: year, 2: day, 3: hour}.get(number, words.get(f'w{number}', 1))
    width, _, digits = form[1:].partition('.')
    cell = str(int(value)) if form[0] == 'I' else f'{value:.{digits}f}'
    text += (cell + '.' * (digits == '0')).rjust(int(width))
  return text


def write(folder, days=2, year=2012, first=325, **words):
  path = folder / f'omni2_{year}.dat'
  path.write_text(''.join(
      line(year, first + h // 24, h % 24, w25=300 + h, w41=-h, **words) + '\n'
      for h in range(24 * days)))
  return path


def test_columns_and_fill_values(tmp_path):
  path = tmp_path / 'omni2_2012.dat'
  values = dict(w9=5.4, w19=2.1, w24=7.7, w25=431, w29=2.31, w36=-1.25, w41=-37, w55=6.3)
  fill = {f'w{k}': v for k, v in _FILL.items()}
  path.write_text(line(2012, 325, 0, **values) + '\n' + line(2012, 325, 1, **fill) + '\n')
  first, series = omni.read([path])
  assert first == np.datetime64('2012-11-20')
  expected = dict(dst=-37, plasma_speed=431, field_magnitude=5.4, sigma_b=2.1, proton_density=7.7,
                  flow_pressure=2.31, electric_field=-1.25, magnetosonic_mach=6.3)
  assert {k: v[0] for k, v in series.items()} == expected
  assert all(np.isnan(v[1]) for v in series.values())


def test_fields_that_touch(tmp_path):
  """Fixed columns: -1234 nT of Dst in I6 and 99999.99 in F9.2 leave no blank between words."""
  path = tmp_path / 'omni2_2012.dat'
  path.write_text(line(2012, 325, 0, w36=-123.45, w37=-100.25, w41=-1234, w42=12345) + '\n')
  _, series = omni.read([path])
  assert series['electric_field'][0] == -123.45 and series['dst'][0] == -1234


_FIRST = slice(30, 36)  # word 9 stands behind eight integers of 30 characters


@pytest.mark.parametrize('change, message', [
    (lambda t: t[:200] + '\n', r':1: 200 characters'),
    (lambda t: t.replace('2012 325  0', '2012 400  0'), r':1: the line does not begin'),
    (lambda t: t + t.splitlines()[0] + '\n', 'comes twice'),
    (lambda t: t[:30] + '  9x.9' + t[36:], r":1: field_magnitude is '  9x.9'"),
    (lambda t: t[:30] + ' 888.8' + t[36:], r':1: field_magnitude of 888.8 is not credible'),
    (lambda t: '<html>\n' + t, 'web page')])
def test_bad_files(tmp_path, change, message):
  path = write(tmp_path, 1)
  text = path.read_text()
  assert text[_FIRST] == '   1.0' and change(text) != text
  path.write_text(change(text))
  with pytest.raises(StoreError, match=message):
    omni.read([path])


def test_beside_an_index_file(tmp_path):
  """Dst of an hour is known when it is over; Kp and F10.7 are as without OMNI2."""
  kp = tmp_path / 'sw.txt'
  kp.write_text(test_indices._celestrak())
  write(tmp_path, 2)
  alone = indices.Drivers.read(kp)
  both = indices.Drivers.read(f'{kp}+{tmp_path / "omni2_2012.dat"}')
  assert both.names == ('f107', 'r', 'kp', 'ap', *omni.WORDS)
  times = np.array(['2012-11-20T04:00', '2012-11-20T06:00'], 'M8[m]')
  got, plain = both.at(times, ['kp', 'dst', 'plasma_speed']), alone.at(times, ['kp'])
  np.testing.assert_array_equal(got.values[:, 1:], [[-4, 304], [-6, 306]])
  np.testing.assert_array_equal(got.known[:, 1:], [[-3, 303], [-5, 305]])
  np.testing.assert_array_equal(got.delay[:, 1:], 1)
  assert np.isnan(got.forecast[:, 1:]).all()
  for part in ('values', 'known', 'delay'):
    np.testing.assert_array_equal(getattr(got, part)[:, :1], getattr(plain, part))
  only = indices.Drivers.read(tmp_path / 'omni2_2012.dat')
  assert only.names == tuple(omni.WORDS)
  with pytest.raises(ValueError, match='dst plasma_speed'):
    only.at(times, ['kp'])
  with pytest.raises(ValueError, match='both give Kp'):
    indices.Drivers.read(f'{kp}+{kp}')


@pytest.mark.parametrize('year', [2000, 2020])
def test_years_that_the_index_file_does_not_have(tmp_path, year):
  kp = tmp_path / 'sw.txt'
  kp.write_text(test_indices._celestrak())
  path = write(tmp_path, 2, year=year)
  if year == 2000:
    with pytest.raises(StoreError, match=r'omni2_2000.dat: OMNI2 ends on 2000-11-21, before '
                       r'\S*sw.txt begins \(2012-\S+\); take OMNI2 files of later years'):
      indices.Drivers.read(f'{kp}+{path}')
  else:
    drivers = indices.Drivers.read(f'{kp}+{path}')
    with pytest.raises(StoreError, match='no dst was published before 2012-11-20'):
      drivers.at(np.array(['2012-11-20'], 'M8[m]'), ['dst'])


def test_gaps_of_the_solar_wind(tmp_path):
  path = write(tmp_path, 1)
  lines = path.read_text().splitlines()
  lines[4] = line(2012, 325, 4, w25=9999, w41=-4)
  path.write_text('\n'.join(lines) + '\n')
  drivers = indices.Drivers.read(path)
  time = np.array(['2012-11-20T04:00'], 'M8[m]')
  with pytest.raises(StoreError, match=r'no observed plasma_speed at 2012-11-20T04:00'):
    drivers.at(time, ['plasma_speed'])
  got = drivers.at(time, ['plasma_speed'], missing='fill')
  assert got.values[0, 0] == 303 and got.filled == 1
