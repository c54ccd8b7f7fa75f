"""Encoder-forecasters: cells, layers by name, sizes, names of the weights; TrajGRU's too."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stp_jax import config as config_files
from stp_jax import convert
from stp_jax.convert import infer, published, rules
from stp_jax.models import build
from stp_jax.models.layers.stage import Stage
from stp_jax.models.recurrent.encoder_forecaster import EDConvGRU, EDConvLSTM
from stp_jax.models.recurrent.normed_cells import NormedGRUCell, NormedLSTMCell, groups

NAMES = ('ed_convgru', 'ed_convlstm')
TINY = dict(features=(4, 6), stems=(2, 3), widths=(5, 2), kernel_size=3)
VIDEO = 'configs/video.py'
_CONFIG = config_files.module(pathlib.Path(VIDEO))


def _model(name, size, t_in=2, t_out=3, channels=1, dtype='float32', **fields):
  return build(dict(name=name, backbone={**TINY, **fields}), shape=(*size, channels), t_in=t_in,
               t_out=t_out, dtype=dtype)


def _shapes(model, size, channels=1):
  return jax.eval_shape(
      model.init, jax.random.key(0), jnp.zeros((1, model.t_in, *size, channels)))


def _random(tree, seed=0, scale=1.0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: np.float32(scale * rng.normal(size=x.shape)), tree)


def _normed(p, *parts):
  y = jax.lax.conv_general_dilated(
      jnp.concatenate(parts, -1), p['conv']['kernel'], (1, 1), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + p['conv']['bias']
  b, h, w, n = y.shape
  grouped = y.reshape(b, h * w, groups(n), -1)
  mean = grouped.mean((1, 3), keepdims=True)
  var = jnp.square(grouped - mean).mean((1, 3), keepdims=True)
  return ((grouped - mean) / jnp.sqrt(var + 1e-5)).reshape(y.shape) * p['norm']['scale'] + (
      p['norm']['bias'])


def test_a_step_follows_the_equations():
  s, th = jax.nn.sigmoid, jnp.tanh
  x, h, c = (jnp.asarray(_random(np.zeros((2, 3, 4, n)), i)) for i, n in enumerate((3, 20, 20)))
  cell = NormedLSTMCell(20, 3)
  variables = _random(jax.eval_shape(cell.init, jax.random.key(0), (h, c), x))
  # 80 channels: two groups of 40, which are no gates.
  i, f, g, o = jnp.split(_normed(variables['params']['conv'], x, h), 4, -1)
  memory = s(f) * c + s(i) * th(g)
  expected = s(o) * th(memory)
  (new, kept), out = cell.apply(variables, (h, c), x)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  np.testing.assert_array_equal(new, out)
  np.testing.assert_allclose(kept, memory, atol=1e-5)

  cell = NormedGRUCell(20, 3)
  variables = _random(jax.eval_shape(cell.init, jax.random.key(0), h, x))
  z, r = jnp.split(s(_normed(variables['params']['conv1'], x, h)), 2, -1)
  expected = (1 - z) * h + z * th(_normed(variables['params']['conv2'], x, r * h))
  np.testing.assert_allclose(cell.apply(variables, h, x)[0], expected, atol=1e-5)


def test_groups_have_32_channels_or_the_next_number_that_fits():
  assert [groups(n) for n in (1, 32, 48, 64, 96, 112, 384)] == [1, 1, 1, 2, 3, 2, 12]


@pytest.mark.parametrize('cls', [EDConvGRU, EDConvLSTM])
def test_the_forecast_goes_on_from_the_states_of_the_encoder(cls):
  module = cls(**TINY)
  frames = jnp.asarray(_random(np.zeros((1, 5, 4, 6, 1))))
  variables = _random(jax.eval_shape(
      lambda: module.init(jax.random.key(0), frames, t_in=3)), scale=0.5)
  # So that some of the forecast is below zero.
  variables['params']['decoder']['stage1']['conv3_leaky_1']['bias'] -= 0.4
  predict = jax.jit(lambda m, f: m.apply(variables, f, t_in=3)[0], static_argnums=0)
  prediction = predict(module, frames)
  np.testing.assert_array_equal(prediction, predict(module, frames.at[:, 3:].set(jnp.nan)))
  zeros = jnp.zeros((1, 4, 6, 4)), jnp.zeros((1, 2, 3, 6))
  states = [module.cell.start(z) for z in zeros]
  encode = jax.jit(lambda s, f: module.apply(variables, s, f, method=lambda m, *a: m.encoder(*a)))
  decode = jax.jit(lambda s: module.apply(variables, s, method=lambda m, s: m.decoder(s)))
  for t in range(3):
    states = encode(states, frames[:, t])
  states, images = states[::-1], []
  for _ in range(2):
    states, image = decode(states)
    images.append(image)
  expected = jnp.stack(images, 1)
  np.testing.assert_allclose(prediction, expected, atol=1e-5)
  assert (expected < 0).any()
  # Published networks end in a leaky ReLU.
  leaky = predict(module.clone(output='upstream'), frames)
  np.testing.assert_allclose(leaky, jnp.where(expected < 0, 0.2 * expected, expected), atol=1e-5)


def test_layers_by_name():
  layers = (('conv1', 3, 3, 1, 1), ('my_pool', 0, 3, 2, 1), ('conv2_relu', 4, 1, 2, 0),
            ('deconv_leaky', 5, 3, 3, 0))
  x = jnp.asarray(_random(np.zeros((1, 9, 12, 2))))
  stage = Stage(layers, None)
  variables = _random(jax.eval_shape(stage.init, jax.random.key(0), x))
  seen, caught = stage.apply(variables, x, capture_intermediates=True)
  inner = {k: v['__call__'][0] for k, v in caught['intermediates'].items() if k != '__call__'}
  assert inner['conv1'].shape == (1, 9, 12, 3) and inner['conv2_relu'].shape == (1, 3, 3, 4)
  padded = jnp.pad(inner['conv1'], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
  largest = max(padded[0, 2:5, 4:7, 1].tolist(), key=max)
  pooled = jax.jit(lambda p: Stage(layers[:2], None).apply({'params': p}, x))(
      {'conv1': variables['params']['conv1']})
  assert pooled.shape == (1, 5, 6, 3) and float(pooled[0, 1, 2, 1]) == max(largest)
  last = inner['deconv_leaky']
  np.testing.assert_array_equal(seen, jnp.where(last < 0, 0.2 * last, last))
  assert seen.shape[1:3] == tuple(Stage.size(layers, n) for n in (9, 12)) == (9, 9)
  # A network of such layers; no level need be as large as the frame.
  down = ((('conv1_relu', 3, 3, 2, 1), ('pool', 0, 2, 2, 0)), (('conv2', 4, 3, 1, 1),))
  up = ((('conv1', 3, 1, 1, 0),), (('deconv1', 3, 4, 4, 0), ('conv2_leaky', 0, 1, 1, 0)))
  model = _model('ed_convgru', (9, 11), down=down, up=up, inputs=2)
  assert model.padded(9, 11) == (12, 12)
  assert jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((1, 2, 9, 11, 1)))[
      0].prediction.shape == (1, 3, 9, 11, 1)


@pytest.mark.parametrize('name', NAMES)
def test_any_size_and_any_length(name):
  for size, t_in, t_out, channels in (
      ((17, 22), 2, 5, 3), ((59, 83), 5, 1, 2), ((16, 16), 1, 1, 1)):
    model = _model(name, size, t_in, t_out, channels)
    frames = jnp.zeros((2, t_in + t_out, *size, channels))
    output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), frames)
    assert output.prediction.shape == (2, t_out, *size, channels) and output.context is None


@pytest.mark.parametrize('fields, message', [
    (dict(stems=(2,)), r'EDConvGRU: stems \(2,\) for 2 levels'), (dict(widths=()), 'widths'),
    (dict(output='tanh'), 'linear upstream'), (dict(kernel_size=4), 'kernel_size 4 is even'),
    (dict(down=((('dense', 2, 3, 1, 1),), (('conv', 3, 3, 2, 1),))), "layer 'dense'.*pool"),
    (dict(up=((('conv1', 5, 3, 1, 1),), (('conv2', 0, 1, 1, 0),))), '8 of them 8 again, not 16')])
def test_what_does_not_fit_is_one_line(fields, message):
  with pytest.raises(ValueError, match=message) as error:
    _shapes(_model('ed_convgru', (16, 16), **fields), (16, 16))
  assert '\n' not in str(error.value)


def test_the_network_itself_pads_nothing():
  with pytest.raises(ValueError, match=r'15 pixels become .15, 8.*not 15; pad to a multiple of 2'):
    jax.eval_shape(lambda: EDConvLSTM(**TINY).init(
        jax.random.key(0), jnp.zeros((1, 4, 16, 15, 1)), t_in=2))
  with pytest.raises(ValueError, match='fusion=none and anchor=none'):
    build(dict(name='ed_convlstm', anchor='persistence'), shape=(16, 16, 1), t_in=2, t_out=2)


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_learns_and_holes_in_the_future_do_not_spread(name):
  size = (5, 7)
  model = _model(name, size, dtype='bfloat16')
  frames = jnp.asarray(np.random.default_rng(0).uniform(0.7, 1, (2, 5, *size, 1)), jnp.float32)
  target, holes = frames[:, 2:], frames.at[:, 2:].set(jnp.nan)
  tx = optax.adam(1e-2)

  def step(state):
    params, moments = state

    def loss_of(params):
      prediction = model.apply(params, holes, train=True).prediction
      return jnp.mean(jnp.square(prediction - target)), prediction.dtype

    (loss, dtype), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    assert dtype == jnp.float32
    updates, moments = tx.update(grads, moments)
    return (optax.apply_updates(params, updates), moments), loss

  params = _random(_shapes(model, size), scale=0.2)
  state, losses = (params, tx.init(params)), []
  step = jax.jit(step, compiler_options={'xla_backend_optimization_level': 0})
  for _ in range(6):
    state, loss = step(state)
    losses.append(float(loss))
  assert {x.dtype for x in jax.tree.leaves(state[0])} == {jnp.dtype('float32')}
  assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]


_TRAJGRU = dict(features=(3, 4), stems=(2, 3), kernels=(3, 1), links=(2, 1), back_kernels=(3, 1),
                back_links=(1, 2), widths=(3, 2), flow_features=4, listed=False)


@pytest.mark.parametrize('name', [*NAMES, 'trajgru'])
def test_weights_go_to_pytorch_and_back_bit_by_bit_and_tell_their_sizes(name):
  family, size = convert.family_of(name), (8, 12)
  quirks = published.published_fields(dict(model=dict(name=name, fusion='none')))
  quirks = {k.rpartition('.')[2]: v for k, v in quirks.items() if 'backbone' in k}
  assert quirks == ({'update_gate': 'upstream'} if name == 'trajgru' else {'output': 'upstream'})
  sizes = _TRAJGRU if name == 'trajgru' else dict(TINY, inputs=5)
  template = _shapes(
      build(dict(name=name, **sizes, **quirks), shape=(*size, 3), t_in=2, t_out=2), size, 3)
  variables = _random(template)
  weights = rules.complete(family, rules.to_torch(family, variables), size)
  if name == 'trajgru':
    assert weights['forecast.deconv1.weight'].shape == (4, 3, 3, 3)
    assert {'encoder.conv1.bias', 'forecast.deconv2.1.bias'} < weights.keys()
  else:
    gates = dict(ed_convgru='conv2', ed_convlstm='conv')[name]
    assert weights[f'decoder.rnn2.{gates}.0.weight'].shape[1] == 6 + 5
    assert weights[f'encoder.rnn1.{gates}.1.weight'].ndim == 1
    assert weights['decoder.stage2.deconv1_leaky_1.weight'].shape == (6, 5, 4, 4)
    assert weights['decoder.stage1.conv3_leaky_1.bias'].shape == (3,)
  assert infer.model_of(weights) == name and infer.channels(name, weights) == (3, 3)
  told = {k.rpartition('.')[2]: v for k, v in infer.fields(name, weights).items() if 'bone' in k}
  assert {k: told[k] for k in sizes} == sizes
  again = build(dict(name=name, **told, **quirks), shape=(*size, 3), t_in=2, t_out=2)
  back, unused = rules.to_flax(family, weights, _shapes(again, size, 3))
  jax.tree.map(np.testing.assert_array_equal, back, variables)
  same = rules.to_torch(family, back, unused)
  assert same.keys() == weights.keys() and all((same[k] == weights[k]).all() for k in same)


# Unused tensors included.
COUNTS = dict(
    ed_convgru=dict(moving_mnist=6880289, course=7112355), ed_convlstm=dict(moving_mnist=9032225),
    peephole_convlstm=dict(moving_mnist=8183808, kth=9363456, taxibj=9001472),
    trajgru=dict(moving_mnist=6621749, kth=5366069, taxibj=4944454))
_DATA = dict(_CONFIG.presets.DATASETS, course=_CONFIG.presets.Data((160, 240), 3, 11, 11, 0, 0))


@pytest.mark.parametrize('name', COUNTS)
def test_published_parameter_counts(name):
  family, presets = convert.family_of(name), _CONFIG.encoders.PRESETS[name]
  for dataset, count in COUNTS[name].items():
    data, preset = _DATA[dataset], presets[dataset]
    model = build(
        dict(name=name, patch=preset.patch, backbone=preset.backbone),
        shape=(*data.size, data.channels), t_in=data.t_in, t_out=data.t_out)
    zeros = jax.tree.map(
        lambda x: np.zeros(x.shape, np.float32), _shapes(model, data.size, data.channels))
    weights = rules.complete(family, rules.to_torch(family, zeros), data.size)
    assert sum(v.size for v in weights.values()) == count, dataset


@pytest.mark.parametrize('name', ['peephole_convlstm', 'trajgru'])
def test_words_of_video_for_the_networks_that_gs2pm_has_too(name):
  published_one = config_files.load(f'{VIDEO}:dataset=taxibj,model={name},scale=paper')
  backbone = published_one.model.backbone
  assert backbone.clip == 'positive' and published_one.task.loss == 'mse'
  assert 'upstream' in (backbone.get('update_gate'), backbone.get('peepholes'))
  assert published_one.data.batch_size == 32 and published_one.sampling.name == 'off'
  elsewhere = config_files.load(f'{VIDEO}:dataset=bair,model={name},scale=paper')
  assert 'clip' not in elsewhere.model.backbone
  for words in ('', ',smoke'):
    config = config_files.load(f'{VIDEO}:dataset=bair,model={name}{words},size=20x24')
    model = build(config.model.to_dict(), shape=(20, 24, 3), t_in=2, t_out=1)
    assert _shapes(model, (20, 24), 3)
