"""DMVFN: routing, rollout, what it requires, its size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stp_jax.convert import family_of, rules
from stp_jax.models import build
from stp_jax.models.recurrent.dmvfn import DMVFN

TINY = dict(features=(8, 4), scales=(2, 1), routing_features=4)


def _frames(t, size=(8, 16), channels=1, b=2):
  return jnp.asarray(np.random.default_rng(0).random((b, t, *size, channels)), jnp.float32)


def _build(size=(8, 16), t_in=3, t_out=2, channels=1, **fields):
  dtype = fields.pop('dtype', 'float32')
  return build(dict(name='dmvfn', backbone={**TINY, **fields}), shape=(*size, channels),
               t_in=t_in, t_out=t_out, dtype=dtype)


@functools.cache
def _fixed():
  model = _build()
  return model, jax.jit(model.init)(jax.random.key(0), _frames(5))


def _next(draws, routing='sample'):
  """One step from two frames with the weights of `_fixed`, with given routing."""
  frames, variables = _frames(5), {'params': _fixed()[1]['params']['backbone']}
  return _jitted(variables, frames, draws, routing)


@functools.partial(jax.jit, static_argnames='routing')
def _jitted(variables, frames, draws, routing):
  return DMVFN(**TINY, routing=routing).apply(
      variables, frames[:, 0], frames[:, 1], False, draws, method='predict_next')[0]


def test_shapes_and_sizes():
  for size, t_in, t_out, channels in (
      ((17, 22), 4, 2, 1), ((16, 16), 2, 5, 3), ((59, 83), 1, 3, 1)):
    model = _build(size, t_in, t_out, channels)
    for train in (False, True):
      output, _ = jax.eval_shape(
          functools.partial(model.init_with_output, train=train), jax.random.key(0),
          _frames(t_in + t_out, size, channels))
      assert output.prediction.shape == (2, t_out, *size, channels)
      if train and t_in > 2:
        assert output.context.shape[1] == t_in - 2
      else:
        assert output.context is None
      assert set(output.terms) == ({'laplacian'} if train else set())


@pytest.mark.parametrize('fields, message', [
    (dict(features=(8,)), 'one per block'), (dict(features=(8, 6)), 'multiples of 4'),
    (dict(scales=(2, 0.5)), 'whole numbers'), (dict(routing='first'), 'sample upstream'),
    (dict(perceptual=0.5), r'VGG19 loss needs trained weights.*perceptual=0')])
def test_bad_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(_build(**fields).init, jax.random.key(0), _frames(5))


def test_it_takes_frames_alone():
  for fields in (dict(fusion='mix'), dict(anchor='climatology'), dict(combine='gated')):
    with pytest.raises(ValueError, match=r'dmvfn.*fusion=none and anchor=none'):
      build(dict(name='dmvfn', **fields), shape=(64, 64, 1), forcings=3, t_in=3, t_out=2)
  with pytest.raises(ValueError, match='10 x 16 do not divide by 8'):
    jax.eval_shape(
        lambda f: DMVFN(**TINY).init(jax.random.key(0), f, np.ones((2, 3)), t_in=2),
        _frames(3, (10, 16)))


def test_routing_is_per_example_and_upstream_per_batch():
  both, none = jnp.ones((2, 2)), jnp.zeros((2, 2))
  mixed = jnp.asarray([[1.0, 1.0], [0.0, 1.0]])
  image = {k: _next(d) for k, d in (('both', both), ('none', none), ('mixed', mixed))}
  np.testing.assert_allclose(image['mixed'][0], image['both'][0], atol=1e-6)
  assert not np.allclose(image['mixed'][1], image['both'][1], atol=1e-6)
  # The first example decides for all.
  np.testing.assert_allclose(_next(mixed, 'upstream'), image['both'], atol=1e-6)
  # No block: the two frames blended; upstream's forecast is the older one.
  frames = _frames(5)
  np.testing.assert_allclose(image['none'], frames[:, :2].mean(1), atol=1e-6)
  np.testing.assert_array_equal(_next(none, 'upstream'), frames[:, 0])


def test_forecasts_are_deterministic_and_run_at_least_one_block():
  model = DMVFN(**TINY, beta=0.05)  # no block is likely
  variables = {'params': _fixed()[1]['params']['backbone']}
  frames = _frames(5)
  choose = lambda train, **rngs: np.asarray(model.apply(
      variables, frames[:, 0], frames[:, 1], train, None, method='_choose', rngs=rngs))
  np.testing.assert_array_equal(choose(False).sum(1), [1, 1])
  np.testing.assert_array_equal(choose(False, dropout=jax.random.key(1)), choose(False))
  draws = [choose(True, dropout=jax.random.key(i)) for i in range(40)]
  assert np.mean(draws) < 0.2  # drawn by the probabilities: nearly always none


@pytest.mark.slow
def test_predictions_are_cut_to_the_unit_range_only_on_demand():
  variables = {'params': _fixed()[1]['params']['backbone']}
  frames = 3 * _frames(5) - 1
  for clip in (False, True):
    image, _ = DMVFN(**TINY, clip=clip).apply(
        variables, frames[:, 0], frames[:, 1], method='predict_next')
    assert bool(image.max() > 1 and image.min() < 0) != clip


@pytest.mark.slow
def test_future_frames_reach_neither_the_forecast_nor_gradients():
  model, variables = _fixed()
  frames = _frames(5)
  spoilt = frames.at[:, 3:].set(jnp.nan)

  @jax.jit
  def run(frames):
    def loss(params):
      output = model.apply({'params': params}, frames, train=True)
      return jnp.sum(output.prediction ** 2) + jnp.sum(output.context), output
    return jax.value_and_grad(loss, has_aux=True)(variables['params'])

  (_, output), grads = run(frames)
  (_, spoilt_output), spoilt_grads = run(spoilt)
  np.testing.assert_array_equal(output.prediction, spoilt_output.prediction)
  assert np.all(np.isfinite(spoilt_output.terms['laplacian']))
  for a, b in zip(*map(jax.tree.leaves, (grads, spoilt_grads))):
    np.testing.assert_array_equal(a, b)
  apply = jax.jit(model.apply)
  expected = apply(variables, frames).prediction
  np.testing.assert_array_equal(apply(variables, spoilt).prediction, expected)
  np.testing.assert_array_equal(apply(variables, frames[:, :3]).prediction, expected)
  # Only the last two frames matter.
  np.testing.assert_array_equal(apply(variables, frames.at[:, 0].set(9)).prediction, expected)
  forced = apply(variables, frames, None, jnp.ones((2, 5))).prediction
  np.testing.assert_array_equal(forced[:, 0], expected[:, 0])
  assert not np.allclose(forced[:, 1:], expected[:, 1:])


@pytest.mark.slow
def test_training_lowers_the_loss():
  frames = _frames(5)
  for dtype in ('float32', 'bfloat16'):
    model, tx, params = _build(dtype=dtype), optax.adam(3e-3), _fixed()[1]['params']

    @jax.jit
    def step(params, state, key, model=model, tx=tx):
      def loss(params):
        output = model.apply(
            {'params': params}, frames, None, jnp.ones((2, 5)), True, rngs={'dropout': key})
        return jnp.mean(output.terms['laplacian'])
      value, grads = jax.value_and_grad(loss)(params)
      updates, state = tx.update(grads, state)
      return optax.apply_updates(params, updates), state, value, grads

    state, losses = tx.init(params), []
    for _ in range(8):
      params, state, value, grads = step(params, state, jax.random.key(3))
      losses.append(float(value))
    assert np.all(np.isfinite(losses)) and losses[-1] < losses[0]
    # The routing learns through its draws.
    assert np.any(grads['backbone']['l1']['kernel'] != 0)


def test_published_parameter_count():
  model = build(dict(name='dmvfn'), shape=(64, 64, 3), t_in=4, t_out=1)
  shapes = jax.eval_shape(model.init, jax.random.key(0), _frames(5, (64, 64), 3))
  conv = lambda i, o, k=3: k * k * i * o + o
  blocks = sum(
      conv(17, n // 2) + conv(n // 2, n) + 3 * conv(n, n) + conv(n, n // 4) + conv(17, 8)
      + conv(8, 8) + conv(n // 4 + 8, 5, 4) + n // 2 + 4 * n + n // 4 + 16
      for n in (160, 160, 160, 80, 80, 80, 44, 44, 44))
  routing = conv(6, 26) + conv(26, 26) + 26 * 9 + 9
  assert sum(x.size for x in jax.tree.leaves(shapes['params'])) == blocks + routing


def test_weights_go_to_torch_and_back():
  _, variables = _fixed()
  family = family_of('dmvfn')
  names = rules.to_torch(family, variables)
  assert names['stu.0.lastconv.weight'].shape == (10, 5, 4, 4)
  assert names['stu.1.conv_sq.1.weight'].shape == (1,)
  assert names['l1.weight'].shape == (2, 4)
  again, unused = rules.to_flax(family, names, variables)
  assert not unused
  for a, b in zip(*map(jax.tree.leaves, (again, dict(variables)))):
    np.testing.assert_array_equal(a, b)
