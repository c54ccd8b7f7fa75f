"""The advected baseline: what is tracked, what stands still, and pysteps itself where it is."""

import numpy as np
import pytest

from stp_jax.metrics import optical_flow


def _moving(count):
  y, x = np.mgrid[:48, :48]
  return np.stack([20 * np.exp(-((y - 20) ** 2 + (x - 12 - 2 * t) ** 2) / 30)
                   for t in range(count)]).astype(np.float32)


def test_rates_are_tracked_in_decibels_without_holes():
  frames = np.array([[0.0, 0.1, 10.0, np.nan]])
  np.testing.assert_allclose(optical_flow.tracked(frames, rate=True), [[-10, -10, 10, -10]])
  np.testing.assert_allclose(optical_flow.tracked(frames, rate=False), [[0, 0.1, 10, 0]])


def test_every_window_and_channel_by_itself():
  frames = np.random.default_rng(0).random((2, 3, 4, 5, 2)).astype(np.float32)
  made = optical_flow.batch(frames, 2, True, one=lambda f, t, rate: np.stack([f[-1]] * t))
  np.testing.assert_array_equal(made[:, 0], frames[:, -1])
  assert made.shape == (2, 2, 4, 5, 2)


def test_the_note_names_the_cure(monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'pysteps', None)
  assert optical_flow.missing().endswith(optical_flow.CURE)


def test_pysteps_carries_a_shower_on():
  pytest.importorskip('pysteps')
  pytest.importorskip('cv2')
  frames = _moving(8)
  made = optical_flow.forecast(frames[:4], 4, rate=True)
  moved, still = (np.abs(x - frames[4:]).mean() for x in (made, frames[3]))
  assert made.shape == (4, 48, 48) and moved < 0.5 * still
  assert np.isfinite(optical_flow.forecast(np.full((3, 48, 48), np.nan), 2, True)).all()
