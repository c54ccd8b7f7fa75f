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
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

VERSION = 1
FORCING_FILES = ('forcings', 'forcings_known', 'forcings_delay', 'forcings_forecast')


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


def checksum(path: pathlib.Path) -> int:
  value = 0
  with path.open('rb') as file:
    while chunk := file.read(1 << 24):
      value = zlib.crc32(chunk, value)
  return value


def verify(path) -> None:
  """Reads every file of a store and compares checksums; raises StoreError naming the file."""
  path = pathlib.Path(path)
  for name, expected in json.loads((path / 'meta.json').read_text())['checksum'].items():
    if not (path / name).exists():
      raise StoreError(f'{path / name}: missing; prepare the store again')
    if checksum(path / name) != expected:
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
    return {name: np.load(self.path / f'{name}.npy') for name in FORCING_FILES}

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
