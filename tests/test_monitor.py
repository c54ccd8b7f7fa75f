"""Best checkpoint, early end and plateau: decisions, their survival of a resume, readers."""

import json
import pathlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax import checkpoint, evaluate, monitor, optimizers, train
from stp_jax import config as config_files
from tests import stores

CONFIG = 'configs/iono_mixer.py:smoke,model=convlstm,channels=4'

# One worker makes the runs that these tests share; another would make them again.
pytestmark = pytest.mark.xdist_group('monitor')


def make_config(store=None, **overrides):
  config = config_files.load(CONFIG, {k: str(v) for k, v in overrides.items()})
  if store is not None:
    config.data.stores = (str(store.path),)
  config.data.batch_size = config.data.eval_batch_size = 8
  return config


def watch_values(config, values):
  watch, steps = monitor.Monitor(config, 1), []
  for step, value in enumerate(values, 1):
    watch.update(step, {'validation/loss': value}, None)
    steps.append((watch.best_step, watch.stopped))
  return watch, steps


@pytest.mark.parametrize('direction, values, best', [
    ('min', [3, 2, 2, 2.5], 2), ('max', [3, 2, 4, float('nan')], 3),
    ('min', [float('nan'), 5, 6], 2), ('min', [None, 5, 4.95], 2)])
def test_the_best_is_strictly_better(direction, values, best):
  config = make_config(**{'validation.metric': 'loss', 'validation.direction': direction,
                          'validation.min_delta': 0.1})
  assert watch_values(config, values)[0].best_step == best


def test_patience_counts_validations_in_a_row():
  config = make_config(**{'validation.metric': 'loss', 'validation.patience': 2})
  _, steps = watch_values(config, [5, 6, 4, 4, 4.5])
  assert [s for _, s in steps] == [False, False, False, False, True]
  assert steps[-1][0] == 3


@settings(deadline=None, max_examples=25)
@given(values=st.lists(st.floats(0.5, 2), min_size=1, max_size=30), patience=st.integers(0, 4),
       factor=st.floats(0.1, 0.9), cooldown=st.integers(0, 3), threshold=st.floats(0, 0.2),
       direction=st.sampled_from(['min', 'max']), floor=st.floats(0, 0.05),
       cut=st.integers(0, 30))
def test_plateau_is_torchs_and_survives_a_checkpoint(
    values, patience, factor, cooldown, threshold, direction, floor, cut):
  torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")
  optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
  theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
      optimizer, direction, factor=factor, patience=patience, cooldown=cooldown,
      threshold=threshold, min_lr=floor)
  fields = dict(factor=factor, patience=patience, cooldown=cooldown, threshold=threshold,
                sign=1 if direction == 'min' else -1, rate=0.1, min_rate=floor)
  ours = monitor.Plateau(**fields)
  for i, value in enumerate(values):
    if i == cut:  # as a checkpoint keeps it
      kept = json.loads(json.dumps(
          dict(best=ours.best, bad=ours.bad, cooling=ours.cooling, scale=ours.scale)))
      ours = monitor.Plateau(**fields, **kept)
    theirs.step(value)
    ours.update(value)
    assert 0.1 * ours.scale == pytest.approx(optimizer.param_groups[0]['lr'], rel=1e-12)


def test_a_rate_that_was_lowered_stays_so_when_another_score_is_watched():
  config = config_files.load('configs/course.py:smoke', {
      'optimizer.schedule': 'plateau', 'validation.metric': 'loss'})
  before = monitor.Monitor(config, 10)
  before.restore(dict(metric='loss', best=1.0, best_step=4, bad=2,
                      plateau=dict(best=1.0, bad=1, cooling=0, scale=0.25)))
  with config.unlocked():
    config.validation.metric = 'rmse'
  after = monitor.Monitor(config, 10)
  after.restore(before.state())
  assert after.best_step is None and after.state()['plateau']['scale'] == 0.25
  assert after.state()['plateau']['best'] != 1.0


def test_plateau_scales_updates_and_the_logged_rate():
  tx, at = optimizers.make(dict(name='sgd', momentum=0.0, schedule='plateau', learning_rate=0.5), 9)
  params = {'w': jax.numpy.zeros(2)}
  state = optimizers.with_rate_scale(tx.init(params), 0.25)
  updates, state = tx.update({'w': jax.numpy.ones(2)}, state, params)
  np.testing.assert_allclose(updates['w'], -0.125)
  assert float(at(3, state)['learning_rate']) == 0.125 and float(at(3)['learning_rate']) == 0.5


@settings(deadline=None, max_examples=20)
@given(gradient=st.lists(st.floats(-30, 30, width=32, allow_subnormal=False), min_size=1,
                         max_size=9),
       limit=st.floats(0.125, 12, width=32))
def test_clipping_by_value_is_torchs(gradient, limit):
  torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")
  parameter = torch.nn.Parameter(torch.zeros(len(gradient)))
  parameter.grad = torch.tensor(gradient)
  torch.nn.utils.clip_grad_value_([parameter], limit)
  tx, _ = optimizers.make(dict(name='sgd', momentum=0.0, schedule='constant', learning_rate=1.0,
                               clip_value=limit), 3)
  given_ = {'w': np.array(gradient, np.float32)}
  updates, _ = tx.update(given_, tx.init(given_), given_)
  np.testing.assert_array_equal(-updates['w'], parameter.grad)


