"""The embedded ionosphere: SIMULATED maps of total electron content, made here in a minute or two.

Ten years of 2-hourly maps on the grid of the IGS, from IRI (by PyIRI), real F10.7 and ap, a storm
response and seeded variability: something to train and test on where no real maps are at hand. What
a model learns from it does not carry over to real maps, and no score on it is a score on them.

  python -m stp_jax.prepare embedded --out STORE
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tqdm

from stp_jax.data import (
  clip_store,
  clip_writer,
  embedded_indices,
  embedded_iri,
  embedded_physics,
  statistics,
)

SPLITS = {
    2000: 'train', 2003: 'train', 2005: 'train', 2009: 'train', 2011: 'train', 2013: 'train',
    2004: 'validation', 2002: 'test', 2012: 'test', 2019: 'test_low'}
SMOKE_YEARS = (2003, 2011, 2004, 2012, 2019)
OPTIONS = {
    'seed': (int, 0, 'of the variability'),
    'years': (str, '', f'joined by commas, among {" ".join(map(str, sorted(SPLITS)))}; empty: all'),
    'days': (int, 0, 'days of each year, from 16 January on; 0: whole years'),
    'smoke': (bool, False, '10 days each of five years: every split, in seconds'),
    'cache': (str, '', "folder for IRI's maps; empty: stp_jax in the user's cache folder"),
    'processes': (int, 2, 'that evaluate IRI'),
}
FORCINGS = (
    clip_store.Forcing('year', '1', True),
    clip_store.Forcing('f107', 'sfu, radio bursts held down'),
    clip_store.Forcing('r', 'sunspot number computed from F10.7 (ITU-R P.371), not observed'),
    clip_store.Forcing('day', 'day of year', True),
    clip_store.Forcing('hour', 'h UT', True),
    clip_store.Forcing('month', '1', True),
    clip_store.Forcing('date', 'day of month', True),
    clip_store.Forcing('kp', 'Kp x 10, from ap'),
    clip_store.Forcing('ap', '2 nT'),
)
# Real maps, for comparison (cos-latitude weighted, TECU): months that the store may hold too.
_SHARE = (0.26, 0.29, 0.19, 0.12, 0.07, 0.04)
REAL = {
    'November 2012 (CODE)': (30.7, (9.6, 6.3, 7.1, 7.8), _SHARE, ('2012-11-01', '2012-12-01')),
    'December 2011 (CODE)': (32.5, (9.5, 6.05), None, ('2011-12-01', '2012-01-01')),
    'January 2022 (JPL)': (16.9, (5.3, 2.7, 3.1, 3.55), None, ('2022-01-01', '2022-02-01')),
    'December 2010 (IGS)': (16.1, (4.2, 1.25), None, ('2010-12-01', '2011-01-01')),
}
_VERSION = 1  # of the maps: raise it with any change of what is written
_CADENCE = 2.0  # hours


def prepare(
    *, out: str | os.PathLike, in_dir: str | os.PathLike | None = None, seed: int = 0,
    years: str | Sequence[int] = '', days: int = 0, smoke: bool = False,
    cache: str | os.PathLike = '', processes: int = 2,
) -> clip_store.ClipStore:
  """Writes the store, or finishes it after a kill; a finished one is opened and left alone.

  Args:
    out: the store.
    in_dir: must be None: no files are read.
    seed: a year's maps follow from (seed, year) alone, whichever other years are made.
    years: a sequence, or a string with commas; all by default.
    days: so many days of each year from 16 January on; 0 for whole years.
    smoke: five years of 10 days (see OPTIONS), unless `years` or `days` say otherwise.
    cache: folder of the evaluated climatology (12 MB).
    processes: for evaluating it.

  Returns:
    The store: frames uint16 `[72, 72, 1]` in 0.1 TECU, one clip per year.

  Raises:
    StoreError: PyIRI is missing, a year has no drivers, or the store or cache cannot be written.
  """
  if in_dir:
    raise clip_store.StoreError('the embedded ionosphere reads no files: leave --in out')
  chosen = _years(years) or (SMOKE_YEARS if smoke else tuple(SPLITS))
  days = days or (10 if smoke else 0)
  if days < 0:
    raise clip_store.StoreError(f'days={days}: give a positive number, or 0 for whole years')
  table = embedded_indices.drivers()
  clips = {year: _times(year, days) for year in chosen}
  recipe = dict(importer='embedded', version=_VERSION, seed=seed, years=chosen, days=days)
  latitude = embedded_iri.LATITUDE.tolist()
  with clip_writer.StoreWriter(
      out, name='embedded_ionosphere', cadence_hours=_CADENCE, recipe=recipe, forcings=FORCINGS,
      streams={'frames': clip_store.Stream((72, 72, 1), 'uint16', 'TECU', 0.1, missing=65535)},
      normalisation={'divisor': 200.0, 'maximum': 200.0},
      grid=dict(
          latitude=latitude, longitude=embedded_iri.LONGITUDE.tolist(), rows=len(latitude)),
      licence='SIMULATED maps: free. Drivers: F10.7 NRC Canada / Penticton, ap GFZ (CC BY 4.0), '
              'both by way of CelesTrak. Climatology: IRI by PyIRI (MIT).',
      description='SIMULATED total electron content; not measured. IRI moved by real F10.7 and ap, '
                  'a storm response and seeded variability.') as writer:
    if writer.complete:
      store = clip_store.ClipStore(out)
    else:
      _write(writer, clips, table, seed, cache or None, processes)
      store = writer.finish()
  if not store.meta['card']:  # a finished store without its card: killed in between
    card = _card(store)
    clip_writer.write_json(pathlib.Path(out) / 'meta.json', store.meta | {'card': card})
    store = clip_store.ClipStore(out)
    print(card_text(card))
  return store


def _years(years: str | Sequence[int]) -> tuple[int, ...]:
  words = str(years).replace(',', ' ').split() if isinstance(years, str | int) else years
  try:
    chosen = tuple(dict.fromkeys(int(w) for w in words))
    unknown = [y for y in chosen if y not in SPLITS]
  except ValueError:
    chosen, unknown = (), [years]
  if unknown:
    raise clip_store.StoreError(
        f'years={unknown[0]}: choose among {" ".join(map(str, sorted(SPLITS)))}')
  return chosen


def _times(year: int, days: int) -> np.ndarray:
  first, stop = np.datetime64(f'{year}-01-01', 'm'), np.datetime64(f'{year + 1}-01-01', 'm')
  if days:
    first = np.datetime64(f'{year}-01-16', 'm')  # between two nodes of the climatology
    stop = min(stop, first + np.timedelta64(days, 'D'))
  return np.arange(first, stop, np.timedelta64(int(60 * _CADENCE), 'm'))


def _write(writer, clips, table, seed, cache, processes):
  missing = {year: times for year, times in clips.items() if not writer.has(str(year))}
  for times in missing.values():
    table.rows(times[0].astype('datetime64[D]') - 41, times[-1].astype('datetime64[D]') + 41)
  if not missing:
    return
  months = sorted({
      m for times in missing.values() for some in embedded_physics.season_weights(times)[:2]
      for m in np.unique(some).tolist()})
  cube, dip = embedded_iri.cube(months, cache=cache, processes=processes)
  total = sum(map(len, clips.values()))
  with tqdm.tqdm(
      total=total, initial=total - sum(map(len, missing.values())), desc='simulated maps',
      unit='map') as bar:
    for year, times in missing.items():
      frames = np.empty((len(times), 72, 72, 1), np.uint16)
      done = 0
      for piece in embedded_physics.simulate(cube, dip, table, times, seed=seed, year=year):
        frames[done:done + len(piece), :71, :, 0] = np.rint(piece * 10)
        done += len(piece)
        bar.update(len(piece))
      frames[:, 71:] = frames[:, 70:71]
      values, known, delay = forcings(table, times)
      writer.add(
          str(year), {'frames': frames}, split=SPLITS[year], source=f'simulated-{year}-{seed}',
          time=str(times[0]), forcings=values, known=known, delay=delay)


def forcings(
    table: embedded_indices.Drivers, times: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What a store keeps of the drivers at `times` (datetime64[m] `[T]`).

  F10.7 and R of a day become available when the day ends, Kp and ap when their 3 hours end.

  Returns:
    The values of FORCINGS, the newest ones available at each time, and hours until the former are:
    each float64 `[T, 9]`.
  """
  day = times.astype('datetime64[D]')
  rows = table.rows(day[0] - 1, day[-1])
  hour = (times - day).astype('timedelta64[m]').astype(int) / 60
  index = (day - day[0]).astype(int) + 1
  f107, ap = table.f107[rows], table.ap[rows].ravel()
  interval = 8 * index + (hour // 3).astype(int)
  calendar = dict(
      year=day.astype('datetime64[Y]').astype(int) + 1970,
      day=(day - day.astype('datetime64[Y]')).astype(int) + 1, hour=hour,
      month=day.astype('datetime64[M]').astype(int) % 12 + 1,
      date=(day - day.astype('datetime64[M]')).astype(int) + 1)
  columns = []
  for back in (0, 1):
    daily, three_hourly = f107[index - back], ap[interval - back]
    named = calendar | dict(
        f107=daily, r=embedded_indices.sunspot_proxy(daily), ap=three_hourly,
        kp=embedded_indices.kp10(three_hourly))
    columns.append(np.stack([named[f.name] for f in FORCINGS], 1).astype(float))
  wait = dict(f107=24 - hour, r=24 - hour, kp=3 - hour % 3, ap=3 - hour % 3)
  delay = np.stack([wait.get(f.name, np.zeros(len(times))) for f in FORCINGS], 1)
  return columns[0], columns[1], delay


def _card(store: clip_store.ClipStore) -> dict:
  compared = {}
  for name, (mean, differences, share, span) in REAL.items():
    compared[f'real, {name}'] = dict(
        mean=mean, wavenumber_share=share,
        rms_difference={str(h): v for h, v in zip(statistics.LAGS, differences)})
    month = statistics.statistics(store, span=span)
    if month['frames'] > 36:
      compared[f'simulated, {name.split(" (")[0]}'] = month
  times = [(c.times(_CADENCE)[0], c.times(_CADENCE)[-1]) for c in store.clips]
  return dict(
      simulated=True, clips=len(store.clips), frames=store.meta['frames'],
      first=str(min(t[0] for t in times)), last=str(max(t[1] for t in times)), gaps=0,
      too_short_for_24=sum(c.length < 24 for c in store.clips),
      splits={s: sum(c.length for c in store.clips if c.split == s) for s in store.splits},
      statistics={
          f'simulated, {s}': statistics.statistics(store, [s]) for s in store.splits} | compared)


def card_text(card: dict) -> str:
  """The data card as text; `card` is what `meta.json` keeps of it."""
  splits = ', '.join(f'{name} {frames}' for name, frames in card['splits'].items())
  return '\n'.join([
      'embedded ionosphere: SIMULATED maps of total electron content, not measured',
      f'{card["clips"]} clips, {card["frames"]} frames, {card["first"]} to {card["last"]}, '
      f'{card["gaps"]} gaps within clips, {card["too_short_for_24"]} clips below 24 frames',
      f'frames by split: {splits}',
      'TECU; RMS differences after 2, 24, 48, 72 hours, weighted with cos latitude:',
      statistics.table(card['statistics'])])
