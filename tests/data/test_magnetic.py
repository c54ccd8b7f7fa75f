"""Quasi-dipole latitude: places whose value is known, and the channel that is made of it."""

import numpy as np
import pytest

from stp_jax.data import forcings, magnetic


@pytest.mark.parametrize('place, latitude, longitude, expected', [
    ('Jicamarca', -11.95, -76.87, 0.2), ('Tromso', 69.66, 18.94, 66.6),
    ('Hermanus', -34.42, 19.22, -42.7), ('Kokubunji', 35.71, 139.49, 28.5)])
def test_observatories(place, latitude, longitude, expected):
  del place
  (east,), (west,) = (magnetic.latitude([latitude], [x])[0] for x in (longitude, longitude % 360))
  assert east == pytest.approx(expected, abs=1.0) and east == west


def test_it_goes_round_and_over_the_poles():
  found = magnetic.latitude([90, 80, 0, -90], [-180, -90, 0, 90, 180, 179.999])
  assert found.shape == (4, 6) and found.dtype == np.float32
  np.testing.assert_allclose(found[:, 4], found[:, 0])
  np.testing.assert_allclose(found[:, 5], found[:, 0], atol=1e-3)
  assert np.ptp(found[0]) == np.ptp(found[3]) == 0 and found[0, 0] > 80 and found[3, 0] < -70
  # The magnetic equator lies north of the geographic one in Africa, south of it in Peru.
  assert magnetic.latitude([0], [10])[0, 0] < -8 < 8 < magnetic.latitude([0], [-75])[0, 0]
  with pytest.raises(ValueError, match='from 0 to 91 degrees'):
    magnetic.latitude([0, 91], [0])


def test_the_channel():
  grid = dict(latitude=[60.0, 0.0, -60.0], longitude=[-180.0, -60.0, 60.0])
  planes = forcings.planes(np.zeros((2, 3, 0), np.float32), (), ('tec', 'magnetic_latitude'), 4, 4,
                           grid)
  assert planes.shape == (2, 3, 4, 4, 1) and forcings.scalars(('tec', 'magnetic_latitude')) == ()
  expected = magnetic.latitude(grid['latitude'], grid['longitude']) / 180 + 0.5
  np.testing.assert_allclose(planes[1, 2, :3, :3, 0], expected, rtol=1e-6)
  np.testing.assert_array_equal(planes[..., 3, :, :], planes[..., 2, :, :])  # padding repeats
  with pytest.raises(ValueError, match='magnetic_latitude needs frames whose latitudes'):
    forcings.planes(np.zeros((2, 3, 0)), (), ('tec', 'magnetic_latitude'), 4, 4)
  assert 'magnetic_latitude' not in forcings.channel_names('20')  # a count chooses the original's
