"""PredRNN, PredRNN++, PredRNN.V2 and MIM: what the four promise alike."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax import convert
from stp_jax.convert import published, rules
from stp_jax.models import build
from stp_jax.models.recurrent.predrnn import PredRNN, STLSTMCell
from stp_jax.models.recurrent.predrnnv2 import PredRNNV2, alignment

NAMES = ('predrnn', 'predrnnpp', 'predrnnv2', 'mim')
FUSIONS = (('none', 0), ('concatenate', 3), ('concatenate', 8), ('concatenate', 15), ('mix', 3),
           ('mix', 8), ('mix', 15))
# Of the published configurations: 4 layers of 128, 5 x 5, patches of 4, frames of 72 x 72.
PUBLISHED = dict(
    predrnn=(23838720, 24913920, 26705920, 29214720, 25272320, 27064320, 29573120),
    predrnnpp=(38584320, 39659520, 41451520, 43960320, 40017920, 41809920, 44318720),
    predrnnv2=(23855104, 24930304, 26722304, 29231104, 25288704, 27080704, 29589504),
    mim=(38200320, 39275520, 41067520, 43576320, 39633920, 41425920, 43934720))
# conv_o of each causal LSTM, the 1 x 1 of each branch of MIM that models the change.
UNUSED = dict(predrnn=0, predrnnpp=4 * 2 * 128 * 128 * 25, predrnnv2=0, mim=3 * 2 * 128 * 128)
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def _model(name, size, t_in, t_out, fusion='none', forcings=0, **fields):
  more = {k: fields.pop(k) for k in ('dtype',) if k in fields}
  backbone = dict(features=(3, 3), kernel_size=3, **fields)
  return build(
      dict(name=name, fusion=fusion, patch=2, backbone=backbone), shape=(*size, 1),
      forcings=forcings, t_in=t_in, t_out=t_out, **more)


def _data(t, size, forcings=0, b=2):
  rng = np.random.default_rng(0)
  draw = lambda c: jnp.asarray(rng.random((b, t, *size, c)), jnp.float32)
  return draw(1), draw(forcings) if forcings else None


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('which', range(7))
def test_published_parameter_counts(name, which):
  fusion, forcings = FUSIONS[which]
  model = build(
      dict(name=name, patch=4, fusion=fusion), shape=(72, 72, 1), forcings=forcings, t_in=12,
      t_out=48)
  planes = jnp.zeros((1, 60, 72, 72, forcings)) if forcings else None
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 12, 72, 72, 1)), planes)
  live = sum(x.size for x in jax.tree.leaves(shapes))
  assert live + UNUSED[name] == PUBLISHED[name][which]


@pytest.mark.parametrize('name, fusion, forcings, t_in, t_out, size', [
    ('predrnn', 'mix', 3, 4, 2, (17, 22)), ('predrnnpp', 'concatenate', 2, 2, 4, (17, 22)),
    ('predrnnv2', 'none', 0, 4, 2, (17, 22)), ('mim', 'mix', 3, 2, 4, (17, 22))])
def test_odd_frames_and_horizons_train_in_bfloat16(name, fusion, forcings, t_in, t_out, size):
  """Both ways round of T_in and T_out; finite gradients, a loss that falls, float32 weights."""
  model = _model(name, size, t_in, t_out, fusion, forcings, dtype='bfloat16')
  frames, planes = _data(t_in + t_out, size, forcings, b=1)
  params = jit(model.init)(jax.random.key(0), frames, planes)

  def loss(params):
    out = model.apply(params, frames, planes, train=True)
    predicted = jnp.concatenate([out.context, out.prediction], 1)
    terms = sum((jnp.mean(x) for x in out.terms.values()), 0.0)
    return jnp.mean(jnp.square(predicted - frames[:, 1:])) + 0.1 * terms, out

  # |cosine| has kinks that a long step jumps over.
  rate = 0.03 if name == 'predrnnv2' else 0.3

  @jit
  def step(params):
    (value, out), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - rate * g, params, grads), value, out, grads

  values = []
  for _ in range(4):
    params, value, out, grads = step(params)
    values.append(float(value))
  assert out.prediction.shape == (1, t_out, *size, 1)
  assert out.prediction.dtype == jnp.float32
  assert values == sorted(values, reverse=True) and values[0] > values[-1]
  for x in jax.tree.leaves((params, grads)):
    assert x.dtype == jnp.float32 and bool(jnp.all(jnp.isfinite(x)))


@pytest.mark.parametrize('name', NAMES)
def test_layers_that_share_a_memory_must_be_alike(name):
  model = build(dict(name=name, backbone=dict(features=(3, 4))), shape=(8, 8, 1), t_in=2, t_out=2)
  with pytest.raises(ValueError, match=r'features \(3, 4\) differ.*same number'):
    model.init(jax.random.key(0), jnp.zeros((1, 4, 8, 8, 1)))
  model = build(dict(name=name, backbone=dict(kernel_size=4)), shape=(8, 8, 1), t_in=2, t_out=2)
  with pytest.raises(ValueError, match='odd'):
    model.init(jax.random.key(0), jnp.zeros((1, 4, 8, 8, 1)))


@pytest.mark.parametrize('name', NAMES)
def test_torch_weights_there_and_back(name):
  """Tensors that nothing uses included; what our model does not know is refused."""
  model, family = _model(name, (8, 12), 2, 2, layer_norm=True), convert.family_of(name)
  template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 8, 12, 1)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)
  weights = rules.to_torch(family, variables)
  layer = 'stlstm_layer' if name == 'mim' else 'cell_list'
  assert weights[f'{layer}.0.conv_x.0.weight'].shape == (21, 4, 3, 3)
  assert weights[f'{layer}.0.conv_x.1.bias'].shape == (21, 4, 6)
  assert weights[f'{layer}.1.conv_last.weight'].shape == (3, 6, 1, 1)
  extra = dict(predrnnpp='cell_list.1.conv_o.1.weight', mim='stlstm_layer_diff.0.conv_last.weight')
  if name in extra:
    weights[extra[name]] = rng.normal(size=(3, 4, 6)).astype(np.float32)
  again, unused = rules.to_flax(family, weights, template)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  assert set(unused) == {extra[name]} & set(weights) if name in extra else not unused
  back = rules.to_torch(family, again, unused)
  assert back.keys() == weights.keys()
  for key, value in weights.items():
    np.testing.assert_array_equal(back[key], value)
  with pytest.raises(rules.ConversionError, match='nothing uses: odd'):
    rules.to_flax(family, {**weights, 'odd': np.zeros(1)}, template)


def test_the_converter_asks_for_the_published_behaviour():
  fields = lambda name, upstream: published.published_fields(
      dict(model=dict(name=name, fusion='mix')), upstream)
  assert fields('predrnnpp', 'channel_mixer')['model.backbone.cell'] == 'channel_mixer'
  assert fields('predrnnpp', 'openstl')['model.backbone.cell'] == 'predrnnpp'
  assert fields('predrnnv2', 'openstl')['task.term_weights.decouple'] == 0.1
  assert 'model.backbone.cell' not in fields('mim', 'channel_mixer')


def test_the_cell_follows_the_equations():
  rng = np.random.default_rng(0)
  x, h, c, m = (jnp.asarray(rng.normal(size=(1, 3, 4, n)), jnp.float32) for n in (3, 2, 2, 2))
  cell = STLSTMCell(2, 3)
  params = cell.init(jax.random.key(0), x, h, c, m)
  conv = lambda name, x: jax.lax.conv_general_dilated(
      x, params['params'][name]['conv']['kernel'], (1, 1), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  s, th, p = jax.nn.sigmoid, jnp.tanh, jnp.split
  from_x, from_h, from_m = p(conv('conv_x', x), 7, -1), p(conv('conv_h', h), 4, -1), p(
      conv('conv_m', m), 3, -1)
  added_c = s(from_x[0] + from_h[0]) * th(from_x[2] + from_h[2])
  new_c = s(from_x[1] + from_h[1] + 1) * c + added_c
  added_m = s(from_x[3] + from_m[0]) * th(from_x[5] + from_m[2])
  new_m = s(from_x[4] + from_m[1] + 1) * m + added_m
  both = jnp.concatenate([new_c, new_m], -1)
  o = s(from_x[6] + from_h[3] + conv('conv_o', both))
  new_h = o * th(both @ params['params']['conv_last']['kernel'][0, 0])
  for got, expected in zip(jax.tree.leaves(cell.apply(params, x, h, c, m)),
                           (new_h, new_c, new_m, added_c, added_m), strict=True):
    np.testing.assert_allclose(got, expected, atol=2e-6)


def _stepped(cls, scale=1.0, batch=2):
  module = cls(features=(3, 3), kernel_size=3)
  frame = scale * jnp.asarray(np.random.default_rng(1).normal(size=(batch, 4, 5, 2)), jnp.float32)
  carry = module.initial_carry(frame, 1)
  variables = jit(PredRNNV2(features=(3, 3), kernel_size=3).init)(
      jax.random.key(0), carry, frame, 0)
  if cls is PredRNN:
    variables = {'params': {k: v for k, v in variables['params'].items() if k != 'adapter'}}
  return module, variables, carry, frame


def test_decoupling_is_a_term_per_example_and_touches_no_prediction():
  module, variables, carry, frame = _stepped(PredRNNV2)
  apply = jit(module.apply)
  state, prediction, terms = apply(variables, carry, frame, 0)
  assert terms['decouple'].shape == (2,) and bool(jnp.all(terms['decouple'] > 0))
  plain, plain_variables, *_ = _stepped(PredRNN)
  other, expected, none = jit(plain.apply)(plain_variables, carry, frame, 0)
  np.testing.assert_array_equal(prediction, expected)
  jax.tree.map(np.testing.assert_array_equal, state, other)
  assert not none
  # Each example by itself.
  alone = apply(variables, module.initial_carry(frame[1:], 1), frame[1:], 0)[2]
  np.testing.assert_allclose(alone['decouple'][0], terms['decouple'][1], rtol=1e-5)


def test_decoupling_gradient_is_finite_where_nothing_happens():
  module, variables, carry, frame = _stepped(PredRNNV2, scale=0.0)
  grads = jit(jax.grad(lambda v: jnp.sum(module.apply(v, carry, frame, 0)[2]['decouple'])))(
      variables)
  assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))


def test_alignment_of_fields():
  rng = np.random.default_rng(0)
  a = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
  np.testing.assert_allclose(alignment(a, -3 * a), 1, rtol=1e-5)
  left, right = a.copy(), a.copy()
  left[:, :2], right[:, 2:] = 0, 0
  np.testing.assert_allclose(alignment(left, right), 0, atol=1e-7)
  zero = np.zeros_like(a)
  np.testing.assert_array_equal(alignment(a, zero), 0)


@pytest.mark.skipif(importlib.util.find_spec('torch') is None, reason='compares with PyTorch')
def test_alignment_is_torchs_cosine_similarity():
  import torch
  a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2)).astype(np.float32)
  value, grads = jax.value_and_grad(lambda x: jnp.mean(alignment(*x)))((a, b))
  tensors = [torch.tensor(x, requires_grad=True) for x in (a, b)]
  flat = [torch.nn.functional.normalize(x.permute(0, 3, 1, 2).flatten(2), dim=2) for x in tensors]
  expected = torch.cosine_similarity(*flat, dim=2).abs().mean()
  expected.backward()
  np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
  for grad, tensor in zip(grads, tensors):
    np.testing.assert_allclose(grad, tensor.grad, atol=1e-6)
