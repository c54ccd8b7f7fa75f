"""The clip store: one folder, memory-mapped, that every importer writes and every run reads.

  meta.json            version, names, units, scale, missing value, cadence, grid, checksums
  clips.json           clips: first frame, length, time of the first frame, split key, source file
  <stream>-00000.npy   shards `[n, H, W, C]` in native integers or floats; a clip lies in one shard
  forcings.npy         `[N, F]` float32, physical units, the value valid at the frame's time
  forcings_known.npy   `[N, F]` the newest value that was *available* at the frame's time
  forcings_delay.npy   `[N, F]` hours after the frame's time at which its value becomes available
  forcings_forecast.npy `[N, F]` the driver file's own predictions, NaN where there is none

A store is written once, into `<path>.partial`, and renamed when it is complete and was read back.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

VERSION = 1
_SHARD_BYTES = 64 << 20
_FORCING_FILES = ('forcings', 'forcings_known', 'forcings_delay', 'forcings_forecast')


@dataclasses.dataclass(frozen=True)
class Stream:
  """One kind of frame. `physical = raw * scale + offset`, unless raw equals `missing`."""
  shape: tuple[int, int, int]  # H, W, C
  dtype: str
  units: str = '1'
  scale: float = 1.0
  offset: float = 0.0
  missing: float | None = None


@dataclasses.dataclass(frozen=True)
class Forcing:
  """A driver or calendar value. `known_ahead`: its future is known at issue time (calendar)."""
  name: str
  units: str = '1'
  known_ahead: bool = False


@dataclasses.dataclass(frozen=True)
class Clip:
  """Consecutive frames at the store's cadence. `time`: ISO time of the first frame, or None."""
  start: int  # first frame, counted over the whole store
  length: int
  split: str
  source: str
  time: str | None
  shard: int
  offset: int  # first frame inside its shard

  def times(self, cadence_hours: float) -> np.ndarray | None:
    """datetime64[m] `[length]`, or None when the source has no clock."""
    if self.time is None:
      return None
    minutes = np.round(np.arange(self.length) * cadence_hours * 60).astype('timedelta64[m]')
    return np.datetime64(self.time, 'm') + minutes


class StoreError(ValueError):
  """A store that cannot be written or read; the message names the file and the cure."""


def _checksum(path: pathlib.Path) -> int:
  value = 0
  with path.open('rb') as file:
    while chunk := file.read(1 << 24):
      value = zlib.crc32(chunk, value)
  return value


def write_json(path: pathlib.Path, tree) -> None:
  """Writes JSON so that a reader sees the old file or the new one, never half of it."""
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('w') as file:
    json.dump(tree, file, indent=1)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)


def _write_npy(path: pathlib.Path, array: np.ndarray) -> int:
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('wb') as file:
    np.save(file, array)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)
  # What the disk holds, not what was meant: a short write is found here, not weeks later.
  if not np.array_equal(np.load(path), array, equal_nan=array.dtype.kind == 'f'):
    raise StoreError(f'{path}: reads back differently from what was written; check the disk')
  return _checksum(path)


