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
import pathlib
import re
import resource
from collections.abc import Iterable, Sequence

import numpy as np

from stp_jax import files
from stp_jax.data import clip_table, npy_file, store_check

VERSION = 1
FORCING_FILES = ('forcings', 'forcings_known', 'forcings_delay', 'forcings_forecast')
# An open map holds a file descriptor, of which a process has few: a large store has thousands of
# shards, and a run many stores.
_OPEN_SHARDS = max(16, min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 16))


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


class StoreError(ValueError):
  """A store that cannot be written or read; the message names the file and the cure."""


def _check_names(names: Iterable[str]) -> None:
  """Refuses a name that leads out of the store's folder."""
  for name in names:
    if not re.fullmatch(r'[A-Za-z0-9_.+-]+', name) or name.startswith('.'):
      raise StoreError(f'{name!r} is no name of a stream or file; refused')


def verify(path) -> None:
  """Reads every file of a store and compares checksums; raises StoreError naming the file."""
  path = pathlib.Path(path)
  for name, expected in json.loads((path / 'meta.json').read_text())['checksum'].items():
    if not (path / name).exists():
      raise StoreError(f'{path / name}: missing; prepare the store again')
    if files.checksum(path / name) != expected:
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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise StoreError(f'{self.path}/meta.json: unreadable ({error}); prepare it again') from error
    if version != VERSION:
      raise StoreError(
          f'{self.path}: store version {version}, this stp_jax reads {VERSION}; prepare it again')
    try:
      store_check.fields(self.meta)
      self.name: str = self.meta['name']
      self.cadence_hours: float = self.meta['cadence_hours']
      self.streams = {
          k: Stream(**dict(s, shape=tuple(s['shape']))) for k, s in self.meta['streams'].items()}
      self.forcings = [Forcing(**f) for f in self.meta['forcings']]
      _check_names([*self.streams, *self.meta['checksum']])
    except StoreError as error:
      raise StoreError(f'{self.path}/meta.json: {error}') from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
      raise StoreError(f'{self.path}/meta.json: not a store\'s ({type(error).__name__}: '
                       f'{str(error)[:120]}); prepare the store again') from error
    try:
      self.clips = clip_table.read(self.path / 'clips.json')
      self.splits = sorted(self.clips.splits)
      self._farthest = self.clips.check(self.meta['frames'])
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError,
            RecursionError) as error:
      raise StoreError(f'{self.path}/clips.json: unreadable ({type(error).__name__}: '
                       f'{str(error)[:160]}); prepare the store again') from error
    self._maps: dict[tuple[str, int], np.ndarray] = {}

  def __repr__(self):  # Grain writes the source's repr into its checkpoints.
    return f'ClipStore({self.name!r}, frames={self.meta["frames"]})'

  def __getstate__(self):  # Loader workers map the files themselves.
    return {**self.__dict__, '_maps': {}}

  def _shard(self, stream: str, number: int) -> np.ndarray:
    """A shard's memory map; the `_OPEN_SHARDS` used last stay open."""
    array = self._maps.pop((stream, number), None)
    if array is None:
      file, spec = self.path / f'{stream}-{number:05d}.npy', self.streams[stream]
      try:
        array = npy_file.load(file)
      except (OSError, ValueError, EOFError) as error:
        raise StoreError(f'{file}: {error}; prepare the store again') from error
      if array.shape[1:] != spec.shape or array.dtype != np.dtype(spec.dtype):
        raise StoreError(f'{file}: {array.dtype}{list(array.shape)} is not what meta.json says')
      array = array.view(np.ndarray)
      while len(self._maps) >= _OPEN_SHARDS:
        self._maps.pop(next(iter(self._maps)), None)
    self._maps[stream, number] = array
    return array

  @functools.cached_property
  def _columns(self) -> dict[str, np.ndarray]:
    try:
      return {p.stem: store_check.columns(
          p, npy_file.load(p, None), self.meta['frames'], len(self.forcings))
              for p in (self.path / f'{name}.npy' for name in FORCING_FILES)}
    except (OSError, ValueError, EOFError) as error:
      raise StoreError(f'{self.path}: forcings: {error}; prepare the store again') from error

  def frames(self, clip: int, start: int = 0, length: int | None = None, stream: str = 'frames'):
    """Raw frames `[length, H, W, C]` of a clip, a read-only view of the memory map.

    Raises:
      StoreError: frames before or after the clip, or a shard without them.
    """
    shard, offset, whole = self.clips.place(clip)
    length = whole - start if length is None else length
    if not 0 <= start <= start + length <= whole:  # those are another clip's
      raise StoreError(f'{self.path}: {length} frames from {start} on of clip {clip}, which has '
                       f'{whole}; prepare the store again')
    found = self._shard(stream, shard)[offset + start:offset + start + length]
    if len(found) < length:
      raise StoreError(f'{self.path / f"{stream}-{shard:05d}.npy"}: ends before clip {clip}; '
                       'prepare the store again')
    return found

  def column(self, name: str) -> np.ndarray:
    """One of `forcings`, `forcings_known`, `forcings_delay`, `forcings_forecast`: `[N, F]`."""
    return self._columns[name]

  def physical(self, raw: np.ndarray, stream: str = 'frames') -> np.ndarray:
    """float32 in the stream's units, NaN where the value is missing."""
    spec = self.streams[stream]
    value = raw.astype(np.float32) * np.float32(spec.scale) + np.float32(spec.offset)
    return value if spec.missing is None else np.where(raw == spec.missing, np.nan, value)

  def windows(self, splits: Iterable[str], length: int, stride: int = 1) -> np.ndarray:
    """int32 `[K, 2]` (clip, start) of every whole window in these splits, in order.

    Raises:
      StoreError: clips longer than their shards, before there are windows of them.
    """
    try:  # the size of one shard bounds what any clip can claim
      store_check.shard(self.path, *next(iter(self.streams.items())), self._farthest,
                        self.clips.place(self._farthest))
    except (OSError, ValueError) as error:
      raise StoreError(f'{self.path}: frames: {error}; prepare the store again') from error
    return self.clips.windows(splits, length, stride)


def assert_disjoint(stores: Sequence[ClipStore], train: Iterable[str]) -> None:
  """Raises StoreError if a training clip shares time, or a source without clock, with another.

  The clock is shared by all stores: two analysis centres see the same ionosphere.
  """
  train = set(train)

  def every(training: bool):
    for store in stores:
      for i, clip in enumerate(store.clips):
        if (clip.split in train) == training:
          ends = [clip.times(store.cadence_hours, k, 1) for k in (0, clip.length - 1)]
          yield store, i, clip, None if clip.time is None else np.concatenate(ends)

  def label(store, i, clip):
    return f'{store.path} clip {i} ({clip.split}, {clip.source}, {clip.time})'

  timed, sources = [], set()  # of hashes: there may be half a million clips without a clock
  for store, i, clip, times in every(True):
    if times is None:
      sources.add(hash((store.path, clip.source)))
    else:
      timed.append((times[0], times[-1], label(store, i, clip)))
  timed.sort(key=lambda span: span[0])
  firsts = np.array([span[0] for span in timed], 'datetime64[m]')
  for store, i, clip, times in every(False):
    if times is None and hash((store.path, clip.source)) in sources:
      raise StoreError(f'leak: {label(store, i, clip)} comes from a training source; split by clip')
    for _, last, other in timed[:np.searchsorted(firsts, times[-1], 'right')] if times is not None \
        else ():
      if last >= times[0]:
        raise StoreError(f'leak: {label(store, i, clip)} overlaps in time with {other}')
