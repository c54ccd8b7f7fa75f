"""From clip stores to batches: windows, padding of the last batch, global arrays.

A training batch holds `frames` `[B, T, H, W, C]` raw and `forcings` `[B, T, F]` physical, where F
are the columns of the DataSpec and unseen drivers are already replaced (data/forcings.py). An
evaluation batch holds also `mask` `[B]` (0 = padding), `index` `[B]` (the window's number),
`window` `[B, 2]` (its source, and its number there) and `observed` `[B, T, F]`, true drivers that
serve to sort scores into quiet and storm, never a model.
"""

import copy
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from stp_jax.data import clip_store, forcings
from stp_jax.data.spec import DataSpec
from stp_jax.typing import Batch

PARTS = ('forcings', 'forcings_known', 'forcings_delay', 'forcings_forecast')


class Windows:
  """Windows of one store by number: `[K, 2]` of clip and start, `length` frames each."""

  def __init__(self, store: clip_store.ClipStore, windows: np.ndarray, length: int):
    self.store, self._windows, self._length = store, windows, length

  def __len__(self) -> int:
    return len(self._windows)

  @property
  def places(self) -> np.ndarray:
    """int `[K, 2]`: clip and first frame in it of every window."""
    return self._windows

  def only(self, index: int) -> 'Windows':
    """A source of this one window."""
    other = copy.copy(self)
    other._windows = self._windows[index:index + 1]
    return other

  def times(self, index: int) -> np.ndarray | None:
    """datetime64[m] `[T]` of a window, or None without a clock."""
    clip, start = self._windows[index].tolist()
    return self.store.clips[clip].times(self.store.cadence_hours, start, self._length)


class WindowSource(Windows):
  """Random access to windows of one store: `{'frames' [T,H,W,C], 'columns' [T, 4F]}`, views.

  About 10 microseconds a window of 24x72x72 uint16 from a warm memory map.
  """

  def __init__(self, store: clip_store.ClipStore, windows: np.ndarray, length: int, spec: DataSpec):
    super().__init__(store, windows, length)
    names = [f.name for f in store.forcings]
    fill = np.zeros(len(store.column('forcings')), np.float32)
    # One row per frame holds the four columns of every forcing: a window is one slice.
    self._columns = np.stack(
        [[fill if c in spec.filled else store.column(part)[:, names.index(c)]
          for c in spec.columns] for part in PARTS]
    ).transpose(2, 0, 1).reshape(len(fill), -1) if spec.columns else np.zeros((len(fill), 0), 'f4')

  def __repr__(self) -> str:
    return f'WindowSource({self.store!r}, windows={len(self)}, length={self._length})'

  def __getitem__(self, index) -> dict[str, np.ndarray]:
    clip, start = self._windows[index].tolist()
    first = self.store.clips[clip].start + start
    return {'frames': self.store.frames(clip, start, self._length),
            'columns': self._columns[first:first + self._length]}


def sources(
    stores: Sequence[clip_store.ClipStore], spec: DataSpec, splits: Sequence[str], length: int,
    stride: int = 1,
) -> list[WindowSource]:
  """One source per store that has windows in `splits`.

  Raises:
    ValueError: no window of this length in any store; says how long the clips are.
  """
  found = [WindowSource(s, w, length, spec) for s in stores
           for w in [s.windows(splits, length, stride)] if len(w)]
  if not found:
    longest = max((c.length for s in stores for c in s.clips if c.split in splits), default=0)
    there = sorted({c.split for s in stores for c in s.clips})
    what = (f'the longest clip has {longest}' if longest else
            f'the stores have the splits {" ".join(there)}')
    raise ValueError(
        f'{" ".join(str(s.path) for s in stores)}: zero windows of t_in + t_out = {length} frames '
        f'in split {"+".join(splits)}: {what}; shorten t_in or t_out, or prepare other splits')
  return found


def selected(parts: dict[str, np.ndarray], spec: DataSpec, mode: str, t_in: int) -> np.ndarray:
  """`forcings.select` on the stored columns `{part: [B, T, F]}`; NaN where a value is lacking."""
  values, known, delay, forecast = (parts[p] for p in PARTS)
  return forcings.select(
      mode, values=values, known=known, delay=delay, forecast=forecast,
      known_ahead=np.array(spec.known_ahead, bool),
      mean=np.array(spec.training_mean, np.float32), t_in=t_in, cadence_hours=spec.cadence_hours)


