import jax
import numpy as np
import pytest

from stp_jax.metrics import baselines, tec

P, T_IN, T_OUT, H, W = 4, 8, 6, 6, 5
WEIGHTS = tec.row_weights(np.linspace(80, -80, 5), H)
NAMES = [
    'persistence', 'damped_persistence', 'hourly_climatology', 'scaled_climatology', 'ar_blend']


def _tables():
  rng = np.random.default_rng(1)
  base = rng.uniform(10, 40, (12, P, H, W)).astype(np.float32)
  return dict(
      base=base, slope=0.01 * base, driver_mean=np.float32(120), hourly=base.mean(0))


def _calendar(batch, start=0):
  hours = 24 / P * (np.arange(T_IN + T_OUT) + start) % 24
  return np.broadcast_to(
      np.stack([np.full_like(hours, 6), hours], -1), (batch, T_IN + T_OUT, 2)).astype(np.float32)


def _world(batch, rho, seed=0, noise=0.0):
  """Anomalies of the June climatology that shrink by rho each day."""
  rng = np.random.default_rng(seed)
  base = _tables()['base'][5]
  weights = WEIGHTS[:, None] / WEIGHTS.sum() / W
  anomaly = rng.normal(size=(batch, P, H, W))
  # No anomaly of the daily level: the scaled climatology then is the climatology itself.
  anomaly -= (anomaly * weights).sum((2, 3), keepdims=True)
  days = np.stack([rho**k * anomaly for k in range(4)], 1).reshape(batch, 4 * P, H, W)
  frames = np.tile(base, (4, 1, 1)) + days + noise * rng.normal(size=days.shape)
  return frames[:, :T_IN + T_OUT, ..., None].astype(np.float32)


def _fit(frames):
  batch = dict(frames=frames, calendar=_calendar(len(frames)), driver=np.full(len(frames), 120.0))
  return baselines.fit([batch], _tables(), t_in=T_IN, t_out=T_OUT, row_weights=WEIGHTS)


def _apply(tables, frames, **options):
  return baselines.apply(
      tables, frames, _calendar(len(frames)), np.full(len(frames), 120.0), t_in=T_IN, t_out=T_OUT,
      row_weights=WEIGHTS, **options)


def test_names_shapes_and_persistence():
  frames = _world(3, 0.5)
  result = _apply(_fit(frames), frames)
  assert list(result) == NAMES
  assert all(v.shape == (3, T_OUT, H, W, 1) for v in result.values())
  np.testing.assert_allclose(
      result['persistence'], frames[:, [4, 5, 6, 7, 4, 5]], rtol=1e-6)
  np.testing.assert_allclose(
      result['hourly_climatology'][0, ..., 0], _tables()['hourly'][[0, 1, 2, 3, 0, 1]], rtol=1e-6)


def test_phi_is_what_made_the_data_and_the_blend_is_then_exact():
  frames = _world(16, 0.6)
  tables = _fit(frames)
  np.testing.assert_allclose(tables['phi'], [0.6] * 4 + [0.36] * 2, atol=2e-3)
  unseen = _world(2, 0.6, seed=9)
  result = _apply(tables, unseen)
  truth = unseen[:, T_IN:]
  error = lambda name: float(np.abs(np.asarray(result[name]) - truth)[:, :, :5].max())
  assert error('ar_blend') < 0.02 < 0.1 < error('persistence')
  assert error('scaled_climatology') > 0.1


def test_least_squares_beats_its_ends_on_noisy_training_data():
  frames = _world(16, 0.7, noise=0.3)
  tables = _fit(frames)
  score = lambda r: ((np.asarray(r) - frames[:, T_IN:])[:, :, :5]**2).mean()
  result = _apply(tables, frames)
  assert score(result['ar_blend']) < min(
      score(result['persistence']), score(result['scaled_climatology']))
  assert score(result['damped_persistence']) < min(
      score(result['persistence']), score(result['hourly_climatology']))
  assert np.all((tables['rho'] >= 0) & (tables['rho'] <= 1))


