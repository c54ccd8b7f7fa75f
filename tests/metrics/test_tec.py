import numpy as np
import pytest

from stp_jax.metrics import accumulate, tec

LATITUDE = np.linspace(87.5, -87.5, 71)


def test_hand_numbers_and_weights():
  weights = tec.row_weights([60.0, 0.0], 3)
  np.testing.assert_allclose(weights, [0.5, 1.0, 0.0], atol=1e-6)
  truth = np.array([[10, 10], [20, 20], [99, 99]], np.float32).reshape(1, 1, 3, 2, 1)
  error = np.array([[4, 0], [-1, 3], [70, 70]], np.float32).reshape(1, 1, 3, 2, 1)
  sums = tec.per_example(truth + error, truth, None, weights)
  assert {k: float(v[0, 0]) for k, v in sums.items()} == pytest.approx(dict(
      weight=4, sse=26, sae=8, se=6, cos_weight=3, cos_sse=18, cos_sae=6, cos_se=4))


def test_missing_and_padding_never_count():
  rng = np.random.default_rng(0)
  truth = rng.uniform(1, 90, (2, 3, 72, 12, 1)).astype(np.float32)
  prediction = truth + rng.normal(size=truth.shape).astype(np.float32)
  valid = rng.uniform(size=truth.shape) < 0.8
  weights = tec.row_weights(LATITUDE, 72)
  plain = tec.per_example(prediction, truth, valid, weights)
  spoiled = np.where(valid, truth, np.nan)
  spoiled[:, :, 71] = 1e6
  for key, value in tec.per_example(prediction, spoiled, valid, weights).items():
    np.testing.assert_array_equal(value, plain[key])
  assert float(plain['weight'].sum()) == valid[:, :, :71].sum()
  error = (prediction - truth)[:, :, :71].astype(float) * valid[:, :, :71]
  np.testing.assert_allclose(plain['sse'], (error**2).sum((2, 3, 4)), rtol=1e-5)
  cosine = np.cos(np.deg2rad(LATITUDE))[:, None, None]
  np.testing.assert_allclose(plain['cos_sae'], (abs(error) * cosine).sum((2, 3, 4)), rtol=1e-5)


def test_a_pole_is_no_padding():
  weights = tec.row_weights([90.0, 0.0, -90.0], 4)
  assert np.all(weights[:3] > 0) and weights[3] == 0
  np.testing.assert_array_equal(tec.row_weights(None, 2), [1, 1])
  with pytest.raises(ValueError, match='3 latitudes'):
    tec.row_weights([1, 2, 3], 2)


def test_storm_is_kp_five_in_the_target_frame():
  chosen = tec.strata(np.array([[0, 47, 50, 90, np.nan]]))
  np.testing.assert_array_equal(chosen['storm'], [[0, 0, 1, 1, 0]])
  np.testing.assert_array_equal(chosen['quiet'], [[1, 1, 0, 0, 0]])


def test_scores_are_root_of_the_mean_over_all_pixels():
  truth = np.zeros((2, 2, 4, 5, 1), np.float32)
  prediction = truth.copy()
  prediction[0, 0], prediction[1, 1] = 2, -6
  valid = np.ones(truth.shape, bool)
  valid[1, 1, :2] = False
  scores = accumulate.Scores(cadence_hours=12, units='TECU')
  sums = tec.per_example(prediction, truth, valid, tec.row_weights(None, 4))
  scores.update({'net': sums})
  result = scores.result()['forecasts']['net']['all']
  assert result['rmse'] == pytest.approx(((20 * 4 + 10 * 36) / 70)**0.5)
  assert result['bias'] == pytest.approx((40 - 60) / 70)
  assert result['by_lead']['rmse'] == pytest.approx([2**0.5, (360 / 30)**0.5])