@pytest.mark.parametrize('fields, message', [
    ({'validation.patience': 3}, r'validation\.patience needs validation\.metric'),
    ({'optimizer.schedule': 'plateau'}, 'schedule=plateau needs validation.metric'),
    ({'validation.direction': 'down'}, "direction='down': min or max"),
    ({'validation.epochs': -1}, 'not negative'),
    ({'optimizer.schedule': 'plateau', 'optimizer.plateau_factor': 1.5,
      'validation.metric': 'loss'}, '0 < plateau_factor < 1')])
def test_fields_that_do_not_fit(fields, message):
  with pytest.raises(ValueError, match=message):
    monitor.Monitor(make_config(**fields), 5)


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return stores.make(tmp_path_factory.mktemp('monitor') / 's')


def rows(workdir):
  text = (pathlib.Path(workdir) / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def scripted(monkeypatch, values):
  """Validation scores by their order; of a run that goes on, those that are left."""
  left = list(values)
  monkeypatch.setattr(
      evaluate, 'validate', lambda *args: {'validation/loss': left.pop(0) if left else 9.0})


@pytest.fixture(scope='module')
def config(store):
  return make_config(store, **{
      'steps': 12, 'checkpoint_every': 4, 'eval_every': 2, 'log_every': 3,
      'validation.metric': 'loss', 'validation.patience': 3, 'optimizer.schedule': 'plateau',
      'optimizer.plateau_factor': 0.5, 'optimizer.plateau_patience': 0, 'keep_checkpoints': 1,
      'optimizer.plateau_threshold': 0.0})


# By step: 2, 4, 6, 8, 10. The best is step 4; the third worse one in a row is at step 10.
SCORES = [3.0, 2.0, 2.5, 2.25, 2.0, 9.0]


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  with pytest.MonkeyPatch.context() as patch:
    scripted(patch, [9.0, *SCORES])  # one is asked for before the first step
    state = train.train(config, folder)
  return folder, jax.device_get(state.params)


def test_the_run_ends_early_and_keeps_its_best(whole):
  folder, _ = whole
  assert max(r['step'] for r in rows(folder)) == 10
  assert [r['step'] for r in rows(folder) if 'validation/loss' in r] == [2, 4, 6, 8, 10]
  rates = {r['step']: r['learning_rate'] for r in rows(folder) if 'loss' in r}
  assert len(rates) == 10
  assert rates[6] == rates[1] and rates[7] == 0.5 * rates[1] and rates[9] == 0.25 * rates[1]
  with checkpoint.manager(folder) as checkpoints:
    assert sorted(checkpoints.all_steps()) == [4, 10]
  assert checkpoint.load(folder).step == 10
  best = checkpoint.load(folder, step='best')
  assert best.step == 4 and checkpoint.load(folder, step='4').step == 4
  with pytest.raises(checkpoint.CheckpointError, match=r'no checkpoint of step 6; there are 4 10'):
    checkpoint.load(folder, step=6)


@pytest.mark.parametrize('cut', [4, 8])
def test_a_resume_decides_and_computes_the_same(whole, config, cut, tmp_path, monkeypatch):
  folder, params = whole
  real = checkpoint.save

  class Stop(Exception):
    pass

  def save(*args, step, **kwargs):
    real(*args, step=step, **kwargs)
    if step == cut:
      raise Stop

  with pytest.MonkeyPatch.context() as patch:
    scripted(patch, [9.0, *SCORES])
    patch.setattr(checkpoint, 'save', save)
    with pytest.raises(Stop):
      train.train(config, tmp_path)
  scripted(monkeypatch, SCORES[cut // 2:])
  state = train.train(config, tmp_path)
  assert rows(folder) == rows(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.params))
  with checkpoint.manager(tmp_path) as checkpoints:
    assert sorted(checkpoints.all_steps()) == [4, 10]
    assert checkpoint.watched(checkpoints, 10)['best_step'] == 4


def test_the_same_command_after_the_end_does_nothing(whole, config, capsys):
  folder, _ = whole
  before = rows(folder)
  train.train(config, folder)
  assert rows(folder) == before
  assert 'did not improve in 3 validations; the best is 2 at step 4' in capsys.readouterr().err


def test_an_unknown_score_is_found_before_the_first_step(config, store, tmp_path):
  other = config.copy_and_resolve_references()
  other.validation.metric = 'los'
  with pytest.raises(ValueError, match=r'validation.metric=los: no such score; there are: rmse '):
    train.train(other, tmp_path)
  assert not (tmp_path / 'metrics.jsonl').exists()
  other.validation.metric, other.data.validation_splits = 'loss', ('nowhere',)
  with pytest.raises(ValueError, match='no window in a validation split'):
    train.train(other, tmp_path)


def test_validation_every_epoch_on_real_scores(store, tmp_path):
  config = make_config(store, **{'epochs': 2, 'validation.metric': 'loss'})
  train.train(config, tmp_path)
  per_epoch = len(store.windows(['train'], 10, config.data.stride)) // 8
  found = [r for r in rows(tmp_path) if 'validation/loss' in r]
  assert [r['step'] for r in found] == [per_epoch, 2 * per_epoch]
  assert all(np.isfinite(r['validation/loss']) for r in found)
  best = min(found, key=lambda r: r['validation/loss'])['step']
  assert checkpoint.load(tmp_path, step='best').step == best
  card = evaluate.evaluate(tmp_path, step='best', out=tmp_path / 'report')
  assert card['step'] == best
  assert evaluate.main([f'--checkpoint={tmp_path}', '--step=3']) == 1


def test_a_run_without_a_metric_keeps_no_best(store, tmp_path):
  train.train(make_config(store, steps=1), tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match='kept no best checkpoint; train with'):
    checkpoint.load(tmp_path, step='best')
