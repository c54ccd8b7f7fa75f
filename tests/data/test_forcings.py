"""Forcings: scaling, planes, and that no mode but 'observed' ever shows the future."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stp_jax.data import forcings

_AHEAD = np.array([True, False])


def _window(seed, batch=2, length=9):
  rng = np.random.default_rng(seed)
  values = rng.standard_normal((batch, length, 2)).astype(np.float32)
  delay = rng.uniform(0, 20, values.shape).astype(np.float32)
  known = rng.standard_normal(values.shape).astype(np.float32)
  return dict(values=values, known=known, delay=delay, forecast=values + 100, known_ahead=_AHEAD,
              mean=np.array([7, 8], np.float32), cadence_hours=2.0)


@given(st.integers(0, 1000), st.integers(1, 8), st.sampled_from(['persist', 'forecast', 'none']))
def test_changing_what_is_not_yet_known_changes_nothing(seed, t_in, mode):
  window = _window(seed)
  seen = forcings.select(mode, t_in=t_in, **window)
  hours = 2.0 * np.arange(9)[:, None]
  late = ~_AHEAD & (hours + window['delay'] > 2.0 * (t_in - 1))
  changed = dict(window, values=np.where(late, 1e6, window['values']))
  np.testing.assert_array_equal(forcings.select(mode, t_in=t_in, **changed), seen)
  np.testing.assert_array_equal(seen[..., 0], window['values'][..., 0])  # calendars stay


def test_persist_keeps_the_newest_available():
  values = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
  seen = forcings.select(
      'persist', values=values, known=values - 1, delay=np.full((1, 6, 1), 2.0), t_in=4,
      forecast=values * np.nan, known_ahead=np.array([False]), mean=np.zeros(1), cadence_hours=2.0)
  # Frame 3 is the issue time: frame 2 became known just then, frame 3 will in two hours.
  assert seen.ravel().tolist() == [0, 1, 2, 2, 2, 2]


def test_forecast_mode_needs_a_forecast():
  window = dict(_window(0), forecast=np.full((2, 9, 2), np.nan, np.float32))
  with pytest.raises(ValueError, match='history has none: train and score with future=persist'):
    forcings.select('forecast', t_in=4, **window)
  with pytest.raises(ValueError, match='choose one of persist'):
    forcings.select('guess', t_in=4, **window)


def test_channel_names():
  assert forcings.channel_names('4') == ('tec', 'longitude', 'latitude', 'year')
  assert forcings.channel_names('tec+kp') == ('tec', 'kp')
  for bad, message in [('21', '1 to 20'), ('tec+foo', "unknown channel 'foo'"), ('kp', 'first')]:
    with pytest.raises(ValueError, match=message):
      forcings.channel_names(bad)


def test_planes_are_scaled_as_published():
  values = np.array([[[120.0, -100.0]]], np.float32)
  planes = forcings.planes(values, ('f107', 'dst'), ('tec', 'longitude', 'latitude', 'f107', 'dst'),
                           4, 8)
  assert planes.shape == (1, 1, 4, 8, 4)
  np.testing.assert_allclose(planes[0, 0, 0, :, 0], np.arange(8) / 8)
  np.testing.assert_allclose(planes[0, 0, :, 0, 1], np.arange(4) / 4)
  np.testing.assert_allclose(planes[..., 2], 120 / 400, rtol=1e-6)
  np.testing.assert_allclose(planes[..., 3], (-100 + 500) / 600, rtol=1e-6)
