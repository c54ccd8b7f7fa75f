"""The order of training samples, and the batches that a process reads of it, through Grain.

Sample k is a function of (seed, k) alone, whatever reads it: any number of processes, devices and
loader workers sees the same global batches.
"""

import pathlib
from collections.abc import Sequence

import grain
import jax
import numpy as np

from stp_jax.data import orphans, pipeline
from stp_jax.data.spec import DataSpec
from stp_jax.typing import Batch


class _Batches(grain.MapDataset):
  """Batch k of a shuffled, repeated dataset, of which only some rows are read."""

  def __init__(self, parent: grain.MapDataset, first: int, size: int, rows: np.ndarray):
    super().__init__(parent)
    self._first, self._size, self._rows = first, size, rows.tolist()

  def __len__(self) -> int:
    return (len(self._parent) - self._first) // self._size

  def __str__(self) -> str:
    return f'Batches[{self._first}::{self._size}]'

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    begin = self._first + index * self._size
    items = [self._parent[begin + row] for row in self._rows]
    return {k: np.stack([item[k] for item in items]) for k in items[0]}


class TrainBatches:
  """Endless batches. A position is one number, the samples that all processes together have taken.

  Attributes:
    position: samples of the global batches handed out so far.
  """

  def __init__(self, mixed: grain.MapDataset, transform, size: int, rows: np.ndarray, workers: int):
    self._mixed, self._transform, self._workers = mixed, transform, workers
    self._size, self._rows, self._iterator = size, rows, None
    self.position = 0

  def seek(self, position: int) -> None:
    """The next batch begins with sample `position`."""
    self.close()
    self.position = int(position)

  def __iter__(self):
    return self

  def __next__(self) -> Batch:
    if self._iterator is None:
      batches = _Batches(self._mixed, self.position, self._size, self._rows).map(self._transform)
      # Threads only slow memory maps down (specs/performance: 29.7k -> 16.3k windows/s with two).
      dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
      if self._workers:
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=self._workers),
            worker_init_fn=orphans.worker_init)
      self._iterator = iter(dataset)
    batch = next(self._iterator)
    self.position += self._size
    return batch

  def close(self) -> None:
    """Ends the loader processes."""
    if self._iterator is not None and hasattr(self._iterator, 'close'):
      self._iterator.close()
    self._iterator = None


def _mixed(datasets: list[grain.MapDataset], sizes: Sequence[int], config_data, seed: int
           ) -> grain.MapDataset:
  """The order of training samples: each store shuffled anew every epoch, and their mixture."""
  shuffled = [d.seed(seed).shuffle().repeat() for d in datasets]
  weights = list(config_data.weights) or [1 if config_data.balanced else n for n in sizes]
  if len(weights) != len(shuffled):
    raise ValueError(f'data.weights: {len(weights)} weights for {len(shuffled)} stores')
  # Proportional mixing by default: the weights are normalised by Grain.
  return shuffled[0] if len(shuffled) == 1 else grain.MapDataset.mix(shuffled, weights)


def train_iterator(
    found: Sequence[pipeline.WindowSource], spec: DataSpec, config_data, t_in: int, seed: int,
    sharding: jax.sharding.Sharding | None = None,
) -> TrainBatches:
  """Shuffled, repeated batches: of every global batch the rows of this process, no others.

  Args:
    sharding: of a batch; None: this process takes all rows.
  """
  mixed = _mixed([grain.MapDataset.source(s) for s in found], [len(s) for s in found],
                 config_data, seed)
  size = config_data.batch_size
  mine = np.arange(size) if sharding is None else pipeline.rows(sharding, size)

  def training(batch):
    batch = pipeline.honest(dict(batch), spec, config_data.future_forcings, t_in)
    batch.pop('observed', None)
    return batch

  return TrainBatches(mixed, training, size, mine, config_data.workers)


def sample_ids(found: Sequence[pipeline.WindowSource], config_data, seed: int, position: int
               ) -> list[tuple[int, int]]:
  """(source, number in it) of the `batch_size` samples from `position` on; reads no frame."""
  numbers = [grain.MapDataset.source([(i, j) for j in range(len(s))]) for i, s in enumerate(found)]
  mixed = _mixed(numbers, [len(s) for s in found], config_data, seed)
  return [mixed[position + k] for k in range(config_data.batch_size)]


def sample_name(source, number: int) -> str:
  """A training sample as a person finds it again: store, clip, first or last frame."""
  windows = getattr(source, '_windows', getattr(source, '_samples', None))
  name = pathlib.Path(source.store.path).name
  if windows is None:
    return f'{name} sample {number}'
  clip, at = windows[number].tolist()
  return f'{name} clip {clip} frame {at} ({source.store.clips[clip].source})'
