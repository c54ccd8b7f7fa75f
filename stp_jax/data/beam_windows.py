"""Samples of beam stores by random access: sensors' windows, positions and beams.

A sample belongs to the frame that it ends at; the stream `window` says how many frames back each of
its frames lies, see `data.deepsense`.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.data.spec import DataSpec

SENSORS = ('image', 'lidar', 'radar')
NEEDED = ('window', 'beam')
UPSTREAM = 'upstream'


def streams_of(store: ClipStore) -> dict[str, dict[str, Any]]:
  """The store's streams as plain JSON: shape, dtype, scale, offset."""
  return {n: dict(shape=list(s.shape), dtype=s.dtype, scale=s.scale, offset=s.offset)
          for n, s in store.streams.items()}


def check_streams(streams: Mapping[str, Any], modalities: Sequence[str], name: str) -> None:
  """Raises StoreError, one line, where a store does not have a modality."""
  for modality in (*modalities, *NEEDED):
    if modality not in streams:
      there = ' '.join(streams) or 'none'
      raise StoreError(f'{name}: no stream {modality!r} (it has {there}); prepare it with '
                       'deepsense, or leave the modality out with modalities=')


def make_spec(stores: Sequence[ClipStore]) -> DataSpec:
  """The spec of a run on `stores`, which must have streams alike.

  Raises:
    StoreError: stores that differ, or hold no beams.
  """
  first = stores[0]
  check_streams(first.streams, (), str(first.path))
  return for_stores(DataSpec(
      name=first.name, shape=tuple(next(iter(first.streams.values())).shape),
      description=first.meta['description'], licence=first.meta['licence'],
      cadence_hours=first.cadence_hours, grid=dict(first.meta['grid']),
      streams=streams_of(first)), stores, str(first.path))


def for_stores(spec: DataSpec, stores: Sequence[ClipStore], label: str) -> DataSpec:
  """A trained run's spec on other stores, which must have its sensors in its shapes and types.

  Raises:
    StoreError: a stream of another shape, type or scale.
  """
  for store in stores:
    for name, found in streams_of(store).items():
      known = spec.streams.get(name)
      # Labels may cover other steps, or none; what is read decides in `sources`.
      if name in SENSORS and known and dict(known, shape=list(known['shape'])) != found:
        raise StoreError(
            f'{store.path}: {name} {found["dtype"]}{found["shape"]}, but {label} has '
            f'{known["dtype"]}{list(known["shape"])}; prepare both alike (--size)')
  return spec


class BeamSource:
  """Random access to the samples of one store.

  Items: `image`, `lidar`, `radar` `[T, H, W, C]` as stored, `gps` float32 `[2, 2]` metres, `beam`
  int32 `[K]` (-1 = unknown), `scenario` and `row` int32 `[]`.
  """

  def __init__(self, store: ClipStore, samples: np.ndarray, modalities: Sequence[str], t_in: int,
               t_out: int):
    self.store, self._samples, self._modalities = store, samples, tuple(modalities)
    self._t_in, self._t_out = t_in, t_out
    names = [f.name for f in store.forcings]
    columns = store.column('forcings')
    self._scenario, self._row = (
        columns[:, names.index(n)] if n in names else np.zeros(len(columns), np.float32)
        for n in ('scenario', 'row'))

  def __len__(self) -> int:
    return len(self._samples)

  def __repr__(self) -> str:
    return f'BeamSource({self.store!r}, samples={len(self)}, frames={self._t_in})'

  def __getitem__(self, index) -> dict[str, np.ndarray]:
    clip, end = self._samples[index].tolist()
    store, at = self.store, self.store.clips[clip].start + end
    back = store.frames(clip, end, 1, 'window').reshape(-1)[-self._t_in:].astype(int)
    first = end - int(back.max())
    item = {}
    for name in self._modalities:
      if name == 'gps':
        item['gps'] = store.frames(clip, end, 1, 'gps').reshape(2, 2)
        continue
      # Neighbouring frames are one slice of the memory map.
      frames = store.frames(clip, first, end - first + 1, name)
      item[name] = frames[end - back - first]
    item['beam'] = store.frames(clip, end, 1, 'beam').reshape(-1)[:self._t_out].astype(np.int32)
    item['scenario'] = np.int32(self._scenario[at])
    item['row'] = np.int32(self._row[at])
    return item

  def position(self, index) -> dict[str, np.ndarray]:
    """What is known without a sensor: `gps`, `beam`, `scenario`."""
    clip, end = self._samples[index].tolist()
    scenario = self._scenario[self.store.clips[clip].start + end]
    return dict(
        gps=self.store.frames(clip, end, 1, 'gps').reshape(2, 2), scenario=np.int32(scenario),
        beam=self.store.frames(clip, end, 1, 'beam').reshape(-1)[:self._t_out].astype(np.int32))

  def only(self, indices: Sequence[int]) -> 'BeamSource':
    """A source of these samples."""
    other = copy.copy(self)
    other._samples = self._samples[np.atleast_1d(indices)]
    return other


def samples(store: ClipStore, splits: Sequence[str]) -> np.ndarray:
  """int32 `[N, 2]` (clip, frame that it ends at) of every sample in these splits.

  In a store that was split as upstream does, samples of its single split lie in `train` or
  `validation` as often as upstream's copies do.
  """
  found = [np.zeros((0, 2))]
  names = [f.name for f in store.forcings]
  for i, clip in enumerate(store.clips):
    upstream = clip.split == UPSTREAM and UPSTREAM not in splits
    if not upstream and clip.split not in splits:
      continue
    ends = np.flatnonzero(store.frames(i, stream='window')[:, 0, 0, -1] >= 0)
    if upstream:
      columns = store.column('forcings')[clip.start + ends]
      copies = [columns[:, names.index(f'in_{s}')] for s in splits if f'in_{s}' in names]
      ends = np.repeat(ends, sum(copies, np.zeros(len(ends))).astype(int))
    found.append(np.stack([np.full(len(ends), i), ends], 1))
  return np.concatenate(found).astype(np.int32)


def sources(
    stores: Sequence[ClipStore], modalities: Sequence[str], splits: Sequence[str], *, t_in: int,
    t_out: int, stride: int = 1,
) -> list[BeamSource]:
  """One source per store that has samples in `splits`.

  Raises:
    StoreError: a modality that a store lacks, windows shorter than t_in, fewer beams than t_out.
    ValueError: no sample in any store.
  """
  found = []
  for store in stores:
    check_streams(store.streams, modalities, str(store.path))
    for field, stream, want, cure in (
        ('frames', 'window', t_in, 'choose a shorter window, or prepare it with --window=TtoK'),
        ('beams', 'beam', t_out, 'prepare it with --window=TtoK')):
      if store.streams[stream].shape[-1] < want:
        raise StoreError(f'{store.path}: samples of {store.streams[stream].shape[-1]} {field}, '
                         f'the run asks for {want}; {cure}')
    rows = samples(store, splits)[::stride]
    if len(rows):
      found.append(BeamSource(store, rows, modalities, t_in, t_out))
  if not found:
    there = sorted({c.split for s in stores for c in s.clips})
    raise ValueError(f'{" ".join(str(s.path) for s in stores)}: no sample in split '
                     f'{"+".join(splits)}; the stores have {" ".join(there)}')
  return found
