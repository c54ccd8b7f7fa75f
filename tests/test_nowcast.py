"""Radar files to a nowcast: `prepare radar`, then `main`, scored beside persistence, as NetCDF."""

import json
import sys
import types

import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import evaluate_fields, main, predict
from stp_jax import prepare as cli
from stp_jax.data.clip_store import ClipStore
from stp_jax.data.spec import DataSpec
from stp_jax.metrics import optical_flow
from stp_jax.report import fields
from tests.data import knmi_files

xarray = pytest.importorskip('xarray')
CONFIG = 'configs/nowcast.py:smoke,model=convlstm'

# One worker makes what these tests share; another would make it again.
pytestmark = pytest.mark.xdist_group('nowcast')


def _files(folder, count=20, size=(16, 18)):
  """Showers that move one pixel a map, 0.5 mm at most, and two columns out of range."""
  folder.mkdir()
  y, x = np.mgrid[:size[0], :size[1]]
  for i in range(count):
    shower = np.exp(-((y - 8) ** 2 + ((x - i) % size[1] - 4) ** 2) / 8)
    time = np.datetime64('2010-08-26T00:00', 'm') + 5 * i
    knmi_files.write(folder, time, raw=np.rint(50 * shower).astype(np.uint16))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Two commands; and a stand-in for pysteps, which is not installed with the tests."""
  root = tmp_path_factory.mktemp('nowcast')
  _files(root / 'in')
  assert cli.main(['radar', '--in', str(root / 'in'), '--out', str(root / 'store'), '--split',
                   'time:0.5,0.2,0.3']) == 0
  config = config_files.load(f'{CONFIG},t_in=2,t_out=2,steps=2,thresholds=0.5+2,neighbourhoods=1+4')
  config.data.stores = (str(root / 'store'),)
  config.data.batch_size = config.data.eval_batch_size = 8
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(optical_flow, 'missing', lambda: '')
    patch.setattr(optical_flow, 'batch', lambda frames, t_out, rate: np.repeat(
        np.nan_to_num(np.roll(frames[:, -1:], 1, 3)), t_out, 1))
    main.run(config, root / 'run')
  return root


def test_the_card_has_events_beside_the_baselines(run):
  scores = json.loads((run / 'run' / 'report' / 'scores.json').read_text())['splits']['test']
  events = scores['events']
  assert (events['units'], events['thresholds'], events['scales']) == ('mm/h', [0.5, 2], [1, 4])
  assert set(events['forecasts']) == {'net', 'persistence', 'optical_flow'} == set(
      scores['forecasts'])
  # By hand: rain of the last map seen against that of the next two, in mm/h, valid pixels only.
  store = ClipStore(run / 'store')
  hits = misses = false = 0
  for clip, start in store.windows(['test'], 4).tolist():
    rate = store.physical(store.frames(clip, start, 4))[..., 0] * 12
    with np.errstate(invalid='ignore'):
      wet = np.where(np.isfinite(rate[2:]), rate[2:] >= 2, False)
      last = np.where(np.isfinite(rate[2:]), rate[1] >= 2, False)
    hits, misses = hits + (wet & last).sum(), misses + (wet & ~last).sum()
    false += (last & ~wet).sum()
  csi = events['forecasts']['persistence']['csi'][0][1]
  assert csi == pytest.approx(hits / (hits + misses + false)) and 0.2 < csi < 1
  # The shower moves one pixel a map, as the stand-in does for the first.
  lead = lambda name: events['forecasts'][name]['by_lead']['csi'][0][0][1]
  assert lead('optical_flow') > lead('persistence')
  assert scores['notes'] == []


def test_the_report_shows_them(run):
  report = run / 'run' / 'report'
  text = (report / 'score_card.md').read_text()
  assert 'CSI ↑' in text and 'neighbourhoods of 4 x 4 pixels' in text and '+10 min' in text
  readme = (report / 'README.md').read_text()
  for name in ('events_by_lead_test.png', 'events_by_threshold_test.png', 'maps.png'):
    assert name in readme and (report / name).stat().st_size > 10000, name


def test_without_pysteps_a_note_stands_in_for_its_row(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pysteps', None)
  task = types.SimpleNamespace(
      config=config_files.load(CONFIG), spec=DataSpec(name='s', shape=(16, 16, 1), units='mm'))
  made = evaluate_fields.Fields(task)
  assert made.notes == [optical_flow.missing()] and 'pysteps' in made.notes[0]
  assert made.given(dict(frames=np.zeros((1, 4, 16, 16, 1))), []) == {}
  assert evaluate_fields.Fields(task, baselines=False).notes == []  # during training


@pytest.mark.parametrize('words, name', [
    (['--issue-time=2010-08-26T01:20'], 'forecast.nc'), (['--issue-time=latest'], 'forecast.nc'),
    (['--split=test', '--limit=1'], 'store/run/sample1.nc')])
def test_a_nowcast_as_netcdf(run, tmp_path, words, name):
  assert predict.main([f'--checkpoint={run / "run"}', f'--store={run / "store"}',
                       f'--out={tmp_path / "out"}', *words]) == 0
  store = ClipStore(run / 'store')
  with xarray.open_dataset(tmp_path / 'out' / name, decode_timedelta=False) as data:
    rain = data['precipitation']
    assert rain.shape == (2, 16, 18) and rain.dims == ('time', 'y', 'x')
    assert rain.attrs['units'] == 'mm' and data['crs'].attrs['standard_parallel'] == 60
    # Out of the radar's range there is no forecast; elsewhere there is.
    assert np.isnan(rain[..., -2:]).all() and np.isfinite(rain[..., :-2]).all()
    np.testing.assert_allclose(data['y'], store.meta['grid']['y'])
    np.testing.assert_array_equal(data['lead_time'], [5, 10])
    if name == 'forecast.nc':
      issued = '01:20' if 'latest' not in words[0] else '01:35'  # that of the last file
      assert data['forecast_reference_time'].values == np.datetime64(f'2010-08-26T{issued}')
      with np.load(tmp_path / 'out' / 'forecast.npz') as kept:
        np.testing.assert_allclose(
            kept['forecast'][..., :-2], rain.values[..., :-2], rtol=1e-6)
        assert 'fields' not in kept


def test_weather_scores_on_the_card():
  card = dict(t_in=4, clock=True)
  one = dict(rmse=[1.5], mae=[1.0], bias=[0.1], by_lead=dict(rmse=[[1.25], [1.75]]))
  scores = dict(leads=2, lead_hours=[6.0, 12.0], cadence_hours=6.0, notes=['no flow'], weather=dict(
      variables=[dict(name='t2m', units='K')],
      forecasts={'climatology': dict(standard=one, upstream=one),
                 'net': dict(standard=dict(one, acc=[0.875]), upstream=one)}))
  text = '\n'.join(fields.markdown(card, scores))
  assert 'RMSE [K]' in text and '+12 h' in text and '0.875' in text and '*no flow*' in text
  assert text.index('| net') < text.index('| climatology')


def test_bad_choices_are_one_line(tmp_path, run):
  config = config_files.load(CONFIG)
  for field, value, message in [('scores', 'rain', 'choose one of auto nowcast'),
                                ('scores', 'weather', 'needs a store with latitudes')]:
    setattr(config.task, field, value)
    with pytest.raises(ValueError, match=message):
      evaluate_fields.kind_of(config, DataSpec(name='s', shape=(16, 16, 1)))
  with pytest.raises(ValueError, match='numbers joined by'):
    config_files.load('configs/nowcast.py:thresholds=a+b')


def test_real_knmi_radar(realdata, tmp_path):
  """From real files to CSI beside persistence; skipped by name where they are not."""
  folder = realdata / 'radar' / 'knmi'
  store, out = tmp_path / 'store', tmp_path / 'run'
  assert cli.main(['radar', '--in', str(folder), '--out', str(store), '--crop', '125:637,100:612',
                   '--block', '32', '--split', 'time:0.5,0.25,0.25']) == 0
  config = config_files.load(f'{CONFIG},t_in=2,t_out=2,steps=2,thresholds=0.1+0.5')
  config.data.stores = (str(store),)
  config.data.batch_size = config.data.eval_batch_size = 8
  main.run(config, out)
  events = json.loads((out / 'report' / 'scores.json').read_text())['splits']['test']['events']
  assert 0.1 < events['observed'][0] < 0.9
  assert 0.3 < events['forecasts']['persistence']['csi'][0][0] < 1
  assert events['forecasts']['net']['csi'][0][0] is not None
