"""Scheduled sampling: the published closed forms, boundaries and distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax import sampling


def test_standard_falls_before_the_first_draw_and_stops():
  config = dict(name='standard')
  with jax.enable_x64(True):
    eta = [float(sampling.probabilities(config, k)[1]) for k in (0, 1, 49_998, 49_999, 50_000)]
  np.testing.assert_allclose(eta, [1 - 2e-5, 1 - 4e-5, 2e-5, 0, 0], atol=1e-12)


def test_standard_equals_the_running_subtraction():
  """The published code subtracts the rate from a variable; ours is closed."""
  config = dict(name='standard', rate=0.013, stop_step=60)
  eta, running = 1.0, []
  for k in range(80):
    eta = eta - 0.013 if k < 60 else 0.0
    running.append(eta)
  with jax.enable_x64(True):
    found = jax.jit(jax.vmap(lambda k: sampling.probabilities(config, k)[1]))(jnp.arange(80))
  np.testing.assert_allclose(found, running, atol=1e-12)


def test_reverse_boundaries():
  config = dict(name='reverse', step_1=20, step_2=50, alpha=5)
  with jax.enable_x64(True):
    context, forecast = jax.vmap(lambda k: jnp.stack(sampling.probabilities(config, k)))(
        jnp.array([0, 19, 20, 35, 49, 50, 10**6])).T
  np.testing.assert_allclose(
      context, [.5, .5, .5, 1 - .5 * np.exp(-3), 1 - .5 * np.exp(-29 / 5), 1, 1], atol=1e-12)
  np.testing.assert_allclose(forecast, [.5, .5, .5, .25, .5 - .5 * 29 / 30, 0, 0], atol=1e-12)


@pytest.mark.parametrize('name', sampling.KINDS)
def test_mask_from_given_uniforms(name):
  """Frame 0 is given, the last is never fed, and the columns follow the order of the draws."""
  config = dict(name=name, rate=0.01, step_1=0, step_2=100, alpha=50)
  draws = np.random.default_rng(0).random((3, 6))
  use = np.asarray(sampling.mask(config, 30, jnp.asarray(draws), 3, 4, 4))
  context, forecast = (float(x) for x in sampling.probabilities(config, 30))
  assert use.shape == (3, 8) and use.dtype == bool
  assert use[:, 0].all() and not use[:, -1].any()
  np.testing.assert_array_equal(use[:, 1:4], draws[:, :3] < context)
  np.testing.assert_array_equal(use[:, 4:7], draws[:, 3:] < forecast)
  if name != 'reverse':
    assert use[:, :4].all()
  if name == 'off':
    assert not use[:, 4:].any()


@settings(deadline=None, max_examples=10)
@given(t_in=st.integers(1, 6), t_out=st.integers(1, 6), step=st.integers(0, 200),
       name=st.sampled_from(sampling.KINDS))
def test_any_lengths(t_in, t_out, step, name):
  use = sampling.mask(dict(name=name, rate=0.005, step_1=50, step_2=100), step,
                      jax.random.key(step), 2, t_in, t_out)
  assert use.shape == (2, t_in + t_out) and bool(use[:, 0].all())


def test_drawn_masks_have_the_stated_chances_and_follow_the_key():
  config = dict(name='reverse', step_1=0, step_2=100, alpha=30)
  draw = jax.jit(lambda step, key: sampling.mask(config, step, key, 4000, 3, 3))
  use = draw(40, jax.random.key(1))
  context, forecast = sampling.probabilities(config, 40)
  np.testing.assert_allclose(use[:, 1:3].mean(), context, atol=0.02)
  np.testing.assert_allclose(use[:, 3:5].mean(), forecast, atol=0.02)
  assert (draw(40, jax.random.key(1)) == use).all()
  assert (draw(40, jax.random.key(2)) != use).any()


def test_errors_name_the_field():
  with pytest.raises(ValueError, match='unknown field eta'):
    sampling.probabilities(dict(eta=1), 0)
  with pytest.raises(ValueError, match='choose one of standard reverse off'):
    sampling.probabilities(dict(name='sometimes'), 0)
  with pytest.raises(ValueError, match=r'uniforms \(2, 3\), expected \(2, 4\)'):
    sampling.mask({}, 0, jnp.zeros((2, 3)), 2, 3, 3)