@pytest.mark.parametrize('t_in', [T_IN, 3])
def test_baselines_see_no_future(t_in):
  frames = _world(2, 0.6)
  tables = _fit(frames)
  other = frames.copy()
  other[:, t_in:] = np.nan
  options = dict(t_in=t_in, t_out=T_OUT, row_weights=WEIGHTS)
  calendar = _calendar(2)[:, :t_in + T_OUT]
  driver = np.array([100.0, 180.0])
  a = baselines.apply(tables, frames, calendar, driver, **options)
  b = baselines.apply(tables, other, calendar, driver, **options)
  c = baselines.apply(tables, frames[:, :t_in], calendar, driver, **options)
  for name in NAMES:
    np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_array_equal(a[name], c[name])
    assert np.isfinite(np.asarray(a[name])).all()
  frames[:, t_in - 1] += 5
  moved = baselines.apply(tables, frames, calendar, driver, **options)
  assert not np.allclose(moved['persistence'], a['persistence'])


def test_missing_pixels_are_filled_and_not_learnt_from():
  frames = _world(8, 0.6)
  tables = _fit(frames)
  broken = frames.copy()
  broken[:, :, 2, 3] = np.nan
  spoiled = np.where(np.isnan(broken), 1e5, broken)
  valid = np.isfinite(broken)
  again = baselines.fit(
      [dict(frames=spoiled, valid=valid, calendar=_calendar(8), driver=np.full(8, 120.0),
            mask=np.ones(8))],
      _tables(), t_in=T_IN, t_out=T_OUT, row_weights=WEIGHTS)
  np.testing.assert_allclose(again['phi'], tables['phi'], atol=0.02)
  result = _apply(tables, spoiled, valid=valid)
  for value in result.values():
    assert np.isfinite(np.asarray(value)).all() and np.asarray(value).max() < 100
  np.testing.assert_allclose(
      result['persistence'][:, :, 2, 3], result['scaled_climatology'][:, :, 2, 3], rtol=0.2)


def test_rows_that_fill_a_batch_and_the_batching_do_not_matter():
  frames = _world(6, 0.6, noise=0.2)
  whole = _fit(frames)
  batches = [dict(frames=frames[i:i + 2], calendar=_calendar(2), driver=np.full(2, 120.0))
             for i in (0, 2, 4)]
  batches.append(dict(
      frames=frames[:2] * 7, calendar=_calendar(2), driver=np.full(2, 120.0), mask=np.zeros(2)))
  parts = baselines.fit(batches, _tables(), t_in=T_IN, t_out=T_OUT, row_weights=WEIGHTS)
  np.testing.assert_allclose(parts['rho'], whole['rho'], atol=1e-5)
  np.testing.assert_allclose(parts['phi'], whole['phi'], atol=1e-5)


def test_without_a_clock_persistence_is_left_and_everything_traces():
  frames = _world(2, 0.6)
  only = baselines.apply(None, frames, t_in=T_IN, t_out=T_OUT)
  assert list(only) == ['persistence']
  np.testing.assert_array_equal(only['persistence'][:, 3], frames[:, T_IN - 1])
  tables = _fit(frames)
  traced = jax.jit(lambda x: _apply(tables, x))(frames)
  for name, value in _apply(tables, frames).items():
    np.testing.assert_allclose(traced[name], value, rtol=1e-5)


def test_without_a_clock_a_hole_persists_as_the_mean_of_its_frame():
  frames = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2, 1)
  frames[0, 1, 0, 0] = 65535  # a code, not a value
  frames[0, 1, 0, 1] = np.nan
  valid = frames < 60000
  got = baselines.apply(None, frames, t_in=2, t_out=1, valid=valid)['persistence']
  np.testing.assert_allclose(np.ravel(got), [6.5, 6.5, 6, 7])
