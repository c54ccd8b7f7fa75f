"""The predictor: numpy in and out, physical units, the same as evaluation."""

import json

import numpy as np
import pytest

from stp_jax import checkpoint, error_model, evaluate, forecast_files, predict, skill, train
from stp_jax import config as config_files
from stp_jax.data import indices, ionex_file
from stp_jax.predict import Predictor
from tests import stores

# One worker makes what these tests share; another would make it again.
pytestmark = pytest.mark.xdist_group('predicted_runs')


@pytest.fixture(scope='module', params=['convlstm', 'simvp'])
def run(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp('predict')
  store = stores.make(folder / 's')
  config = config_files.load(f'configs/iono_mixer.py:smoke,model={request.param}')
  config.data.stores = (str(store.path),)
  config.data.batch_size = 8
  train.train(config, folder / 'run')
  return folder / 'run', store


def test_three_lines(run):
  workdir, store = run
  predictor = Predictor.load(workdir)
  frames = store.physical(store.frames(2, 0, 4))
  times = store.clips[2].times(2.0)[:4]
  forecast = predictor(frames, times=times)
  assert forecast.shape == (6, 16, 16, 1) and forecast.dtype == np.float32
  both = predictor(np.stack([frames, frames]), times=np.stack([times, times]))
  np.testing.assert_allclose(both[0], forecast, rtol=1e-5, atol=1e-4)
  # The padding row may be left out, and is then left out of the answer.
  short = predictor(frames[:, :15], times=times)
  assert short.shape == (6, 15, 16, 1)


def test_issue_equals_evaluation(run):
  workdir, store = run
  predictor = Predictor.load(workdir)
  time = str(store.clips[2].times(2.0)[3])
  result = predict.issue(predictor, store, time)
  from stp_jax import checkpoint, tasks
  from stp_jax.data import pipeline
  loaded = checkpoint.load(workdir)
  task = tasks.build(loaded.config, loaded.spec)
  found = pipeline.sources([store], loaded.spec, ['test'], task.length)
  batch = next(pipeline.eval_batches(found, loaded.spec, loaded.config.data, 4))
  expected = task.predict(loaded.variables, {k: batch[k] for k in ('frames', 'forcings')})
  np.testing.assert_allclose(
      result['forecast'], np.asarray(expected)[0, :, :15, :, 0], rtol=1e-4, atol=1e-3)
  assert str(result['times'][0]) == str(store.clips[2].times(2.0)[4])
  assert np.isfinite(result['truth']).all()


def test_the_future_of_the_store_is_not_used(run):
  """Cutting the store behind the issue time changes nothing."""
  workdir, store = run
  predictor = Predictor.load(workdir)
  last = predict.issue(predictor, store, 'latest')
  assert np.isnan(last['truth']).all() and np.isfinite(last['forecast']).all()
  assert last['times'][0] == store.clips[2].times(2.0)[-1] + np.timedelta64(2, 'h')


def test_forcings_in_physical_units(run):
  workdir, store = run
  predictor = Predictor.load(workdir)
  frames, times = store.physical(store.frames(2, 0, 4)), store.clips[2].times(2.0)[:10]
  forcings = np.full((10, len(predictor.spec.columns)), 100.0)
  for name, column in zip(indices.CALENDAR, indices.calendar(times).T):
    if name in predictor.spec.columns:
      forcings[:, predictor.spec.columns.index(name)] = column
  whole = predictor(frames, forcings)
  # Only the past of the drivers, and the clock: the last value is kept.
  np.testing.assert_allclose(predictor(frames, forcings[:4], times[:4]), whole, rtol=1e-5)
  forcings[:, predictor.spec.columns.index('f107')] = 250
  assert not np.allclose(predictor(frames, forcings), whole)


@pytest.mark.parametrize('frames, arguments, message', [
    ((3, 16, 16, 1), {}, r'frames \(1, 3, 16, 16, 1\): the checkpoint takes \[B, 4'),
    ((4, 12, 16, 1), {}, 'the checkpoint takes'),
    ((4, 16, 16, 1), {}, 'give times'),
    ((4, 16, 16, 1), dict(forcings=np.zeros((4, 2))), r'the columns are year')])
def test_bad_input(run, frames, arguments, message):
  with pytest.raises(ValueError, match=message):
    Predictor.load(run[0])(np.ones(frames), **arguments)


def test_the_command_writes_every_file(run, tmp_path, capsys):
  workdir, store = run
  common = [f'--checkpoint={workdir}', f'--store={store.path}', f'--out={tmp_path / "out"}']
  assert predict.main([*common, '--issue-time=latest']) == 0
  assert len(list((tmp_path / 'out' / 'maps').glob('*.png'))) == 6
  with np.load(tmp_path / 'out' / 'forecast.npz') as saved:
    assert saved['forecast'].shape == (6, 15, 16)
    forecast, rms, times = saved['forecast'], saved['rms'], saved['times']
  assert (tmp_path / 'out' / 'forecast.gif').stat().st_size > 1000
  # Errors of the validation windows, kept with the run.
  assert rms.shape == forecast.shape and (rms > 0).all()
  assert (workdir / 'errors.npz').exists()
  # Latitudes every 11.43 degrees do not fit into IONEX, which is said; NetCDF holds them.
  assert 'no IONEX file: IONEX: latitude' in capsys.readouterr().err
  netcdf4 = pytest.importorskip('netCDF4')
  with netcdf4.Dataset(tmp_path / 'out' / 'forecast.nc') as file:
    np.testing.assert_array_equal(file['tec'][:], forecast)
    np.testing.assert_array_equal(file['rms'][:], rms)
    assert file.Conventions == 'CF-1.8' and file['tec'].units == '1e16 m-2'
    clock = netcdf4.num2date(file['time'][:], file['time'].units)
    assert [str(t)[:16] for t in clock] == [str(t).replace('T', ' ') for t in times]
    np.testing.assert_allclose(file['forecast_period'][:], 2 * np.arange(1, 7))
    np.testing.assert_allclose(file['latitude'][:], np.linspace(80, -80, 15))
  assert predict.main([*common, '--issue-time=1999-01-01T00:00']) == 1
  assert 'no frame at 1998-12-31T18:00' in capsys.readouterr().err
  assert predict.main([*common, '--issue-time=soon']) == 1
  assert evaluate.main([f'--checkpoint={tmp_path}']) == 1


def test_ionex_of_a_forecast(run, tmp_path):
  """On a grid in tenths of a degree our reader returns the forecast to 0.1 TECU."""
  workdir, store = run
  predictor = Predictor.load(workdir)
  result = predict.issue(predictor, store, 'latest')
  result |= dict(latitude=list(np.arange(70, -71, -10.)), rms=abs(result['forecast']) / 7,
                 rms_source='a test')
  card = dict(name='tiny', step=4, cadence_hours=2.0, data=[dict(name='x', description='SIM')])
  path = forecast_files.ionex(tmp_path, result, card)
  maps = ionex_file.read(path)
  assert maps.latitude == tuple(result['latitude'])
  assert maps.longitude == tuple(result['longitude'])
  np.testing.assert_array_equal(maps.epochs, result['times'])
  np.testing.assert_array_equal(maps.tec, np.rint(np.maximum(result['forecast'], 0) * 10))
  np.testing.assert_array_equal(maps.rms, np.rint(result['rms'] * 10))
  # south first in the data, north first in the file
  flipped = {k: v[:, ::-1] if np.ndim(v) == 3 else v for k, v in result.items()}
  flipped['latitude'] = result['latitude'][::-1]
  again = ionex_file.read(forecast_files.ionex(tmp_path, flipped, card))
  np.testing.assert_array_equal(again.tec, maps.tec)


def test_rms_without_the_runs_data(run, tmp_path):
  """Errors of windows that were over at issue time; never of later ones."""
  workdir, store = run
  predictor = Predictor.load(workdir)
  time = store.clips[2].times(2.0)[20]
  model = error_model.of_past(predictor, store, time, progress=False)
  changed = stores.make(tmp_path / 'other')
  later = np.load(next(changed.path.glob('frames-*.npy')), mmap_mode='r+')
  later[changed.clips[2].start + 21:] = 1
  later.flush()
  again = error_model.of_past(predictor, changed, time, progress=False)
  np.testing.assert_array_equal(model.rms, again.rms)
  assert error_model.of_past(predictor, store, store.clips[0].times(2.0)[5]) is None


def test_predictions_that_the_store_lacks(run, tmp_path, capsys):
  """future=forecast: the newest known values stand in, value by value, and it is said."""
  workdir, store = run
  predictor = Predictor.load(workdir)
  if predictor.config.model.name != 'convlstm':
    pytest.skip('one backbone is enough here')
  inside = str(store.clips[2].times(2.0)[10])
  expected = {t: predict.issue(predictor, store, t)['forecast'] for t in (inside, 'latest')}
  assert capsys.readouterr().err == ''
  predictor.config.data.future_forcings = 'forecast'
  for time, forecast in expected.items():
    np.testing.assert_array_equal(predict.issue(predictor, store, time)['forecast'], forecast)
    (line,) = capsys.readouterr().err.splitlines()
    assert 'no prediction of f107 r for 6 of the 6 frames ahead' in line or (
        time == inside and 'no prediction of f107 for' in line)
  given = stores.make(tmp_path / 'given')
  columns = np.load(given.path / 'forcings_forecast.npy')
  columns[:] = 300
  np.save(given.path / 'forcings_forecast.npy', columns)
  other = predict.issue(predictor, type(given)(given.path), inside)['forecast']
  assert capsys.readouterr().err == '' and not np.allclose(other, expected[inside])


def test_errors_are_of_the_parameters_that_forecast(run, tmp_path, monkeypatch):
  workdir, store = run
  fits = []

  def fit(*args, **kwargs):
    fits.append(args)
    return error_model.ErrorModel(np.ones((6, 15, 12), np.float32), len(fits), 'windows')

  monkeypatch.setattr(error_model, 'fit', fit)
  averaged, raw = (Predictor.load(workdir, raw=r) for r in (False, True))
  where = tmp_path / 'run'
  where.mkdir()
  found = [error_model.of_run(p, where).windows for p in (averaged, averaged, raw, raw, averaged)]
  assert found == [1, 1, 2, 2, 3]
  with np.load(where / 'errors.npz') as kept:
    old = {k: kept[k] for k in kept if k != 'raw'}
  np.savez(where / 'errors.npz', **old)  # of before: it may be of either
  assert error_model.of_run(averaged, where).windows == 4
  # Of an ensemble the note says whose errors these are.
  result = dict(forecast=np.zeros((6, 15, 16)), issue_time='2012-01-01T00:00', longitude=None,
                times=store.clips[0].times(2.0)[:6])
  note = lambda r: predict.with_rms(r, averaged, where, store, 'validation')['rms_source']
  assert note(result) == '4 windows'
  assert note(result | dict(members=np.zeros(3))) == '4 windows, errors of run alone'


def test_error_model_cells():
  """Enough pixels: the cell's own RMS; none: the product of its lead and its place."""
  rng = np.random.default_rng(0)
  truth = (1 + np.arange(3))[:, None, None] * (1 + rng.random((4, 12)))
  count = np.full(truth.shape, 1e7)
  np.testing.assert_allclose(error_model.smooth(truth**2 * count, count), truth, rtol=1e-3)
  few = np.zeros(truth.shape)
  few[0] = 1e7
  few[2, 1, 3] = 1e7
  model = error_model.smooth(truth**2 * few, few)
  np.testing.assert_allclose(model[0], truth[0], rtol=1e-3)
  assert np.isfinite(model).all()
  slots = error_model.local_slots(np.array(['2012-01-01T00:00', '2012-01-01T13:00'], 'M8[m]'),
                                  [-180, 0, 90], 3)
  np.testing.assert_array_equal(slots, [[6, 0, 3], [0, 6, 9]])


def test_ensembles(run, tmp_path, capsys):
  workdir, store = run
  out = tmp_path / 'out'
  words = [f'--store={store.path}', '--issue-time=latest', f'--out={out}', '--rms=ensemble']
  assert predict.main([f'--checkpoint={workdir}', *words]) == 1
  assert '--rms=ensemble: name several checkpoints' in capsys.readouterr().err
  loaded = checkpoint.load(workdir)
  if loaded.config.model.name == 'convlstm':
    assert predict.main([f'--checkpoint={workdir}', '--members=2', *words]) == 1
    assert 'no drop path' in capsys.readouterr().err
    return
  with loaded.config.unlocked():  # drop path has no weights: the run serves with it, too
    loaded.config.model.backbone.drop_path = 0.5
  dropping = Predictor(loaded)
  result = predict.together([dropping], store, 'latest', members=3)
  np.testing.assert_allclose(result['forecast'], result['members'].mean(0), rtol=1e-5)
  np.testing.assert_allclose(result['spread'], result['members'].std(0, ddof=1), rtol=1e-5)
  assert result['members'].shape == (3, 6, 15, 16) and result['spread'].max() > 0
  again = predict.together([dropping], store, 'latest', members=2)
  np.testing.assert_array_equal(again['members'], result['members'][:2])
  # Without dropping the sample is the forecast: batch statistics stay those of the run.
  plain = Predictor.load(workdir)
  np.testing.assert_allclose(
      predict.issue(plain, store, 'latest', member=0)['forecast'],
      predict.issue(plain, store, 'latest')['forecast'], rtol=1e-4, atol=1e-3)
  made = predict.with_rms(result, dropping, workdir, store, 'ensemble')
  np.testing.assert_array_equal(made['rms'], result['spread'])


def test_skill_of_a_run(run, tmp_path, capsys):
  """The same card at any batch size; the RMSE is that of evaluation."""
  workdir, store = run
  if Predictor.load(workdir).config.model.name != 'convlstm':
    pytest.skip('one backbone is enough here')
  words = [f'--checkpoint={workdir}', f'--store={store.path}', '--split=test']
  cards = []
  for size in (3, 8):
    assert skill.main([*words, f'--batch-size={size}', f'--out={tmp_path / str(size)}']) == 0
    cards.append(json.loads((tmp_path / str(size) / 'skill.json').read_text()))
  text = capsys.readouterr().out
  assert 'recurrence_27d' in cards[0]['partial'] and '27-day recurrence*' in text
  for name, groups in cards[0]['forecasts'].items():
    for group, entry in groups.items():
      other = cards[1]['forecasts'][name][group]
      assert entry['days'] == other['days'] and entry['pixels'] == other['pixels']
      assert entry['cos_rmse'] == pytest.approx(other['cos_rmse'], rel=1e-4)
  assert cards[0]['windows'] == 39  # every start: the config's stride would leave one
  wide = skill.measure([str(workdir)], store=[str(store.path)], split=['test'], stride=97,
                       progress=False)
  expected = evaluate.evaluate(workdir, store=[str(store.path)], split=['test'],
                               out=tmp_path / 'report')['splits']['test']['forecasts']
  for name in ('net', 'persistence', 'ar_blend'):
    found = wide['forecasts'][name]['all']
    for key in ('rmse', 'mae', 'bias', 'cos_rmse', 'cos_mae', 'cos_bias'):
      assert found[key] == pytest.approx(expected[name]['all'][key], rel=1e-3, abs=1e-3)
  assert (tmp_path / '3' / 'skill.png').stat().st_size > 10_000
  verdicts = {f['all']['verdict'] for f in cards[0]['compared'].values()}
  assert verdicts <= {'too few days', 'no common frames'}  # the split has four days
