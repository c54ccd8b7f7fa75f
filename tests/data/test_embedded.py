"""The embedded ionosphere as a store: content, seeds, honest drivers, interruptions, likeness."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import (
    clip_store,
    clip_writer,
    embedded,
    embedded_indices,
    embedded_iri,
    embedded_physics,
    statistics,
)

_ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = embedded_indices.drivers()
# One worker evaluates the climatology for all tests here; it stays for the next run.
pytestmark = pytest.mark.xdist_group('embedded')
_CACHE = _ROOT / '.cache' / 'iri'
needs_pyiri = pytest.mark.skipif(
    importlib.util.find_spec('PyIRI') is None, reason="PyIRI is missing: pip install -e '.[iono]'")


def fake_cube(months, *, cache=None, processes=2):
  """A day side and a night side that grow with F10.7: no PyIRI in tests of the store."""
  local = (embedded_iri.HOURS[:, None, None] + embedded_iri.LONGITUDE / 15) % 24
  shape = (1 - np.cos(2 * np.pi * (local - 2) / 24)) * np.cos(
      np.radians(embedded_iri.LATITUDE))[:, None]
  tec = np.array(embedded_iri.F107)[:, None, None, None] / 10 * shape + 1
  dip = np.broadcast_to(embedded_iri.LATITUDE[:, None], (71, 72)).astype(np.float32)
  return {m: tec.astype(np.float32) for m in months}, dip


@pytest.fixture
def fake_iri(monkeypatch):
  monkeypatch.setattr(embedded_iri, 'cube', fake_cube)


def files(path):
  return {p.name: p.read_bytes() for p in path.iterdir() if p.name != 'meta.json'}


def test_smoke_store(tmp_path, fake_iri, capsys):
  store = embedded.prepare(out=tmp_path / 'a', smoke=True)
  assert store.name == 'embedded_ionosphere' and 'SIMULATED' in store.meta['description']
  assert store.splits == ['test', 'test_low', 'train', 'validation']
  assert [c.length for c in store.clips] == [120] * 5
  raw = store.frames(1)
  assert raw.dtype == np.uint16 and raw.shape == (120, 72, 72, 1)
  np.testing.assert_array_equal(raw[:, 71], raw[:, 70])
  every = np.concatenate([store.frames(i) for i in range(5)])
  assert every.min() >= 1 and every.max() <= 2000  # 0.1 to 200 TECU
  assert [f.name for f in store.forcings] == [
      'year', 'f107', 'r', 'day', 'hour', 'month', 'date', 'kp', 'ap']
  values = store.column('forcings')
  assert values[:14, 0].tolist() == [2003] * 14 and values[:13, 4].tolist() == [*range(0, 24, 2), 0]
  assert values[0].tolist()[3] == 16 and values[0, 5:7].tolist() == [1, 16]
  text = capsys.readouterr().out
  assert 'SIMULATED' in text and 'real, November 2012 (CODE)   30.7' in text
  assert store.meta['card']['splits'] == dict(test=120, test_low=120, train=240, validation=120)
  clip_store.assert_disjoint([store], ['train'])
  # Another call finds it complete, says nothing and needs no climatology.
  embedded_iri.cube = None
  again = embedded.prepare(out=tmp_path / 'a', smoke=True)
  assert again.meta == store.meta and not capsys.readouterr().out


def test_a_year_follows_from_seed_and_year_alone(tmp_path, fake_iri):
  together = embedded.prepare(out=tmp_path / 'a', years='2003,2012,2019', days=3)
  alone = embedded.prepare(out=tmp_path / 'b', years=[2012], days=3)
  other = embedded.prepare(out=tmp_path / 'c', years=2012, days=3, seed=1)
  np.testing.assert_array_equal(together.frames(1), alone.frames(0))
  assert (other.frames(0) != alone.frames(0)).mean() > 0.5
  np.testing.assert_array_equal(other.column('forcings'), alone.column('forcings'))
  # Two years share no variability: with the same drivers they would still differ.
  times = embedded._times(2012, 3)
  maps = [np.concatenate(list(embedded_physics.simulate(
      *fake_cube([1, 2]), TABLE, times, seed=0, year=year))) for year in (2012, 2013)]
  assert np.corrcoef(np.log(maps[0] / maps[1]).ravel(), np.log(maps[0]).ravel())[0, 1] < 0.99
  assert np.abs(np.log(maps[0] / maps[1])).mean() > 0.05


def test_a_killed_run_continues_and_ends_the_same(tmp_path, fake_iri, monkeypatch, capsys):
  options = dict(years='2003,2004,2012', days=2)
  embedded.prepare(out=tmp_path / 'whole', **options)
  monkeypatch.setattr(clip_writer, '_SHARD_BYTES', 1)  # every clip its own shard
  one_by_one = embedded.prepare(out=tmp_path / 'shards', **options)
  real, made = embedded_physics.simulate, []

  def dies(*arguments, year, **named):
    if year == 2012 and len(made) == 2:
      raise KeyboardInterrupt
    made.append(year)
    return real(*arguments, year=year, **named)

  monkeypatch.setattr(embedded_physics, 'simulate', dies)
  with pytest.raises(KeyboardInterrupt):
    embedded.prepare(out=tmp_path / 'killed', **options)
  assert not (tmp_path / 'killed').exists() and made == [2003, 2004]
  monkeypatch.setattr(embedded_physics, 'simulate', real)
  monkeypatch.setattr(statistics, 'statistics', lambda *_, **__: 1 / 0)
  with pytest.raises(ZeroDivisionError):  # and once more, between the maps and the card
    embedded.prepare(out=tmp_path / 'killed', **options)
  monkeypatch.undo()
  capsys.readouterr()
  store = embedded.prepare(out=tmp_path / 'killed', **options)
  assert 'SIMULATED' in capsys.readouterr().out
  assert files(tmp_path / 'killed') == files(one_by_one.path)
  assert store.meta == one_by_one.meta
  whole = clip_store.ClipStore(tmp_path / 'whole')
  for i in range(3):
    np.testing.assert_array_equal(store.frames(i), whole.frames(i))


@pytest.mark.parametrize('options, message', [
    (dict(years='2001'), 'years=2001: choose among 2000 2002'),
    (dict(years='twenty'), 'years=twenty: choose among'),
    (dict(days=-1), 'days=-1'),
    (dict(in_dir='somewhere'), 'leave --in out'),
])
def test_wrong_options_are_one_line(tmp_path, options, message):
  with pytest.raises(clip_store.StoreError, match=message) as error:
    embedded.prepare(out=tmp_path / 'a', **options)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())


def test_other_options_do_not_overwrite_a_store(tmp_path, fake_iri):
  embedded.prepare(out=tmp_path / 'a', years=2012, days=1)
  with pytest.raises(clip_store.StoreError, match='other inputs or options'):
    embedded.prepare(out=tmp_path / 'a', years=2012, days=2)


def test_without_pyiri_the_extra_is_named_and_nothing_is_left(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(clip_store.StoreError, match=r"pip install -e '\.\[iono\]'"):
    embedded.prepare(out=tmp_path / 'a', years=2012, days=1, cache=tmp_path / 'cache')
  assert not list(tmp_path.iterdir())


@needs_pyiri
def test_a_failing_climatology_is_one_line(tmp_path):
  with pytest.raises(clip_store.StoreError, match=r'PyIRI failed: .*run again') as error:
    embedded_iri.cube([13], cache=tmp_path)
  assert '\n' not in str(error.value)
  (tmp_path / 'file').write_text('')
  with pytest.raises(clip_store.StoreError, match='choose another --cache'):
    embedded_iri.cube([1], cache=tmp_path / 'file')


@needs_pyiri
def test_a_damaged_month_in_the_cache_is_made_again(tmp_path, monkeypatch):
  cubes, dip = fake_cube([1, 2])
  made = []

  def compute(folder, months, processes):
    made.extend(months)
    for month in months:
      np.savez(folder / f'month-{month:02d}.npz', tec=cubes[month], dip=dip)

  monkeypatch.setattr(embedded_iri, '_compute', compute)
  embedded_iri.cube([1, 2], cache=tmp_path)
  folder = embedded_iri.cache_folder(tmp_path)
  for damaged in (b'', (folder / 'month-02.npz').read_bytes()[:5000]):
    (folder / 'month-02.npz').write_bytes(damaged)
    (folder / 'month-02.1.tmp').write_bytes(b'left by a kill')
    got, _ = embedded_iri.cube([1, 2], cache=tmp_path)
    np.testing.assert_array_equal(got[2], cubes[2])
  assert made == [1, 2, 2, 2]
  assert {p.name for p in folder.iterdir()} == {'lock', 'month-01.npz', 'month-02.npz'}
  embedded_iri.cube([2], cache=tmp_path)
  assert len(made) == 4


moments = st.builds(
    lambda year, minute: np.datetime64(f'{year}-01-02', 'm') + np.timedelta64(minute, 'm'),
    st.sampled_from(sorted(embedded.SPLITS)), st.integers(0, 360 * 24 * 60))


def future_changed(moment):
  """The table with every value that is not available at `moment` replaced."""
  day_ends = (TABLE.days + 1).astype('datetime64[m]')
  interval_ends = (TABLE.days.astype('datetime64[m]')[:, None]
                   + (180 * np.arange(1, 9)).astype('timedelta64[m]'))
  return dataclasses.replace(
      TABLE, f107=np.where(day_ends > moment, 333.0, TABLE.f107),
      ap=np.where(interval_ends > moment, 400.0, TABLE.ap))


@settings(deadline=None, max_examples=60)
@given(moments)
def test_known_drivers_never_come_from_the_future(moment):
  times = np.array([moment])
  values, known, delay = embedded.forcings(TABLE, times)
  _, blind, _ = embedded.forcings(future_changed(moment), times)
  np.testing.assert_array_equal(known, blind)
  ahead = np.array([f.known_ahead for f in embedded.FORCINGS])
  assert (delay[0, ahead] == 0).all() and (delay[0, ~ahead] > 0).all()
  assert (delay <= 24).all()
  for i in np.flatnonzero(~ahead):  # available when it says, and no earlier
    then = moment + np.timedelta64(round(delay[0, i] * 60), 'm')
    assert embedded.forcings(TABLE, np.array([then]))[1][0, i] == values[0, i]
    early = embedded.forcings(future_changed(then - np.timedelta64(1, 'm')), times)[0][0, i]
    name = embedded.FORCINGS[i].name
    assert early == dict(f107=333, ap=400, kp=90, r=embedded_indices.sunspot_proxy(333))[name]


def test_known_drivers_of_a_sequence_are_those_of_its_times():
  times = embedded._times(2004, 4)
  values, known, delay = embedded.forcings(TABLE, times)
  for i in (0, 11, 12, 47):
    for whole, single in zip((values, known, delay), embedded.forcings(TABLE, times[i:i + 1])):
      np.testing.assert_array_equal(whole[i], single[0])
  row = np.searchsorted(TABLE.days, np.datetime64('2004-01-17'))
  assert values[12, 1] == TABLE.f107[row] and known[12, 1] == TABLE.f107[row - 1]
  assert values[14, 8] == TABLE.ap[row, 1] and known[14, 8] == TABLE.ap[row, 0]
  assert delay[14].tolist() == [0, 20, 20, 0, 0, 0, 0, 2, 2]


def simulated(path, start, days, months, seed):
  times = np.datetime64(start, 'm') + np.arange(12 * days + 1) * np.timedelta64(120, 'm')
  cube, dip = embedded_iri.cube(months, cache=_CACHE)
  maps = np.concatenate(list(embedded_physics.simulate(
      cube, dip, TABLE, times, seed=seed, year=int(start[:4]))))
  raw = np.rint(maps * 10).astype(np.uint16)[..., None]
  with clip_writer.StoreWriter(
      path, name='x', cadence_hours=2.0, recipe={},
      streams={'frames': clip_store.Stream((71, 72, 1), 'uint16', 'TECU', 0.1)},
      grid=dict(latitude=embedded_iri.LATITUDE.tolist(),
                longitude=embedded_iri.LONGITUDE.tolist())) as writer:
    writer.add('a', {'frames': raw}, split='test', source='a', time=start)
    return statistics.statistics(writer.finish())


@needs_pyiri
@pytest.mark.parametrize('start, days, name', [
    ('2012-11-18', 4, 'November 2012 (CODE)'), ('2011-12-06', 2, 'December 2011 (CODE)')])
def test_simulated_days_resemble_the_real_ones(tmp_path, start, days, name):
  """The stated bounds: mean within 15 %, differences within 30 %, wavenumber shares within 0.08."""
  runs = [simulated(tmp_path / str(s), start, days, [11, 12], s) for s in range(4)]
  mean, differences, share, _ = embedded.REAL[name]
  assert np.mean([r['mean'] for r in runs]) == pytest.approx(mean, rel=0.15)
  for hours, value in zip(statistics.LAGS, differences):
    got = np.mean([r['rms_difference'][str(hours)] for r in runs])
    assert got == pytest.approx(value, rel=0.3), hours
  if share:
    got = np.mean([r['wavenumber_share'] for r in runs], 0)
    np.testing.assert_allclose(got, share, atol=0.08)


@needs_pyiri
def test_the_climatology_is_an_ionosphere():
  cube, dip = embedded_iri.cube([11, 12], cache=_CACHE)
  tec = cube[11]
  assert tec.shape == (4, 12, 71, 72) and tec.dtype == np.float32
  assert (np.diff(tec.mean((1, 2, 3))) > 0).all()  # with F10.7
  assert tec.min() > 0 and tec.max() < 150
  greenwich = tec[2, :, 35, 36]  # the equator at 0 degrees: local time is universal time
  assert greenwich[7] > 3 * greenwich[2]
  # The dip equator lies north of the equator in Africa, south of it in South America.
  crossing = lambda column: embedded_iri.LATITUDE[np.abs(dip[:, column]).argmin()]
  assert 5 < crossing(40) < 15 and -18 < crossing(20) < -5


@needs_pyiri
@pytest.mark.soak
def test_the_smoke_store_from_nothing_on_the_command_line(tmp_path):
  started = time.monotonic()
  subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'stp_jax.prepare', 'embedded', '--out',
       tmp_path / 'a', '--smoke', '--cache', tmp_path / 'cache'], check=True, cwd=_ROOT)
  assert time.monotonic() - started < 30
  assert len(clip_store.ClipStore(tmp_path / 'a').clips) == 5


@needs_pyiri
@pytest.mark.soak
def test_a_process_killed_midway_continues(tmp_path):
  command = [sys.executable, '-m', 'stp_jax.prepare', 'embedded', '--cache', _CACHE, '--years',
             '2003,2004,2012,2019', '--out']
  process = subprocess.Popen([*command, tmp_path / 'a'], cwd=_ROOT)
  journal = tmp_path / 'a.partial' / 'journal.jsonl'  # a line for the recipe, then one a shard
  lines = lambda: journal.read_text().splitlines() if journal.exists() else []
  while len(lines()) < 2 and process.poll() is None:
    time.sleep(0.01)
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert 0 < sum(len(json.loads(line)['keys']) for line in lines()[1:]) < 4
  subprocess.run([*command, tmp_path / 'a'], check=True, cwd=_ROOT)
  subprocess.run([*command, tmp_path / 'b'], check=True, cwd=_ROOT)
  assert files(tmp_path / 'a') == files(tmp_path / 'b')
