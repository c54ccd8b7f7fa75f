"""The forecast task's loss."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import tasks
from stp_jax.data import pipeline
from stp_jax.data import spec as data_spec
from tests import stores


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return stores.make(tmp_path_factory.mktemp('store') / 's')


def loss(store, model):
  config = config_files.load(f'configs/iono_mixer.py:smoke,model={model},channels=4', {
      'task.loss': 'none'})
  config.data.t_in, config.data.t_out = 3, 2
  task = tasks.build(config, data_spec.make([store], config.data, ['train']))
  variables = jax.eval_shape(task.init, jax.random.key(0))
  variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.1, x.dtype), variables)
  batch = dict(frames=np.full((1, 5, *task.spec.shape), 300, np.uint16),
               forcings=np.ones((1, 5, len(task.spec.columns)), np.float32))
  return jax.jit(lambda v: task.loss(v, batch, rng=jax.random.key(1), step=0, stage=2))(variables)


def test_terms_alone(store):
  """`task.loss=none` trains on the model's own terms."""
  value, (metrics, _) = loss(store, 'predrnnv2')
  assert metrics['term/main'] == 0
  np.testing.assert_allclose(value, 0.1 * metrics['term/decouple'], rtol=1e-6)


def test_nothing_to_train_on(store):
  with pytest.raises(ValueError, match=r'task.loss=none needs a weight .* has the terms \(none\)'):
    loss(store, 'convlstm')


def _flat(store, words):
  """A task without a climatology, and a batch whose truth is 30 TECU everywhere."""
  config = config_files.load(f'configs/iono_mixer.py:smoke,{words}', {
      'task.loss_scale': 'none', 'model.backbone.hid_S': '4', 'model.backbone.hid_T': '4'})
  config.data.t_in, config.data.t_out = 3, 2
  task = tasks.build(config, data_spec.make([store], config.data, ['train']))
  batch = dict(frames=np.full((2, 5, *task.spec.shape), 300, np.uint16),
               forcings=np.ones((2, 5, len(task.spec.columns)), np.float32))
  return task, batch


def test_area_weights_by_hand(store, monkeypatch):
  """4 TECU off at 80 degrees, 2 at the equator, 1000 in the padding row, nothing elsewhere."""
  error = np.zeros((16, 1, 1), np.float32)
  error[[0, 7, 15], 0, 0] = 4, -2, 1000
  cosines = np.cos(np.radians(np.linspace(80, -80, 15)))
  assert cosines[7] == 1
  expected = dict(none=(4 ** 2 + 2 ** 2) / 15,
                  area=(4 ** 2 * cosines[0] + 2 ** 2) / cosines.sum())
  for word, value in expected.items():
    task, batch = _flat(store, f'fusion=none,anchor=none,loss_weights={word}')
    monkeypatch.setattr(task, 'predict', lambda v, b: jnp.full((2, 2, 16, 16, 1), 30.0) + error)
    np.testing.assert_allclose(task.frame_loss({}, batch), value / 200 ** 2, rtol=1e-4)


def test_a_batch_has_the_shapes_that_are_told(store):
  stores.check_batch_shapes(_flat(store, 'model=simvp')[0], [store])


def test_all_options_at_once(tmp_path):
  """Sun's frame, wrapped convolutions, magnetic latitude, area weights: a loss and its gradient."""
  store = stores.make(tmp_path / 's', size=18)
  task, batch = _flat(
      store, 'frame=sun,padding=circular,magnetic,loss_weights=area,anchor=persistence')
  assert task.channels[3] == 'magnetic_latitude' and len(task.channels) == 9
  assert {'hour', 'month'} <= set(task.required_columns) and task.model().globe.columns == 18
  batch['forcings'][..., task.spec.columns.index('hour')] = np.arange(5) * 2
  batch['frames'] = batch['frames'] + np.arange(18, dtype=np.uint16)[:, None]  # west to east
  run = jax.jit(jax.value_and_grad(lambda params, variables, batch: task.loss(
      {**variables, 'params': params}, batch, rng=jax.random.key(1), step=0, stage=2)[0]))
  variables = jax.jit(task.init)(jax.random.key(0))
  variables = {**variables, 'params': jax.tree.map(lambda x: x + 0.01, variables['params'])}
  value, gradient = run(variables['params'], variables, batch)
  flat = np.concatenate([np.ravel(g) for g in jax.tree.leaves(gradient)])
  assert np.isfinite(value) and value > 0 and np.isfinite(flat).all() and (flat != 0).mean() > 0.5
  padded = dict(batch, frames=batch['frames'].copy())
  padded['frames'][:, 3:, 17] = 1234  # the truth of the padding row
  assert run(variables['params'], variables, padded)[0] == value
  padded['frames'][:, 3:, 16] = 1234
  assert run(variables['params'], variables, padded)[0] != value


