"""TEC maps of the IGS analysis centres: a folder of IONEX files -> clip store.

Names old (codg3230.12i.Z) and new (COD0OPSFIN_20223230000_01D_01H_GIM.INX.gz), plain, .gz or .Z, in
any order. The centre is the name's first three letters (cod, jpl, igs, igr, ckm ...); predictions
under a new name (...PRD) count as a centre of their own, cod-prd. Times come from the maps.

Decisions:
  * A map 24 h behind its file's first repeats the next day's first one. It is used only where the
    next file follows without its own: never as the last map of a clip, never twice.
  * Two maps of one epoch: final before rapid before ultra-rapid. Of equal rank they must be equal.
  * Files finer than the cadence are thinned to epochs that are multiples of it from 0 h UT.
  * Clips end at gaps and where the split changes.
"""

import dataclasses
import pathlib
import re
import tempfile
import zlib

import numpy as np
from tqdm import tqdm

from stp_jax.data import card as cards
from stp_jax.data import indices as index_table
from stp_jax.data import ionex_file, splits
from stp_jax.data.clip_store import ClipStore, Forcing, StoreError, StoreWriter, Stream

OPTIONS = {
    'centre': (str, None, 'analysis centre: first three letters of the file names (cod, jpl, igr)'),
    'cadence': (float, 2.0, 'hours between frames'),
    'window': (int, 24, 'frames of a window; the data card counts clips that are shorter'),
    **splits.OPTIONS,
    'indices': (str, None, 'file of F10.7, R, Kp, ap: CelesTrak SW-All.txt or .csv, or GFZ '
                'Kp_ap_Ap_SN_F107_since_1932.txt; without it the store holds the calendar only'),
    'drivers': (str, 'f107+r+kp+ap', 'which of them to store; also f107_trailing81, '
                'f107_centred81'),
    'f107': (str, 'observed', 'observed (at Earth) or adjusted (to 1 AU)'),
    'missing_drivers': (str, 'error', "where the file has no observation: 'error' or 'fill'"),
    'predicted_drivers': (bool, False, "keep the file's predictions for frames behind its "
                          'observations'),
    'negative': (str, 'error', "what a negative TEC is: 'error', 'zero' or 'missing'")}
_NAME = re.compile(r'\.(\d\di|inx|ionex)(\.(gz|z))?$', re.I)
_LONG = re.compile(r'^\w{4}\w{3}(FIN|RAP|ULT|PRD)_', re.I)
_RANKS = {'FIN': 0, 'RAP': 1, 'ULT': 2, 'PRD': 3}


@dataclasses.dataclass(frozen=True)
class _Map:
  """One map of one file; `place` counts the maps of the spool file."""
  epoch: np.datetime64
  closing: bool
  rank: int
  file: str
  checksum: int
  place: int


def centre_of(name: str) -> str:
  """The analysis centre of a file name, in small letters."""
  long = _LONG.match(name)
  prediction = long and long[1].upper() == 'PRD'
  return name[:3].lower() + ('-prd' if prediction else '')


def _files(in_dir, centre: str | None) -> tuple[list[pathlib.Path], str]:
  if in_dir is None:
    raise StoreError('--in: name the folder of the IONEX files')
  folder = pathlib.Path(in_dir)
  if not folder.exists():
    raise StoreError(f'{folder}: no such folder')
  every = sorted(p for p in folder.rglob('*') if p.is_file()) if folder.is_dir() else [folder]
  found = [p for p in every if _NAME.search(p.name)]
  if not found:
    raise StoreError(
        f'{folder}: no IONEX file (names like codg3230.12i.Z or COD0OPSFIN_20223230000_01D_01H_'
        f'GIM.INX.gz) among its {len(every)} files')
  centres = {}
  for path in found:
    centres.setdefault(centre_of(path.name), []).append(path)
  if centre is None and len(centres) > 1 or centre is not None and centre.lower() not in centres:
    listed = ', '.join(f'{k} ({len(v)} files)' for k, v in sorted(centres.items()))
    raise StoreError(f'{folder}: holds {listed}; choose one with --centre')
  centre = next(iter(centres)) if centre is None else centre.lower()
  return centres[centre], centre


