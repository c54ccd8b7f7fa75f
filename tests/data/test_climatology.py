import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import climatology, clip_store, clip_writer, mean_fields
from stp_jax.metrics import baselines
from stp_jax.models import anchor

CADENCE, H, W = 6.0, 6, 5
SHAPE = np.linspace(0.5, 1.5, H)[:, None] * np.linspace(0.9, 1.1, W)


def _level(times, flux, relative=0.01):
  calendar = climatology.calendar(times)
  season = 25 + 6 * np.cos(2 * np.pi * calendar[:, 0] / 12)
  hour = 5 * np.sin(2 * np.pi * calendar[:, 1] / 24)
  return (season + hour) * (1 + relative * (flux - 130))


def _store(path, clips, *, flux=True, clock=True, missing=None, noise=0.0):
  """clips: (split, first time, days, mean flux)."""
  rng = np.random.default_rng(0)
  writer = clip_writer.StoreWriter(
      path, name='test', recipe={'clips': str(clips)}, cadence_hours=CADENCE,
      streams={'frames': clip_store.Stream((H, W, 1), 'uint16', 'TECU', 0.01, 0, 65535)},
      forcings=[clip_store.Forcing('f107', 'sfu')] if flux else [])
  for split, first, days, mean in clips:
    count = int(days * 24 / CADENCE)
    times = np.datetime64(first, 'm') + np.arange(count) * np.timedelta64(int(CADENCE * 60), 'm')
    f = mean + np.repeat(rng.normal(size=days) * 12, int(24 / CADENCE))
    maps = _level(times, f)[:, None, None] * SHAPE * (1 + noise * rng.normal(size=(count, H, W)))
    raw = np.round(maps * 100).astype(np.uint16)
    if missing is not None:
      raw = np.where(missing(count), np.uint16(65535), raw)
    values = {'forcings': f[:, None]} if flux else {}
    writer.add(first, {'frames': raw[..., None]}, split=split, source=first,
               time=first if clock else None, **values)
  return writer.finish()


@pytest.fixture(scope='module')
def years(tmp_path_factory):
  return _store(tmp_path_factory.mktemp('years') / 'store', [
      ('train', '2001-01-01', 365, 90), ('train', '2002-01-01', 365, 170),
      ('test', '2003-01-01', 365, 500)], noise=0.05)


def test_tables_have_their_shapes_and_recover_what_made_the_maps(years):
  tables = climatology.fit(years, ['train'])
  assert {k: v.shape for k, v in tables.items()} == dict(
      base=(12, 4, H, W), slope=(12, 4, H, W), driver_mean=(), hourly=(4, H, W))
  assert all(v.dtype == np.float32 for v in tables.values())
  assert float(tables['driver_mean']) == pytest.approx(130, abs=3)
  np.testing.assert_allclose(tables['slope'] / tables['base'], 0.01, rtol=0.15)
  times = np.datetime64('2004-05-16T12:00', 'm')[None]
  for flux in (80.0, 200.0):
    value = anchor.climatology(tables, climatology.calendar(times)[None], np.array([flux]))
    truth = _level(times, flux)[:, None, None] * SHAPE
    np.testing.assert_allclose(value[0, ..., 0], truth, rtol=0.05)


def test_only_the_named_splits_count(years):
  one = climatology.fit(years, ['train'])
  both = climatology.fit(years, ['train', 'test'])
  assert float(both['driver_mean']) > float(one['driver_mean']) + 50


def test_one_year_does_not_blow_the_slope_up(tmp_path):
  store = _store(tmp_path / 's', [('train', '2001-01-01', 365, 130)], noise=0.2)
  tables = climatology.fit(store)
  relative = tables['slope'] / tables['base']
  # A free slope would scatter by 0.2 / (12 sqrt(30)) = 0.003.
  assert relative.std() < 0.0016 and 0.005 < relative.mean() < 0.011


def test_one_month_of_data_serves_the_year(tmp_path):
  store = _store(tmp_path / 's', [('train', '2012-11-01', 30, 140)])
  tables = climatology.fit(store)
  assert all(np.isfinite(v).all() for v in tables.values())
  np.testing.assert_array_equal(tables['base'][4], tables['base'][10])
  value = anchor.climatology(tables, np.array([[[2.0, 6.0]]], np.float32), np.array([70.0]))
  assert float(value.min()) > 1


def test_months_without_maps_take_the_nearest(tmp_path):
  store = _store(tmp_path / 's', [
      ('train', '2012-01-01', 31, 140), ('train', '2012-06-01', 30, 140)])
  base = climatology.fit(store)['base']
  for month, source in ((2, 1), (3, 1), (4, 6), (5, 6), (8, 6), (10, 1), (12, 1)):
    np.testing.assert_array_equal(base[month - 1], base[source - 1])
  assert not np.allclose(base[0], base[5])


