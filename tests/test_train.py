"""The loop: bit-exact resume, meshes, kills, non-finite steps, order of evaluation and saving."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax import checkpoint, optimizers, sharding, tasks, train
from stp_jax import config as config_files
from stp_jax.data import spec as data_spec
from tests import stores

CONFIG = 'configs/iono_mixer.py:smoke,model=convlstm,channels=4'


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return stores.make(tmp_path_factory.mktemp('store') / 's')


def make_config(store, words='', **overrides):
  config = config_files.load(f'{CONFIG}{words}', {k: str(v) for k, v in overrides.items()})
  config.data.stores = (str(store.path),)
  config.data.batch_size = 8
  return config


def losses(workdir):
  lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  rows = [r for r in rows if 'loss' in r]
  assert [r['step'] for r in rows] == list(range(1, len(rows) + 1))
  return [r['loss'] for r in rows]


def test_nine_steps_equal_six_and_three_bit_for_bit(store, tmp_path):
  whole = make_config(store, ',steps=9', checkpoint_every=3)
  state = train.train(whole, tmp_path / 'whole')
  # The first run is told to do nine steps as well (the schedule must be the same) and is stopped.
  class Stop(Exception):
    pass
  real = checkpoint.save
  def save(*args, step, **kwargs):
    real(*args, step=step, **kwargs)
    if step == 6:
      raise Stop
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(checkpoint, 'save', save)
    with pytest.raises(Stop):
      train.train(whole, tmp_path / 'parts')
  again = train.train(whole, tmp_path / 'parts')
  assert losses(tmp_path / 'whole') == losses(tmp_path / 'parts')
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params),
               jax.device_get(again.params))


@pytest.mark.parametrize('mesh', [(1, 8), (4, 2)])
def test_a_sharded_step_equals_one_device(store, mesh, monkeypatch):
  monkeypatch.setattr(sharding, '_MIN_SHARDED', 64)
  config = make_config(store)
  spec = data_spec.make([store], config.data, ['train'])
  task = tasks.build(config, spec)
  tx, schedule = optimizers.make(config.optimizer, 4, 4)
  rng = np.random.default_rng(0)
  batch = dict(
      frames=rng.integers(0, 900, (8, task.length, *spec.shape)).astype(np.uint16),
      forcings=np.ones((8, task.length, len(spec.columns)), np.float32))
  results = []
  for shape, devices in [((1, 1), jax.devices()[:1]), (mesh, jax.devices())]:
    grid = sharding.make_mesh(*shape, devices=devices)
    init = train.make_init(task, tx, False, seed=1)
    shardings = sharding.state_shardings(grid, jax.eval_shape(init), 64)
    if shape[1] > 1:
      assert any(not s.is_fully_replicated for s in jax.tree.leaves(shardings))
    step = jax.jit(train.make_train_step(task, tx, schedule, 0.0, grid), static_argnums=2,
                   in_shardings=(shardings, sharding.batch_sharding(grid)),
                   out_shardings=(shardings, sharding.replicated(grid)))
    state = jax.jit(init, out_shardings=shardings)()
    placed = jax.device_put(batch, sharding.batch_sharding(grid))
    for _ in range(2):
      state, metrics = step(state, placed, task.t_out)
    results.append(jax.device_get((state.params, metrics)))
  one, many = results
  assert abs(one[1]['loss'] - many[1]['loss']) < 1e-6 * max(1, abs(one[1]['loss']))
  assert abs(one[1]['grad_norm'] / many[1]['grad_norm'] - 1) < 1e-4


@pytest.mark.parametrize('count', [1, 2])
def test_a_checkpoint_of_eight_devices_restores_on_fewer(store, tmp_path, count, monkeypatch):
  monkeypatch.setattr(sharding, '_MIN_SHARDED', 64)
  config = make_config(store, ',steps=2')
  config.mesh.data, config.mesh.fsdp = 2, 4
  state = train.train(config, tmp_path / 'run')
  expected = jax.device_get(state.params)
  spec = data_spec.make([store], config.data, ['train'])
  task = tasks.build(config, spec)
  tx, _ = optimizers.make(config.optimizer, config.steps, 1)
  shapes = jax.eval_shape(train.make_init(task, tx, False, 0))
  mesh = sharding.make_mesh(1, count, devices=jax.devices()[:count])
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    found = checkpoint.restore(
        checkpoints, 2, shapes, sharding.state_shardings(mesh, shapes, 64), None)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(found.params), expected)
  assert len(jax.tree.leaves(found.params)[0].sharding.device_set) == count


def test_kill_minus_nine_and_the_same_command(store, tmp_path):
  """A killed process, restarted by the same command, repeats the losses of an unbroken run."""
  def command(workdir):
    return [sys.executable, '-m', 'stp_jax.main', f'--config={CONFIG},steps=12',
            f'--store={store.path}', f'--workdir={workdir}', '--noevaluate',
            '--config.checkpoint_every=2', '--config.log_every=1']
  environment = dict(os.environ, XLA_FLAGS='')
  subprocess.run(command(tmp_path / 'whole'), env=environment, check=True, capture_output=True)
  process = subprocess.Popen(command(tmp_path / 'cut'), env=environment,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  checkpoints = tmp_path / 'cut' / 'checkpoints'
  deadline = time.time() + 120
  while time.time() < deadline and process.poll() is None:
    if any(p.name.isdigit() for p in checkpoints.glob('*')):
      break
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert any(p.name.isdigit() for p in checkpoints.glob('*'))
  subprocess.run(command(tmp_path / 'cut'), env=environment, check=True, capture_output=True)
  assert losses(tmp_path / 'whole') == losses(tmp_path / 'cut')


def test_sigterm_saves_and_asks_for_a_requeue(store, tmp_path, monkeypatch):
  config = make_config(store, ',steps=6', checkpoint_every=100)
  real = train.pipeline.to_device
  calls = []
  def to_device(*args):
    calls.append(1)
    if len(calls) == 3:
      os.kill(os.getpid(), signal.SIGTERM)
    return real(*args)
  monkeypatch.setattr(train.pipeline, 'to_device', to_device)
  with pytest.raises(train.Preempted) as stopped:
    train.train(config, tmp_path)
  assert stopped.value.code == 75
  with checkpoint.manager(tmp_path) as checkpoints:
    assert checkpoints.latest_step() == 3


def test_a_non_finite_step_is_skipped_and_counted(store, monkeypatch):
  config = make_config(store)
  spec = data_spec.make([store], config.data, ['train'])
  task = tasks.build(config, spec)
  tx, schedule = optimizers.make(config.optimizer, 4, 4)
  real = task.loss
  monkeypatch.setattr(task, 'loss', lambda *a, step, **k: (
      lambda loss, rest: (jnp.where(step == 1, jnp.nan, loss), rest))(*real(*a, step=step, **k)))
  mesh = sharding.make_mesh(1, 1, devices=jax.devices()[:1])
  step = jax.jit(train.make_train_step(task, tx, schedule, 0.9, mesh), static_argnums=2)
  state = jax.jit(train.make_init(task, tx, True, 0))()
  batch = dict(frames=np.full((2, task.length, *spec.shape), 200, np.uint16),
               forcings=np.ones((2, task.length, len(spec.columns)), np.float32))
  first, _ = step(state, batch, task.t_out)
  second, metrics = step(first, batch, task.t_out)
  assert int(metrics['skipped']) == 1 and int(second.step) == 2
  jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
  jax.tree.map(np.testing.assert_array_equal, first.opt_state, second.opt_state)
  third, metrics = step(second, batch, task.t_out)
  assert int(metrics['skipped']) == 1
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), second.ema, third.ema)
  assert any(jax.tree.leaves(moved))


def test_too_many_skipped_steps_stop_the_run_and_name_a_module(store, tmp_path, monkeypatch):
  config = make_config(store, ',steps=4', max_skipped=1)
  from stp_jax.tasks import forecast
  real = forecast.Forecast.loss
  def loss(self, variables, batch, **kwargs):
    value, rest = real(self, variables, batch, **kwargs)
    bad = variables['params']['backbone']['conv_last']['kernel']
    return value + jnp.sqrt(-jnp.square(bad).sum()), rest
  monkeypatch.setattr(forecast.Forecast, 'loss', loss)
  with pytest.raises(train.NonFiniteError, match=r'step 2: 2 steps .*first bad module: backbone/'):
    train.train(config, tmp_path)


def test_loss_falls(store, tmp_path):
  config = make_config(store, ',steps=40,anchor=none,learning_rate=0.01')
  config.checkpoint_every, config.task.loss_scale = 0, 'none'
  train.train(config, tmp_path)
  curve = losses(tmp_path)
  assert np.mean(curve[-5:]) < 0.5 * np.mean(curve[:5])


def test_init_from_takes_weights_and_refuses_another_architecture(store, tmp_path):
  config = make_config(store, ',steps=1')
  source = train.train(config, tmp_path / 'a')
  config.init_from = str(tmp_path / 'a')
  config.optimizer.learning_rate = 0.0
  state = train.train(config, tmp_path / 'b')
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params),
               jax.device_get(source.params))
  other = make_config(store, ',steps=1')
  other.model.backbone.features = (6,)
  other.init_from = str(tmp_path / 'a')
  with pytest.raises(checkpoint.CheckpointError, match=r'another architecture: .*cell_list_0'):
    train.train(other, tmp_path / 'c')
  with pytest.raises(checkpoint.CheckpointError, match='another architecture'):
    other.init_from = ''
    train.train(other, tmp_path / 'a')


def test_epochs_count_windows(store, tmp_path):
  config = make_config(store)
  config.epochs = 2
  state = train.train(config, tmp_path)
  windows = len(store.windows(['train'], 10, config.data.stride))
  assert int(state.step) == 2 * (windows // 8)


def test_evaluation_reads_the_average_unless_raw(store, tmp_path):
  config = make_config(store, ',steps=3,learning_rate=0.05')
  config.optimizer.ema_decay = 0.5
  state = train.train(config, tmp_path)
  for raw, expected in [(False, state.ema), (True, state.params)]:
    found = checkpoint.load(tmp_path, raw=raw).variables['params']
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))
  apart = jax.tree.map(lambda a, b: float(abs(a - b).max()), state.ema, state.params)
  assert max(jax.tree.leaves(apart)) > 0


def test_the_mesh_must_fit():
  with pytest.raises(ValueError, match=r'mesh\.data=3 mesh\.fsdp=1: does not fit 8 devices'):
    sharding.make_mesh(3, 1)
  assert dict(sharding.make_mesh(-1, 2).shape) == dict(data=4, fsdp=2)
