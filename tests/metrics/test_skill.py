"""Skill: sums by group, bootstrap verdicts, storm phases, the fair CRPS."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax import ensemble
from stp_jax.metrics import skill, tec

LATITUDE = np.array([80., 60, 45, 30, 0, -30, -45, -60, -80])


def _sums(seed=0, batch=2, steps=3, width=8):
  rng = np.random.default_rng(seed)
  prediction, truth = rng.normal(20, 5, (2, batch, steps, 10, width)).astype(np.float32)
  truth[0, 1, 2, 3] = np.nan
  valid = rng.random(truth.shape) < 0.8
  times = np.datetime64('2012-01-01T00:00') + 120 * np.arange(steps)[None] + np.zeros(
      (batch, 1), int)
  longitude = np.arange(width) * 360 / width - 180
  weights = tec.row_weights(LATITUDE, 10)
  bands = skill.band_matrix(LATITUDE, 10)
  slots = skill.time_matrix(times.astype('M8[m]'), longitude, width)
  found = np.asarray(skill.sums(prediction, truth, valid, weights, bands, slots))
  return prediction, truth, valid, weights, longitude, times, found


def test_scores_are_those_of_numpy():
  prediction, truth, valid, weights, _, _, found = _sums()
  there = valid & np.isfinite(truth) & (weights > 0)[:, None]
  p, t = prediction[there].astype(float), truth[there].astype(float)
  got = skill.scores(found.sum((0, 1, 2, 3), dtype=np.float64))
  expected = dict(rmse=((p - t)**2).mean()**0.5, mae=abs(p - t).mean(), bias=(p - t).mean(),
                  correlation=np.corrcoef(p, t)[0, 1])
  for key, value in expected.items():
    assert got[key] == pytest.approx(value, rel=1e-4, abs=1e-4), key
  w = np.broadcast_to(weights[:, None], there.shape)[there]
  cosine = skill.scores(found.sum((0, 1, 2, 3), dtype=np.float64), 'cos_')
  assert cosine['rmse'] == pytest.approx(np.average((p - t)**2, weights=w)**0.5, rel=1e-4)


def test_bands_and_local_times_are_a_partition():
  _, truth, valid, weights, longitude, _, found = _sums()
  there = valid & np.isfinite(truth) & (weights > 0)[:, None]
  assert found[..., 0].sum() == there.sum()
  bands = skill.band_matrix(LATITUDE, 10)
  np.testing.assert_array_equal(bands.sum(1), [1] * 9 + [0])
  assert bands[3].argmax() == bands[5].argmax() == 2  # 30 degrees belong to the middle
  assert bands[1].argmax() == 1 and bands[7].argmax() == 3
  hour = (2 * np.arange(3)[:, None] + longitude / 15) % 24
  afternoon = there[0] & ((hour >= 12) & (hour < 18))[:, None, :]
  np.testing.assert_array_equal(found[0, :, :, 2, 0].sum(1), afternoon.sum((1, 2)))


def _days(errors: np.ndarray) -> np.ndarray:
  """Sums by day `[D, 18]` of errors `[D, N]` against a truth of zero."""
  n = np.full(len(errors), errors.shape[1], float)
  zero = np.zeros(len(errors))
  one = np.stack([n, errors.sum(1), abs(errors).sum(1), (errors**2).sum(1), errors.sum(1), zero,
                  (errors**2).sum(1), zero, zero], 1)
  return np.concatenate([one, one], 1)


def test_better_only_where_the_interval_says_so():
  rng = np.random.default_rng(0)
  noise = rng.normal(0, 1, (40, 50))
  found = skill.compare(_days(noise), _days(1.3 * noise))
  assert found['verdict'] == 'better' and found['interval'][0] > 0
  assert found['difference'] == pytest.approx(0.3 * (noise**2).mean()**0.5, rel=1e-6)
  assert skill.compare(_days(1.3 * noise), _days(noise))['verdict'] == 'worse'
  assert skill.compare(_days(noise), _days(noise))['verdict'] == 'no difference shown'
  # one day alone must not carry the verdict: all others are equal
  lucky = noise.copy()
  lucky[3] *= 8
  assert skill.compare(_days(noise), _days(lucky))['difference'] > 0.2
  assert skill.compare(_days(noise), _days(lucky))['verdict'] == 'no difference shown'
  few = skill.compare(_days(noise[:4]), _days(2 * noise[:4]))
  assert few['verdict'] == 'too few days' and few['interval'][0] > 0  # rough, so no verdict
  one = skill.compare(_days(noise[:1]), _days(2 * noise[:1]))
  assert one['verdict'] == 'too few days' and one['interval'] is None
  assert skill.compare(_days(noise[:0]), _days(noise[:0]))['verdict'] == 'no common frames'


def test_interval_covers_the_truth_as_often_as_it_says():
  rng = np.random.default_rng(1)
  inside = 0
  for _ in range(200):
    low, high = skill.interval(_days(rng.normal(0, 1, (30, 20))), count=300)
    inside += low <= 1 <= high
  assert 0.85 < inside / 200 < 0.99


def test_the_same_days_whatever_the_order():
  rng = np.random.default_rng(2)
  rows = [(int(d), v) for d, v in zip(rng.integers(0, 5, 30), rng.random((30, 18)) + 1)]
  tables = [skill.Table(), skill.Table()]
  for table, order in zip(tables, (range(30), rng.permutation(30))):
    for i in order:
      table.add('net', 'all', *rows[i])
  np.testing.assert_allclose(*(t.days('net', 'all') for t in tables), rtol=1e-12)


def test_storm_phases():
  dst = np.array([[0, -20, -60, -120, -90, -60, -40, -10]], float)
  kp = np.array([[10, 20, 60, 70, 40, 30, 20, 10]], float)
  groups = skill.frame_groups(dict(dst=dst, kp=kp, f107=np.full((1, 8), 160.0)), 3.0, 1)
  text = lambda name: ''.join('.x'[int(v)] for v in groups[name][0])
  assert text('Dst <= -50, main phase') == '.xx....'
  assert text('Dst <= -50, recovery') == '...xx..'
  assert text('Dst > -50') == 'x....xx'
  assert text('Kp >= 5') == '.xx....' and text('Kp < 5') == 'x..xxxx'
  assert text('day after Kp >= 5') == '...xxxx'
  assert text('F10.7 >= 150') == 'xxxxxxx' and 'F10.7 < 100' not in groups


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_crps_equals_its_definition(count, seed):
  rng = np.random.default_rng(seed)
  members, truth = rng.normal(size=(count, 4)), rng.normal(size=4)
  pairs = abs(members[:, None] - members[None])
  expected = abs(members - truth).mean(0)
  if count > 1:
    expected = expected - pairs.sum((0, 1)) / (2 * count * (count - 1))
  np.testing.assert_allclose(ensemble.crps(members, truth), expected, atol=1e-12)


def test_an_ensemble_needs_to_differ():
  mean, spread = ensemble.summary(np.array([[1.0, 2], [3, 2]]))
  np.testing.assert_allclose(mean, [2, 2])
  np.testing.assert_allclose(spread, [2**0.5, 0])
  with pytest.raises(ValueError, match='no drop path'):
    ensemble.summary(np.ones((3, 2)))
  with pytest.raises(ValueError, match='at least two'):
    ensemble.summary(np.ones((1, 2)))
