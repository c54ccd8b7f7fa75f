"""The whole network: published sizes, what may be missing, its start, its types."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.beam import build
from stp_jax.models.beam.inputs import MODALITIES, normalize_image

# Two scales: compiling is what takes time.
NARROW = dict(widths=(4, 6), image_depths=(1, 1), depths=(1, 1), hidden=(8, 6), beams=5,
              anchors=(1, 2), n_layer=2, n_head=2, d_state=2, dropout=0.0)
_CHANNELS = dict(image=3, lidar=1, radar=2)


def _batch(b=2, t=2, size=(16, 20), seed=0):
  rng = np.random.default_rng(seed)
  found = {s: rng.random((b, t, *size, c)).astype(np.float32) for s, c in _CHANNELS.items()}
  found['image'] = (255 * found['image']).astype(np.uint8)
  return {**found, 'gps': rng.normal(size=(b, 2, 2)).astype(np.float32)}


def _narrow(name='mambafusion', **fields):
  dtype = fields.pop('dtype', 'float32')
  return build(dict(name=name, backbone={**NARROW, **fields}), dtype=dtype)


@functools.cache
def _started():
  """The narrow MambaFusion as it starts, and one compiled function for every subset."""
  model = _narrow()
  variables = jax.jit(model.init)(jax.random.key(0), _batch())

  def logits(batch, missing, rebuilt, where):
    return model.apply(variables, batch, missing=missing, rebuilt=rebuilt, rebuilt_where=where)

  return model, variables, jax.jit(logits)


def _none(model, batch):
  """Arguments of the compiled function that change nothing."""
  b, t, h, w, _ = batch['image'].shape
  shape = (b, t, -(-h // 4), -(-w // 4), model.widths[0])
  rebuilt = {s: np.zeros(shape, np.float32) for s in model.sensors}
  return np.zeros(4, bool), rebuilt, {s: np.zeros((b,), bool) for s in model.sensors}


def _count(model, frames=5, only=''):
  batch = {s: jax.ShapeDtypeStruct((1, frames, 32, 32, c), jnp.float32)
           for s, c in _CHANNELS.items()}
  batch['gps'] = jax.ShapeDtypeStruct((1, 2, 2), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), batch)['params']
  size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  return size(params), {k: size(v) for k, v in params.items()}


def test_published_sizes():
  total, parts = _count(build(dict(name='mambafusion')))
  assert total == 103_461_924
  assert parts == dict(
      image_encoder=21_284_672, lidar_encoder=11_170_240, radar_encoder=11_173_376, vel_emb1=192,
      vel_emb2=8_320, vel_emb3=33_024, vel_emb4=131_584, mambafusion1=1_635_584,
      mambafusion2=4_221_440, mambafusion3=12_243_968, mambafusion4=39_692_288,
      time_mamba=1_694_756, head=172_480)
  # Without a modality: its trunk is all that goes. (The README prints 78,118,308 for the last.)
  assert total - parts['radar_encoder'] == 92_288_548
  assert total - parts['lidar_encoder'] == 92_291_684
  assert total - parts['image_encoder'] == 82_177_252
  assert _count(build(dict(name='mambafusion', modalities='image+gps')))[0] == 81_118_308


@pytest.mark.parametrize('name, frames, fields, count', [
    ('mambafusion', 5, dict(channel_swap=False, tfm_weights='sum'), 103_461_888),
    ('mambafusion', 10, dict(channel_swap=False, tfm_weights='sum', steps=5), 119_158_208),
    ('transfuser', 5, {}, 78_422_528)])
def test_published_sizes_of_the_others(name, frames, fields, count):
  total, parts = _count(build(dict(name=name, **fields)), frames)
  assert total == count
  if name == 'transfuser':
    assert [parts[f'transformer{i}'] for i in (1, 2, 3, 4)] == [
        461_568, 1_709_568, 6_564_864, 25_712_640]


@pytest.mark.parametrize('dropped', MODALITIES)
def test_a_dropped_modality_has_no_parameters(dropped):
  kept = '+'.join(m for m in MODALITIES if m != dropped)
  batch = {k: v for k, v in _batch().items() if k != dropped}
  model, whole = _narrow(modalities=kept), _started()[1]['params']
  shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), batch))
  logits, params = shapes[0], shapes[1]['params']
  assert logits.shape == (2, 5)
  gone = ({'vel_emb1', 'vel_emb2'} if dropped == 'gps' else {f'{dropped}_encoder'})
  assert whole.keys() - params.keys() == gone and not params.keys() - whole.keys()


def test_what_is_missing_is_not_seen_and_names_and_flags_agree():
  model, variables, logits = _started()
  batch, other = _batch(), _batch(seed=1)
  _, rebuilt, nowhere = _none(model, batch)
  whole = logits(batch, np.zeros(4, bool), rebuilt, nowhere)
  for i, name in enumerate(MODALITIES):
    lost = np.arange(4) == i
    found = logits(batch, lost, rebuilt, nowhere)
    again = logits({**batch, name: other[name]}, lost, rebuilt, nowhere)
    np.testing.assert_array_equal(found, again)
    assert np.abs(found - whole).max() > 1e-4, name
  first = np.array([[True, False, False, False], [False] * 4])  # the image of one example
  mixed = logits(batch, first, rebuilt, nowhere)
  np.testing.assert_allclose(mixed[1], whole[1], atol=1e-5)
  assert np.abs(mixed[0] - whole[0]).max() > 1e-4
  inputs = model.apply(variables, batch, ('image', 'gps'), method='inputs')
  assert not np.any(inputs['image']) and not np.any(inputs['gps'])
  np.testing.assert_array_equal(inputs['lidar'], batch['lidar'])
  noise = model.apply(variables, batch, ('image',), 'random', method='inputs',
                      rngs={'missing': jax.random.key(1)})['image']
  assert 0 <= noise.min() < 0.1 and 0.9 < noise.max() < 1 and np.std(noise) > 0.2


def test_a_rebuilt_feature_takes_the_place_of_the_first_stage():
  model, variables, logits = _started()
  batch = _batch()
  lost, rebuilt, nowhere = _none(model, batch)
  whole = logits(batch, lost, rebuilt, nowhere)
  features = model.apply(variables, batch, method='first_features')
  everywhere = {s: np.ones((2,), bool) for s in nowhere}
  # What the stage itself makes changes nothing, even where the sensors are gone.
  lost = np.array([True, True, True, False])
  np.testing.assert_allclose(logits(batch, lost, features, everywhere), whole, atol=1e-5)
  one = logits(batch, lost, features, {**everywhere, 'image': np.array([True, False])})
  np.testing.assert_allclose(one[0], whole[0], atol=1e-5)
  assert np.abs(one[1] - whole[1]).max() > 1e-4
  with pytest.raises(ValueError, match=r'rebuilt feature of image \(1, 2\): expected image \('):
    jax.eval_shape(lambda: model.apply(variables, batch, rebuilt={'image': np.zeros((1, 2))}))


def _filled(model, batch):
  """Variables of the right shapes at little cost: compiling a start takes as long as a step."""
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    around = float(path[-1].key in ('scale', 'var'))
    return (around + 0.3 * rng.uniform(-1, 1, leaf.shape)).astype(leaf.dtype)

  shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
  return jax.tree_util.tree_map_with_path(fill, shapes)


def _gradients(model, variables, batch):
  @jax.jit
  def gradients(params):
    def loss(params):
      logits, _ = model.apply({**variables, 'params': params}, batch, True,
                              mutable=['batch_stats'], rngs={'dropout': jax.random.key(1)})
      return jnp.mean(jnp.square(logits - 1).astype(jnp.float32))
    return jax.grad(loss)(params)

  return gradients(variables['params'])


def _silent(grads):
  """Leaves, or layers of a stack, without any gradient."""
  silent = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    parts = leaf if 'mambablocks' in name else leaf[None]
    silent += [f'{name} {i}' for i, part in enumerate(parts) if not np.any(part)]
  return silent


def test_our_start_has_a_gradient_everywhere():
  model, variables, _ = _started()
  assert _silent(_gradients(model, variables, _batch())) == []


@pytest.mark.slow
def test_upstreams_start_is_dead():
  batch = _batch(1)
  model = _narrow(align='upstream', residual=False, initializer='trunc_normal', n_layer=8,
                  modalities='image+gps')
  grads = _gradients(model, jax.jit(model.init)(jax.random.key(0), batch), batch)
  names = {jax.tree_util.keystr(p, simple=True, separator='/'): bool(np.any(g))
           for p, g in jax.tree_util.tree_leaves_with_path(grads)}
  alive = {k.split('/', 1)[1] for k, moved in names.items() if moved and 'mambafusion' in k}
  assert alive == {'ln_f/bias'}
  # The fixes go through nothing but the fusions.
  assert not any(moved for k, moved in names.items() if k.startswith('vel_emb1'))


@pytest.mark.slow
def test_bfloat16_is_finite_and_its_logits_are_float32():
  model, batch = _narrow(dtype='bfloat16', remat=True, steps=3, dropout=0.1), _batch(1)
  variables = jax.eval_shape(model.init, jax.random.key(0), batch)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  grads = _gradients(model, _filled(model, batch), batch)
  assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))
  logits = jax.eval_shape(lambda v: model.apply(v, batch), variables)
  assert logits.shape == (1, 3, 5) and logits.dtype == jnp.float32


@pytest.mark.parametrize('name, size, frames, fields', [
    ('transfuser', (65, 96), 3, dict(anchors=(8, 8))),
    ('mambafusion', (7, 40), 1, dict(ffm='none', tfm='off')),
    ('mambafusion', (64, 64), 2, dict(norm='token', tfm_weights='sum', align='upstream'))])
def test_any_size_and_every_choice_has_a_shape(name, size, frames, fields):
  model, batch = _narrow(name, **fields), _batch(1, frames, size)
  logits = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), batch, True))[0]
  assert logits.shape == (1, 5)


@pytest.mark.slow
def test_recomputing_changes_no_gradient():
  batch = _batch(1, 1)
  models = [_narrow('transfuser', n_layer=1, remat=r) for r in (False, True)]
  plain, again = (_gradients(m, _filled(m, batch), batch) for m in models)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), plain, again)


@pytest.mark.parametrize('fields, error', [
    (dict(ffm='gpt'), "ffm='gpt': choose one of mamba attention none"),
    (dict(modalities='image+sonar'), 'modalities=image.sonar: choose some of image lidar'),
    (dict(name='resnet'), "model 'resnet': one of mambafusion transfuser"),
    (dict(depth=3), "unknown field 'depth'; it has modalities"),
    (dict(n_head=5, ffm='attention'), '4 channels do not divide by n_head=5')])
def test_settings_are_checked_in_one_line(fields, error):
  with pytest.raises((ValueError, TypeError), match=error):
    model = build({'name': 'mambafusion', **NARROW, **fields})
    jax.eval_shape(model.init, jax.random.key(0), _batch())


def test_the_batch_and_the_missing_are_checked():
  model, variables, _ = _started()
  batch = _batch()
  with pytest.raises(ValueError, match='missing=sonar: choose some of image lidar radar gps'):
    model.apply(variables, batch, missing=('sonar',))
  with pytest.raises(ValueError, match="missing_fill='nan': zero or random"):
    model.apply(variables, batch, missing=('image',), missing_fill='nan')
  del batch['radar']
  with pytest.raises(ValueError, match="the batch has no 'radar'"):
    model.apply(variables, batch)


def test_images_are_normalised_alike_from_integers_and_floats():
  image = np.array([[[0, 128, 255]]], np.uint8)
  expected = (np.array([0, 128 / 255, 1]) - [.485, .456, .406]) / [.229, .224, .225]
  for x in (image, image.astype(np.float32)):
    np.testing.assert_allclose(normalize_image(x)[0, 0], expected, rtol=1e-6)