class StoreWriter:
  """Writes a store clip by clip; a rerun after a kill continues behind the last whole shard.

  `recipe` is anything JSON that determines the content (importer, options, input files). A partial
  store of another recipe is discarded; a complete one of the same recipe makes `complete` true.

    with StoreWriter(out, ...) as writer:
      if not writer.complete:
        for key, clip in ...:
          if not writer.has(key):
            writer.add(key, {'frames': maps}, split='train', source='codg.12i', time='2012-11-18')
        writer.finish(card={...})
  """

  def __init__(
      self, path, *, name: str, streams: Mapping[str, Stream], cadence_hours: float,
      recipe: Mapping, forcings: Sequence[Forcing] = (), normalisation: Mapping | None = None,
      grid: Mapping | None = None, licence: str = '', description: str = '',
  ):
    self.path = pathlib.Path(path)
    self.partial = self.path.with_name(self.path.name + '.partial')
    self._streams, self._forcings = dict(streams), tuple(forcings)
    self._recipe = json.loads(json.dumps(recipe))
    self._meta = dict(
        version=VERSION, name=name, description=description, cadence_hours=cadence_hours,
        streams={k: dataclasses.asdict(s) for k, s in streams.items()},
        forcings=[dataclasses.asdict(f) for f in forcings],
        normalisation=dict(normalisation or {}), grid=dict(grid or {}), licence=licence,
        recipe=self._recipe)
    self.complete = False
    if self.path.exists():
      if not (self.path / 'meta.json').exists():
        raise StoreError(f'{self.path}: exists and is no clip store; choose another --out')
      if ClipStore(self.path).meta['recipe'] != self._recipe:
        raise StoreError(
            f'{self.path}: holds a store made from other inputs or options; delete it or choose '
            'another --out')
      self.complete = True
    self._clips, self._keys, self._sums, self._frames = [], [], {}, 0
    self._buffer, self._buffered_bytes, self._shard = [], 0, 0
    if not self.complete:
      self._resume()

  def _resume(self) -> None:
    journal = self.partial / 'journal.json'
    if journal.exists():
      state = json.loads(journal.read_text())
      if state['recipe'] == self._recipe and state['version'] == VERSION:
        self._clips, self._keys = state['clips'], state['keys']
        self._sums, self._shard, self._frames = state['sums'], state['shard'], state['frames']
        return
    shutil.rmtree(self.partial, ignore_errors=True)
    self.partial.mkdir(parents=True)

  def has(self, key: str) -> bool:
    """Whether clip `key` is already on disk, from this run or from one that was killed."""
    return key in self._keys

  def add(
      self, key: str, frames: Mapping[str, np.ndarray], *, split: str, source: str,
      time: str | None = None, forcings: np.ndarray | None = None,
      known: np.ndarray | None = None, delay: np.ndarray | None = None,
      forecast: np.ndarray | None = None,
  ) -> None:
    """Adds one clip: `{stream: [T, H, W, C]}` raw values, forcings `[T, F]` (see the module)."""
    if set(frames) != set(self._streams):
      raise StoreError(f'{source}: streams {sorted(frames)}, the store has {sorted(self._streams)}')
    length = len(next(iter(frames.values())))
    for name, value in frames.items():
      spec = self._streams[name]
      if value.shape != (length, *spec.shape) or value.dtype != np.dtype(spec.dtype):
        raise StoreError(
            f'{source}: stream {name} is {value.dtype}{list(value.shape)}, the store holds '
            f'{spec.dtype}{[length, *spec.shape]}; resize it or keep it in a store of its own')
    shape = (length, len(self._forcings))
    values = np.zeros(shape) if forcings is None else np.asarray(forcings)
    ahead = np.array([f.known_ahead for f in self._forcings], bool)
    columns = dict(
        forcings=values, forcings_known=values if known is None else known,
        forcings_delay=np.zeros(shape) if delay is None else np.where(ahead, 0, delay),
        forcings_forecast=np.full(shape, np.nan) if forecast is None else forecast)
    columns['forcings_known'] = np.where(ahead, values, columns['forcings_known'])
    for name, value in columns.items():
      if value.shape != shape:
        raise StoreError(f'{source}: {name} has shape {value.shape}, not {shape}')
    self._buffer.append((key, frames, columns, dict(
        length=length, split=split, source=source, time=None if time is None else str(time))))
    self._buffered_bytes += sum(v.nbytes for v in frames.values())
    if self._buffered_bytes >= _SHARD_BYTES:
      self._flush()

  def _flush(self) -> None:
    if not self._buffer:
      return
    shard = self._shard
    files = {
        f'{name}-{shard:05d}.npy': np.concatenate([clip[1][name] for clip in self._buffer])
        for name in self._streams}
    files |= {
        f'{name}-{shard:05d}.npy':
            np.concatenate([clip[2][name] for clip in self._buffer]).astype(np.float32)
        for name in _FORCING_FILES}
    for name, array in files.items():
      self._sums[name] = _write_npy(self.partial / name, array)
    offset = 0
    for key, _, _, clip in self._buffer:
      self._clips.append(dict(clip, start=self._frames + offset, shard=shard, offset=offset))
      self._keys.append(key)
      offset += clip['length']
    self._frames += offset
    self._shard += 1
    self._buffer, self._buffered_bytes = [], 0
    write_json(self.partial / 'journal.json', dict(
        version=VERSION, recipe=self._recipe, clips=self._clips, keys=self._keys, sums=self._sums,
        shard=self._shard, frames=self._frames))

  def finish(self, card: Mapping | None = None) -> 'ClipStore':
    """Flushes, joins the forcings, checks every shard and renames the folder into place."""
    self._flush()
    if not self._clips:
      raise StoreError(f'{self.path}: nothing to store: no clip was found in the input')
    for name in _FORCING_FILES:
      parts = [self.partial / f'{name}-{i:05d}.npy' for i in range(self._shard)]
      self._sums[f'{name}.npy'] = _write_npy(
          self.partial / f'{name}.npy', np.concatenate([np.load(p) for p in parts]))
      for part in parts:
        self._sums.pop(part.name)
    write_json(self.partial / 'clips.json', self._clips)
    self._sums['clips.json'] = _checksum(self.partial / 'clips.json')
    write_json(self.partial / 'meta.json', dict(
        self._meta, frames=self._frames, shards=self._shard, card=dict(card or {}),
        checksum=self._sums))
    verify(self.partial)
    self.partial.replace(self.path)
    for stale in [*self.path.glob('forcings*-*.npy'), self.path / 'journal.json']:
      stale.unlink()
    return ClipStore(self.path)

  def __enter__(self):
    return self

  def __exit__(self, exc_type, *_):
    # An error leaves whole shards for the rerun, or nothing at all.
    if exc_type is not None and not self._clips:
      shutil.rmtree(self.partial, ignore_errors=True)


