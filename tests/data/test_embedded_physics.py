"""Indices, storm response and random fields of the embedded ionosphere."""

import dataclasses
import gzip
import importlib.util
import pathlib

import numpy as np
import pytest

from stp_jax.data import clip_store, embedded_indices, embedded_iri, embedded_physics

TABLE = embedded_indices.drivers()


def hours(start, count, step=120):
  return np.datetime64(start, 'm') + np.arange(count) * np.timedelta64(step, 'm')


def test_the_table_is_what_the_celestrak_file_gives(realdata):
  path = pathlib.Path(embedded_indices.__file__).parent / 'tables' / 'extract.py'
  spec = importlib.util.spec_from_file_location('extract', path)
  extract = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(extract)
  text = extract.extract(realdata / 'solar_indices' / 'celestrak_SW-All.txt.gz')
  lines = text.splitlines()
  assert len(lines) == 1 + len(TABLE.days)
  f107 = np.array([float(line.split(',')[1]) for line in lines[1:]])
  np.testing.assert_array_equal(embedded_indices.without_bursts(TABLE.days, f107), TABLE.f107)
  assert [int(line.split(',')[2]) for line in lines[1:]] == TABLE.ap[:, 0].tolist()


def test_the_table_holds_known_days():
  halloween = np.searchsorted(TABLE.days, np.datetime64('2003-10-29'))
  assert TABLE.f107[halloween] == 291.7
  assert TABLE.ap[halloween].tolist() == [39, 27, 400, 207, 179, 179, 300, 300]
  assert (np.diff(TABLE.days).astype(int) > 0).all()
  assert TABLE.f107.min() > 60 and TABLE.f107.max() < 400
  assert set(np.unique(TABLE.ap)) <= set(embedded_indices.AP)


def test_radio_bursts_are_held_down_by_the_days_before_alone():
  days = np.arange(np.datetime64('2011-03-03'), np.datetime64('2011-03-10'))
  f107 = np.array([120.0, 121, 135, 142, 938.6, 166, 143])
  got = embedded_indices.without_bursts(days, f107)
  assert got.tolist() == [120, 121, 135, 142, pytest.approx(1.4 * 135), 166, 143]
  later = f107.copy()
  later[5:] = 500
  np.testing.assert_array_equal(embedded_indices.without_bursts(days, later)[:5], got[:5])
  gap = days.copy()
  gap[4:] += 300  # another year of the table: its neighbours say nothing
  assert embedded_indices.without_bursts(gap, f107)[4] == 938.6


def test_a_span_with_a_gap_is_refused_by_name():
  with pytest.raises(clip_store.StoreError, match='2007-01-01 to 2007-01-05'):
    TABLE.rows(np.datetime64('2007-01-01'), np.datetime64('2007-01-05'))


def test_kp_follows_from_ap():
  assert embedded_indices.kp10([0, 2, 7, 15, 39, 80, 400]).tolist() == [0, 3, 20, 30, 47, 60, 90]
  assert len(embedded_indices.KP10) == len(embedded_indices.AP) == 28


def test_kp_of_ap_is_the_published_kp(realdata):
  with gzip.open(realdata / 'solar_indices' / 'celestrak_SW-All.txt.gz', 'rt') as file:
    lines = file.read().split('END OBSERVED')[0].splitlines()
  lines = [x for x in lines if x[:3] in ('200', '201')]
  kp = [[int(x[18 + 3 * i:21 + 3 * i]) for i in range(8)] for x in lines]
  ap = [[int(x[46 + 4 * i:50 + 4 * i]) for i in range(8)] for x in lines]
  assert len(kp) > 7000
  np.testing.assert_array_equal(embedded_indices.kp10(ap), kp)


def test_the_sunspot_proxy_inverts_its_relation():
  r = np.array([0.0, 10, 100, 200])
  f107 = 63.7 + 0.728 * r + 8.9e-4 * r ** 2
  np.testing.assert_allclose(embedded_indices.sunspot_proxy(f107), r, atol=1e-9)
  assert embedded_indices.sunspot_proxy(60.0) == 0


def test_effective_f107_is_the_mean_of_the_day_and_81_days():
  middle = np.searchsorted(TABLE.days, np.datetime64('2003-10-29'))
  expected = (TABLE.f107[middle] + TABLE.f107[middle - 40:middle + 41].mean()) / 2
  got = embedded_indices.effective_f107(TABLE, hours('2003-10-29T20:00', 1))
  assert got[0] == pytest.approx(expected)


def test_hourly_ap_passes_through_the_middle_of_its_intervals():
  got = embedded_indices.hourly_ap(TABLE, hours('2003-10-29T10:30', 1), 4)[0]
  assert got[0] == 207 and got[3] == 400
  assert 207 < got[1] < got[2] < 400


def storm(r, day, latitude):
  return embedded_physics.storm_factor(
      np.array([float(r)]), np.array([day]), np.array([[float(latitude)]]))[0, 0, 0]


def test_the_storm_factor_is_that_of_the_paper():
  assert storm(200, 100, 45) == 1 and storm(0, 300, -70) == 1
  # At 30 degrees on the first day of a season there is nothing to interpolate.
  cubic = 1.0103 - 4.10e-5 * 1000 - 1.67e-8 * 1e6 + 3.04e-12 * 1e9  # 30 degrees, equinox
  assert storm(1000, 82, 30) == pytest.approx(cubic, rel=1e-6)
  # Linear between 1 at 200 and the cubic at 300.
  assert storm(250, 82, 30) - 1 == pytest.approx((storm(300, 82, 30) - 1) / 2, rel=1e-4)
  # Summer lowers foF2 at middle latitudes; in winter there it may rise.
  assert storm(1000, 172, 40) < 0.9 < storm(1000, 355, 30)


