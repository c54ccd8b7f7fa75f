"""The desk: `python -m stp_jax.predict --nightly --checkpoint=RUN --out=DESK [--centre=cod]`.

One call a day, by cron or by hand: fetches the newest maps (final, else rapid), makes a store of
them, forecasts, and scores earlier forecasts whose days have come, beside persistence and CODE's
own forecasts C1PG and C2PG.

  DESK/files/        fetched files, kept        DESK/forecasts/<issue time>/   see `predict`
  DESK/store/        the last days' maps        DESK/ledger.csv, ledger.png    see `ledger`

A second call on the same day changes nothing; one that was interrupted goes on where it stopped. A
forecast that was issued is never made again. One call runs at a time. Maps are looked for from the
oldest forecast on that is not fully scored or whose days may still get final maps (20 days), at
most 45 days back: nights that were left out lose no scores, and final maps replace rapid ones.
"""

import os
import pathlib
import shutil
import sys

import numpy as np

from stp_jax import files as file_tools
from stp_jax import ledger, report
from stp_jax.data import fetch, indices, ionex, ionex_archive, ionex_file
from stp_jax.data.clip_store import ClipStore, StoreError

INDICES = 'https://celestrak.org/SpaceData'
LATENCY = 3  # days that the newest maps may be late
YOUNG = 20  # days after which a map is final: final maps come about 11 days late
BACK = 45  # days: older forecasts stay as they are


def add_arguments(group) -> None:
  """The words of `--nightly` on predict's command line."""
  add = group.add_argument
  add('--nightly', action='store_true', help='fetch, prepare, forecast, score; --out=DESK')
  add('--centre', default='cod', help='whose maps (cod)')
  add('--date', default='', help='as if today were this day (UT); default: today')
  add('--archive', default=None, help='address of another archive or mirror of IONEX files')
  add('--indices', default='', help="file of F10.7, R, Kp, ap; default: fetched from CelesTrak, "
                                    'where the run reads any')


def run(args) -> int:
  """One night, see the module.

  Args:
    args: of `predict.arguments`: checkpoint, out, raw, members, rms and those of `add_arguments`.

  Returns:
    0.

  Raises:
    ValueError: no maps to be had, drivers that no file gives, other options that do not fit.
    OSError: another call holds the desk.
  """
  _date(args.date)  # a wrong one leaves no folder
  desk = pathlib.Path(args.out)
  desk.mkdir(parents=True, exist_ok=True)
  with file_tools.only_one(desk / '.lock'):
    return _night(desk, args)


