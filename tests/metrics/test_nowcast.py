"""Threshold scores by hand, their sums, the published conventions, and frames on 0..255."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from stp_jax.metrics import gs2pm, nowcast, video


def _frame(hits, misses, false_alarms, rest):
  """A pair `[1, 1, H, 1, 1]` with these counts at the threshold 10."""
  predicted = [20] * hits + [0] * misses + [20] * false_alarms + [0] * rest
  observed = [20] * hits + [20] * misses + [0] * false_alarms + [0] * rest
  return tuple(np.array(x, np.float32).reshape(1, 1, -1, 1, 1) for x in (predicted, observed))


def test_hand_numbers():
  counted = nowcast.counts(*_frame(6, 2, 4, 8), low=10)
  assert {k: float(v[0, 0]) for k, v in counted.items()} == dict(
      hits=6, misses=2, false_alarms=4, correct_negatives=8)
  found = {k: float(v[0, 0]) for k, v in nowcast.scores(counted).items()}
  assert found == pytest.approx(dict(
      pod=6 / 8, far=4 / 10, csi=6 / 12, bias=10 / 8,
      hss=2 * (6 * 8 - 4 * 2) / (8 * 10 + 10 * 12)))


def test_both_thresholds_count_and_holes_do_not():
  truth = np.array([9.9, 10, 70, 70.1, np.nan], np.float32).reshape(1, 1, 5, 1, 1)
  counted = nowcast.counts(truth, truth, low=10, high=70)
  assert (counted['hits'], counted['correct_negatives']) == (2, 3)
  assert nowcast.counts(truth, truth, low=10)['hits'] == 3
  valid = np.array([True, True, False, True, False]).reshape(1, 1, 5, 1, 1)
  counted = nowcast.counts(truth, truth, valid, low=10, high=70)
  assert (counted['hits'], counted['correct_negatives']) == (1, 2)


def test_nothing_to_say_is_nan():
  found = nowcast.scores(nowcast.counts(*_frame(0, 0, 0, 5), low=10))
  assert all(np.isnan(v).all() for v in found.values())
  found = nowcast.scores(nowcast.counts(*_frame(0, 0, 3, 5), low=10))
  assert found['far'] == 1 and found['csi'] == 0 and np.isnan(found['pod'])


def test_counts_merge_at_any_batch_size():
  rng = np.random.default_rng(0)
  pred, true = rng.uniform(0, 60, (2, 5, 3, 6, 7, 1)).astype(np.float32)
  whole = nowcast.counts(pred, true, low=30)
  parts = [nowcast.counts(pred[s], true[s], low=30) for s in (slice(2), slice(2, 3), slice(3, 5))]
  one, many = (nowcast.scores(nowcast.merge(p)) for p in ([whole], parts))
  for name in nowcast.SCORES:
    np.testing.assert_array_equal(one[name], many[name])
    assert one[name].shape == (3,)
  # Of the pooled pixels, not a mean of the scores of frames.
  event = lambda x: x[:, 1] >= 30
  hits, observed = (event(pred) & event(true)).sum(), event(true).sum()
  assert one['pod'][1] == hits / observed
  # Means over frames instead of sums change nothing.
  means = {k: np.asarray(v, np.float64).mean(0) for k, v in whole.items()}
  np.testing.assert_allclose(nowcast.scores(means)['hss'], one['hss'], rtol=1e-12)


def test_the_published_fillers_and_average():
  frames = [_frame(2, 2, 1, 5), _frame(0, 0, 3, 7), _frame(0, 4, 0, 6), _frame(4, 0, 0, 6)]
  pred, true = (np.concatenate(x).reshape(2, 2, 10, 1, 1) for x in zip(*frames))
  found, empty = nowcast.upstream(nowcast.counts(pred, true, low=10, high=70))
  np.testing.assert_array_equal(empty, [[0, 1], [0, 0]])
  np.testing.assert_allclose(found['pod'], [[0.5, 0], [0, 1]])
  # Without an event: 0; without a forecast of one: a false alarm ratio of 1.
  np.testing.assert_allclose(found['far'], [[1 / 3, 0], [1, 0]])
  # Two leads, three frames with an event: each lead divides by 1.5.
  np.testing.assert_allclose(nowcast.upstream_by_lead(found['pod'], empty), [0.5 / 1.5, 1 / 1.5])
  assert np.isnan(nowcast.upstream_by_lead(found['pod'], np.ones((2, 2)))).all()


def test_frames_as_published():
  rng = np.random.default_rng(1)
  pred, true = rng.random((2, 1, 2, 9, 12, 3)).astype(np.float32)
  found = gs2pm.per_example(pred, true)
  error = 255 * (pred[0, 1].astype(float) - true[0, 1])
  # A mean over rows and channels, a sum over columns.
  assert float(found['mse'][0, 1]) == pytest.approx((error ** 2).mean((0, 2)).sum(), rel=1e-5)
  assert float(found['psnr'][0, 1]) == pytest.approx(
      20 * np.log10(255 / np.sqrt((error ** 2).mean())), rel=1e-5)
  first = structural_similarity(
      true[0, 1, ..., 0].astype(float), pred[0, 1, ..., 0].astype(float), data_range=1.0)
  assert float(found['ssim'][0, 1]) == pytest.approx(first, abs=2e-6)
  assert abs(first - float(video.ssim(pred, true, data_range=1.0)[0, 1])) > 1e-3
  assert 'ssim' not in gs2pm.per_example(pred[..., :5, :, :], true[..., :5, :, :])


def test_rain_weighs_more():
  truth = np.array([0.1, 30, 39.9, 40, 50, 70, 71], np.float32) / 70
  for value, weight in zip(truth, (1, 5, 5, 10, 50, 50, 1)):
    assert float(gs2pm.weighted_squared_error(value + 0.5, value)) == pytest.approx(
        0.25 * weight, rel=1e-4)