def honest_columns(
    parts: dict[str, np.ndarray], spec: DataSpec, mode: str, t_in: int,
) -> np.ndarray:
  """What a forecast may see of the stored columns `{part: [B, T, F]}`: `[B, T, F]` float32.

  Raises:
    ValueError: a driver without any value that was available at issue time.
  """
  seen = selected(parts, spec, mode, t_in)
  bad = np.isnan(seen).any((0, 1))
  if bad.any():
    names = ' '.join(n for n, b in zip(spec.columns, bad) if b)
    raise ValueError(f'{spec.name}: {names} not known at issue time for some window; '
                     'data.future_forcings=none, or prepare with complete drivers')
  return seen


def honest(batch: dict, spec: DataSpec, mode: str, t_in: int, other: str = '') -> dict:
  """Replaces the four stored columns, where a source gives them, by what the forecast may see.

  `other`: a second mode, whose columns are in `other`. What it lacks is taken from the first one,
  since only columns that no model reads may lack anything, see `driver_modes.complete`.
  """
  if 'columns' not in batch:
    return batch
  parts = dict(zip(PARTS, np.split(batch.pop('columns'), 4, -1)))
  batch['forcings'] = honest_columns(parts, spec, mode, t_in)
  if other:
    seen = selected(parts, spec, other, t_in)
    batch['other'] = np.where(np.isnan(seen), batch['forcings'], seen)
  batch['observed'] = parts['forcings']
  return batch


def picked(total: int, limit: int = 0) -> np.ndarray:
  """Which of `total` windows an evaluation scores: all, or `limit` of them, evenly spread."""
  if limit and limit < total:
    return np.linspace(0, total - 1, limit).round().astype(int)
  return np.arange(total)


def eval_batches(
    found: Sequence[WindowSource], spec: DataSpec, config_data, t_in: int, limit: int = 0,
    multiple: int = 1, other: str = '',
) -> Iterator[dict[str, np.ndarray]]:
  """Every window once, in order; the last batch is padded by repeats with mask 0.

  Every process yields the same number of batches, each its own share of them; a row brings its own
  mask, so a padded last batch counts every window once however it is shared.

  Args:
    limit: at most so many windows, evenly spread; 0 = all.
    multiple: the batch size is rounded up to a multiple of this, the number of devices that share
      a batch; 1: nothing is shared, this process reads all of it.
    other: a second future-forcings mode, whose columns are `other` `[B, T, F]`.
  """
  where = [(i, j) for i, s in enumerate(found) for j in range(len(s))]
  where = [where[k] for k in picked(len(where), limit)]
  count, me = (1, 0) if multiple == 1 else (jax.process_count(), jax.process_index())
  size = -(-config_data.eval_batch_size // multiple) * multiple
  for begin in range(0, len(where), size):
    rows = range(begin + me * size // count, begin + (me + 1) * size // count)
    chosen = [where[min(r, len(where) - 1)] for r in rows]
    items = [found[i][j] for i, j in chosen]
    batch = {k: np.stack([item[k] for item in items]) for k in items[0]}
    batch = honest(batch, spec, config_data.future_forcings, t_in, other)
    batch['mask'] = np.array([r < len(where) for r in rows], np.float32)
    batch['index'] = np.array(rows, np.int32)
    batch['window'] = np.array(chosen, np.int32)
    yield batch


def rows(sharding: jax.sharding.Sharding, size: int) -> np.ndarray:
  """The rows of a global batch of `size` that devices of this process hold, in order."""
  places = sharding.addressable_devices_indices_map((size,)).values()
  return np.unique(np.concatenate([np.arange(size)[where] for where in places]))


def to_device(batch: Batch, sharding: jax.sharding.Sharding) -> Batch:
  """Host arrays of this process (its `rows`, in order) as global arrays, split over the batch."""
  local = len(jax.tree.leaves(batch)[0])
  size = local * len(sharding.device_set) // len(sharding.addressable_devices)
  mine = rows(sharding, size)

  def place(x):
    def part(index):
      begin, end, _ = index[0].indices(size)
      at = np.searchsorted(mine, begin)
      return x[at:at + end - begin]
    return jax.make_array_from_callback((size, *x.shape[1:]), sharding, part)

  return jax.tree.map(place, dict(batch))
