"""WeatherBench, SEVIR, HKO-7 and Shanghai2020 in their published layouts; bad input."""

import shutil

import numpy as np
import pytest

from stp_jax.data import hko7, weather_fields
from tests.data import layouts
from tests.data.test_published import refused, run, whole

YEARS = ('--train', '2015', '--validation', '2016', '--test', '2017')


def test_one_field_in_its_units(tmp_path):
  made = layouts.weather(tmp_path / 'in', hours=24)
  store = run('weatherbench', tmp_path / 'in', tmp_path / 's', *YEARS)
  assert [c.split for c in store.clips] == ['train', 'validation', 'test']
  assert store.clips[2].time == '2017-12-01T00:00' and store.cadence_hours == 1
  np.testing.assert_array_equal(store.frames(1)[..., 0], made['t2m', 2016])
  # Normalised by the training years, not by each split's own.
  train = made['t2m', 2015].astype(np.float64)
  norm = store.meta['normalisation']
  assert norm['shift'] == pytest.approx(train.mean()) and norm['divisor'] == pytest.approx(
      train.std())
  assert store.streams['frames'].units == 'K' and store.meta['grid']['rows'] == 4
  assert store.meta['grid']['latitude'][0] == -67.5


def test_published_years_are_the_default(tmp_path):
  layouts.weather(tmp_path / 'in', years=(2009, 2010, 2015, 2016, 2017, 2018), hours=25)
  store = run('weatherbench', tmp_path / 'in', tmp_path / 's')
  assert [(c.split, c.time[:4]) for c in store.clips] == [
      ('train', '2010'), ('train', '2015'), ('validation', '2016'), ('test', '2017'),
      ('test', '2018')]


def test_upstreams_windows_to_the_hour(tmp_path):
  """Inputs t-11..t, targets t+1..t+12 for t from 11 to length - 14, its last hour dropped."""
  layouts.weather(tmp_path / 'in', hours=40)
  store = run('weatherbench', tmp_path / 'in', tmp_path / 's', *YEARS, '--ends', 'upstream')
  length = 40 - 1
  assert len(store.windows(['test'], 24)) == len(range(11, length - 12 - 1))


def test_several_fields_are_standardised_each_by_its_own(tmp_path):
  made = layouts.weather(tmp_path / 'in', (
      ('10m_u_component_of_wind', 'u10', 'm s**-1'), ('10m_v_component_of_wind', 'v10', 'm s**-1')),
      folder='weather')
  store = run('weatherbench', tmp_path / 'in', tmp_path / 's', *YEARS, '--variables', 'uv10')
  fields = store.meta['grid']['fields']
  assert [f['name'] for f in fields] == ['u10', 'v10'] and fields[0]['units'] == 'm s**-1'
  for c, field in enumerate(fields):
    np.testing.assert_allclose(store.frames(2)[..., c] * field['std'] + field['mean'],
                               made[field['name'], 2017], atol=1e-3)
    train = made[field['name'], 2015].astype(np.float64)
    assert (field['mean'], field['std']) == (pytest.approx(train.mean()),
                                             pytest.approx(train.std()))


def test_levels_and_every_sixth_hour(tmp_path):
  names = (('relative_humidity', 'r', '%'), ('temperature', 't', 'K'),
           ('u_component_of_wind', 'u', 'm s**-1'), ('v_component_of_wind', 'v', 'm s**-1'))
  made = layouts.weather(tmp_path / 'in', names, levels=(150, 500, 850))
  store = run('weatherbench', tmp_path / 'in', tmp_path / 's', *YEARS, '--variables', 'mv',
              '--step', 6, '--window', 5)
  assert [f['name'] for f in store.meta['grid']['fields']] == [
      f'{v}@{level}' for v in 'rtuv' for level in (150, 500, 850)]
  assert store.cadence_hours == 6 and store.frames(0).shape == (5, 4, 8, 12)
  field = store.meta['grid']['fields'][4]
  np.testing.assert_allclose(store.frames(0)[..., 4] * field['std'] + field['mean'],
                             made['t', 2015][::6, 1], atol=1e-3)
  last = run('weatherbench', tmp_path / 'in', tmp_path / 'r', *YEARS, '--variables', 'r')
  np.testing.assert_array_equal(last.frames(0)[..., 0], made['r', 2015][:, -1])