def verify(path) -> None:
  """Reads every file of a store and compares checksums; raises StoreError naming the file."""
  path = pathlib.Path(path)
  for name, expected in json.loads((path / 'meta.json').read_text())['checksum'].items():
    if not (path / name).exists():
      raise StoreError(f'{path / name}: missing; prepare the store again')
    if _checksum(path / name) != expected:
      raise StoreError(f'{path / name}: damaged (checksum differs); prepare the store again')


class ClipStore:
  """Reads a store. Opening touches only meta.json and clips.json; frames stay on disk."""

  def __init__(self, path):
    self.path = pathlib.Path(path)
    if not (self.path / 'meta.json').exists():
      raise StoreError(
          f'{self.path}: no clip store (meta.json is missing); make one with '
          'python -m stp_jax.prepare')
    try:
      self.meta = json.loads((self.path / 'meta.json').read_text())
      version = self.meta['version']
    except (json.JSONDecodeError, KeyError, TypeError) as error:
      raise StoreError(f'{self.path}/meta.json: unreadable ({error}); prepare it again') from error
    if version != VERSION:
      raise StoreError(
          f'{self.path}: store version {version}, this stp_jax reads {VERSION}; prepare it again')
    self.name: str = self.meta['name']
    self.cadence_hours: float = self.meta['cadence_hours']
    self.streams = {
        k: Stream(**dict(s, shape=tuple(s['shape']))) for k, s in self.meta['streams'].items()}
    self.forcings = [Forcing(**f) for f in self.meta['forcings']]
    self.clips = [Clip(**c) for c in json.loads((self.path / 'clips.json').read_text())]
    self.splits = sorted({c.split for c in self.clips})

  def __repr__(self):  # Grain writes the source's repr into its checkpoints.
    return f'ClipStore({self.name!r}, frames={self.meta["frames"]})'

  def __getstate__(self):  # Loader workers map the files themselves.
    return {k: v for k, v in self.__dict__.items() if not isinstance(v, dict) or k != '_maps'}

  @functools.cached_property
  def _shards(self) -> dict[tuple[str, int], np.ndarray]:
    shards = {}
    for stream, spec in self.streams.items():
      for i in range(self.meta['shards']):
        file = self.path / f'{stream}-{i:05d}.npy'
        try:
          array = np.load(file, mmap_mode='r')
        except (OSError, ValueError) as error:
          raise StoreError(f'{file}: {error}; prepare the store again') from error
        if array.shape[1:] != spec.shape or array.dtype != np.dtype(spec.dtype):
          raise StoreError(f'{file}: {array.dtype}{list(array.shape)} is not what meta.json says')
        shards[stream, i] = array.view(np.ndarray)
    return shards

  @functools.cached_property
  def _columns(self) -> dict[str, np.ndarray]:
    return {name: np.load(self.path / f'{name}.npy') for name in _FORCING_FILES}

  def frames(self, clip: int, start: int = 0, length: int | None = None, stream: str = 'frames'):
    """Raw frames `[length, H, W, C]` of a clip, a read-only view of the memory map."""
    c = self.clips[clip]
    length = c.length - start if length is None else length
    return self._shards[stream, c.shard][c.offset + start:c.offset + start + length]

  def column(self, name: str) -> np.ndarray:
    """One of `forcings`, `forcings_known`, `forcings_delay`, `forcings_forecast`: `[N, F]`."""
    return self._columns[name]

  def physical(self, raw: np.ndarray, stream: str = 'frames') -> np.ndarray:
    """float32 in the stream's units, NaN where the value is missing."""
    spec = self.streams[stream]
    value = raw.astype(np.float32) * np.float32(spec.scale) + np.float32(spec.offset)
    return value if spec.missing is None else np.where(raw == spec.missing, np.nan, value)

  def windows(self, splits: Iterable[str], length: int, stride: int = 1) -> np.ndarray:
    """int32 `[K, 2]` (clip, start) of every whole window in these splits, in order."""
    wanted = set(splits)
    rows = [
        np.stack([np.full(len(starts), i), starts], 1)
        for i, c in enumerate(self.clips) if c.split in wanted
        for starts in [np.arange(0, c.length - length + 1, stride)]]
    return np.concatenate(rows or [np.zeros((0, 2))]).astype(np.int32)


