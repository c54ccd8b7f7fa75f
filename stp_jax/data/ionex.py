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

import pathlib
import re
import tempfile

import numpy as np
from tqdm import tqdm

from stp_jax.data import card as cards
from stp_jax.data import indices as index_table
from stp_jax.data import ionex_archive, ionex_file, ionex_folder, splits
from stp_jax.data.clip_store import ClipStore, Forcing, StoreError, Stream
from stp_jax.data.clip_writer import StoreWriter
from stp_jax.data.forcings import CHANNELS

OPTIONS = {
    'centre': (str, None, 'analysis centre: first three letters of the file names (cod, jpl, igr)'),
    'cadence': (float, 2.0, 'hours between frames'),
    'window': (int, 24, 'frames of a window; the data card counts clips that are shorter'),
    **splits.OPTIONS,
    'indices': (str, None, 'file of F10.7, R, Kp, ap: CelesTrak SW-All.txt or .csv, or GFZ '
                'Kp_ap_Ap_SN_F107_since_1932.txt; and, joined by +, OMNI2 files or their folder; '
                'without it the store holds the calendar only'),
    'drivers': (str, '', 'which of them to store, joined by +; default: f107 r kp ap and all that '
                'OMNI2 gives (dst plasma_speed field_magnitude sigma_b proton_density '
                'flow_pressure electric_field magnetosonic_mach); also f107_trailing81, '
                'f107_centred81'),
    'f107': (str, 'observed', 'observed (at Earth) or adjusted (to 1 AU)'),
    'missing_drivers': (str, 'error', "where the file has no observation: 'error' or 'fill'"),
    'predicted_drivers': (bool, False, "keep the file's predictions for frames behind its "
                          'observations'),
    'negative': (str, 'error', "what a negative TEC is: 'error', 'zero' or 'missing'"),
    'download': (bool, False, 'fetch the files of the days --from to --to first, into --in'),
    'first': (str, None, 'with --download: first day, 2012-11-18'),
    'last': (str, None, 'with --download: last day'),
    'product': (str, 'best', "with --download: 'final', 'rapid', 'best' (final, else rapid), "
                "'predicted1' (C1PG) or 'predicted2' (C2PG)"),
    'archive': (str, None, 'with --download: the address of another archive or mirror')}
SPELLED = {'first': 'from', 'last': 'to'}  # options whose names are words of Python
FILES = 'runs/downloads/ionex'  # where fetched files are kept without --in


def _even(values: np.ndarray) -> np.ndarray:
  """`[H, W]` -> `[H', W', 1]`, even sizes; the padding repeats the last row and column."""
  return np.pad(values, [(0, n % 2) for n in values.shape], 'edge')[..., None]


def prepare(
    *, in_dir=None, out=None, centre: str | None = None, cadence: float = 2.0, window: int = 24,
    split: str | None = None, validation: str | None = None, test: str | None = None,
    test_low: str | None = None, test_high: str | None = None, indices: str | None = None,
    drivers: str = '', f107: str = 'observed', missing_drivers: str = 'error',
    predicted_drivers: bool = False, negative: str = 'error', download: bool = False,
    first: str | None = None, last: str | None = None, product: str = 'best',
    archive: str | None = None,
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
  if download:
    centre = (centre or 'cod').lower()
    paths = ionex_archive.download(first, last, centre, in_dir or FILES, product=product,
                                   archive=archive)
    centre += f'-{product}' if product.startswith('pred') else ''
    out = out or f'runs/stores/ionex_{centre}_{first}_{last}'
  elif first or last or archive:
    raise ValueError('--from, --to and --archive belong to --download')
  elif out is None:
    raise ValueError('--out: name the clip store to write')
  else:
    paths, centre = ionex_folder.files(in_dir, centre)
  table = index_table.Drivers.read(indices, f107) if indices else None
  names = [n for n in re.split('[,+]', drivers) if n] if table else []
  if table and not names:
    names = list(table.names)
  described = table.forcings(names) if table else ()
  calendar = [Forcing(n, known_ahead=True) for n in index_table.CALENDAR]
  named = dict(validation=validation, test=test, test_low=test_low, test_high=test_high)
  options = dict(
      centre=centre, cadence=cadence, split=split, **named, drivers=names, f107=f107,
      missing_drivers=missing_drivers, predicted_drivers=predicted_drivers, negative=negative)
  recipe = dict(importer='ionex', version=1, options=options, files=cards.checksums(paths),
                indices=cards.checksums(table.paths if table else []))
  if done := cards.already_made(out, recipe):
    return done

  facts = dict(thinned=0, closing=0, duplicate=0)
  grid, maps = None, []
  parent = pathlib.Path(out).absolute().parent
  parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=parent) as spool:
    for path in tqdm(paths, desc=f'reading {centre}', unit='file'):
      found, grid = ionex_folder.load(path, minutes, negative, spool, grid, facts)
      maps += found
    kept = ionex_folder.chosen(maps, minutes, facts)
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
  order = list(CHANNELS)
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
      'drivers': ' '.join(names) + f' from {" ".join(p.name for p in table.paths)}' if table
                 else 'none (no --indices)'}
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