def test_a_long_series_is_cut_so_that_no_window_is_lost(tmp_path, monkeypatch):
  from stp_jax.data import weatherbench
  made = layouts.weather(tmp_path / 'in', hours=100)
  monkeypatch.setattr(weatherbench, '_CLIP_BYTES', 30 * 4 * 32)
  store = run('weatherbench', tmp_path / 'in', tmp_path / 's', *YEARS, '--window', 10)
  windows = store.windows(['train'], 10)
  starts = [np.datetime64(store.clips[c].time) + np.timedelta64(int(s), 'h') for c, s in windows]
  assert len(starts) == len(set(starts)) == 91 and len(store.clips) > 9
  np.testing.assert_array_equal(store.frames(1)[3, ..., 0], made['t2m', 2015][24])


@pytest.mark.parametrize('spoil, words, match', [
    (lambda f: None, ('--variables', 'tcc'), 'total_cloud_cover'),
    (lambda f: None, ('--variables', 'x9'), "'x9'; known are t2m u10"),
    (lambda f: None, ('--train', '1999'), 'no frame lies in it; the data go from 2015-12-01T00:00'),
    (lambda f: None, ('--validation', '2015'), 'overlaps with the split train'),
    (lambda f: f.write_bytes(b'no NetCDF'), YEARS, '2016_5.625deg.nc: unreadable as NetCDF'),
    (lambda f: shutil.copy(f, f.with_name('2m_temperature_x.nc')), YEARS, 'two fields of 2016')])
def test_weatherbench_bad_input(tmp_path, capsys, spoil, words, match):
  layouts.weather(tmp_path / 'in', hours=3)
  spoil(tmp_path / 'in/weather_5_625deg/2m_temperature/2m_temperature_2016_5.625deg.nc')
  words = words if words == YEARS else (*YEARS, *words)
  refused('weatherbench', tmp_path / 'in', tmp_path / 's', match, *words, capsys=capsys)


def test_a_file_without_the_variable_lists_those_there_are(tmp_path, capsys):
  layouts.weather(tmp_path / 'in', (('2m_temperature', 'tas', 'K'),), hours=3)
  refused('weatherbench', tmp_path / 'in', tmp_path / 's', 'no variable t2m; there are: tas',
          *YEARS, capsys=capsys)


def test_field_names():
  assert [f.short for f in weather_fields.fields('uv10+z@500')] == ['u10', 'v10', 'z@500']
  with pytest.raises(ValueError, match='twice'):
    weather_fields.fields('u10+uv10')


def test_sevir(tmp_path, capsys):
  vil, vis = layouts.sevir(tmp_path / 'in')
  store = run('sevir', tmp_path / 'in', tmp_path / 's', '--size', 'native')
  assert [c.split for c in store.clips] == ['train'] * 6 + ['validation'] * 2 + ['test'] * 2
  assert store.clips[7].source == 'S800007 2019-05-08 12:00:00'
  np.testing.assert_array_equal(store.frames(7)[..., 0], vil[7].transpose(2, 0, 1))
  assert store.frames(0).shape == (49, 24, 24, 1) and store.streams['frames'].missing == 255
  assert '10 of 11 have all of vis ir069' in capsys.readouterr().out
  dated = run(
      'sevir', tmp_path / 'in', tmp_path / 'd', '--split', 'date', '--frames', 31, '--size', 16)
  assert {c.source[-14:-12] for c in dated.clips if c.split == 'test'} == {'07'}
  assert {c.source[-14:-12] for c in dated.clips if c.split == 'train'} == {'05'}
  assert dated.frames(0).shape == (31, 16, 16, 1)
  seen = run('sevir', tmp_path / 'in', tmp_path / 'v', '--type', 'vis', '--size', 'native')
  np.testing.assert_allclose(seen.physical(seen.frames(2))[..., 0],
                             vis[2].transpose(2, 0, 1) * 1e-4, rtol=1e-5)


