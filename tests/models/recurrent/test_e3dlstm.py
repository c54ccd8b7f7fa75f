"""E3D-LSTM: its equations in both readings, its history, options and published size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stp_jax import convert
from stp_jax.convert import published, rules
from stp_jax.models import build
from stp_jax.models.recurrent.e3dlstm import E3DLSTM
from stp_jax.parity.runtime import compiled

_SMALL = dict(features=(4, 4), kernel_size=3)


def _random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _model(t_in=2, t_out=3, shape=(17, 22, 1), forcings=0, dtype='float32', **fields):
  config = dict(name='e3dlstm', backbone={**_SMALL, **fields.pop('backbone', {})},
                **dict(patch=4) | fields)
  return build(config, shape=shape, forcings=forcings, t_in=t_in, t_out=t_out, dtype=dtype)


def _shapes(model, frames, forcings=None):
  return jax.eval_shape(model.init, jax.random.key(0), frames, forcings)


def _by_hand(params, frames, memory_mode, attention):
  """One layer without norms over `frames`, channel-first as torch has it, every state kept."""
  p = params['cell_list_0']
  sigmoid, tanh, cat = jax.nn.sigmoid, jnp.tanh, jnp.concatenate

  def conv(kernel, x):
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1, 1), ((0, 0), (1, 1), (1, 1)),
        dimension_numbers=('NCDHW', 'DHWIO', 'NCDHW'))
    return jnp.repeat(y, 2, 2)

  def gates(name, x, n):
    if name not in p:
      return [0.0] * n
    return jnp.split(conv(p[name]['conv']['kernel'], x), n, 1)

  def attend(r, states):
    b, n = r.shape[:2]
    rows = lambda x: (x if attention == 'upstream' else jnp.moveaxis(x, 1, -1)).reshape(b, -1, n)
    keys = cat([rows(s) for s in states], 1)
    found = jax.nn.softmax(rows(r) @ jnp.swapaxes(keys, 1, 2), -1) @ keys
    if attention == 'upstream':
      return found.reshape(r.shape)
    return jnp.moveaxis(found.reshape(b, *r.shape[2:], n), -1, 1)

  def norm(x):
    y = (x - x.mean((1, 2, 3, 4), keepdims=True)) / jnp.sqrt(
        x.var((1, 2, 3, 4), keepdims=True) + 1e-5)
    volume = lambda name: jnp.moveaxis(p['norm_c_t'][name], -1, 0)
    return y * volume('scale') + volume('bias')

  b, _, h, w, _ = frames.shape
  hidden = cell = memory = jnp.zeros((b, 4, 2, h, w))
  states, outputs, before = [cell], [], jnp.zeros_like(frames[:, 0])
  for t in range(frames.shape[1]):
    x = jnp.moveaxis(jnp.stack([before, frames[:, t]], 1), -1, 1)
    before = frames[:, t]
    i, g, r, o, i2, g2, f2 = gates('conv_x', x, 7)
    hi, hg, hr, ho = gates('conv_h', hidden, 4)
    mi, mf, mg, mm = gates('conv_gm', memory, 4)
    cell = norm(cell + attend(sigmoid(r + hr), states)) + sigmoid(i + hi) * tanh(g + hg)
    new = sigmoid(f2 + mf + 1) * tanh(mm) + sigmoid(i2 + mi) * tanh(g2 + mg)
    o = tanh(o + ho + gates('conv_new_cell', cell, 1)[0] + gates('conv_new_gm', new, 1)[0])
    both = jnp.einsum('bidhw,io->bodhw', cat([cell, new], 1), p['conv_last']['kernel'][0, 0, 0])
    hidden = tanh(both) * sigmoid(o)
    memory = memory if memory_mode == 'upstream' else new
    states.append(cell)
    outputs.append(jnp.einsum('bidhw,dio->bhwo', hidden, params['conv_last']['kernel'][:, 0, 0]))
  return jnp.stack(outputs, 1)


@pytest.mark.parametrize('memory, attention', [('updated', 'places'), ('upstream', 'upstream')])
def test_three_steps_follow_the_equations(memory, attention):
  module = E3DLSTM(2, (4,), 3, memory=memory, attention=attention)
  frames = _random(2, 3, 5, 4, 3)
  carry = module.initial_carry(frames[:, 0], 3)
  variables = compiled(module.init)(jax.random.key(1), carry, frames[:, 0], 0)
  # The norm of the cell starts at one and zero, which would hide a transposition.
  norm = variables['params']['cell_list_0']['norm_c_t']
  norm.update(scale=_random(*norm['scale'].shape), bias=_random(*norm['bias'].shape, seed=1))
  got, step = [], compiled(module.apply)
  for t in range(3):
    carry, y, terms = step(variables, carry, frames[:, t], t)
    got.append(y)
    assert not terms
  by_hand = compiled(lambda params: _by_hand(params, frames, memory, attention))
  expected = by_hand(variables['params'])
  np.testing.assert_allclose(jnp.stack(got, 1), expected, atol=2e-5)
  # Upstream's memory never leaves zero: its convolution is no parameter of ours.
  assert ('conv' in variables['params']['cell_list_0'].get('conv_gm', {})) == (memory == 'updated')
  assert bool(jnp.any(carry['memory'])) == (memory == 'updated')


def test_recall_keeps_the_last_states():
  module, frame = E3DLSTM(1, (4,), 3, recall=2), _random(1, 4, 4, 1)
  carry = module.initial_carry(frame, 6)
  variables = compiled(module.init)(jax.random.key(0), carry, frame, 0)
  cells, step = [], compiled(module.apply)
  for scale in (1, -1, 2):
    carry, *_ = step(variables, carry, scale * frame, 0)
    cells.append(carry['layers'][0][1].reshape(1, -1, 4))
  # A ring of two: the zero state and the first were overwritten by the second and third.
  np.testing.assert_array_equal(carry['layers'][0][2], jnp.stack(cells[1:], 1))
  assert int(carry['count']) == 4


def test_recomputing_the_steps_changes_no_gradient():
  frames = _random(1, 5, 8, 8, 1)
  model = lambda remat: _model(shape=(8, 8, 1), remat=remat, backbone=dict(features=(2,)))
  params = compiled(model(False).init)(jax.random.key(0), frames)
  def gradient(remat):
    return compiled(jax.grad(
        lambda p: jnp.sum(jnp.square(model(remat).apply(p, frames).prediction))))(params)
  for a, b in zip(*(jax.tree.leaves(gradient(r)) for r in (False, True)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.max(jnp.abs(a))))


@pytest.mark.parametrize('fields, message', [
    (dict(memory='x'), 'updated upstream'), (dict(attention='x'), 'places upstream'),
    (dict(features=(2, 3)), 'must be equal'), (dict(recall=-1), 'not negative'),
    (dict(kernel_size=4), 'odd')])
def test_bad_fields_are_one_clear_line(fields, message):
  with pytest.raises(ValueError, match=message) as error:
    _shapes(_model(backbone=fields), jnp.zeros((1, 2, 16, 16, 1)))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('backbone', [
    dict(), dict(layer_norm=True, memory='upstream', attention='upstream', recall=3)])
@pytest.mark.parametrize('t_in, t_out', [(2, 4), (4, 2)])
@pytest.mark.parametrize('fusion, forcings, channels', [
    ('none', 0, 3), ('concatenate', 2, 1), ('mix', 3, 1)])
def test_any_size_and_length(backbone, t_in, t_out, fusion, forcings, channels):
  model = _model(t_in, t_out, (17, 22, channels), forcings, fusion=fusion, backbone=backbone)
  frames = jnp.zeros((2, t_in, 17, 22, channels))
  planes = jnp.zeros((2, 6, 17, 22, forcings)) if forcings else None
  variables = _shapes(model, frames, planes)
  out = jax.eval_shape(model.apply, variables, frames, planes)
  assert out.prediction.shape == (2, t_out, 17, 22, channels)
  assert out.context.shape == (2, t_in - 1, 17, 22, channels)


def test_bfloat16_learns_and_an_unused_frame_may_hold_anything():
  model = _model(forcings=3, fusion='mix', dtype='bfloat16', backbone=dict(features=(4,)))
  frames, planes = _random(2, 5, 17, 22, 1) + 1, _random(2, 5, 17, 22, 3, seed=1)
  params = compiled(model.init)(jax.random.key(0), frames, planes)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
  given = frames.at[:, 2:].set(jnp.nan)
  tx = optax.adam(1e-2)

  @compiled
  def step(params, state):
    def loss_of(params):
      out = model.apply(params, given, planes)
      return jnp.mean(jnp.square(out.prediction - frames[:, 2:])), out.prediction.dtype
    (loss, dtype), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    assert dtype == jnp.float32
    updates, state = tx.update(grads, state)
    return optax.apply_updates(params, updates), state, loss

  state, losses = tx.init(params), []
  for _ in range(6):
    params, state, loss = step(params, state)
    losses.append(float(loss))
  assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]


def test_a_correction_starts_at_zero():
  frames = _random(1, 2, 17, 22, 1)
  out, _ = compiled(_model(combine='residual').init_with_output)(jax.random.key(0), frames)
  np.testing.assert_array_equal(out.context[:, 0], frames[:, 0])


@pytest.mark.parametrize('layer_norm', [False, True])
@pytest.mark.parametrize('memory', ['updated', 'upstream'])
def test_weights_there_and_back(layer_norm, memory):
  template = _shapes(
      _model(backbone=dict(layer_norm=layer_norm, memory=memory)), jnp.zeros((1, 2, 16, 16, 1)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)
  family = convert.family_of('e3dlstm')
  weights = rules.to_torch(family, variables)
  assert weights['cell_list.0.conv_x.0.conv3d.weight'].shape == (28, 16, 2, 3, 3)
  assert weights['cell_list.1._norm_c_t.bias'].shape == (4, 2, 4, 4)
  assert weights['cell_list.1.conv_last.conv3d.weight'].shape == (4, 8, 1, 1, 1)
  assert weights['conv_last.weight'].shape == (16, 4, 2, 1, 1)
  assert ('cell_list.0.conv_gm.1.weight' in weights) == layer_norm
  gm = {f'cell_list.{i}.conv_gm.0.conv3d.weight': np.ones((16, 4, 2, 3, 3), np.float32)
        for i in range(2)}
  assert (gm.keys() <= weights.keys()) == (memory == 'updated')
  extra = gm if memory == 'upstream' else {}
  again, unused = rules.to_flax(family, weights | extra, template)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  back = rules.to_torch(family, again, unused)
  assert back.keys() == weights.keys() | gm.keys()
  jax.tree.map(np.testing.assert_array_equal, back, weights | extra)


def test_the_converter_sets_the_published_behaviour():
  fields = published.published_fields(dict(model=dict(name='e3dlstm', fusion='none')))
  assert fields['model.backbone.memory'] == fields['model.backbone.attention'] == 'upstream'


@pytest.mark.parametrize('fusion, channels, count', [
    ('none', 1, 53151744), ('concatenate', 4, 53637120), ('concatenate', 9, 57221120),
    ('concatenate', 16, 62238720), ('mix', 4, 54353920), ('mix', 9, 57937920),
    ('mix', 16, 62955520)])
@pytest.mark.parametrize('memory', ['updated', 'upstream'])
def test_published_parameter_counts(fusion, channels, count, memory):
  a = channels - 1
  model = build(
      dict(name='e3dlstm', fusion=fusion, patch=4 if a else 8, backbone=dict(memory=memory)),
      shape=(72, 72, 1), forcings=a, t_in=12, t_out=48)
  planes = jnp.zeros((1, 60, 72, 72, a)) if a else None
  shapes = _shapes(model, jnp.zeros((1, 12, 72, 72, 1)), planes)
  unused = 0 if memory == 'updated' else 4 * 2 * 5 * 5 * 128 * 4 * 128
  assert sum(x.size for x in jax.tree.leaves(shapes)) == count - unused