def assert_disjoint(stores: Sequence[ClipStore], train: Iterable[str]) -> None:
  """Raises StoreError if a training clip shares time, or a source without clock, with another.

  The clock is shared by all stores: two analysis centres see the same ionosphere.
  """
  train = set(train)
  clips = [(s, i, c, c.times(s.cadence_hours)) for s in stores for i, c in enumerate(s.clips)]

  def label(store, i, clip):
    return f'{store.path} clip {i} ({clip.split}, {clip.source}, {clip.time})'

  timed = sorted(
      ((t[0], t[-1], label(s, i, c)) for s, i, c, t in clips if t is not None and c.split in train),
      key=lambda span: span[0])
  firsts = np.array([span[0] for span in timed], 'datetime64[m]')
  sources = {(s.path, c.source) for s, _, c, t in clips if t is None and c.split in train}
  for store, i, clip, times in clips:
    if clip.split in train:
      continue
    if times is None and (store.path, clip.source) in sources:
      raise StoreError(f'leak: {label(store, i, clip)} comes from a training source; split by clip')
    for _, last, other in timed[:np.searchsorted(firsts, times[-1], 'right')] if times is not None \
        else ():
      if last >= times[0]:
        raise StoreError(f'leak: {label(store, i, clip)} overlaps in time with {other}')
