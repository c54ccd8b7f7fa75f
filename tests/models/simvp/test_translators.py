"""The translators of SimVP: any frame size, training, names in PyTorch, what each one requires."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from stp_jax import convert
from stp_jax.convert import published, rules
from stp_jax.models import build
from stp_jax.models.layers import attention
from stp_jax.models.simvp import translators
from stp_jax.models.simvp.simvp import SimVP
from stp_jax.models.simvp.translators import poolformer, swin
from stp_jax.parity.runtime import compiled

TINY = dict(hid_S=8, hid_T=24, N_S=2, N_T=3, mlp_ratio=1.5)
NAMES = [n for n in translators.names() if n != 'mlp']


def _module(translator, **fields):
  return SimVP(**{**TINY, **fields}, translator=translator)


def _shapes(translator, frames=(1, 2, 12, 8, 1), **fields):
  module = _module(translator, **fields)
  return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(frames)))


def _random(*shape):
  return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize('translator', [
    n if n == 'gsta' else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_learns_in_bfloat16_at_odd_sizes_and_reads_no_future_frame(translator):
  model = build(dict(name='simvp', fusion='concatenate', combine='residual',
                     backbone=dict(TINY, N_T=2, hid_T=16, translator=translator)),
                shape=(17, 22, 1), forcings=1, t_in=2, t_out=3, dtype='bfloat16')
  data = _random(2, 5, 17, 22, 2)
  frames, planes = data[..., :1], data[..., 1:]
  holes = frames.at[:, 2:].set(jnp.nan)
  variables = compiled(model.init)(jax.random.key(0), holes, planes)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  tx = optax.adam(3e-3)

  @compiled
  def step(params, state, rest):
    def loss_of(params):
      out, updated = model.apply({'params': params, **rest}, holes, planes, None, True,
                                 mutable=['batch_stats'])
      return jnp.mean(jnp.square(out.prediction - frames[:, 2:])), (out.prediction, updated)

    (loss, (prediction, rest)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    updates, state = tx.update(grads, state)
    return optax.apply_updates(params, updates), state, rest, loss, prediction

  params, rest = variables['params'], {k: v for k, v in variables.items() if k != 'params'}
  state, losses = tx.init(params), []
  for i in range(6):
    params, state, rest, loss, prediction = step(params, state, rest)
    losses.append(float(loss))
    assert prediction.shape == (2, 3, 17, 22, 1) and prediction.dtype == jnp.float32
    if i == 0:  # A correction starts at zero: the last frame is what is forecast.
      np.testing.assert_allclose(prediction, np.repeat(frames[:, 1:2], 3, 1), atol=1e-6)
  assert np.isfinite(losses).all() and losses[-1] < losses[0]


@pytest.mark.parametrize('translator', NAMES)
def test_shorter_forecasts_of_mixed_frames(translator):
  model = build(
      dict(name='simvp', fusion='mix', backbone=dict(TINY, N_T=2, translator=translator)),
      shape=(17, 22, 1), forcings=3, t_in=4, t_out=1)
  out, _ = jax.eval_shape(lambda: model.init_with_output(
      jax.random.key(0), jnp.zeros((1, 4, 17, 22, 1)), jnp.zeros((1, 5, 17, 22, 3))))
  assert out.prediction.shape == (1, 1, 17, 22, 1)


@pytest.mark.parametrize('translator', NAMES)
def test_weights_go_to_torch_and_back_bit_equal(translator):
  family, template = convert.family_of('simvp'), _shapes(translator, hid_T=16, N_T=2)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)
  weights = rules.to_torch(family, variables)
  buffers = {'hid.enc.1.block.attn_mask': np.ones((4, 16, 16), np.float32),
             'hid.enc.1.block.attn.relative_position_index': np.ones((16, 16), np.int64),
             'hid.enc.1.block.norm1.num_batches_tracked': np.array(3)}
  again, unused = rules.to_flax(family, weights | buffers, template)
  assert jax.tree.structure(again) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  assert unused.keys() == buffers.keys()
  # Buffers of PyTorch are no parameters.
  assert rules.parameter_count(family, variables['params'], unused) == sum(
      x.size for x in jax.tree.leaves(template['params']))
  back = rules.to_torch(family, again, unused)
  for key, value in (weights | buffers).items():
    np.testing.assert_array_equal(back[key], value)


def test_names_and_layouts_are_torchs():
  def of(translator):
    return {k: v.shape for k, v in rules.to_torch(
        convert.family_of('simvp'),
        jax.tree.map(lambda x: np.zeros(x.shape), _shapes(translator))).items()}

  moga, hornet, incepu, uniformer = map(of, ('moga', 'hornet', 'incepu', 'uniformer'))
  assert moga['hid.enc.0.block.layer_scale_1'] == (1, 16, 1, 1)
  assert moga['hid.enc.1.block.mlp.sigma'] == (1, 36, 1, 1)
  assert hornet['hid.enc.1.block.gnconv.pws.2.weight'] == (24, 12, 1, 1)
  assert hornet['hid.enc.1.block.pwconv1.weight'] == (36, 24)
  assert incepu['hid.dec.1.layers.3.conv.weight'] == (24, 12, 11, 11)  # 12 hidden: one group
  assert uniformer['hid.enc.0.block.mlp.fc1.weight'] == (24, 16, 1, 1)
  assert uniformer['hid.enc.1.block.mlp.fc1.weight'] == (36, 24)
  assert of('mlp') == of('mlpmixer')
  assert of('swin')['hid.enc.1.block.attn.relative_position_bias_table'] == (49, 8)


@pytest.mark.parametrize('translator', [n for n in NAMES if n not in ('convmixer', 'incepu')])
def test_dropout_and_stochastic_depth_act_in_training_only(translator):
  x, module = jnp.zeros((2, 2, 12, 8, 1)), _module(translator, N_T=2, drop=0.2, drop_path=0.3)
  variables = _shapes(translator, x.shape, N_T=2)
  run = lambda train, **kw: jax.eval_shape(
      lambda v: module.apply(v, x, train, mutable=['batch_stats'], **kw), variables)
  run(False)  # asks for no generator
  run(True, rngs={'dropout': jax.random.key(0)})
  with pytest.raises(Exception, match='dropout'):
    run(True)


@pytest.mark.slow
def test_initial_values():
  params = jax.jit(_module('uniformer', hid_T=64, mlp_ratio=4.0).init)(
      jax.random.key(0), jnp.zeros((1, 8, 4, 4, 1)))['params']['hid']
  local, other = params['enc_0']['block'], params['enc_1']['block']
  std = lambda module: float(jnp.std(module['kernel']))
  np.testing.assert_allclose(std(local['pos_embed']), (2 / 9) ** 0.5, rtol=0.1)
  np.testing.assert_allclose(std(local['mlp']['fc1']), (2 / 256) ** 0.5, rtol=0.1)
  np.testing.assert_allclose(std(other['attn']['qkv']), 0.02, rtol=0.1)
  assert 0.3 < float(jnp.max(jnp.abs(other['pos_embed']['kernel']))) <= 1 / 3
  np.testing.assert_allclose(other['gamma_1'], 1e-6)
  assert not jnp.any(local['mlp']['fc1']['bias']) and not jnp.any(other['mlp']['fc1']['bias'])
  scaled = _module('convnext', layer_scale_init=0.5).init(
      jax.random.key(0), jnp.zeros((1, 2, 4, 4, 1)))
  np.testing.assert_allclose(scaled['params']['hid']['enc_0']['block']['gamma'], 0.5)


@pytest.mark.parametrize('height, width, index, expected', [
    (14, 20, 1, (7, 3)), (18, 18, 1, (4, 2)), (18, 18, 2, (4, 0)), (96, 96, 1, (6, 3)),
    (256, 256, 1, (8, 4)), (8, 4, 1, (4, 0)), (3, 9, 1, (3, 0)), (7, 7, 1, (7, 0))])
def test_windows_follow_the_published_rule(height, width, index, expected):
  assert swin.window_and_shift(height, width, index) == expected
  assert swin.window_and_shift(18, 18, 3, 5) == (5, 2)


@pytest.mark.parametrize('h, w, window, shift', [
    (8, 8, 4, 2), (9, 11, 4, 2), (7, 14, 7, 3), (5, 6, 4, 0), (8, 4, 4, 0)])
def test_pixels_see_each_other_where_no_roll_joined_them(h, w, window, shift):
  seen = swin.visible(h, w, window, shift, 'standard')
  rows, columns = -(-h // window), -(-w // window)
  for i in range(rows):
    for j in range(columns):
      cells = [(y, x) for y in range(i * window, (i + 1) * window)
               for x in range(j * window, (j + 1) * window)]
      # Where the pixels of this window come from, and the window there without wrapping.
      source = [((y + shift) % (rows * window), (x + shift) % (columns * window))
                for y, x in cells]
      true = [((y - shift) // window, (x - shift) // window) if y < h and x < w else 'padding'
              for y, x in source]
      expected = np.array([[a == b for b in true] for a in true])
      got = np.ones_like(expected) if seen is None else seen[i * columns + j]
      np.testing.assert_array_equal(got, expected)


def test_all_pixels_of_a_window_see_each_other_where_nothing_is_joined():
  assert swin.visible(8, 12, 4, 0, 'standard') is None
  assert swin.visible(8, 12, 4, 2, 'upstream') is None
  # Padding is not upstream's: nobody sees it there either.
  assert not swin.visible(9, 12, 4, 2, 'upstream').all()


@pytest.mark.slow
def test_the_published_swin_sees_across_the_edge():
  x = _random(1, 2, 16, 16, 1)
  sound, upstream = (_module('swin', shift_mask=m) for m in (None, 'upstream'))
  variables = jax.jit(sound.init)(jax.random.key(0), x)
  # Larger weights, or attention is next to uniform.
  variables = jax.tree.map(lambda v: v + 0.3 * jnp.cos(jnp.arange(v.size)).reshape(v.shape),
                           variables)
  a, b = (compiled(m.apply)(variables, x)[0] for m in (sound, upstream))
  assert float(jnp.max(jnp.abs(a - b))) > 1e-4
  config = dict(model=dict(name='simvp', fusion='none', backbone=dict(translator='Swin')))
  assert published.published_fields(config)['model.backbone.shift_mask'] == 'upstream'
  config['model']['backbone']['translator'] = 'gsta'
  assert 'model.backbone.shift_mask' not in published.published_fields(config)


def test_relative_positions_of_a_window_of_two():
  np.testing.assert_array_equal(
      attention.relative_positions(2), [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])


def test_a_masked_key_has_no_influence():
  x = _random(3, 4, 8)
  mask = np.ones((3, 1, 4, 4), bool)
  mask[1, 0, :3, 3] = False
  module = attention.WindowAttention(2, heads=2)
  variables = module.init(jax.random.key(0), x, False)
  run = lambda x: module.apply(variables, x, False, mask)
  same = np.asarray(run(x) == run(x.at[:, 3].add(1.0))).all(-1)
  np.testing.assert_array_equal(same, [[False] * 4, [True] * 3 + [False], [False] * 4])


@pytest.mark.parametrize('size', [(1, 5), (2, 2), (4, 3)])
def test_neighbours_are_averaged_as_in_torch(size):
  x = _random(2, *size, 3)
  expected = torch.nn.functional.avg_pool2d(
      torch.tensor(np.asarray(x).transpose(0, 3, 1, 2)), 3, 1, 1, count_include_pad=False)
  np.testing.assert_allclose(
      poolformer.mean_of_neighbours(x), expected.numpy().transpose(0, 2, 3, 1), atol=1e-6)


@pytest.mark.parametrize('translator, fields, message', [
    ('vit', dict(hid_T=20), '20 channels .* 8 heads'),
    ('uniformer', dict(hid_T=20), '20 channels .* 8 heads'),
    ('swin', dict(hid_T=6), '6 channels are too few'),
    ('swin', dict(shift_mask='off'), 'standard upstream'),
    ('swin', dict(window_size=0), 'at least 1'),
    ('hornet', dict(hid_T=20), '20 channels .* by 8'),
    ('moga', dict(hid_T=20), '20 channels .* by 8'),
    ('incepu', dict(hid_T=17), '17 channels .* 8 groups'),
    ('incepu', dict(N_T=1), 'at least 2'),
    ('incepu', dict(drop=0.1), 'no use for drop;'),
    ('convmixer', dict(drop_path=0.1), 'no use for drop_path;'),
    ('vit', dict(layer_scale_init=0.1), 'no use for layer_scale_init;'),
    ('gsta', dict(window_size=4), 'no use for window_size;')])
def test_what_a_translator_cannot_do_is_one_line(translator, fields, message):
  with pytest.raises(ValueError, match=message) as error:
    _shapes(translator, **fields)
  assert '\n' not in str(error.value)


def test_the_mlp_mixer_is_bound_to_its_frame_size():
  variables = _shapes('mlpmixer')
  with pytest.raises(ValueError, match='24 pixels, the latent has 6 x 6'):
    jax.eval_shape(_module('mlpmixer').apply, variables, jnp.zeros((1, 2, 12, 12, 1)))
