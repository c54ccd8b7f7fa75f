"""The rebuild task: roles, labels, losses, and that frozen parameters stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax import tasks
from stp_jax.convert import beam as convert_beam
from stp_jax.convert import beam_rebuild, rules
from stp_jax.tasks import rebuild_losses
from tests import beam_stores


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return beam_stores.make(tmp_path_factory.mktemp('beams') / 'store')


def build(store, words='', **overrides):
  config = beam_stores.config(store, f'stage=rebuild,init_from=x{words}', **overrides)
  return tasks.build(config, convert_beam.data_spec((16, 16), 2, 1))


def test_parameters_learn_by_their_part(store):
  task = build(store)
  shapes = jax.eval_shape(task.init, jax.random.key(0))['params']
  paths = [jax.tree_util.keystr(p, simple=True, separator='/')
           for p, _ in jax.tree_util.tree_leaves_with_path(shapes)]
  by_label = {label: [p for p in paths if task.label(p) == label]
              for label in ('main', 'slow', 'frozen')}
  assert sum(map(len, by_label.values())) == len(paths)
  assert all(p.startswith('rebuild/') for p in by_label['main'])
  assert 'fusion/image_encoder/conv1/kernel' in by_label['frozen']
  assert any(p.startswith('fusion/lidar_encoder/layer1_0/') for p in by_label['frozen'])
  assert any(p.startswith('fusion/lidar_encoder/layer2_0/') for p in by_label['slow'])
  assert any(p.startswith('fusion/head/') for p in by_label['slow'])


def test_one_source_makes_two_targets_and_nonsense_is_refused(store):
  task = build(store, ',sources=image,targets=lidar+radar')
  shapes = jax.eval_shape(task.init, jax.random.key(0))['params']['rebuild']
  assert shapes['lidar_translator']['enc_net_0']['kernel'].shape == (1, 4, 8)
  assert {'image_projection', 'radar_projection', 'radar_translator'} <= set(shapes)
  for words, message in (
      (',sources=gps', "no trunk for 'gps'"), (',sources=image', 'none twice'),
      (',modalities=lidar+radar+gps', "no trunk for 'image'")):
    with pytest.raises(ValueError, match=message) as error:
      jax.eval_shape(build(store, words).init, jax.random.key(0))
    assert '\n' not in str(error.value)


def test_a_beam_run_becomes_the_network_and_others_are_refused(store):
  task = build(store)
  config = beam_stores.config(store)
  assert task.adopt(config, {'params': 1}) == ({'params': 1}, 'fusion')
  assert task.adopt(task.config, {'params': 1}) == ({'params': 1}, '')
  config.task.name = 'forecast'
  with pytest.raises(ValueError, match='a run of the task forecast; rebuilding starts from a beam'):
    task.adopt(config, {})


def test_distances_part_what_is_equal_without_a_nan():
  a = jnp.ones((2, 1, 2, 2, 4)) / 2
  b = a.at[0].set(0)
  for kind, expected in (('mean', -0.5), ('norm', -2.0), ('mse', -0.125)):
    np.testing.assert_allclose(rebuild_losses.distance(a, b, kind), expected, rtol=1e-6)
    gradient = jax.grad(rebuild_losses.distance)(a, b, kind)
    assert np.isfinite(gradient).all()
  # Upstream's grows with the batch; the sound one does not.
  twice = [jnp.concatenate([x, x]) for x in (a, b)]
  np.testing.assert_allclose(rebuild_losses.distance(*twice, 'norm'), -2 * 2 ** 0.5, rtol=1e-6)
  np.testing.assert_allclose(rebuild_losses.distance(*twice), -0.5, rtol=1e-6)
  with pytest.raises(ValueError, match='mean, norm or mse'):
    rebuild_losses.distance(a, b, 'l1')


def test_contrast_pulls_partners_and_knows_padding():
  rng = np.random.default_rng(0)
  a, b = (jnp.asarray(rng.normal(size=(3, 2, 2, 2, 4)), jnp.float32) for _ in range(2))
  near = rebuild_losses.contrast(a, a + 0.01 * b)
  assert near < rebuild_losses.contrast(a, b)
  assert rebuild_losses.contrast(a[:1], b[:1]) == 0
  padded = [jnp.concatenate([x, 9 * x[:1]]) for x in (a, b)]
  np.testing.assert_allclose(
      rebuild_losses.contrast(*padded, mask=jnp.array([1, 1, 1, 0])),
      rebuild_losses.contrast(a, b), rtol=1e-5)
  assert rebuild_losses.pairwise(rebuild_losses.contrast, {'one': a}) == 0


def test_names_follow_the_published_parts(store):
  task = build(store)
  variables = jax.eval_shape(task.init, jax.random.key(0))
  names = set(rules.leaves(beam_rebuild.FAMILY, variables).values())
  assert {'image_projection_l1.head.6.weight', 'feat_trans_l1.enc_net.7.bias',
          'feat_trans_l1.enc_net.4.running_var', 'fusion_model.join.0.weight',
          'fusion_model.encoder.image_encoder.features.layer1.0.bn1.weight'} <= names
  two = jax.eval_shape(build(store, ',sources=image,targets=lidar+radar').init, jax.random.key(0))
  with pytest.raises(rules.ConversionError, match='two leaves are called feat_trans_l1'):
    rules.leaves(beam_rebuild.FAMILY, two)
