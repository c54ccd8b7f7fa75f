"""GS2PM's own cuts: sizes, equations, the skipped prediction, training, names of their weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stp_jax import convert
from stp_jax.convert import infer, published, rules
from stp_jax.models import build
from stp_jax.models.recurrent.gs2pm_cuts import CausalLSTMCell, GradientHighway, STLSTMCell
from stp_jax.models.recurrent.gs2pm_e3d import GS2PME3DLSTM, straight
from stp_jax.models.recurrent.gs2pm_mim import GS2PMMIM, MIMCell

TINY = dict(
    gs2pm_predrnn=dict(features=(3, 3), kernel_size=(3, 1)),
    gs2pm_predrnnpp=dict(features=(3, 2), kernel_size=3, ghu_features=4, ghu_kernel_size=3),
    gs2pm_mim=dict(features=(3, 3)),
    gs2pm_e3dlstm=dict(features=(3, 3), kernel_size=(2, 3, 1)),
    peephole_convlstm=dict(features=(3, 2), kernel_size=(3, 1)))
# One channel and three; the tensors that nothing uses included.
PUBLISHED = dict(
    gs2pm_predrnn=(135424, 137472), gs2pm_predrnnpp=(190720, 195136), gs2pm_mim=(15520, 16032),
    gs2pm_e3dlstm=(947, 1461), peephole_convlstm=(20875200, 20889408))


def _build(name, size=(5, 7), t_in=2, t_out=3, channels=1, dtype='float32', **fields):
  return build(
      dict(name=name, backbone={**TINY[name], **fields}), shape=(*size, channels), t_in=t_in,
      t_out=t_out, dtype=dtype)


def _as_published(name):
  fields = published.published_fields(dict(model=dict(name=name, fusion='none')))
  start = 'model.backbone.'
  return {k.removeprefix(start): v for k, v in fields.items() if k.startswith(start)}


def _shapes(model, size, channels=1):
  frames = jnp.zeros((1, model.t_in, *size, channels))
  return jax.eval_shape(model.init, jax.random.key(0), frames)


def _random(tree, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), tree)


@pytest.mark.parametrize('name', TINY)
def test_published_parameter_counts(name):
  for channels, count in zip((1, 3), PUBLISHED[name]):
    model = build(dict(name=name, backbone=_as_published(name)), shape=(128, 128, channels),
                  t_in=10, t_out=10)
    zeros = jax.tree.map(
        lambda x: np.zeros(x.shape, np.float32), _shapes(model, (128, 128), channels))
    family = convert.family_of(name)
    whole = rules.complete(family, rules.to_torch(family, zeros), (128, 128))
    assert sum(v.size for v in whole.values()) == count


@pytest.mark.parametrize('name', TINY)
def test_weights_go_to_pytorch_and_back_bit_by_bit_and_tell_their_sizes(name):
  family, given = convert.family_of(name), _as_published(name)
  model = _build(name, channels=2, **given)
  variables = _random(_shapes(model, (5, 7), 2))
  weights = rules.complete(family, rules.to_torch(family, variables), (5, 7))
  assert infer.model_of(weights) == name
  fields = infer.fields(name, weights, 2)
  assert fields.pop('model.patch') == 1 and infer.channels(name, weights, 2) == (2, 2)
  told = {k.removeprefix('model.backbone.'): v for k, v in fields.items()}
  again = _build(name, channels=2, **given, **told)
  back, unused = rules.to_flax(family, weights, _shapes(again, (5, 7), 2))
  jax.tree.map(np.testing.assert_array_equal, back, variables)
  assert bool(unused) == (name in ('gs2pm_mim', 'peephole_convlstm'))
  same = rules.to_torch(family, back, unused)
  assert same.keys() == weights.keys() and all((same[k] == weights[k]).all() for k in same)
  # Without the quirks, what upstream does not read is read.
  if unused:
    quirk = dict(difference='time') if name == 'gs2pm_mim' else dict(peepholes='all')
    live = rules.to_flax(family, weights, _shapes(_build(name, channels=2, **quirk), (5, 7), 2))
    assert live[1].keys() == {k for k in unused if 'forecast.0.conv_x' in k}


@pytest.mark.slow
@pytest.mark.parametrize('name', TINY)
def test_bfloat16_learns_on_an_odd_size_and_holes_in_the_future_do_not_spread(name):
  model = _build(name, dtype='bfloat16')
  frames = jnp.asarray(np.random.default_rng(0).random((2, 5, 5, 7, 1)), jnp.float32)
  target, holes = frames[:, 2:], frames.at[:, 2:].set(jnp.nan)
  tx = optax.adam(1e-2)

  def loss_of(params):
    prediction = model.apply({'params': params}, holes).prediction
    assert prediction.shape == target.shape and prediction.dtype == jnp.float32
    return jnp.mean(jnp.square(prediction - target))

  def step(state, _):
    params, moments = state
    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, moments = tx.update(grads, moments)
    return (optax.apply_updates(params, updates), moments), loss

  @jax.jit
  def run():
    params = model.init(jax.random.key(0), frames)['params']
    return jax.lax.scan(step, (params, tx.init(params)), length=8)

  (params, _), losses = run()
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  assert np.all(np.isfinite(losses)) and losses[-1] < 0.95 * losses[0]


@functools.cache
def _forecasts(skipped, t_out):
  model = _build('gs2pm_predrnn', t_out=t_out, skipped=skipped)
  variables = _random(_shapes(_build('gs2pm_predrnn'), (5, 7)))
  return jax.jit(lambda frames, use: model.apply(variables, frames, None, use))


def test_a_skipped_prediction_is_fed_back_and_not_emitted():
  frames = jnp.asarray(np.random.default_rng(0).random((1, 5, 5, 7, 1)), jnp.float32)
  alone = jnp.asarray([[1, 1, 0, 0, 0]])
  sound = _forecasts(0, 4)(frames[:, :2], jnp.pad(alone, ((0, 0), (0, 1))))
  upstream = _forecasts(1, 3)(frames, alone)
  np.testing.assert_allclose(upstream.prediction, sound.prediction[:, 1:], rtol=1e-6)
  np.testing.assert_allclose(upstream.context, sound.context, rtol=1e-6)
  # A true frame that is shown is still the one before the frame that is predicted from it.
  shown = _forecasts(1, 3)(frames, alone.at[:, 2].set(1)).prediction
  np.testing.assert_array_equal(shown[:, 0], upstream.prediction[:, 0])
  assert not np.allclose(shown[:, 1], upstream.prediction[:, 1])
  model = build(dict(name='gs2pm_predrnn', anchor='persistence', backbone=dict(skipped=1)),
                shape=(5, 7, 1), t_in=2, t_out=3)
  with pytest.raises(ValueError, match=r'skipped=1 .* anchor=none'):
    _shapes(model, (5, 7))


s, th = jax.nn.sigmoid, jnp.tanh


def _norm(x):
  return jax.nn.standardize(x, axis=(1, 2, 3), epsilon=1e-5)


def _hand(params):
  def conv(name, *values):
    p, x = params[name], jnp.concatenate(values, -1)
    y = jax.lax.conv_general_dilated(
        x, p['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return y + p.get('bias', 0)

  return conv, lambda n, name, *values: jnp.split(_norm(conv(name, *values)), n, -1)


def _values(*features):
  return [v for v in _random([jnp.zeros((2, 4, 5, n)) for n in features], 1)]


def _close(got, expected):
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5)


def test_st_lstm_follows_the_equations():
  x, h, c, m = _values(2, 3, 3, 3)
  cell = STLSTMCell(3, 3, 0.25)
  params = _random(jax.eval_shape(cell.init, jax.random.key(0), x, h, c, m))['params']
  conv, gates = _hand(params)
  of_x, of_h, of_m = gates(7, 'conv_x', x), gates(4, 'conv_h', h), gates(3, 'conv_m', m)
  new_c = s(of_x[2] + of_h[2] + 0.25) * c + s(of_x[1] + of_h[1]) * th(of_x[0] + of_h[0])
  new_m = s(of_x[5] + of_m[2]) * m + s(of_x[4] + of_m[1]) * th(of_x[3] + of_m[0])
  o = s(of_x[6] + of_h[3] + conv('conv_o', new_c, new_m))
  expected = o * th(conv('conv1x1', new_c, new_m)), new_c, new_m, o
  _close(cell.apply({'params': params}, x, h, c, m), expected)


def test_causal_lstm_and_highway_follow_the_equations():
  x, h, c, m, z = _values(2, 3, 3, 3, 5)
  cell = CausalLSTMCell(3, 3, 0.25, out_features=4)
  params = _random(jax.eval_shape(cell.init, jax.random.key(0), x, h, c, m))['params']
  conv, gates = _hand(params)
  g, i, f = gates(3, 'conv_w1', x, h, c)
  new_c = s(f + 0.25) * c + s(i) * th(g)
  g, i, f = gates(3, 'conv_w2', x, new_c, m)
  new_m = s(f + 0.25) * th(conv('conv_w3', m)) + s(i) * th(g)
  o = th(_norm(conv('conv_w4', x, new_c, new_m)))
  expected = o * th(_norm(conv('conv_w5', new_c, new_m))), new_c, new_m
  _close(cell.apply({'params': params}, x, h, c, m), expected)
  unit = GradientHighway(5)
  params = _random(jax.eval_shape(unit.init, jax.random.key(0), h, z))['params']
  _, gates = _hand(params)
  p, u = (a + b for a, b in zip(gates(2, 'conv_x', h), gates(2, 'conv_z', z)))
  _close([unit.apply({'params': params}, h, z)], [s(u) * th(p) + (1 - s(u)) * z])


@pytest.mark.parametrize('changes', [True, False])
def test_mim_follows_the_equations(changes):
  x, d, h, c, m, n, q = _values(2, 2, 3, 3, 3, 3, 3)
  change = d if changes else None
  cell = MIMCell(3, 3, 0.25)
  shapes = jax.eval_shape(lambda k: cell.init(k, x, change, h, c, m, n, q), jax.random.key(0))
  params = _random(shapes)['params']
  conv, gates = _hand(params)
  of_x, of_h, of_m = gates(6, 'conv_x', x), gates(3, 'conv_h', h), gates(3, 'conv_m', m)
  mim_n, mim_s = _hand(params['mim_n'])[1], _hand(params['mim_s'])[1]
  if changes:
    of_d = mim_n(4, 'conv_h_diff', d)
  else:
    assert set(params['mim_n']['conv_h_diff']) == {'bias'}
    bias = params['mim_n']['conv_h_diff']['bias']
    of_d = jnp.split(_norm(jnp.broadcast_to(bias, (*h.shape[:3], 12))), 4, -1)
  of_n = mim_n(3, 'conv_n', n)
  new_n = s(of_d[2] + of_n[2] + 0.25) * n + s(of_d[1] + of_n[1]) * th(of_d[0] + of_n[0])
  d = s(of_d[3] + mim_n(1, 'conv_w_no', new_n)[0]) * th(new_n)
  g, i, f, o = (a + b for a, b in zip(mim_s(4, 'conv_d', d), mim_s(4, 'conv_c', c)))
  new_q = s(f + 0.25) * q + s(i) * th(g)
  kept = s(o + mim_s(1, 'conv_w_so', new_q)[0]) * th(new_q)
  new_c = kept + s(of_x[1] + of_h[1]) * th(of_x[0] + of_h[0])
  new_m = s(of_x[4] + of_m[2] + 0.25) * m + s(of_x[3] + of_m[1]) * th(of_x[2] + of_m[0])
  o = s(of_x[5] + of_h[2] + conv('conv_o_c', new_c) + conv('conv_o_m', new_m))
  expected = o * th(conv('conv1x1', new_c, new_m)), new_c, new_m, new_n, new_q
  _close(cell.apply({'params': params}, x, change, h, c, m, n, q), expected)


def test_the_difference_of_mim_reaches_the_forecast():
  frames = jnp.asarray(np.random.default_rng(0).random((1, 3, 4, 4, 1)), jnp.float32)
  module = GS2PMMIM(features=(2, 2))
  carry = module.initial_carry(frames[:, 0], 2)
  variables = _random(jax.eval_shape(module.init, jax.random.key(0), carry, frames[:, 0], 0))
  upstream = GS2PMMIM(features=(2, 2), difference='upstream')
  one, other = (m.apply(variables, carry, frames[:, 0], 0)[1] for m in (module, upstream))
  assert not np.allclose(one, other)


@pytest.mark.parametrize('channels', [2, 3])  # of which 3 does not divide the places
def test_rows_of_joined_states_are_those_of_upstream(channels):
  states, depth, h, w = 3, 2, 2, 5
  volumes = np.random.default_rng(0).normal(size=(2, states, channels, depth, h, w))
  history = jnp.asarray(volumes.reshape(2, states, -1, channels))
  for count in (1, 2, 3):
    joined = np.concatenate([volumes[:, i] for i in range(count)], 2).reshape(2, -1, channels)
    got = np.asarray(straight(history, jnp.asarray(count)))[:, :count].reshape(2, -1, channels)
    order = lambda rows: np.sort(rows.view([('', rows.dtype)] * channels), 1)
    np.testing.assert_array_equal(
        order(np.ascontiguousarray(got)), order(np.ascontiguousarray(joined, got.dtype)))


@pytest.mark.parametrize('attention', ['places', 'upstream'])
def test_e3d_follows_the_equations(attention):
  module = GS2PME3DLSTM(features=(3,), attention=attention)
  frame = jnp.asarray(_values(1)[0])
  start = module.initial_carry(frame, 3)
  variables = _random(jax.eval_shape(module.init, jax.random.key(0), start, frame, 0))
  p = variables['params']['cell_list_0']

  def conv(name, value):
    return jax.lax.conv_general_dilated(
        value, p[name]['kernel'], (1, 1, 1), [(0, 0), (k := p[name]['kernel'].shape[1] // 2, k),
                                              (k, k)],
        dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC')) + p[name]['bias']

  norm = lambda x: jax.nn.standardize(x, axis=(1, 2, 3, 4), epsilon=1e-5)
  raw = attention == 'upstream'
  cut = lambda v: (jnp.moveaxis(v, -1, 1) if raw else v).reshape(2, -1, 3)
  h = c = m = jnp.zeros((2, 2, 4, 5, 3))
  states, before, carry = [c], jnp.zeros_like(frame), start
  for scale in (1, -2, 1):
    carry, got, _ = module.apply(variables, carry, scale * frame, 0)
    x = jnp.stack([before, scale * frame], 1)
    r_x, i_x, g_x, j_x, k_x, e_x, o_x = jnp.split(norm(conv('conv3d_x', x)), 7, -1)
    r_h, i_h, g_h, o_h = jnp.split(norm(conv('conv3d_h', h)), 4, -1)
    j_m, k_m, e_m = jnp.split(norm(conv('conv3d_m', m)), 3, -1)
    keys = cut(jnp.concatenate(states, 1))
    weights = jax.nn.softmax(jnp.einsum('bqc,bkc->bqk', cut(s(r_x + r_h)), keys), -1)
    found = (weights @ keys).reshape((2, 3, 1, 4, 5) if raw else (2, 1, 4, 5, 3))
    found = jnp.moveaxis(found, 1, -1) if raw else found
    c = s(i_x + i_h) * th(g_x + g_h) + norm(c + found)
    m = s(j_x + j_m) * th(k_x + k_m) + s(e_x + e_m + 0.01) * m
    o = s(o_x + o_h + conv('conv3d_oc', c) + conv('conv3d_om', m))
    h = o * th(conv('conv1x1x1', jnp.concatenate([c, m], -1)))
    states, before = [*states, c], scale * frame
    last = variables['params']['conv_last']
    expected = jnp.einsum('bdhwc,dco->bhwo', h, last['kernel'][:, 0, 0]) + last['bias']
    np.testing.assert_allclose(got, expected, atol=5e-5, rtol=1e-4)


def test_bad_fields():
  for name, fields, message in (
      ('gs2pm_predrnn', dict(features=(2, 3)), 'differ'),
      ('gs2pm_predrnn', dict(kernel_size=(3, 3, 3)), '3 kernel sizes .* for 2 layers'),
      ('gs2pm_predrnn', dict(kernel_size=2), 'odd'),
      ('gs2pm_predrnnpp', dict(features=(2,)), 'two layers or more'),
      ('gs2pm_mim', dict(difference='none'), 'time upstream'),
      ('gs2pm_e3dlstm', dict(attention='all'), 'places upstream'),
      ('gs2pm_e3dlstm', dict(kernel_size=(3, 3, 3)), 'depth of 1 or of the window, 2'),
      ('gs2pm_e3dlstm', dict(features=(2, 3)), 'equal')):
    with pytest.raises(ValueError, match=message):
      _shapes(_build(name, **fields), (5, 7))