def test_a_model_with_terms_alone_is_watched_by_its_error(store):
  """Its loss on the truth is not 0 for ever: the best checkpoint would be the first."""
  task, _ = _flat(store, 'model=simvp,anchor=none')
  batch = next(pipeline.eval_batches(
      task.sources([store], ['test']), task.spec, task.config.data, task.t_in))
  variables = jax.eval_shape(task.init, jax.random.key(0))
  variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.1, x.dtype), variables)
  batch = {k: batch[k] for k in ('frames', 'forcings')}
  task.config.task.loss = 'mae'
  expected = task.frame_loss(variables, batch)
  task.config.task.loss = 'none'
  np.testing.assert_array_equal(task.frame_loss(variables, batch), expected)
  assert float(expected.min()) > 0


@pytest.mark.parametrize('model, fields, message', [
    ('phydnet', {}, r'phydnet ends in .*backbone\.squash=false'),
    ('phydnet', {'model.backbone.squash': 'false'}, ''),
    ('prednet', {}, 'prednet ends in a function that is never negative; choose another model'),
    ('convlstm', {'task.loss_scale': 'last_day_mean'}, 'divides by a mean'),
    ('convlstm', {}, '')])
def test_values_of_both_signs(model, fields, message):
  config = config_files.load(f'configs/video.py:smoke,model={model}', fields)
  spec = data_spec.DataSpec(name='t2m', shape=(16, 16, 1), dtype='float32', shift=280.0,
                            divisor=20.0, signed=True)
  with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
    tasks.build(config, spec)


def test_the_weight_of_no_term(store):
  task, batch = _flat(store, 'model=simvp')
  task.config.task.term_weights = dict(decople=0.1)
  with pytest.raises(ValueError, match=r'term_weights.decople: simvp has the terms \(none\)'):
    jax.eval_shape(lambda v: task.loss(v, batch, rng=jax.random.key(1), step=0, stage=2),
                   jax.eval_shape(task.init, jax.random.key(0)))


@pytest.mark.parametrize('words, message', [
    ('frame=moon', 'frame=moon: choose one of geographic sun'),
    ('padding=mirror', 'padding=mirror: choose one of zero circular'),
    ('loss_weights=cos', 'loss_weights=cos: choose one of none area'),
    ('magnetic,channels=1', 'no year in channels=1')])
def test_words_that_are_not_known(words, message):
  with pytest.raises(config_files.WordError, match=message):
    config_files.load(f'configs/iono_mixer.py:{words}')


def test_magnetic_leaves_the_count_square():
  found = config_files.load('configs/iono_mixer.py:magnetic').data.channels
  assert found == 'tec+longitude+latitude+magnetic_latitude+f107+r+day+hour+month'
  assert config_files.load('configs/iono_mixer.py:magnetic,fusion=none').data.channels == '1'


def test_the_sun_needs_a_clock(store):
  config = config_files.load('configs/iono_mixer.py:smoke,fusion=none,anchor=none,frame=sun')
  spec = data_spec.make([store], config.data, ['train'])
  with pytest.raises(ValueError, match=r'model\.frame=sun needs frames with times'):
    tasks.build(config, spec.with_columns((), {}))
