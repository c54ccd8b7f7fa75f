"""Scores and losses of beam prediction, and the schedule with restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax import optimizers
from stp_jax.metrics import beam
from stp_jax.tasks import beam_losses


def test_scores_of_guesses_one_can_count():
  logits = jnp.zeros((3, 64)).at[jnp.arange(3), jnp.array([10, 20, 40])].set(9.0)
  logits = logits.at[jnp.arange(3), jnp.array([11, 25, 0])].set(5.0)
  scores = beam.per_example(logits, jnp.array([10, 22, 60]))
  np.testing.assert_allclose(scores['y1'], [1, 0.6, 0], atol=1e-6)
  np.testing.assert_allclose(scores['y2'], [1, 0.6, 0], atol=1e-6)
  np.testing.assert_array_equal(scores['top1'], [1, 0, 0])
  np.testing.assert_allclose(
      scores['dba'], np.mean([scores[f'y{k}'] for k in (1, 2, 3)], 0), atol=1e-6)


def test_sums_do_not_depend_on_batches_and_leave_unknown_beams_out():
  rng = np.random.default_rng(0)
  logits, true = rng.normal(size=(24, 2, 64)), rng.integers(0, 64, (24, 2))
  true[3], true[5, 1] = -1, -1
  scenario = rng.integers(31, 35, 24)
  def scored(rows, mask=None):
    found = beam.BeamScores()
    found.update(beam.per_example(jnp.asarray(logits[rows]), jnp.asarray(true[rows])),
                 scenario[rows], mask)
    return found
  whole = scored(np.arange(24)).result()
  parts = scored(np.arange(20, 24)).merge(scored(np.arange(0, 20)))
  padded = scored(np.r_[np.arange(24), 0, 0], np.r_[np.ones(24), 0, 0]).result()
  for other in (parts.result(), padded):
    assert other['overall'] == pytest.approx(whole['overall'], abs=1e-12)
  assert whole['overall']['samples'] == 23
  weighted = sum(s['dba'] * s['samples'] for s in whole['scenarios'].values()) / 23
  assert whole['overall']['dba'] == pytest.approx(weighted)
  assert 'all' in beam.table(whole) and len(beam.table(whole).splitlines()) == 6
  with pytest.raises(ValueError, match='no labels'):
    scored(np.array([3])).result()


def test_losses_stay_finite_and_know_their_names():
  logits = jnp.array([[300.0, -300.0] + [0.0] * 62])
  for name in beam_losses.LOSSES:
    value, grad = jax.value_and_grad(
        lambda z, name=name: beam_losses.loss(name, z, jnp.array([1])).mean())(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()
  assert beam_losses.loss('focal', logits.astype(jnp.bfloat16), jnp.array([1])).dtype == jnp.float32
  with pytest.raises(ValueError, match="'mse': choose one of focal ce"):
    beam_losses.loss('mse', logits, jnp.array([1]))


@pytest.mark.parametrize('grow', [1.0, 1.5, 2.0, 3.0])
def test_restarts_begin_at_the_top(grow):
  fields = dict(schedule='cyclic_cosine', learning_rate=1e-4, warmup_epochs=2, warmup_lr=2.5e-6,
                initial_epochs=4, restart_epochs=4, restart_lr=1.25e-4, min_lr=2.5e-6,
                restart_multiplier=grow)
  _, at = optimizers.make(fields, 200 * 3, 3)
  rate = np.asarray(jax.vmap(at)(jnp.arange(600))['learning_rate'])[::3]
  np.testing.assert_allclose(rate[[0, 2]], [2.5e-6, 1e-4], rtol=1e-6)
  start, length = 6.0, 4.0
  while start < 200:
    if start == int(start):
      np.testing.assert_allclose(rate[int(start)], 1.25e-4, rtol=1e-6)
    start, length = start + length, length * grow
  assert rate.min() >= 2.5e-6 * (1 - 1e-6)
  _, at = optimizers.make(dict(fields, restart_epochs=0), 60, 1)
  np.testing.assert_allclose(at(50)['learning_rate'], 2.5e-6, rtol=1e-6)
