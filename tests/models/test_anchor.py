import jax
import numpy as np
import pytest

from stp_jax.data import climatology as fitting
from stp_jax.metrics import tec
from stp_jax.models import anchor

P, H, W = 12, 6, 4
RNG = np.random.default_rng(0)
BASE = RNG.uniform(10, 40, (12, P, H, W)).astype(np.float32)
TABLES = dict(
    base=BASE, slope=RNG.uniform(0, 0.3, BASE.shape).astype(np.float32),
    driver_mean=np.float32(120), hourly=BASE.mean(0))
WEIGHTS = tec.row_weights(np.linspace(80, -80, 5), H)


def _calendar(month, hours):
  hours = np.asarray(hours, np.float32)
  return np.stack([np.full_like(hours, month), hours], -1)[None]


def test_whole_months_read_their_table_and_the_hour_its_slot():
  value = np.asarray(anchor.climatology(TABLES, _calendar(11, [0, 2, 23.5, 5]), None))
  assert value.shape == (1, 4, H, W, 1)
  np.testing.assert_array_equal(value[0, ..., 0], BASE[10][[0, 1, 0, 2]])


def test_linear_in_the_driver_and_a_missing_one_is_the_mean():
  calendar = np.repeat(_calendar(3, [6]), 3, 0)
  value = anchor.climatology(TABLES, calendar, np.array([120, 170, np.nan]))[:, 0, ..., 0]
  np.testing.assert_allclose(value[0], BASE[2, 3], rtol=1e-6)
  np.testing.assert_allclose(value[1], BASE[2, 3] + 50 * TABLES['slope'][2, 3], rtol=1e-5)
  np.testing.assert_array_equal(value[2], value[0])


def test_never_zero_and_keeps_the_shape_beyond_the_fitted_fluxes():
  value = anchor.climatology(TABLES, _calendar(3, [6]), np.array([-5000.0]))[0, 0, ..., 0]
  np.testing.assert_allclose(value, 0.2 * BASE[2, 3], rtol=1e-6)


def test_between_months_it_blends_around_the_year():
  value = np.asarray(anchor.climatology(TABLES, _calendar(12.25, [0]), None))[0, 0, ..., 0]
  np.testing.assert_allclose(value, 0.75 * BASE[11, 0] + 0.25 * BASE[0, 0], rtol=1e-6)


@pytest.mark.parametrize('time', ['2012-01-01T00:00', '2012-02-15T12:00', '2012-12-31T22:00'])
def test_calendar_on_the_device_and_on_the_host_agree(time):
  host = fitting.calendar(np.array([time], 'datetime64[m]'))[0]
  day, clock = time.split('T')
  month, date = int(day[5:7]), int(day[8:])
  device = np.asarray(anchor.calendar(
      np.float32(month), np.float32(date), np.float32(clock[:2])))
  assert device[1] == host[1]
  assert (device[0] - host[0] + 6) % 12 - 6 == pytest.approx(0, abs=0.06)
  assert 1 <= device[0] < 13 and 1 <= host[0] < 13


def test_mid_month_is_the_month_and_months_join():
  times = np.array(['2012-06-16T00:00', '2012-06-30T23:59', '2012-07-01T00:00'], 'datetime64[m]')
  month = fitting.calendar(times)[:, 0]
  assert month[0] == 6 and month[1] == pytest.approx(6.5, abs=1e-3) and month[2] == 6.5


def test_scaled_finds_the_level_of_the_last_day():
  t_in, total = 14, 20
  calendar = _calendar(5, np.arange(total) * 2.0 % 24)
  plain = np.asarray(anchor.climatology(TABLES, calendar, np.array([150.0])))
  frames = 1.7 * plain[:, :t_in]
  frames[:, :2] = 1e4  # more than a day ago
  frames[..., 5, :, :] = 1e4  # a padding row
  valid = RNG.uniform(size=frames.shape) < 0.7
  frames = np.where(valid, frames, np.nan)
  value, level = anchor.scaled(
      TABLES, frames, valid, calendar, np.array([150.0]), t_in, WEIGHTS)
  assert value.shape == (1, total, H, W, 1) and level.shape == (1, 1, 1, 1, 1)
  np.testing.assert_allclose(value, 1.7 * plain, rtol=1e-4)
  weight = np.where(valid, WEIGHTS[:, None, None], 0)[:, 2:]
  mean = (np.nan_to_num(frames)[:, 2:] * weight).sum() / weight.sum()
  assert float(level[0, 0, 0, 0, 0]) == pytest.approx(mean, rel=1e-5)


def test_reads_no_frame_behind_the_input():
  frames = RNG.uniform(5, 50, (2, 9, H, W, 1)).astype(np.float32)
  calendar = np.repeat(_calendar(1, np.arange(9) * 2.0), 2, 0)
  spoiled = frames.copy()
  spoiled[:, 6:] = np.nan
  for one, two in zip(*(
      anchor.scaled(TABLES, f, None, calendar, None, 6, WEIGHTS) for f in (frames, spoiled))):
    np.testing.assert_array_equal(one, two)


def test_a_day_without_data_leaves_the_climatology():
  frames = np.full((1, 3, H, W, 1), np.nan, np.float32)
  calendar = _calendar(1, np.arange(3) * 2.0)
  value, level = jax.jit(anchor.scaled, static_argnums=5)(
      TABLES, frames, np.isfinite(frames), calendar, None, 3, WEIGHTS)
  np.testing.assert_allclose(value, anchor.climatology(TABLES, calendar, None), rtol=1e-6)
  assert np.isfinite(float(level[0, 0, 0, 0, 0])) and float(level[0, 0, 0, 0, 0]) > 1
