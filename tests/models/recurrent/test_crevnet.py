"""CrevNet: its invertible encoder, its rollout, what it requires, its size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stp_jax.convert import family_of, rules
from stp_jax.models import build
from stp_jax.models.layers.reversible import ReversibleEncoder
from stp_jax.models.recurrent.crevnet import CrevNet

TINY = dict(layers=1, blocks=(1, 1), any_size=True)


def _frames(t, size=(8, 8), channels=1, b=2):
  return jnp.asarray(np.random.default_rng(0).random((b, t, *size, channels)), jnp.float32)


def _build(size=(8, 8), t_in=4, t_out=3, channels=1, **fields):
  dtype = fields.pop('dtype', 'float32')
  return build(dict(name='crevnet', backbone={**TINY, **fields}), shape=(*size, channels),
               t_in=t_in, t_out=t_out, dtype=dtype)


@functools.cache
def _fixed(**fields):
  model = _build(**fields)
  variables = jax.jit(model.init)(jax.random.key(0), _frames(7))
  return model, variables


@pytest.mark.parametrize('channels, blocks', [(1, (2, 1)), (3, (1, 1))])
def test_the_encoder_inverts(channels, blocks):
  x = _frames(3, (8, 12), channels)
  encoder = ReversibleEncoder(channels, blocks)
  run = lambda e, x: e.decode(e.encode(x, False), False)
  y, _ = encoder.init_with_output(jax.random.key(0), x, method=run)
  np.testing.assert_allclose(y, x, atol=1e-5)


def test_shapes_and_sizes():
  for size, t_in, t_out, channels in (
      ((17, 22), 5, 2, 1), ((16, 16), 3, 6, 3), ((59, 83), 2, 3, 1), ((16, 17), 1, 1, 2)):
    model = _build(size, t_in, t_out, channels)
    for train in (False, True):
      output, _ = jax.eval_shape(
          functools.partial(model.init_with_output, train=train), jax.random.key(0),
          _frames(t_in + t_out, size, channels))
      assert output.prediction.shape == (2, t_out, *size, channels)
      assert (output.context is None) if t_in <= 3 else output.context.shape[1] == t_in - 3
      assert set(output.terms) == ({'overlap'} if train else set())


def test_what_it_requires_is_said_in_one_line():
  frames = _frames(5, (16, 24))
  with pytest.raises(ValueError, match=r'16 x 24, published for 64 x 64 only.*any_size'):
    jax.eval_shape(_build((16, 24), 3, 2, any_size=False).init, jax.random.key(0), frames)
  with pytest.raises(ValueError, match='do not divide by 4'):
    jax.eval_shape(
        lambda f: CrevNet(**TINY).init(jax.random.key(0), f, np.ones((2, 5)), t_in=3),
        _frames(5, (6, 8)))
  for fields in (dict(fusion='concatenate'), dict(anchor='persistence'), dict(combine='residual')):
    with pytest.raises(ValueError, match=r'crevnet.*fusion=none and anchor=none'):
      build(dict(name='crevnet', **fields), shape=(64, 64, 1), forcings=3, t_in=3, t_out=2)


def test_published_parameter_counts():
  # Per layer six gates, the output gate, the 1x1 of [c, memory], that of the attention gate.
  layer = 6 * (27 * 96 * 32 + 32) + (27 * 128 * 32 + 32) + (64 * 32 + 32) + (32 * 32 + 32)
  for layers, expected in ((2, 1327748), (8, 1327748 + 6 * layer)):
    model = build(dict(name='crevnet', layers=layers), shape=(64, 64, 1), t_in=10, t_out=10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), _frames(20, (64, 64)))
    assert sum(x.size for x in jax.tree.leaves(shapes['params'])) == expected


@pytest.mark.slow
def test_future_frames_reach_neither_the_forecast_nor_gradients():
  model, variables = _fixed()
  frames = _frames(7)
  spoilt = frames.at[:, 4:].set(jnp.nan)

  @jax.jit
  def run(frames):
    def loss(params):
      output, _ = model.apply(
          {**variables, 'params': params}, frames, train=True, mutable='batch_stats')
      return jnp.sum(output.prediction ** 2), output
    return jax.value_and_grad(loss, has_aux=True)(variables['params'])

  for a, b in zip(*(jax.tree.leaves(run(f)[1]) for f in (frames, spoilt))):
    np.testing.assert_array_equal(a, b)
  apply = jax.jit(model.apply)
  expected = apply(variables, frames).prediction
  np.testing.assert_array_equal(apply(variables, spoilt).prediction, expected)
  np.testing.assert_array_equal(apply(variables, frames[:, :4]).prediction, expected)
  forced = apply(variables, frames, None, jnp.ones((2, 7))).prediction
  np.testing.assert_array_equal(forced[:, 0], expected[:, 0])
  assert not np.allclose(forced[:, 1:], expected[:, 1:])


def test_upstream_forecasts_from_the_last_three_frames_alone():
  frames = _frames(7)
  other = frames.at[:, 0].add(1.0)
  for warm_up in (True, False):
    model = _build(warm_up=warm_up)
    apply = jax.jit(model.apply)
    a, b = (apply(_fixed()[1], f).prediction for f in (frames, other))
    assert np.array_equal(a, b) != warm_up


@pytest.mark.slow
def test_training_updates_statistics_and_lowers_the_loss():
  frames, variables = _frames(7), _fixed()[1]
  for dtype in ('float32', 'bfloat16'):
    model = _build(dtype=dtype)
    tx = optax.adam(3e-3)

    @jax.jit
    def step(params, stats, state, model=model, tx=tx):
      def loss(params):
        out, updated = model.apply(
            {'params': params, 'batch_stats': stats}, frames, None, jnp.ones((2, 7)), True,
            mutable='batch_stats')
        every = jnp.concatenate([out.context, out.prediction], 1)
        return (jnp.mean((every - frames[:, 3:]) ** 2) + 2 * jnp.mean(out.terms['overlap']),
                updated['batch_stats'])
      (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
      updates, state = tx.update(grads, state)
      return optax.apply_updates(params, updates), stats, state, value

    params, stats = variables['params'], variables['batch_stats']
    state, losses = tx.init(params), []
    for _ in range(6):
      params, stats, state, value = step(params, stats, state)
      losses.append(float(value))
    assert np.all(np.isfinite(losses)) and losses[-1] < losses[0]
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((params, stats)))
    mean = stats['backbone']['encoder']['stack_0']['bottleneck_block_1']['mean']
    assert np.any(mean != 0)


def test_weights_go_to_torch_and_back():
  _, variables = _fixed()
  family = family_of('crevnet')
  names = rules.to_torch(family, variables)
  assert 'frame_predictor.att.0.0.weight' in names
  assert 'encoder.stack.1.bottleneck_block.9.weight' in names
  again, unused = rules.to_flax(family, names, variables)
  assert not unused
  for a, b in zip(*map(jax.tree.leaves, (again, dict(variables)))):
    np.testing.assert_array_equal(a, b)
