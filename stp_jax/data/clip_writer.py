"""Writing a clip store: shard by shard, resumable, renamed into place when it was read back."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stp_jax import files
from stp_jax.data import clip_table, store_check, store_journal
from stp_jax.data.clip_store import (
    FORCING_FILES,
    VERSION,
    ClipStore,
    Forcing,
    StoreError,
    Stream,
    verify,
)

_SHARD_BYTES = 64 << 20
_CLIP_OVERHEAD = 2048


def write_json(path: pathlib.Path, tree) -> None:
  """Writes JSON so that a reader sees the old file or the new one, never half of it."""
  with files.whole(path, sync=True) as partial, partial.open('w') as file:
    json.dump(tree, file, indent=1)


def _write_npy(path: pathlib.Path, array: np.ndarray) -> int:
  with files.whole(path, sync=True) as partial, partial.open('wb') as file:
    np.save(file, array)
  # What the disk holds, not what was meant: a short write is found here, not weeks later.
  if not np.array_equal(np.load(path), array, equal_nan=array.dtype.kind == 'f'):
    raise StoreError(f'{path}: reads back differently from what was written; check the disk')
  return files.checksum(path)


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
    try:  # what no reader would open is said now, not after hours
      store_check.fields(json.loads(json.dumps(self._meta)) | dict(frames=0, checksum={}, card={}))
    except (ValueError, OverflowError) as error:
      raise StoreError(f'{self.path}: {error}; a store cannot hold this') from error
    self._journal = store_journal.Journal(
        self.partial, dict(version=VERSION, recipe=self._recipe), self._names)
    self.complete = False
    if self.path.exists():
      if not (self.path / 'meta.json').exists():
        raise StoreError(f'{self.path}: exists and is no clip store; choose another --out')
      try:
        made = ClipStore(self.path).meta['recipe']
      except StoreError as error:
        raise StoreError(f'{error}: delete {self.path} first') from error
      if made != self._recipe:
        raise StoreError(
            f'{self.path}: holds a store made from other inputs or options; delete it or choose '
            'another --out')
      self.complete = True
    # Clips stand in the journal, not in memory: there may be half a million.
    self._count, self._keys, self._sums, self._frames = 0, set(), {}, 0
    self._buffer, self._buffered_bytes, self._shard = [], 0, 0
    if not self.complete:
      self._resume()

  def _names(self, shard: int) -> list[str]:
    names = (*self._streams, *(FORCING_FILES if self._forcings else ()))
    return [f'{name}-{shard:05d}.npy' for name in names]

  def _resume(self) -> None:
    for entry in self._journal.resume():
      self._keys.update(entry['keys'])
      self._sums |= entry['sums']
      self._count += len(entry['clips'])
      self._frames += sum(c['length'] for c in entry['clips'])
      self._shard += 1
    if not self._shard:
      shutil.rmtree(self.partial, ignore_errors=True)
      self.partial.mkdir(parents=True)
      self._journal.begin()

  def has(self, key: str) -> bool:
    """Whether clip `key` is already on disk, from a run that was killed."""
    return key in self._keys

  @property
  def clips(self) -> int:
    """Clips on disk."""
    return self._count

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
    if not length:
      raise StoreError(f'{source}: a clip without frames; leave it out')
    try:
      clip_table.check_time(str(time or ''))
    except ValueError as error:
      raise StoreError(f'{source}: {error}') from error
    for name, value in frames.items():
      spec = self._streams[name]
      if value.shape != (length, *spec.shape) or value.dtype != np.dtype(spec.dtype):
        raise StoreError(
            f'{source}: stream {name} is {value.dtype}{list(value.shape)}, the store holds '
            f'{spec.dtype}{[length, *spec.shape]}; resize it or keep it in a store of its own')
    columns = self._columns(source, length, forcings, known, delay, forecast)
    self._buffer.append((key, frames, columns, dict(
        length=length, split=split, source=source, time=None if time is None else str(time))))
    # A clip of tiny frames is mostly what surrounds them.
    self._buffered_bytes += sum(v.nbytes for v in frames.values()) + _CLIP_OVERHEAD
    if self._buffered_bytes >= _SHARD_BYTES:
      self._flush()

  def _columns(self, source, length, forcings, known, delay, forecast) -> dict[str, np.ndarray]:
    if not self._forcings:
      return {}
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
    return columns

  def _flush(self) -> None:
    if not self._buffer:
      return
    shard = self._shard
    arrays = {
        f'{name}-{shard:05d}.npy': np.concatenate([clip[1][name] for clip in self._buffer])
        for name in self._streams}
    arrays |= {
        f'{name}-{shard:05d}.npy':
            np.concatenate([clip[2][name] for clip in self._buffer]).astype(np.float32)
        for name in FORCING_FILES if self._forcings}
    sums = {name: _write_npy(self.partial / name, array) for name, array in arrays.items()}
    offset, clips = 0, []
    for _, _, _, clip in self._buffer:
      clips.append(dict(clip, start=self._frames + offset, shard=shard, offset=offset))
      offset += clip['length']
    keys = [clip[0] for clip in self._buffer]
    self._journal.append(dict(clips=clips, keys=keys, sums=sums))
    self._sums |= sums
    self._count += len(clips)
    self._frames += offset
    self._shard += 1
    self._buffer, self._buffered_bytes = [], 0

  def finish(
      self, card: Mapping | Callable[[ClipStore], Mapping] | None = None) -> 'ClipStore':
    """Flushes, joins the forcings, checks every shard and renames the folder into place.

    Args:
      card: the data card, or what makes it of the written store.
    """
    self._flush()
    if not self._count:
      raise StoreError(f'{self.path}: nothing to store: no clip was found in the input')
    for name in FORCING_FILES:
      parts = [self.partial / f'{name}-{i:05d}.npy' for i in range(self._shard)
               if self._forcings]
      whole = np.concatenate([np.load(p) for p in parts]) if parts else np.zeros(
          (self._frames, 0), np.float32)
      self._sums[f'{name}.npy'] = _write_npy(self.partial / f'{name}.npy', whole)
      for part in parts:
        self._sums.pop(part.name)
    if sum(len(entry['clips']) for entry in self._journal.entries()) != self._count:
      raise StoreError(f'{self._journal.path}: damaged meanwhile; prepare the store again')
    with (self.partial / 'clips.json').open('w') as file:
      clip_table.write(file, (c for entry in self._journal.entries() for c in entry['clips']))
    self._sums['clips.json'] = files.checksum(self.partial / 'clips.json')
    meta = dict(self._meta, frames=self._frames, shards=self._shard, checksum=self._sums, card={})
    if callable(card):
      write_json(self.partial / 'meta.json', meta)
      card = card(ClipStore(self.partial))
    write_json(self.partial / 'meta.json', dict(meta, card=dict(card or {})))
    verify(self.partial)
    self.partial.replace(self.path)
    for stale in [*self.path.glob('forcings*-*.npy'), self.path / self._journal.path.name]:
      stale.unlink()
    return ClipStore(self.path)

  def __enter__(self):
    return self

  def __exit__(self, exc_type, *_):
    # An error leaves whole shards for the rerun, or nothing at all.
    if exc_type is not None and not self._count:
      shutil.rmtree(self.partial, ignore_errors=True)
