"""Rain maps of weather radars: KNMI (HDF5, 5 minutes) and BoM (NetCDF, 10 minutes) -> clip store.

  python -m stp_jax.prepare radar --in KNMI --out STORE --block 4 --crop 125:637,100:612
  python -m stp_jax.prepare radar --in BOM --out STORE --size 128
  python -m stp_jax.prepare radar --in bom_66_20201031_128.npz --out STORE       (packed means)

Times are the end of an accumulation, UT. Splits are spans of time, in order; a clip ends at a gap
and where the split changes, so that no window sees two splits.

Stored are the file's integers where pixels are as they were; means (`block`, `size`) fall between
those steps and are kept in steps of 0.002 mm. 65535 is a missing value; a mean is missing where
fewer than half of its pixels are there.

A model sees min(rain, maximum) / maximum, in 0..1, with `--values mm`; maximum is a rain rate of
`--maximum` mm/h over the accumulation's minutes. With `--values dbz` it sees reflectivity / 70 dBZ
(Z = 200 R^1.6, Marshall and Palmer 1948), as the radar images of HKO-7 and Shanghai show it: light
rain is then not squeezed into the first hundredths. Drizzle below 0 dBZ counts as none.
"""

import itertools
import pathlib
import sys

import numpy as np
from tqdm import tqdm

from stp_jax.data import card as cards
from stp_jax.data import georeference, radar_files, resize, splits
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.clip_writer import StoreWriter
from stp_jax.data.radar_files import MISSING, BadFile, RainMap

OPTIONS = {
    'network': (str, '', 'knmi or bom; empty: as the files of the folder are'),
    'crop': (str, '', 'rows and columns, ROW:ROW,COLUMN:COLUMN (first in, last out); empty: all'),
    'block': (int, 1, 'means of block x block pixels'),
    'size': (str, '', 'HEIGHTxWIDTH to resize to, behind crop and block; empty: as it is'),
    'values': (str, 'mm', 'mm (rain of an accumulation) or dbz (reflectivity)'),
    'maximum': (float, 60.0, 'mm/h that a model sees as 1, with values=mm; more rain too'),
    'window': (int, 20, 'frames of a window; the data card counts clips that are shorter'),
    'on_bad': (str, 'error', 'an unreadable file: error (stop) or skip (named, a gap)'),
    **{k: v for k, v in splits.OPTIONS.items() if not k.startswith('test_')}}
_MEAN_STEP = radar_files.STEP
_DBZ_STEP, _DBZ_MAXIMUM = 0.01, 70.0
_CLIP_BYTES = 64 << 20  # a clip is in memory once: long unbroken series are cut


def _crop(text: str) -> tuple[slice, slice]:
  if not text:
    return slice(None), slice(None)
  try:
    rows, columns = ([int(n) for n in part.split(':')] for part in text.split(','))
    if len(rows) != 2 or len(columns) != 2 or not (0 <= rows[0] < rows[1]
                                                   and 0 <= columns[0] < columns[1]):
      raise ValueError
  except ValueError:
    raise ValueError(f'--crop {text}: write ROW:ROW,COLUMN:COLUMN, as in 125:637,100:612'
                     ) from None
  return slice(*rows), slice(*columns)


class _Shaper:
  """Crops, averages, resizes and codes one map; `scale` and `units` are those of the result."""

  def __init__(self, crop, block: int, size, values: str, native: float | None):
    self._crop, self._block, self._size, self._dbz = _crop(crop), block, size, values == 'dbz'
    self._exact = native if block == 1 and size is None else None
    self.scale = _DBZ_STEP if self._dbz else self._exact or _MEAN_STEP
    self.units = 'dBZ' if self._dbz else 'mm'

  def __call__(self, raw: np.ndarray, scale: float, minutes: int, name: str) -> np.ndarray:
    """uint16 `[H, W, 1]`; `raw` is uint16, MISSING where there is no value."""
    rows, columns = self._crop
    if (rows.stop or 0) > raw.shape[0] or (columns.stop or 0) > raw.shape[1]:
      raise ValueError(f'--crop: ends at {rows.stop}, {columns.stop}, but {name} has '
                       f'{raw.shape[0]}x{raw.shape[1]} pixels')
    raw = raw[rows, columns]
    if self._block > min(raw.shape):
      raise ValueError(f'--block {self._block}: larger than the {raw.shape[0]}x{raw.shape[1]} '
                       'pixels that are averaged')
    if self._exact and not self._dbz:
      return raw[..., None]
    mm = resize.block_mean(raw, self._block, MISSING) * scale
    missing = np.isnan(mm)
    fine = np.where(missing, MISSING, np.rint(np.minimum(mm / _MEAN_STEP, MISSING - 1)))
    fine = fine.astype(np.uint16)[None, ..., None]
    if self._size:
      fine = resize.frames(fine, self._size, MISSING)
    fine = fine[0]
    if not self._dbz:
      return fine
    rate = fine * (_MEAN_STEP * 60 / minutes)
    with np.errstate(divide='ignore'):
      dbz = 10 * np.log10(200 * rate ** 1.6)
    code = np.rint(np.clip(dbz, 0, _DBZ_MAXIMUM) / _DBZ_STEP)
    return np.where(fine == MISSING, MISSING, code).astype(np.uint16)