def test_sevir_bad_input(tmp_path, capsys):
  layouts.sevir(tmp_path / 'in')
  catalog = tmp_path / 'in/sevir/CATALOG.csv'
  text = catalog.read_text()
  catalog.write_text(text.replace(',4,vil,', ',99,vil,'))
  refused('sevir', tmp_path / 'in', tmp_path / 's', 'event S800004 has index 99', capsys=capsys)
  store = run('sevir', tmp_path / 'in', tmp_path / 'k', '--on-bad', 'skip', '--size', 16)
  assert len(store.clips) == 9
  catalog.write_text(text.replace('file_index', 'index'))
  refused('sevir', tmp_path / 'in', tmp_path / 's', 'no column file_index', capsys=capsys)
  catalog.write_text(text)
  next((tmp_path / 'in/sevir/data/vil').rglob('*.h5')).unlink()
  refused('sevir', tmp_path / 'in', tmp_path / 's', 'missing (event S800000)', capsys=capsys)


def test_hko7(tmp_path):
  made = layouts.hko7(tmp_path / 'in')
  store = run('hko7', tmp_path / 'in', tmp_path / 's', '--size', 'native')
  found = whole(store)
  # A training day needs more than 6500 pixels; days of the other lists do not.
  assert {k: (v[0], len(v[1])) for k, v in found.items()} == {
      'train/20090102@0': ('train', 25), 'validation/20120301@0': ('validation', 25),
      'test/20150505@0': ('test', 21), 'test/20150505@21': ('test', 3)}
  np.testing.assert_array_equal(found['test/20150505@21'][1][0, ..., 0], made['20150505', 22])
  assert [c.time for c in store.clips][-1] == '2015-05-05T02:12'
  physical = store.physical(store.frames(0))
  assert physical.max() == pytest.approx(70.0) and physical.min() == 0
  lowest = run('hko7', tmp_path / 'in', tmp_path / 'l', '--lowest', -10)
  assert lowest.frames(0).shape == (25, 128, 128, 1)
  assert lowest.meta['normalisation'] == dict(shift=-10.0, divisor=70.0)
  assert len(store.windows(['train'], 20, 5)) == 2


def test_hko7_names_and_bad_input(tmp_path, capsys):
  assert str(hko7.minute('RAD090101000600', '20090101')) == '2009-01-01T00:06'
  assert str(hko7.minute('200901010006', '20090101')) == '2009-01-01T00:06'
  assert hko7.minute('cappi_0006', '20090101') is None
  layouts.hko7(tmp_path / 'in', frames=3)
  path = tmp_path / 'in/hko7/hko7_rainy_test_days_statistics.txt'
  path.write_text('20090102, 1, 2\n')
  refused('hko7', tmp_path / 'in', tmp_path / 's', 'lists of train and of test', capsys=capsys)
  path.write_text('20150506, 1, 2\n')
  refused('hko7', tmp_path / 'in', tmp_path / 's', '05/06: missing, or without a png',
          capsys=capsys)
  path.write_text('yesterday\n')
  refused('hko7', tmp_path / 'in', tmp_path / 's', 'test_days_statistics.txt line 1', capsys=capsys)


def test_shanghai2020(tmp_path, capsys):
  made = layouts.shanghai2020(tmp_path / 'in')
  store = run('shanghai2020', tmp_path / 'in', tmp_path / 's', '--size', 'native')
  found = whole(store)
  assert [k for k, v in found.items() if v[0] == 'test'] == ['test/00006', 'test/00007']
  assert [k for k, v in found.items() if v[0] == 'validation'] == ['validation/00005']
  np.testing.assert_array_equal(
      found['test/00007'][1][..., 0], np.stack([made[7, i] for i in range(20)]))
  for name in ('train', 'valid', 'test'):
    (tmp_path / f'in/shanghai2020/Shanghai_2020_{name}_examples.txt').unlink()
    if name == 'train':
      refused('shanghai2020', tmp_path / 'in', tmp_path / 't', 'missing beside the other lists',
              capsys=capsys)
  import random
  order = [f'{e:05d}' for e in range(8)]
  random.Random(42).shuffle(order)
  shuffled = run('shanghai2020', tmp_path / 'in', tmp_path / 'r', '--counts', '4,2')
  assert [c.source for c in shuffled.clips] == [
      f'{s}/{n}' for s, n in zip(['train'] * 4 + ['validation'] * 2 + ['test'] * 2, order)]
  (tmp_path / 'in/shanghai2020/train/data/radar_003_04.png').unlink()
  refused('shanghai2020', tmp_path / 'in', tmp_path / 't',
          'radar_003_04.png: missing (example 00003)', capsys=capsys)