def _load(path: pathlib.Path, cadence: int, negative: str, spool, grid, facts) -> tuple:
  """Appends the wanted maps of one file to `spool`; returns them and the grid."""
  maps = ionex_file.read(path, negative)
  axes = maps.latitude, maps.longitude
  if grid is None:
    grid = axes, path
  if grid[0] != axes:
    describe = lambda a: (f'{len(a[0])} x {len(a[1])} (latitude {a[0][0]:g} to {a[0][-1]:g}, '
                          f'longitude {a[1][0]:g} to {a[1][-1]:g})')
    raise StoreError(f'{path}: grid {describe(axes)}, but {grid[1].name} has '
                     f'{describe(grid[0])}; put them into stores of their own')
  if maps.interval > cadence:
    raise StoreError(f'{path}: maps every {maps.interval / 60:g} h, coarser than the cadence of '
                     f'{cadence / 60:g} h; choose --cadence {maps.interval / 60:g}')
  minutes = maps.epochs.astype(np.int64)
  wanted = (minutes % cadence == 0) | (maps.interval == cadence)
  long = _LONG.match(path.name)
  rank = _RANKS[long[1].upper()] if long else 0
  found = []
  for i in np.flatnonzero(wanted):
    pair = np.stack([maps.tec[i], maps.rms[i]]).tobytes()
    closing = i == len(minutes) - 1 and i > 0 and (minutes[i] - minutes[0]) % 1440 == 0
    place = spool.tell() // len(pair)
    spool.write(pair)
    found.append(_Map(maps.epochs[i], bool(closing), rank, path.name, zlib.crc32(pair), place))
  facts['thinned'] += int((~wanted).sum())
  return found, grid


def _chosen(maps: list[_Map], cadence: int, facts) -> list[_Map]:
  """One map per epoch, in order."""
  best = {}
  for one in sorted(maps, key=lambda m: (m.epoch, m.closing, m.rank)):
    other = best.setdefault(one.epoch, one)
    if other is one:
      continue
    same = other.checksum == one.checksum
    if (other.closing, other.rank) == (one.closing, one.rank) and not same:
      raise StoreError(
          f'{one.file} and {other.file}: different maps of {one.epoch}; remove one of the files')
    facts['closing' if one.closing else 'duplicate'] += 1
  step = np.timedelta64(cadence, 'm')
  joins = lambda m: any(e in best and not best[e].closing for e in [m.epoch + step])
  kept = [m for m in best.values() if not m.closing or joins(m)]
  facts['closing'] += len(best) - len(kept)
  return kept


def _even(values: np.ndarray) -> np.ndarray:
  """`[H, W]` -> `[H', W', 1]`, even sizes; the padding repeats the last row and column."""
  return np.pad(values, [(0, n % 2) for n in values.shape], 'edge')[..., None]


def prepare(
    *, in_dir, out, centre: str | None = None, cadence: float = 2.0, window: int = 24,
    split: str | None = None, validation: str | None = None, test: str | None = None,
    test_low: str | None = None, test_high: str | None = None, indices: str | None = None,
    drivers: str = 'f107+r+kp+ap', f107: str = 'observed', missing_drivers: str = 'error',
    predicted_drivers: bool = False, negative: str = 'error',
) -> ClipStore:
  """Writes the store and prints its data card; see OPTIONS and the module.

  Streams `frames` and `rms`: uint16 `[H, W, 1]` in 0.1 TECU, 65535 where there is no value, north
  first, west first, padded to even H and W. All maps of the run pass through a temporary file
  beside `out`; memory holds the clips of one shard.

  Raises:
    StoreError: names the file (and line) that cannot be used, or the option that is needed.
    ValueError: an option that cannot be read.
  """
  minutes = round(cadence * 60)
  if abs(minutes - cadence * 60) > 1e-6 or not 0 < minutes <= 1440 or 1440 % minutes:
    raise ValueError(f'--cadence {cadence:g}: whole minutes that divide a day, in hours')
  if negative not in ('error', 'zero', 'missing'):
    raise ValueError(f'--negative {negative}: choose error, zero or missing')
  paths, centre = _files(in_dir, centre)
  table = index_table.Drivers.read(indices, f107) if indices else None
  names = [n for n in re.split('[,+]', drivers) if n] if table else []
  described = table.forcings(names) if table else ()
  calendar = [Forcing(n, known_ahead=True) for n in index_table.CALENDAR]
  named = dict(validation=validation, test=test, test_low=test_low, test_high=test_high)
  options = dict(
      centre=centre, cadence=cadence, split=split, **named, drivers=names, f107=f107,
      missing_drivers=missing_drivers, predicted_drivers=predicted_drivers, negative=negative)
  contents = {p.name: zlib.crc32(p.read_bytes()) for p in [*paths, *([table.path] if table else [])]}
  recipe = dict(importer='ionex', version=1, options=options, files=contents)

  facts = dict(thinned=0, closing=0, duplicate=0)
  grid, maps = None, []
  parent = pathlib.Path(out).absolute().parent
  parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=parent) as spool:
    for path in tqdm(paths, desc=f'reading {centre}', unit='file'):
      found, grid = _load(path, minutes, negative, spool, grid, facts)
      maps += found
    kept = _chosen(maps, minutes, facts)
    if not kept:
      raise StoreError(f'{in_dir}: no map on the cadence of {cadence:g} h')
    times = np.array([m.epoch for m in kept])
    latitude, longitude = grid[0]
    shape = (len(latitude), len(longitude))
    labels = splits.assign(times, split, named)
    forcing, ahead = index_table.calendar(times), np.zeros((len(times), len(calendar)))
    parts = dict(values=forcing, known=forcing, delay=ahead, forecast=ahead * np.nan)
    filled = 0
    if table:
      driven = table.at(times, names, missing=missing_drivers, predicted=predicted_drivers)
      parts = {k: np.concatenate([v, getattr(driven, k)], 1) for k, v in parts.items()}
      filled = driven.filled
    order, forcings = _in_order([*calendar, *described])
    parts = {k: v[:, order] for k, v in parts.items()}

    cut = np.flatnonzero(
        (np.diff(times) != np.timedelta64(minutes, 'm')) | (labels[1:] != labels[:-1])) + 1
    spans = list(zip([0, *cut.tolist()], [*cut.tolist(), len(times)]))
    stream = Stream((*(n + n % 2 for n in shape), 1), 'uint16', 'TECU', 0.1,
                    missing=ionex_file.MISSING)
    statistics = {k: cards.Statistics(0.1, ionex_file.MISSING) for k in ('frames', 'rms')}
    with StoreWriter(
        out, name=f'ionex_{centre}', streams=dict(frames=stream, rms=stream),
        cadence_hours=cadence, recipe=recipe, forcings=forcings,
        normalisation=dict(divisor=200.0, maximum=200.0),
        grid=dict(latitude=latitude, longitude=longitude, rows=shape[0], columns=shape[1]),
        licence='IGS analysis centre product: free use with acknowledgement of the centre and IGS',
        description=f'Global ionosphere maps of {centre.upper()}, vertical TEC') as writer:
      if writer.complete:
        store = ClipStore(out)
        print(cards.text(store.meta['card']))
        return store
      for start, stop in tqdm(spans, desc='writing', unit='clip'):
        blocks = np.zeros((2, stop - start, *stream.shape), np.uint16)
        for i, one in enumerate(kept[start:stop]):
          size = 4 * shape[0] * shape[1]
          spool.seek(one.place * size)
          pair = np.frombuffer(spool.read(size), np.uint16).reshape(2, *shape)
          blocks[:, i] = [_even(p) for p in pair]
          statistics['frames'].add(pair[0])
          statistics['rms'].add(pair[1])
        first, last = kept[start].file, kept[stop - 1].file
        key = f'{times[start]}-{stop - start}'
        if not writer.has(key):
          row = {k: v[start:stop] for k, v in parts.items()}
          writer.add(
              key, dict(frames=blocks[0], rms=blocks[1]), split=str(labels[start]),
              source=first if first == last else f'{first}..{last}', time=str(times[start]),
              forcings=row['values'], known=row['known'], delay=row['delay'],
              forecast=row['forecast'])
      card = _card(f'ionex_{centre}', paths, grid, times, labels, spans, window, minutes, facts,
                   names, table, filled, predicted_drivers, statistics)
      store = writer.finish(card)
  print(cards.text(card))
  return store


