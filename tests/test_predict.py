"""The predictor: numpy in and out, physical units, the same as evaluation."""

import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import evaluate, predict, train
from stp_jax.data import indices
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


def test_the_command_writes_maps_and_gif(run, tmp_path, capsys):
  workdir, store = run
  common = [f'--checkpoint={workdir}', f'--store={store.path}', f'--out={tmp_path / "out"}']
  assert predict.main([*common, '--issue-time=latest']) == 0
  assert len(list((tmp_path / 'out' / 'maps').glob('*.png'))) == 6
  with np.load(tmp_path / 'out' / 'forecast.npz') as saved:
    assert saved['forecast'].shape == (6, 15, 16)
  assert (tmp_path / 'out' / 'forecast.gif').stat().st_size > 1000
  assert predict.main([*common, '--issue-time=1999-01-01T00:00']) == 1
  assert 'no frame at 1998-12-31T18:00' in capsys.readouterr().err
  assert predict.main([*common, '--issue-time=soon']) == 1
  assert evaluate.main([f'--checkpoint={tmp_path}']) == 1