class _Files:
  """Maps of separate files, read when they are asked for."""

  def __init__(self, network: str, paths: list[pathlib.Path], on_bad: str):
    self.network, self.paths, self.bad = network, [], []
    heads = []
    for path in tqdm(paths, desc='reading times', unit='file'):
      try:
        heads.append((radar_files.read(path, network, pixels=False), path))
      except BadFile as error:
        if on_bad == 'error':
          raise StoreError(f'{error}; remove it, or --on-bad skip') from error
        print(f'skipped: {error}', file=sys.stderr)
        self.bad.append(path.name)
    if not heads:
      raise StoreError(f'{paths[0].parent}: no file of {len(paths)} can be read')
    heads.sort(key=lambda pair: pair[0].time)
    for (one, path), (other, later) in itertools.pairwise(heads):
      if one.time == other.time:
        raise StoreError(f'{path} and {later.name}: two maps of {one.time}; keep one')
      if (one.minutes, one.scale) != (other.minutes, other.scale):
        raise StoreError(f'{later}: {other.minutes} minutes in steps of {other.scale} mm, but '
                         f'{path.name} has {one.minutes} and {one.scale}; prepare them apart')
    first: RainMap = heads[0][0]
    self.times = np.array([h.time for h, _ in heads])
    self.minutes, self.scale, self.grid = first.minutes, first.scale, first.grid
    self.paths, self.coded = [p for _, p in heads], any(h.coded for h, _ in heads)

  def raw(self, i: int) -> np.ndarray:
    return radar_files.read(self.paths[i], self.network).raw

  def name(self, i: int) -> str:
    return self.paths[i].name


class _Packed:
  """Maps of one npz."""

  def __init__(self, path: pathlib.Path):
    self._rain, self.times, self.minutes, self.network = radar_files.read_packed(path)
    if (np.diff(self.times).astype(int) <= 0).any():
      raise StoreError(f'{path}: times that do not rise')
    self.scale, self.grid, self.paths, self.bad = _MEAN_STEP, {}, [path], []
    self.coded = self._rain.dtype.kind == 'f'

  def raw(self, i: int) -> np.ndarray:
    rain = self._rain[i].astype(np.float64)
    code = np.rint(np.clip(np.nan_to_num(rain) / self.scale, 0, MISSING - 1))
    return np.where(np.isnan(rain), MISSING, code).astype(np.uint16)

  def name(self, i: int) -> str:
    return f'{self.paths[0].name}#{i}'