def _night(desk: pathlib.Path, args) -> int:
  from stp_jax import predict  # it offers this as one of its words
  runs = [r for r in args.checkpoint.split(',') if r]
  first = predict.Predictor.load(runs[0], raw=args.raw)
  today = _date(args.date)
  cadence = first.spec.cadence_hours
  reach = -(-round((first.t_in + first.t_out) * cadence) // 24)
  path = desk / 'ledger.csv'
  kept = {(r['issue_time'], int(r['lead_day'])): r for r in ledger.read(path)}
  waiting = _waiting(desk, kept, today, cadence)
  # An issue time is the last map's: its forecast begins on that day or the next.
  begin = min([today - reach - LATENCY, *(np.datetime64(i, 'D') for i in waiting.values())])
  store = _store(desk, first, args, begin, today)
  newest = max(c.times(store.cadence_hours)[-1] for c in store.clips)
  place = desk / 'forecasts' / str(newest).replace(':', '')
  if (place / 'forecast.npz').exists():
    print(f'{place}: issued before')
  else:
    predict.forecast(runs, store, str(newest), place, raw=args.raw, members=args.members,
                     rms=args.rms)
    print(f'{place}: {first.t_out} maps, issued {newest} UT')
  rows = [r for folder in waiting for r in _scored(
      folder, store, desk / 'files', args, cadence, kept, today)]
  added, total = ledger.update(path, rows)
  print(f'{path}: {total} rows, {added} of them new')
  if total:
    try:
      ledger.draw(desk / 'ledger.png', ledger.read(path), first.config.name)
    except ImportError as error:
      if (error.name or '').split('.')[0] != 'matplotlib':
        raise
      print(report.EXTRA, file=sys.stderr)
  return 0


def _waiting(desk: pathlib.Path, kept: dict, today: np.datetime64, cadence: float
             ) -> dict[pathlib.Path, str]:
  """Folders and issue times of forecasts with a day without scores, or with maps that may change.

  Args:
    kept: the ledger's rows by issue time and lead day.
  """
  found, size = {}, max(1, round(24 / cadence))
  for folder in sorted((desk / 'forecasts').glob('[0-9]*')):
    if not (folder / 'forecast.npz').exists():
      continue
    with np.load(folder / 'forecast.npz') as file:
      issued, times = str(file['issue_time']), file['times'].astype('datetime64[D]')
    if np.datetime64(issued, 'D') < today - BACK:
      continue
    days = -(-len(times) // size)
    scored = all((issued, day + 1) in kept for day in range(days))
    if not scored or times[-1] > today - YOUNG:
      found[folder] = issued
  return found


def _date(text: str) -> np.datetime64:
  try:
    return np.datetime64(text or 'now', 'D') if text else np.datetime64('now').astype('M8[D]')
  except ValueError:
    raise ValueError(f'--date={text}: write a day, 2012-11-20') from None


def _store(desk: pathlib.Path, predictor, args, begin, today) -> ClipStore:
  """The store of the days `begin` to `today`; made again when a file has come or changed."""
  spec = predictor.spec
  wanted = [c for c in spec.columns if c not in indices.CALENDAR and c not in spec.filled]
  options = dict(
      in_dir=desk / 'files', out=desk / 'store', centre=args.centre, download=True,
      first=str(begin), last=str(today), archive=args.archive, cadence=spec.cadence_hours,
      window=predictor.t_in, split='test', negative='zero')
  if wanted:
    unknown = [c for c in wanted if c not in indices.DRIVERS]
    if unknown and not args.indices:
      raise ValueError(f'{predictor.config.name} reads {" ".join(unknown)}, which nobody publishes '
                       'in time; name files with --indices, or use a run without them')
    source = args.indices or _indices(desk, today)
    options |= dict(indices=str(source), drivers='+'.join(wanted), predicted_drivers=True)
  try:
    return ionex.prepare(**options)
  except StoreError as error:
    if 'other inputs or options' not in str(error):
      raise
  shutil.rmtree(desk / 'store')
  return ionex.prepare(**options)


def _indices(desk: pathlib.Path, today: np.datetime64) -> pathlib.Path:
  """CelesTrak's file as it is today; another day has another one."""
  base = (os.environ.get('STP_JAX_CELESTRAK') or INDICES).rstrip('/')
  age = (np.datetime64('now').astype('M8[D]') - today).astype(int)
  name = 'SW-Last5Years.txt' if age < 1500 else 'SW-All.txt'
  return fetch.fetch(f'{base}/{name}', desk / 'files' / 'indices' / f'{today}-{name}')


def _scored(folder: pathlib.Path, store: ClipStore, files: pathlib.Path, args, cadence: float,
            rows: dict, today: np.datetime64):
  """The rows of one forecast: every lead day whose maps are all there.

  Args:
    rows: the ledger's, by issue time and lead day.
  """
  with np.load(folder / 'forecast.npz') as kept:
    forecast, times, seen = (kept[k] for k in ('forecast', 'times', 'input'))
    latitude = kept['latitude'] if 'latitude' in kept else None
    issued = str(kept['issue_time'])
  times = times.astype('datetime64[m]')
  size = max(1, round(24 / cadence))
  lag = size if size <= len(seen) else 1  # as `metrics.baselines` has it
  persistence = seen[len(seen) - lag + np.arange(len(times)) % lag]
  truth, names = _truth(store, times, forecast.shape[1:], files, args.centre)
  for day in range(-(-len(times) // size)):
    part = slice(day * size, min((day + 1) * size, len(times)))
    if not all(names[part]):
      continue
    found = dict(net=forecast[part], persistence=persistence[part])
    name = _short(names[part])
    row = rows.get((issued, day + 1), {})
    # CODE's file of a day that is over comes in a few days or never.
    settled = row.get('truth') == name and times[part][-1] < today - LATENCY
    if day < 2 and not settled:
      other = _code(files, times[part], f'predicted{day + 1}', args, forecast.shape[1:])
      found |= {} if other is None else {f'c{day + 1}pg': other}
    scores = {k: ledger.score(v, truth[part], latitude) for k, v in found.items()}
    yield ledger.row(issued, day + 1, times[part], name, scores)


def _short(names: list[str]) -> str:
  listed = sorted(set(names))
  return listed[0] if len(listed) == 1 else f'{listed[0]}..{listed[-1]}'


def _truth(store: ClipStore, times: np.ndarray, shape, files: pathlib.Path, centre: str
           ) -> tuple[np.ndarray, list[str]]:
  """Maps `[T, H, W]` (NaN: not there) and the file of each ('' = none).

  A clip of many days tells its first and last file only; a day's own is the one that the store was
  made of.
  """
  own = {d: ionex_archive.kept(d, centre, 'best', files)
         for d in np.unique(times.astype('datetime64[D]'))}
  maps, names = np.full((len(times), *shape), np.nan, np.float32), [''] * len(times)
  place = {t: i for i, t in enumerate(times)}
  for number, clip in enumerate(store.clips):
    for k, t in enumerate(clip.times(store.cadence_hours)):
      if t in place:
        frame = store.physical(store.frames(number, k, 1))[0, :shape[0], :shape[1], 0]
        file = own[t.astype('datetime64[D]')]
        maps[place[t]], names[place[t]] = frame, file.name if file else clip.source
  return maps, names


def _code(files: pathlib.Path, times: np.ndarray, product: str, args, shape
          ) -> np.ndarray | None:
  """CODE's own forecast of these times, None where the archive has none on this grid."""
  found = {}
  for day in np.unique(times.astype('datetime64[D]')):
    try:
      path = ionex_archive.fetch_day(day, 'cod', product, files, archive=args.archive)
    except fetch.FetchError as error:
      print(f'predict: {error}', file=sys.stderr)
      return None
    if path is None:
      return None
    maps = ionex_file.read(path, negative='zero')
    if maps.tec.shape[1:] != tuple(shape):
      return None
    found |= {t: m for t, m in zip(maps.epochs, maps.tec) if t not in found or t in (
        maps.epochs[:-1])}
  if not all(t in found for t in times):
    return None
  stack = np.stack([found[t] for t in times])
  return np.where(stack == ionex_file.MISSING, np.nan, stack * np.float32(0.1))
