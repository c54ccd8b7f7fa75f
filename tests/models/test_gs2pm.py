"""GS2PM: published sizes, its branches, border and mask, stochastic depth, the stack of blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax import convert, models
from stp_jax.convert import published, rules
from stp_jax.models.gs2pm import GS2PM, MS2P, PRESETS, masked_forecast
from stp_jax.models.gs2pm.blocks import CrossAttention, Options, Translator
from stp_jax.models.gs2pm.prompt_mask import BorderPrompt
from stp_jax.models.layers.conv import kernel_init
from stp_jax.models.simvp.simvp import SimVP

TINY = dict(channels=1, hid_S=4, hid_T=8, N_S=2, N_T=4, mlp_ratio=1.0)
BY_SCALE = dict(small=10_379_779, medium=99_899_395, large=441_917_059, large_readme=339_305_731)


def _frames(b=2, t=2, h=8, w=8, c=1, seed=0):
  return jnp.asarray(np.random.default_rng(seed).random((b, t, h, w, c)), jnp.float32)


def _noise(variables, seed=1):
  """Random numbers of the same shapes: layer scales of 1e-6 would hide the attention."""
  rng = np.random.default_rng(seed)
  flat, tree = jax.tree.flatten(variables)
  return jax.tree.unflatten(tree, [jnp.asarray(rng.uniform(0.1, 0.6, x.shape), x.dtype)
                                   for x in flat])


@functools.cache
def _fixed(**fields):
  module = GS2PM(**(TINY | fields))
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), _frames()))
  return module, _noise(shapes)


def _size(module, shape):
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
  return sum(x.size for x in jax.tree.leaves(shapes['params']))


@pytest.mark.parametrize('scale', BY_SCALE)
def test_published_parameter_counts(scale):
  count = _size(GS2PM(**PRESETS[scale]), (1, 10, 128, 128, 3))
  assert count == BY_SCALE[scale]
  # The README's counting misses parameters that belong to no layer.
  bare = 36_864 + 2 * PRESETS[scale]['hid_T'] * (PRESETS[scale]['N_T'] - 2)
  listed = dict(small=10.34, medium=99.84, large=441.80).get(scale)
  assert listed is None or (count - bare) / 1e6 == pytest.approx(listed, abs=0.0051)


@pytest.mark.parametrize('fields', [dict(), dict(hid_T=8, N_T=3)])
def test_without_a_prompt_it_is_simvp_with_a_uniformer(fields):
  """Also a stack of blocks in one scan against the same blocks one after another."""
  fields = TINY | dict(hid_T=16) | fields
  ours, theirs = GS2PM(**fields, prompt_size=0), SimVP(**fields, translator='uniformer')
  x = _frames()
  shapes = [jax.eval_shape(m.init, jax.random.key(0), x) for m in (ours, theirs)]
  families = [convert.family_of(n) for n in ('gs2pm', 'simvp')]
  variables = _noise(shapes[1])
  weights = rules.to_torch(families[1], variables)
  renamed = {k.replace('hid.', 'translator.'): v for k, v in weights.items()}
  mine, _ = rules.to_flax(families[0], renamed, shapes[0])
  np.testing.assert_allclose(
      jax.jit(ours.apply)(mine, x)[0], jax.jit(theirs.apply)(variables, x)[0], rtol=2e-5, atol=2e-5)
  # 16 of 8 channels: two ends of convolutions. Equal widths: no reductions, attention at the end.
  translator = mine['params']['translator']
  assert set(translator) == {'enc_0', 'stack'} | ({'enc_3'} if fields['hid_T'] == 16 else set())
  assert translator['stack']['gamma_1'].shape == (2, fields['hid_T'])


def test_two_blocks_are_no_stack():
  module = GS2PM(**(TINY | dict(N_T=2, hid_T=16)))
  shapes = jax.eval_shape(module.init, jax.random.key(0), _frames())
  assert set(shapes['params']['translator']) == {'enc_0', 'enc_1'}


def test_gradients_do_not_depend_on_what_is_remembered():
  # The rates of stochastic depth are drawn again, too.
  z = _frames(2, 1, 2, 2, 8)[:, 0]
  make = lambda remat: Translator(8, 3, Options(mlp_ratio=1.0), drop_path=0.3, remat=remat)
  variables = _noise(jax.eval_shape(lambda: make('none').init(jax.random.key(0), z, False)))

  def gradient(remat):
    def loss(params):
      y, _ = make(remat).apply({**variables, 'params': params}, z, True, mutable=['batch_stats'],
                               rngs={'dropout': jax.random.key(3)})
      return jnp.mean(y ** 2)
    return jax.grad(loss)(variables['params'])

  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
               jax.jit(lambda: gradient('full'))(), jax.jit(lambda: gradient('none'))())
  jax.eval_shape(lambda: gradient('dots'))


def test_a_mask_hides_and_only_from_the_reconstruction():
  module, variables = _fixed()
  x = _frames()
  mask = np.zeros((8, 8), np.float32)
  mask[2:6] = 1
  run = jax.jit(lambda x, mask: module.apply(variables, x, mask, method='both'))
  out = run(x, mask)
  spoilt = run(jnp.where(mask[..., None] > 0, x, jnp.nan), mask)
  np.testing.assert_array_equal(spoilt.reconstruction, out.reconstruction)
  assert np.isfinite(out.reconstruction).all()
  seen = run(x.at[:, 0, 3].add(0.5), mask)
  # Every frame is rebuilt from itself alone.
  assert not np.allclose(seen.reconstruction[:, 0], out.reconstruction[:, 0])
  np.testing.assert_array_equal(seen.reconstruction[:, 1], out.reconstruction[:, 1])
  other = run(x, 1 - mask)
  np.testing.assert_array_equal(other.prediction, out.prediction)
  assert not np.allclose(other.reconstruction, out.reconstruction)
  each = run(x, np.stack([mask, 1 - mask]))
  np.testing.assert_allclose(each.reconstruction[0], out.reconstruction[0], atol=1e-5)
  np.testing.assert_allclose(each.reconstruction[1], other.reconstruction[1], atol=1e-5)


def test_the_second_ms2p_has_the_same_parameters_elsewhere():
  _, variables = _fixed()
  second = GS2PM(**TINY, translate='reconstruction')
  shapes = jax.eval_shape(second.init, jax.random.key(0), _frames())
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)
  ones = jnp.ones((8, 8))
  out = jax.jit(lambda x: second.apply(variables, x, ones, method='both'))
  x = _frames()
  before, after = out(x), out(x.at[:, 0].add(0.5))
  # Its predictions are made frame by frame, its reconstructions from all frames.
  np.testing.assert_array_equal(after.prediction[:, 1], before.prediction[:, 1])
  assert not np.allclose(after.reconstruction[:, 1], before.reconstruction[:, 1])


def test_any_size_any_horizon_and_bfloat16():
  model = models.build(
      dict(name='gs2pm', backbone={k: v for k, v in TINY.items() if k != 'channels'}),
      shape=(9, 14, 3), t_in=2, t_out=3, dtype='bfloat16')
  x = _frames(1, 5, 9, 14, 3)
  variables = jax.jit(model.init)(jax.random.key(0), x)
  out = jax.jit(lambda x, key: model.apply(
      variables, x, method=masked_forecast, rngs={'mask': key}))(x, jax.random.key(0))
  assert out.prediction.shape == (1, 3, 9, 14, 3) and out.reconstruction.shape == (1, 2, 9, 14, 3)
  assert out.prediction.dtype == jnp.float32 and np.isfinite(out.prediction).all()
  assert out.mask.shape == (9, 14)
  with pytest.raises(ValueError, match='plain frames'):
    jax.eval_shape(lambda: models.build(
        dict(name='gs2pm', anchor='persistence', backbone={}), shape=(8, 8, 1), t_in=2,
        t_out=2).init(jax.random.key(0), _frames(), method=masked_forecast))


def test_stochastic_depth_is_off_unless_asked_for():
  x, (module, variables) = _frames(), _fixed()
  jax.eval_shape(lambda: module.apply(variables, x, True, mutable=['batch_stats']))  # no generator
  dropping = GS2PM(**TINY, drop_path=0.5, drop_path_floor=0.4)

  @jax.jit
  def run(key):
    rngs = {'dropout': key}
    return dropping.apply(variables, x, True, rngs=rngs, mutable=['batch_stats'])[0][0]

  a, b, again = run(jax.random.key(1)), run(jax.random.key(2)), run(jax.random.key(1))
  np.testing.assert_array_equal(a, again)
  assert not np.allclose(a, b)
  jax.eval_shape(lambda: dropping.apply(variables, x))


def test_frozen_statistics_neither_move_nor_matter():
  x, (_, variables) = _frames(), _fixed()
  results = {}
  for frozen in (False, True):
    module = GS2PM(**TINY, freeze_statistics=frozen)
    (y, _), updated = jax.jit(lambda m=module: m.apply(
        variables, x, True, mutable=['batch_stats']))()
    same = jax.tree.map(lambda a, b: bool((a == b).all()), updated['batch_stats'],
                        variables['batch_stats'])
    results[frozen] = y, set(jax.tree.leaves(same))
  np.testing.assert_allclose(results[True][0], jax.jit(module.apply)(variables, x)[0], rtol=1e-5)
  assert results[True][1] == {True} and results[False][1] == {False}
  assert not np.allclose(results[True][0], results[False][0])


def test_the_first_ms2p_is_asked_with_zeros():
  x, module = _frames(), MS2P(**TINY)
  variables = _noise(jax.eval_shape(module.init, jax.random.key(0), x))
  run = jax.jit(lambda query: module.apply(variables, x, query=query)[0])
  np.testing.assert_allclose(run(None), run(jnp.zeros_like(x)), rtol=1e-5)
  assert not np.allclose(run(None), run(x))


def test_upstreams_cross_attention_mixes_heads_and_examples():
  rng = np.random.default_rng(0)
  x, memory = rng.normal(size=(2, 2, 5, 6)).astype(np.float32)
  make = lambda layout: CrossAttention(3, layout)
  variables = _noise(jax.eval_shape(lambda: make('heads').init(
      jax.random.key(0), x, memory, False)))
  params = variables['params']
  params['proj'] = dict(kernel=jnp.eye(6), bias=jnp.zeros(6))
  found = {k: np.asarray(make(k).apply(variables, x, memory, False)) for k in ('heads', 'upstream')}
  # The sound one: an example sees itself alone. Head, example and token order, cut anew.
  alone = make('heads').apply(variables, x[1:], memory[1:], False)
  np.testing.assert_allclose(found['heads'][1:], alone, rtol=1e-5)
  heads = found['heads'].reshape(2, 5, 3, 2).transpose(2, 0, 1, 3).reshape(2, 5, 6)
  np.testing.assert_allclose(found['upstream'], heads, rtol=1e-6)
  alone = make('upstream').apply(variables, x[1:], memory[1:], False)
  assert not np.allclose(found['upstream'][1:], alone)
  config = dict(model=dict(name='ms2p_v1', fusion='none', backbone={}))
  assert published.published_fields(config, 'gs2pm')['model.backbone.attention'] == 'upstream'


def test_xavier_counts_the_fans_as_torch_does():
  draw = lambda *shape: float(jnp.std(kernel_init('xavier')(jax.random.key(0), shape)))
  assert draw(5, 5, 1, 400) == pytest.approx((2 / (25 + 25 * 400)) ** 0.5, rel=0.03)
  assert draw(3, 3, 40, 60) == pytest.approx((2 / (9 * 40 + 9 * 60)) ** 0.5, rel=0.03)
  params = jax.jit(GS2PM(**TINY).init)(jax.random.key(0), _frames())['params']
  stack = params['translator']['stack']
  assert (stack['gamma_1'] == np.float32(1e-6)).all() and not stack['attn']['qkv']['bias'].any()
  kernels = np.asarray(stack['mlp']['fc1']['kernel'])
  assert kernels.shape == (3, 8, 8) and (kernels[0] != kernels[1]).any()
  border = BorderPrompt().init(jax.random.key(0), jnp.zeros((40, 40, 3)))['params']['pad_up']
  assert float(jnp.std(border)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('fields, message', [
    (dict(N_T=1), 'N_T must be at least 2'), (dict(N_S=1), 'N_S must be at least 2'),
    (dict(hid_T=12), '8 heads'), (dict(remat='all'), 'none full dots'),
    (dict(translate='both'), 'prediction or reconstruction'), (dict(drop_path=1.0), '0 <= rate')])
def test_errors(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(GS2PM(**(TINY | fields)).init, jax.random.key(0), _frames())


def test_errors_of_masks():
  module, variables = _fixed()
  rebuild = lambda *mask: module.apply(variables, _frames(), *mask, method='reconstruct')
  with pytest.raises(ValueError, match='needs a mask, or rngs='):
    jax.eval_shape(rebuild)
  with pytest.raises(ValueError, match=r'mask \(4, 8\) for frames'):
    jax.eval_shape(rebuild, jnp.ones((4, 8)))
  with pytest.raises(TypeError, match="unknown field 'hid_X'; it has hid_S"):
    models.build(dict(name='gs2pm', backbone=dict(hid_X=1)), shape=(8, 8, 1), t_in=2, t_out=2)