def _in_order(found: list[Forcing]) -> tuple[list[int], list[Forcing]]:
  """The forcings in the order of the Channel Mixer Layer's channels, others behind."""
  order = ['year', 'f107', 'r', 'day', 'hour', 'month', 'date', 'kp', 'ap']
  rank = lambda i: (order.index(found[i].name) if found[i].name in order else len(order), i)
  picked = sorted(range(len(found)), key=rank)
  return picked, [found[i] for i in picked]


def _card(name, paths, grid, times, labels, spans, window, minutes, facts, names, table, filled,
          predicted, statistics) -> dict:
  (latitude, longitude), _ = grid
  steps = np.diff(times).astype(np.int64)
  gaps = [(str(times[i]), str(times[i + 1]), int(steps[i] // minutes) - 1)
          for i in np.flatnonzero(steps != minutes)]
  clips = [dict(split=str(labels[a]), length=b - a) for a, b in spans]
  card = dict(name=name, first=str(times[0]), last=str(times[-1]), **cards.clips(clips, window))
  card['facts'] = {
      'cadence': f'{minutes / 60:g} h',
      'grid': f'{len(latitude)} x {len(longitude)} (latitude {latitude[0]:g} to '
              f'{latitude[-1]:g}, longitude {longitude[0]:g} to {longitude[-1]:g})',
      'files': len(paths),
      'maps left out': f'{facts["closing"]} that close a day, {facts["thinned"]} by thinning, '
                       f'{facts["duplicate"]} duplicates',
      'gaps': f'{len(gaps)}, {sum(g[2] for g in gaps)} maps',
      'drivers': ' '.join(names) + f' from {table.path.name}' if table else 'none (no --indices)'}
  card['gaps'] = gaps
  card['statistics'] = {f'{"TEC" if k == "frames" else "RMS"} [TECU]': s.result()
                        for k, s in statistics.items()}
  card['notes'] = [
      f'split {k}: no window of {window} frames' for k, v in card['splits'].items()
      if not v['windows']]
  if filled:
    how = 'left open, the predictions stored' if predicted else 'filled with the newest before'
    card['notes'].append(f'{filled} driver values lack an observation: {how}')
  return card
