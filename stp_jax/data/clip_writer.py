"""Writing a clip store: shard by shard, resumable, renamed into place when it was read back."""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import numpy as np

from stp_jax.data.clip_store import (
    FORCING_FILES,
    VERSION,
    ClipStore,
    Forcing,
    StoreError,
    Stream,
    checksum,
    verify,
)

_SHARD_BYTES = 64 << 20


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
  return checksum(path)


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
        for name in FORCING_FILES}
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
    for name in FORCING_FILES:
      parts = [self.partial / f'{name}-{i:05d}.npy' for i in range(self._shard)]
      self._sums[f'{name}.npy'] = _write_npy(
          self.partial / f'{name}.npy', np.concatenate([np.load(p) for p in parts]))
      for part in parts:
        self._sums.pop(part.name)
    write_json(self.partial / 'clips.json', self._clips)
    self._sums['clips.json'] = checksum(self.partial / 'clips.json')
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
