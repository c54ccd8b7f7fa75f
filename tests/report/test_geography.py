"""Lines on maps, against the sky and places that everybody knows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stp_jax.data import magnetic
from stp_jax.report import geography, style

_MINUTES = st.integers(0, 60 * 24 * 365 * 40)


def _unit(line):
  east, north = np.deg2rad(np.asarray(line)).T
  return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], -1)


@pytest.mark.parametrize('time, longitude, latitude', [
    ('2000-03-20T07:35', 68.1, 0.0), ('2012-06-20T23:09', -166.8, 23.44),  # equinox, solstice
    ('2012-11-03T12:00', -4.1, -15.3),  # the Sun 16.4 minutes early
    ('2012-02-12T12:00', 3.55, -13.8)])  # and 14.2 late
def test_the_sun_stands_where_the_almanac_says(time, longitude, latitude):
  found = geography.subsolar_point(np.datetime64(time))
  assert found == pytest.approx((longitude, latitude), abs=0.1)


@given(_MINUTES)
def test_the_terminator_is_a_quarter_turn_from_the_sun(minutes):
  time = np.datetime64('1990-01-01T00:00', 'm') + np.timedelta64(minutes, 'm')
  line = geography.terminator(time)
  np.testing.assert_allclose(_unit(line) @ _unit([geography.subsolar_point(time)])[0], 0, atol=1e-9)
  assert np.ptp(np.unwrap(line[:, 0], period=360)) > 300  # all around the Earth


def test_the_magnetic_equator_has_no_magnetic_latitude():
  line = geography.magnetic_equator()
  found = [magnetic.latitude([north], [east])[0, 0] for east, north in line]
  np.testing.assert_allclose(found, 0, atol=0.05)
  at = dict(zip(line[:, 0], line[:, 1]))
  # South of the equator in Peru, north of it in Africa and India.
  assert -14 < at[-75.0] < -9 and 8 < at[10.0] < 14 and 6 < at[77.5] < 11


@given(st.floats(-360, 360), st.lists(st.tuples(st.floats(-900, 900), st.floats(-90, 90)),
                                      min_size=1, max_size=20))
def test_a_wrapped_line_stays_on_the_map_and_crosses_it_nowhere(west, points):
  line = np.array(points)
  found = geography.wrapped(line, west)
  there = found[np.isfinite(found[:, 0])]
  assert len(there) == len(line)
  assert (there[:, 0] >= west - 1e-6).all() and (there[:, 0] <= west + 360 + 1e-6).all()
  np.testing.assert_allclose(_unit(there), _unit(line), atol=1e-6)
  steps = np.diff(found[:, 0])
  assert (np.abs(steps[np.isfinite(steps)]) <= 180).all()


def test_the_coasts_are_those_of_the_earth():
  coast = geography.coastline()
  assert np.nanmax(np.abs(coast), 0) == pytest.approx((180, 85.6), abs=0.5)
  there = _unit(coast[np.isfinite(coast[:, 0])])
  def distance(east, north):
    return np.rad2deg(np.arccos(np.clip(there @ _unit([(east, north)])[0], -1, 1))).min()
  for place in [(18.4, -34.0), (-5.5, 36.0), (-67.3, -55.9), (103.8, 1.3), (-156.5, 71.3),
                (153.6, -28.6), (-17.5, 14.7), (25.0, 71.1), (-43.2, -22.9), (80.3, 13.1)]:
    assert distance(*place) < 1.0, place
  for place in [(10, 23), (-140, 20), (90, 60), (-100, 45), (75, -20), (135, -25), (0, -85)]:
    assert distance(*place) > 4.0, place
  steps = np.abs(np.diff(coast, axis=0)).max(1)
  assert np.nanmax(steps) < 12  # no line across an ocean


@pytest.mark.parametrize('latitude, longitude, lines', [
    (np.linspace(87.5, -87.5, 71), np.linspace(-180, 175, 72), 1),
    (np.linspace(-88, 88, 45), np.linspace(0, 354.375, 64), 1),  # from Greenwich eastward
    (np.linspace(60, 40, 21), np.linspace(0, 20, 21), 0)])
def test_coasts_are_drawn_on_maps_of_the_whole_earth(latitude, longitude, lines):
  shape = len(latitude), len(longitude)
  frame = style.MapFrame(shape, latitude, longitude)
  axes = style.figure(3, 2).subplots()
  frame.draw(axes, np.zeros(shape), left=True, bottom=True, cmap='RdBu_r')
  assert len(axes.lines) == lines
  west, east, _, _ = frame.extent
  for line in axes.lines:
    x = np.asarray(line.get_xdata(), float)
    assert np.nanmin(x) >= west and np.nanmax(x) <= west + 360
  assert axes.get_xlim() == (west, east)
  assert len(axes.get_xticks()) >= 3
  bare = style.figure(3, 2).subplots()
  style.MapFrame(shape).draw(bare, np.zeros(shape), left=True, bottom=True)
  assert not bare.lines