def prepare(
    *, in_dir, out, network: str = '', crop: str = '', block: int = 1, size: str = '',
    values: str = 'mm', maximum: float = 60.0, window: int = 20, on_bad: str = 'error',
    split: str | None = None, validation: str | None = None, test: str | None = None,
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint16 `[H, W, 1]`, in mm (or dBZ), 65535 where there is no value, north first.

  Raises:
    StoreError: names the file that cannot be used, or that does not go with the others.
    ValueError: an option that cannot be read.
  """
  if values not in ('mm', 'dbz'):
    raise ValueError(f'--values {values}: mm or dbz')
  if on_bad not in ('error', 'skip') or network not in ('', *radar_files.SUFFIXES):
    raise ValueError(f'--on-bad {on_bad} (error, skip), --network {network} (knmi, bom)')
  if block < 1 or not maximum > 0:
    raise ValueError(f'--block {block}, --maximum {maximum:g}: positive numbers')
  sides = resize.size_of(size, '--size')
  kind, paths = radar_files.find(in_dir, network)
  options = dict(crop=crop, block=block, size=sides, values=values, maximum=maximum, split=split,
                 validation=validation, test=test)
  recipe = dict(importer='radar', version=2, options=options, files=cards.checksums(paths))
  if done := cards.already_made(out, recipe):
    print(following(done))
    return done
  maps = _Packed(paths[0]) if kind == 'packed' else _Files(kind, paths, on_bad)
  shape = _Shaper(crop, block, sides, values, maps.scale)
  first = shape(maps.raw(0), maps.scale, maps.minutes, maps.name(0))
  top = _DBZ_MAXIMUM if values == 'dbz' else maximum * maps.minutes / 60
  labels = splits.assign(maps.times, split, dict(validation=validation, test=test))
  spans = _spans(maps.times, labels, maps.minutes, max(window, _CLIP_BYTES // first.nbytes))
  with StoreWriter(
      out, name=f'radar_{maps.network}', cadence_hours=maps.minutes / 60, recipe=recipe,
      streams={'frames': Stream(first.shape, 'uint16', shape.units, shape.scale,
                                missing=MISSING)},
      normalisation=dict(divisor=top, maximum=top),
      grid=georeference.shaped(maps.grid, *_crop(crop), block, sides),
      licence=radar_files.LICENCES.get(maps.network, "of the data's producer"),
      description=f'Radar rain of {maps.network.upper()}, every {maps.minutes} minutes') as writer:
    with tqdm(total=len(maps.times), desc='writing', unit='map') as bar:
      for start, stop in spans:
        key = f'{maps.times[start]}-{stop - start}'
        if not writer.has(key):
          frames = np.empty((stop - start, *first.shape), np.uint16)
          for i in range(start, stop):
            one = shape(maps.raw(i), maps.scale, maps.minutes, maps.name(i))
            if one.shape != first.shape:
              raise StoreError(f'{maps.name(i)}: {one.shape[0]}x{one.shape[1]} pixels, but '
                               f'{maps.name(0)} has {first.shape[0]}x{first.shape[1]}')
            frames[i - start] = one
          writer.add(key, {'frames': frames}, split=str(labels[start]),
                     source=f'{maps.name(start)}..{maps.name(stop - 1)}',
                     time=str(maps.times[start]))
        bar.update(stop - start)
    store = writer.finish(lambda store: _card(store, maps, window, top))
  print(cards.text(store.meta['card']))
  print(following(store))
  return store


def following(store: ClipStore) -> str:
  """The next command."""
  kind = 'bom' if store.name.endswith('bom') else 'knmi'
  return ('next: python -m stp_jax.main --config=configs/nowcast.py'
          f':dataset={kind} --store={store.path}')


def _spans(times, labels, minutes: int, longest: int) -> list[tuple[int, int]]:
  """(first, behind the last) of each clip: cut at gaps, between splits, and when they get long."""
  step = np.timedelta64(minutes, 'm')
  cut = np.flatnonzero((np.diff(times) != step) | (labels[1:] != labels[:-1])) + 1
  ends = [0, *cut.tolist(), len(times)]
  return [(i, min(i + longest, stop)) for start, stop in itertools.pairwise(ends)
          for i in range(start, stop, longest)]


def _card(store: ClipStore, maps, window: int, top: float) -> dict:
  spans = [dict(split=c.split, length=c.length) for c in store.clips]
  steps = np.diff(maps.times).astype(int) // maps.minutes - 1
  card = dict(name=store.name, first=str(maps.times[0]), last=str(maps.times[-1]),
              **cards.clips(spans, window))
  stream = store.streams['frames']
  card['facts'] = {
      'cadence': f'{maps.minutes} min', 'frames': f'{stream.shape[0]} x {stream.shape[1]}, '
      f'steps of {stream.scale:g} {stream.units}; a model sees {top:g} {stream.units} as 1',
      'files': len(maps.paths), 'files skipped': len(maps.bad),
      'gaps': f'{int((steps > 0).sum())}, {int(steps[steps > 0].sum())} maps'}
  card['statistics'] = cards.sampled(store)
  card['notes'] = [f'split {k}: no window of {window} frames' for k, v in card['splits'].items()
                   if not v['windows']]
  if maps.coded:
    card['notes'].append(f'floats of the files are kept in steps of {radar_files.STEP:g} mm')
  card['notes'] += [f'skipped: {" ".join(maps.bad[:20])}'] if maps.bad else []
  return card