@pytest.mark.parametrize('day', [10, 100, 200, 300, 365])
def test_the_southern_season_is_shifted(day):
  other = day + 172 if day + 172 <= 365 else day - 193
  assert storm(1500, day, -35) == pytest.approx(storm(1500, other, 35), rel=1e-6)


def test_the_storm_factor_is_bounded_and_has_no_jumps():
  latitude = np.arange(-90, 90.5, 0.5)[:, None]
  for r in (250, 600, 1500, 4000):
    days = np.arange(1, 366)
    factor = embedded_physics.storm_factor(np.full(365, float(r)), days, latitude)[..., 0]
    assert 0.4 < factor.min() and factor.max() < 1.4
    for half in (factor[:, latitude[:, 0] < 0], factor[:, latitude[:, 0] >= 0]):
      assert np.abs(np.diff(half, axis=1)).max() < 0.02
      assert np.abs(np.diff(half, axis=0)).max() < 0.02


def test_the_weights_of_the_storm_integral_sum_to_its_normalisation():
  # Constant ap gives 17.7 ap: quiet days (ap 7) lie well below the threshold of 200.
  assert embedded_physics._STORM_WEIGHTS.sum() == pytest.approx(17.7)
  assert len(embedded_physics._STORM_WEIGHTS) == 34  # the last two of the 36 hours weigh nothing


def test_random_fields_have_the_scales_they_are_given():
  make = lambda: embedded_physics.Field(np.random.default_rng(3), hours=4, north=9, east=21)
  field = make()
  values = np.concatenate([field(700), field(700)])
  np.testing.assert_array_equal(values[:1000], make()(1000))  # however it is asked for
  assert values.dtype == np.float32
  assert values.var() == pytest.approx(1, abs=0.05)
  np.testing.assert_allclose(values.var((0, 2)), 1, atol=0.25)  # poles included
  assert (values[1:] * values[:-1]).mean() == pytest.approx(np.exp(-0.5), abs=0.03)
  middle = values[:, 10:60]
  north = lambda rows: (middle[:, rows:] * middle[:, :-rows]).mean()
  assert north(2) == pytest.approx(np.exp(-(5 / 9) ** 2 / 2), abs=0.04)
  assert north(4) == pytest.approx(np.exp(-(10 / 9) ** 2 / 2), abs=0.05)
  equator = values[:, 35]
  assert (equator * np.roll(equator, 4, 1)).mean() == pytest.approx(
      np.exp(-(20 / 21) ** 2 / 2), abs=0.05)


def test_months_are_weighted_from_mid_to_mid():
  times = np.array(['2012-01-15', '2012-01-31T00:00', '2012-12-31', '2012-01-01'], 'datetime64[m]')
  before, after, weight = embedded_physics.season_weights(times)
  assert before.tolist() == [1, 1, 12, 12] and after.tolist() == [2, 2, 1, 1]
  np.testing.assert_allclose(weight, [0, 16 / 31, 16 / 31, 17 / 31])


def test_climatology_meets_its_nodes_and_is_cubic_between():
  rng = np.random.default_rng(0)
  shape = (len(embedded_iri.F107), 12, 71, 72)
  cube = {m: rng.random(shape).astype(np.float32) for m in (1, 2)}
  times = hours('2012-01-15', 12)
  for i, f107 in enumerate(embedded_iri.F107):
    got = embedded_physics.climatology(cube, times[3:4], np.array([f107]))
    np.testing.assert_allclose(got[0], cube[1][i, 3], atol=0.02)
  # A cubic in F10.7 is met everywhere, hour by hour.
  cubic = lambda f: 1 + 0.02 * f + 1e-4 * f ** 2 - 2e-7 * f ** 3
  nodes = cubic(np.array(embedded_iri.F107))[:, None, None, None] + np.arange(12)[:, None, None]
  cube = {m: np.broadcast_to(nodes, shape).astype(np.float32) for m in (1, 2)}
  f107 = np.linspace(70, 240, 12)
  got = embedded_physics.climatology(cube, times, f107)
  np.testing.assert_allclose(got[:, 5, 5], cubic(f107) + np.arange(12), rtol=1e-5)


def test_quiet_and_disturbed_drivers_change_the_maps_the_right_way():
  cube = {m: np.full((4, 12, 71, 72), 20, np.float32) for m in range(1, 13)}
  dip = np.broadcast_to(embedded_iri.LATITUDE[:, None], (71, 72))
  times = hours('2003-10-01', 360)
  run = lambda table: np.concatenate(list(embedded_physics.simulate(
      cube, dip, table, times, seed=0, year=2003)))
  quiet, stormy = (
      run(dataclasses.replace(TABLE, ap=np.full_like(TABLE.ap, ap))) for ap in (4, 80))
  assert np.diff(stormy, axis=0).std() > 1.2 * np.diff(quiet, axis=0).std()
  # Northern autumn storms deplete the middle latitudes; the variability itself keeps the mean.
  assert stormy[:, 14:18].mean() < 0.95 * quiet[:, 14:18].mean()