def test_missing_pixels_are_left_out(tmp_path):
  clips = [('train', '2012-11-01', 30, 140)]
  holes = np.random.default_rng(1)
  whole = climatology.fit(_store(tmp_path / 'a', clips))
  full = climatology.fit(_store(
      tmp_path / 'b', clips, missing=lambda n: holes.uniform(size=(n, H, W)) < 0.3))
  np.testing.assert_allclose(full['base'], whole['base'], rtol=0.06)
  never = climatology.fit(_store(
      tmp_path / 'c', clips,
      missing=lambda n: np.broadcast_to(np.arange(H)[:, None] == 2, (n, H, W))))
  assert all(np.isfinite(v).all() and v.max() < 1000 for v in never.values())
  np.testing.assert_allclose(never['base'][:, :, 3:], whole['base'][:, :, 3:], rtol=1e-4)


def test_less_than_a_day_and_no_flux_column(tmp_path):
  store = _store(tmp_path / 's', [('train', '2012-11-01', 1, 140)], flux=False)
  tables = climatology.fit(store, frames_per_day=8)  # slots 3, 9, 15, 21 UT have no map
  assert np.isfinite(tables['base']).all() and not tables['slope'].any()
  assert float(tables['driver_mean']) == 0
  np.testing.assert_array_equal(tables['hourly'][1], tables['hourly'][0])


def test_errors_name_the_store(tmp_path, years):
  with pytest.raises(clip_store.StoreError, match=r"no clip in splits \['nowhere'\]"):
    climatology.fit(years, 'nowhere')
  blind = _store(tmp_path / 'a', [('train', '2012-11-01', 1, 140)], clock=False)
  with pytest.raises(clip_store.StoreError, match='needs a clock'):
    climatology.fit(blind)
  empty = _store(tmp_path / 'b', [('train', '2012-11-01', 1, 140)],
                 missing=lambda n: np.ones((n, H, W), bool))
  with pytest.raises(clip_store.StoreError, match='every value'):
    climatology.fit(empty)


@settings(max_examples=60, deadline=None)
@given(cadence=st.sampled_from([n for n in range(1, 1441) if 1440 % n == 0]), data=st.data())
def test_every_map_of_a_day_has_a_slot_of_its_own(cadence, data):
  """At any cadence and whenever the first map is; on whole slots it is the map's number."""
  offset, count = data.draw(st.integers(0, cadence - 1)), 1440 // cadence
  hours = (offset + cadence * np.arange(count)) / 60
  found = climatology.slot(hours, count)
  assert sorted(found.tolist()) == list(range(count))
  # On the device hours are float32.
  np.testing.assert_array_equal(climatology.slot(hours.astype(np.float32), count), found)
  device = jnp.asarray(np.resize(hours, 1440), jnp.float32)  # of one shape: compiled once
  np.testing.assert_array_equal(climatology.slot(device, count)[:count], found)
  np.testing.assert_array_equal(climatology.slot(cadence * np.arange(count) / 60, count),
                                np.arange(count))


def test_maps_between_the_slots_read_what_was_fitted_on_them(tmp_path):
  """Maps at 03, 09, 15 and 21 UT: four tables, not two."""
  store = _store(tmp_path / 's', [('train', '2012-11-01T03:00', 30, 140)], flux=False)
  times = store.clips[0].times(CADENCE)[:8]
  maps = store.physical(store.frames(0))[..., 0]
  wanted = np.stack([maps[k::4].mean(0) for k in range(4)])
  # Rounding halves to even would mix 09 with 15 and 21 with 03 UT.
  assert abs(wanted[1] - wanted[2]).min() > 1 and abs(wanted[3] - wanted[0]).min() > 1
  tables, calendar = climatology.fit(store), climatology.calendar(times)[None]
  np.testing.assert_allclose(tables['hourly'], wanted, rtol=1e-4)
  november = tables | dict(base=np.repeat(tables['base'][10:11], 12, 0))
  np.testing.assert_allclose(
      anchor.climatology(november, calendar, None)[0, :4, ..., 0], wanted, rtol=1e-4)
  fitted = tables | dict(rho=np.zeros(4, np.float32), phi=np.zeros(4, np.float32))
  found = baselines.apply(fitted, maps[None, :8, ..., None], calendar, t_in=4, t_out=4)
  np.testing.assert_allclose(found['hourly_climatology'][0, ..., 0], wanted, rtol=1e-4)
  fields = mean_fields.fit([store], ['train'])
  np.testing.assert_allclose(mean_fields.at(fields, times)[:4, ..., 0], wanted, rtol=1e-4)
