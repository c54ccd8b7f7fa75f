"""Index files: observed and predicted apart, availability in time, bad input."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import indices
from stp_jax.data.clip_store import StoreError

FILE = 'celestrak_SW-All.txt.gz'


def _celestrak(first='2012-11-10', days=100, predicted=3, months=2) -> str:
  """Day i: Kp x 10 = 10..80 within 0..90, ap = interval number + i % 10, R = i, F10.7 = 100 + i."""
  def row(i, day, blank=False):
    y, m, d = str(day).split('-')
    kp = ''.join(f'{10 * (k + 1):3d}' for k in range(8))
    ap = ''.join(f'{k + i % 10:4d}' for k in range(8))
    left = f'{kp}{360:4d}{ap}{5:4d} 0.4 2'
    left = ' ' * len(left) if blank else left
    flux = f'{90 + i:6.1f} 0' + f'{1:6.1f}' * 2 + f'{100 + i:6.1f}' + f'{2:6.1f}' * 2
    return f'{y} {m} {d} 2447  1{left}{i:4d}{flux}'
  start = np.datetime64(first)
  lines = ['DATATYPE CssiSpaceWeather', '# comment', f'NUM_OBSERVED_POINTS {days}',
           'BEGIN OBSERVED', *(row(i, start + i) for i in range(days)), 'END OBSERVED', '',
           f'NUM_DAILY_PREDICTED_POINTS {predicted}', 'BEGIN DAILY_PREDICTED',
           *(row(i, start + i) for i in range(days, days + predicted)), 'END DAILY_PREDICTED', '',
           f'NUM_MONTHLY_PREDICTED_POINTS {months}', 'BEGIN MONTHLY_PREDICTED']
  after = (start + days + predicted + 31).astype('M8[M]')
  lines += [row(300 + k, (after + k).astype('M8[D]'), True) for k in range(months)]
  return '\r\n'.join([*lines, 'END MONTHLY_PREDICTED', ''])


def _drivers(tmp_path, text=None, name='sw.txt', **options) -> indices.Drivers:
  path = tmp_path / name
  path.write_text(_celestrak() if text is None else text)
  return indices.Drivers.read(path, **options)


def _times(*words):
  return np.array(words, 'datetime64[m]')


def test_values_and_what_was_known(tmp_path):
  got = _drivers(tmp_path).at(
      _times('2012-11-20T00:00', '2012-11-20T02:00', '2012-11-20T03:00', '2012-11-20T22:00'))
  np.testing.assert_array_equal(got.values, [
      [110, 10, 10, 0], [110, 10, 10, 0], [110, 10, 20, 1], [110, 10, 80, 7]])
  # daily values at the end of their day; 3-hourly ones at the end of their interval
  np.testing.assert_array_equal(got.delay, [
      [24, 24, 3, 3], [22, 22, 1, 1], [21, 21, 3, 3], [2, 2, 2, 2]])
  np.testing.assert_array_equal(got.known, [
      [109, 9, 80, 16], [109, 9, 80, 16], [109, 9, 10, 0], [109, 9, 70, 6]])
  assert np.isnan(got.forecast).all() and got.filled == 0


def test_known_is_published_when_its_delay_has_passed(tmp_path):
  """At t + delay the value of t is itself the newest known one, a minute before it is not."""
  drivers = _drivers(tmp_path)
  names = (*indices.DRIVERS, 'f107_trailing81')
  time = _times('2013-02-10T05:00')
  for i, name in enumerate(names):
    got = drivers.at(time, names)
    then = time + np.timedelta64(round(got.delay[0, i] * 60), 'm')
    assert drivers.at(then, [name], missing='fill').known[0, 0] == got.values[0, i]
    before = drivers.at(then - 1, [name], missing='fill').known[0, 0]
    assert before != got.values[0, i], name


def test_adjusted_flux(tmp_path):
  got = _drivers(tmp_path, f107='adjusted').at(_times('2012-11-20'), ['f107'])
  assert got.values[0, 0] == 100


def test_predictions_are_never_observations(tmp_path):
  drivers = _drivers(tmp_path)  # observed to 2013-02-17
  late = _times('2013-02-18T04:00', '2013-04-05T00:00')
  with pytest.raises(StoreError, match=r'sw.txt: no observed f107 at 2013-02-18.*reach 2013-02-17'):
    drivers.at(late)
  got = drivers.at(late, predicted=True)
  assert np.isnan(got.values).all() and np.isinf(got.delay).all()
  np.testing.assert_array_equal(got.known, [[199, 99, 80, 16]] * 2)
  np.testing.assert_array_equal(got.forecast[0], [200, 100, 20, 1])
  np.testing.assert_array_equal(got.forecast[1], [401, 301, np.nan, np.nan])  # of April
  filled = drivers.at(late, missing='fill')
  np.testing.assert_array_equal(filled.values, got.known)
  assert filled.filled == 8 and (filled.delay == 0).all()


def test_times_before_the_file(tmp_path):
  with pytest.raises(StoreError, match='begins with 2012-11-10'):
    _drivers(tmp_path).at(_times('2012-11-10T06:00'))


def test_means_over_81_days(tmp_path):
  drivers = _drivers(tmp_path)
  got = drivers.at(_times('2013-02-10T06:00'), ['f107_trailing81'])
  assert got.values[0, 0] == 100 + 92 - 40 and got.delay[0, 0] == 18
  daily = np.arange(200.0)
  daily[150] = np.nan
  assert indices.mean81(daily, centred=True)[50] == 50
  assert np.isnan(indices.mean81(daily, centred=True)[[39, 110, 160]]).all()
  assert indices.mean81(daily, centred=False)[80] == 40


def test_centred_mean_is_known_forty_days_later(tmp_path):
  drivers = _drivers(tmp_path, _celestrak(days=200))
  got = drivers.at(_times('2013-03-10T06:00'), ['f107_centred81'])
  assert got.values[0, 0] == 100 + 120 and got.delay[0, 0] == 18 + 40 * 24
  assert got.known[0, 0] == got.values[0, 0] - 41


def test_calendar():
  np.testing.assert_array_equal(
      indices.calendar(_times('2012-12-31T22:30', '2013-01-01T00:00')),
      [[2012, 366, 22.5, 12, 31], [2013, 1, 0, 1, 1]])


def test_csv_and_gfz_layouts_agree_with_the_fixed_columns(tmp_path):
  want = _drivers(tmp_path).at(_times('2012-11-20T04:00'))
  head = ('DATE,BSRN,ND,' + ','.join(f'KP{i}' for i in range(1, 9)) + ',KP_SUM,'
          + ','.join(f'AP{i}' for i in range(1, 9)) + ',AP_AVG,CP,C9,ISN,F10.7_OBS,F10.7_ADJ,'
          'F10.7_DATA_TYPE,F10.7_OBS_CENTER81,F10.7_OBS_LAST81,F10.7_ADJ_CENTER81,F10.7_ADJ_LAST81')
  csv, gfz = [head], ['# Kp ap Ap SN F10.7', '#']
  for i in range(12):
    day = str(np.datetime64('2012-11-10') + i)
    kp, ap = [10 * (k + 1) for k in range(8)], [k + i % 10 for k in range(8)]
    kind = 'OBS' if i < 11 else 'PRD'
    csv.append(','.join(map(str, [day, 1, 1, *kp, 0, *ap, 5, .4, 2, i, 100 + i, 90 + i, kind, 1, 1,
                                  1, 1])))
    thirds = [f'{np.rint(k * 3 / 10) / 3:.3f}' for k in kp]
    gfz.append(' '.join(map(str, [*day.split('-'), 1, 1.5, 1, 1, *thirds, *ap, 5, i,
                                  f'{100 + i:.1f}', f'{90 + i:.1f}', 2])))
  gfz[-1] = ' '.join(['2012 11 21 1 1.5 1 1', *['-1.000'] * 8, *['-1'] * 8, '-1 -1 -1.0 -1.0 0'])
  for name, lines in (('sw.csv', csv), ('gfz.txt', gfz)):
    drivers = _drivers(tmp_path, '\n'.join(lines), name)
    got = drivers.at(_times('2012-11-20T04:00'))
    np.testing.assert_array_equal(got.values, want.values)
    np.testing.assert_array_equal(got.known, want.known)
    assert drivers.last('f107') == np.datetime64('2012-11-20')


BAD = {
    'empty': ('', 'empty file'),
    'html': ('<html>', 'web page'),
    'other': ('hello\n', ':1: unknown layout'),
    'no date': (_celestrak().replace('2012 11 12', '2012 1x 12'), ':7: .* date'),
    'letters': (_celestrak().replace('101.0', '1o1.0'), ':6: f107'),
    'absurd': (_celestrak().replace(' 101.0', '9999.9'), ':6: f107 of 9999.9 is not credible'),
    'twice': (_celestrak().replace('2012 11 12', '2012 11 11'), ':7: 2012-11-11 comes twice'),
    'cut': (_celestrak()[:4000], 'ends early'),
    'lines lost': (_celestrak().replace('POINTS 100', 'POINTS 101'), '100 lines, .* promises 101'),
    'unknown block': (_celestrak().replace('BEGIN OBS', 'BEGIN ABS'), 'unknown block'),
    'only an end': ('DATATYPE CssiSpaceWeather\nEND OBSERVED\n', 'ends early'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_file_gets_one_line_that_names_it(tmp_path, case):
  text, message = BAD[case]
  with pytest.raises(StoreError, match=message) as caught:
    _drivers(tmp_path, text)
  assert 'sw.txt' in str(caught.value) and '\n' not in str(caught.value)


def test_unknown_names(tmp_path):
  with pytest.raises(ValueError, match='f107 r kp ap'):
    _drivers(tmp_path).at(_times('2012-11-20'), ['dst'])
  with pytest.raises(ValueError, match='observed or adjusted'):
    _drivers(tmp_path, f107='mean')
  with pytest.raises(ValueError, match='error or fill'):
    _drivers(tmp_path).at(_times('2012-11-20'), missing='zero')


_TEXT = _celestrak(days=8).encode()


@settings(max_examples=200, deadline=2000)
@given(st.integers(0, len(_TEXT)), st.lists(
    st.tuples(st.integers(0, len(_TEXT) - 1), st.integers(0, 255)), max_size=3))
def test_damage_is_an_error_or_a_table(tmp_path_factory, cut, flips):
  changed = bytearray(_TEXT)
  for at, byte in flips:
    changed[at] = byte
  path = tmp_path_factory.getbasetemp() / 'sw.txt'
  path.write_bytes(bytes(changed[:cut]))
  try:
    indices.Drivers.read(path)
  except StoreError as error:
    assert str(path) in str(error)


def test_the_real_file(realdata):
  path = realdata / 'solar_indices' / FILE
  drivers = indices.Drivers.read(path)
  assert drivers.days == 24765 and drivers.first == np.datetime64('1957-10-01')
  assert drivers.last('kp') == drivers.last('f107') == np.datetime64('2025-07-20')
  # the storm of 13-14 March 1989: Kp 9 (90) at 21 to 3 UT
  storm = drivers.at(_times('1989-03-13T21:00', '1989-03-14T02:00'), ['kp', 'ap'])
  np.testing.assert_array_equal(storm.values, [[90, 400], [90, 400]])
  with pytest.raises(StoreError, match='reach 2025-07-20'):
    drivers.at(_times('2025-07-21T00:00'))
  assert drivers.at(_times('2025-07-21T00:00'), predicted=True).forecast[0, 0] == 116.2
  with gzip.open(path, 'rt') as file:
    rows = [line.split() for line in file if line.startswith('2012 ')]
  got = drivers.at(np.arange('2012-01-01', '2013-01-01', dtype='M8[D]'),
                   ['f107_centred81', 'f107_trailing81'])
  listed = np.array([[float(r[-2]), float(r[-1])] for r in rows])
  assert np.abs(got.values - listed).max() < 0.051  # the file rounds to 0.1
