"""LMC: what the memory recalls, and from which frames; its two phases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.recurrent.lmc import LMC
from stp_jax.models.recurrent.lmc_memory import Memory

TINY = dict(features=(2, 3), layers=1, motion=(2, 2, 2, 3), memory_size=4, attention=2)


def _frames(t, seed=0):
  return jnp.asarray(np.random.default_rng(seed).random((1, t, 16, 16, 1)), jnp.float32)


def test_the_memory_answers_in_the_direction_that_is_asked():
  memory = Memory(3, (1, 1, 2, 4), 2)
  rows = jnp.asarray([[40.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, -2, 0]])
  recall = lambda query: memory.apply(
      {'params': {'memory_w': rows}}, jnp.asarray(query, jnp.float32), method='recall')
  for query in ([1.0, 2, 0, 0], [5, 0, 5, 7]):
    unit = np.asarray(query) / np.linalg.norm(query)
    share = np.exp([unit[0], unit[1], -unit[2]])
    np.testing.assert_allclose(recall(query), share / share.sum() @ np.asarray(rows), rtol=1e-5)
  # No motion: all rows alike; its gradient is finite.
  np.testing.assert_allclose(recall([0, 0, 0, 0]), rows.mean(0), rtol=1e-6)
  assert np.all(np.isfinite(jax.grad(lambda q: recall(q).sum())(jnp.zeros(4))))


@functools.cache
def _model():
  rng = np.random.default_rng(1)
  shapes = jax.eval_shape(
      lambda: LMC(**TINY).init(jax.random.key(0), _frames(3), np.ones((1, 3)), t_in=2))
  params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)
  # No ReLU of the memory's is dead.
  params['params']['memory'] = jax.tree.map(jnp.abs, params['params']['memory'])
  return params


@functools.partial(jax.jit, static_argnames=('t_in', 'phase', 'truth'))
def _apply(variables, frames, use, t_in, phase=2, truth=False, long=None):
  model = LMC(**TINY, phase=phase)
  return model.apply(variables, frames, use, t_in=t_in, truth=truth, long=long)[0]


def _predict(*args, **more):
  return _apply(_model(), *args, **more)


def test_each_phase_has_its_encoder_and_its_clip():
  frames, use = _frames(5), jnp.asarray([[1, 1, 1, 0, 0]])
  matching = _predict(frames, use, 3)
  storing = _predict(frames, use, 3, phase=1)
  assert not np.allclose(matching, storing, atol=1e-4)
  # Asked with the input, or with all frames where they are there.
  np.testing.assert_allclose(_predict(frames, use, 3, 1, long=frames[:, :3]), storing, atol=1e-6)
  known = _predict(frames, use, 3, phase=1, truth=True)
  np.testing.assert_allclose(_predict(frames, use, 3, 1, long=frames), known, atol=1e-6)
  assert not np.array_equal(known, storing)
  np.testing.assert_array_equal(_predict(frames, use, 3, truth=True), matching)
  # Fewer than nine frames are completed by the first, at rest.
  longer = jnp.concatenate([frames[:, :1]] * 6 + [frames[:, :3]], 1)
  np.testing.assert_allclose(_predict(frames, use, 3, long=longer), matching, atol=1e-6)
  # A true frame that is shown changes what comes after it.
  shown = _predict(frames, use.at[:, 3].set(1), 3)
  np.testing.assert_array_equal(shown[:, 0], matching[:, 0])
  assert not np.array_equal(shown[:, 1], matching[:, 1])


def test_bad_fields():
  for fields in (dict(phase=3), dict(features=(2,)), dict(motion=(2, 2))):
    with pytest.raises(ValueError, match='2 and 4 widths, phase 1 or 2'):
      jax.eval_shape(lambda f=fields: LMC(**{**TINY, **f}).init(
          jax.random.key(0), _frames(3), np.ones((1, 3)), t_in=2))
