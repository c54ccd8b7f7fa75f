"""The climatology of any variable: mean fields of the training clips by month and hour."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from stp_jax.data import climatology
from stp_jax.data.clip_store import ClipStore

_CHUNK = 256  # frames in memory at a time
_ENOUGH = 10  # frames that a month and hour needs to stand for itself
_SLOTS = 24  # times of a day at most
_VALUES = 1 << 25  # of a table: larger grids tell fewer times of day apart
_FRAMES = 50000  # looked at, evenly spread; hourly decades hold ten times as many


def slots(cadence_hours: float, size: int) -> int:
  """Times of day that are told apart, for fields of `size` values."""
  most = max(1, min(_SLOTS, _VALUES // (12 * size)))
  return int(np.clip(round(24 / max(cadence_hours, 1e-9)), 1, most))


def place(times: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """(month 0..11, slot 0..count-1) of datetime64 times, see `climatology.slot`."""
  times = np.asarray(times, 'datetime64[m]')
  month = times.astype('datetime64[M]').astype(int) % 12
  minutes = (times - times.astype('datetime64[D]')).astype(int)
  return month, climatology.slot(minutes / 60, count)


def fit(stores: Sequence[ClipStore], splits: Sequence[str], progress: bool = False
        ) -> dict[str, np.ndarray] | None:
  """`fields` float32 `[12, P, H, W, C]` in physical units, or None for frames without a clock.

  A month and hour with fewer than ten training frames takes the mean of its month, a month without
  enough of them that of its hour, and that of all frames where the hour has few as well.
  """
  selected = [(s, i, c) for s in stores for i, c in enumerate(s.clips) if c.split in set(splits)]
  if not selected or any(c.time is None for _, _, c in selected):
    return None
  shape = stores[0].streams['frames'].shape
  count = slots(stores[0].cadence_hours, int(np.prod(shape)))
  total = np.zeros((12, count, *shape))
  seen = np.zeros((12, count, *shape), np.int32)
  every = max(1, -(-sum(c.length for _, _, c in selected) // _FRAMES))
  # A step that shares a factor with the day would leave out some hours.
  while every > 1 and np.gcd(every, max(1, round(24 / max(stores[0].cadence_hours, 1e-9)))) > 1:
    every += 1
  for store, i, clip in tqdm(selected, 'climatology', unit='clip', disable=not progress):
    month, slot = place(clip.times(store.cadence_hours), count)
    for start in range(0, clip.length, _CHUNK):
      rows = np.arange(start, min(start + _CHUNK, clip.length))
      rows = rows[rows % every == 0]
      if not len(rows):
        continue
      values = store.physical(store.frames(i, start, min(_CHUNK, clip.length - start)))
      values = values[rows - start]
      there = np.isfinite(values)
      np.add.at(total, (month[rows], slot[rows]), np.where(there, values, 0))
      np.add.at(seen, (month[rows], slot[rows]), there)

  def mean(axes):
    top, bottom = (x.sum(axes, keepdims=True) for x in (total, seen))
    return np.where(bottom >= _ENOUGH, top / np.maximum(bottom, 1), np.nan)

  fields = mean(())
  for axes in ((1,), (0,), (0, 1)):
    fields = np.where(np.isnan(fields), mean(axes), fields)
  # A pixel that training hardly ever saw: the mean of what it had, or of all pixels.
  few = total.sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1)
  few = np.where(seen.sum((0, 1)) > 0, few, total.sum() / max(seen.sum(), 1))
  return dict(fields=np.where(np.isnan(fields), few, fields).astype(np.float32))


def at(tables: dict[str, np.ndarray], times: np.ndarray) -> np.ndarray:
  """The fields of these times: datetime64 `[T]` -> float32 `[T, H, W, C]`."""
  fields = tables['fields']
  return fields[place(times, fields.shape[1])]
