"""IRI between the hours of its cube, without PyIRI: a cube made here."""

import types

import numpy as np

from stp_jax import skill
from stp_jax.data import embedded_iri, embedded_physics

SPEC = types.SimpleNamespace(
    grid=dict(latitude=embedded_iri.LATITUDE, longitude=embedded_iri.LONGITUDE), shape=(72, 72, 1))


def _maps(hours):
  """`[T, 71, 72]` that follow the sun: a noon bulge, and a level by latitude."""
  local = np.asarray(hours, float)[:, None, None] + embedded_iri.LONGITUDE / 15
  north = np.cos(np.radians(embedded_iri.LATITUDE))[:, None]
  return (10 + 3 * north + 20 * north * np.cos(2 * np.pi * (local - 14) / 24)).astype(np.float32)


def test_iri_follows_the_sun_between_the_hours_of_its_cube(monkeypatch):
  cube = np.broadcast_to(_maps(embedded_iri.HOURS), (4, 12, 71, 72))
  monkeypatch.setattr(skill, '_cube', lambda: {m: cube for m in range(1, 13)})
  hours = np.array([0, 1, 2, 11, 13 + 1 / 3, 21 + 2 / 3, 23])  # 20 minutes are a column
  times = np.datetime64('2012-03-10T00:00', 'm') + np.round(60 * hours).astype('m8[m]')
  found = skill._iri(SPEC, times, 120.0)
  assert found.shape == (7, 72, 72)
  np.testing.assert_allclose(found[:, :71], _maps(hours), atol=1e-3)
  # Half a column: linear in between.
  late = skill._iri(SPEC, times[:1] + np.timedelta64(10, 'm'), 120.0)
  np.testing.assert_allclose(late[:, :71], _maps([1 / 6]), atol=0.05)
  even = times[[0, 2]]
  np.testing.assert_array_equal(
      skill._iri(SPEC, even, 120.0)[:, :71],
      embedded_physics.climatology(skill._cube(), even, np.full(2, 120.0)))


def test_three_columns_an_hour_around_the_earth():
  maps = np.random.default_rng(0).random((2, 3, 72)).astype(np.float32)
  np.testing.assert_array_equal(skill._turned(maps, np.array([0.0, 24.0])), maps)
  np.testing.assert_array_equal(skill._turned(maps, np.array([1.0, 1.0])), np.roll(maps, -3, 2))
  np.testing.assert_array_equal(skill._turned(maps, np.array([-2.0, -2.0])), np.roll(maps, 6, 2))
