"""The forecast task's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import tasks
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
