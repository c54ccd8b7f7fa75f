"""Whether what is scored was trained on: the clock is shared by all stores.

Two analysis centres see the same ionosphere, so a forecast of the days of a training clip is no
test, whoever made the maps. A SIMULATED ionosphere is another one than the real of the same days.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stp_jax.data import clip_store, datasets, pipeline

_LONG = 1 << 40  # frames: longer than any clip, so that each gives one window


def _simulated(store: clip_store.ClipStore) -> bool:
  return 'simulated' in f'{store.name} {store.meta.get("description", "")}'.lower()


def _clips(store: clip_store.ClipStore, splits: Iterable[str]) -> np.ndarray:
  """Numbers of the clips of these splits that have frames."""
  return store.windows(splits, 1, _LONG)[:, 0]


def _starts(store: clip_store.ClipStore, clips: np.ndarray) -> np.ndarray:
  """datetime64[m] `[K]` of the first frames of clips; NaT without a clock."""
  return np.array([store.clips[i].time or 'NaT' for i in clips.tolist()], 'datetime64[m]')


def _offsets(store: clip_store.ClipStore, frames: np.ndarray) -> np.ndarray:
  return np.round(frames * store.cadence_hours * 60).astype('timedelta64[m]')


class TrainingDays:
  """The times that runs were trained on, as far as their stores can still be opened.

  Args:
    configs: of the runs, as trained. opened: stores that need not be opened again.
  """

  def __init__(self, configs: Iterable[Any], opened: Sequence[clip_store.ClipStore] = ()):
    self._splits: dict[str, set[str]] = {}  # by path
    self._stores: dict[str, clip_store.ClipStore] = {}
    for config in configs:
      for store in datasets.existing_stores(config, opened):
        path = str(store.path.resolve())
        self._stores[path] = store
        self._splits.setdefault(path, set()).update(config.data.train_splits)
    self._spans: dict[bool, tuple[np.ndarray, np.ndarray]] = {}

  def _of(self, simulated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Begins of training clips in order, and the latest end of those up to each."""
    if simulated not in self._spans:
      first, last = [np.zeros(0, 'datetime64[m]')], [np.zeros(0, 'datetime64[m]')]
      for path, store in self._stores.items():
        if _simulated(store) != simulated:
          continue
        clips = _clips(store, self._splits[path])
        begin = _starts(store, clips)
        counts = np.array([store.clips.place(i)[2] for i in clips.tolist()], np.int64)
        there = ~np.isnat(begin)
        first.append(begin[there])
        last.append(begin[there] + _offsets(store, counts[there] - 1))
      begin, end = np.concatenate(first), np.concatenate(last)
      order = np.argsort(begin, kind='stable')
      self._spans[simulated] = begin[order], np.maximum.accumulate(end[order].astype(np.int64)
                                                                   ).astype('datetime64[m]')
    return self._spans[simulated]

  def overlap(self, found: Sequence[Any], t_in: int, length: int, limit: int = 0) -> dict | None:
    """How many of the windows that an evaluation scores forecast what was trained on.

    Args:
      found: sources, as of `Task.sources`. t_in, length: frames given, and of a window.
      limit: of `pipeline.eval_batches`.

    Returns:
      `windows`, `of`, and `first`, `last` (ISO days that these windows forecast; None without a
      clock); None where no window overlaps.
    """
    flags, firsts, lasts = [], [], []
    for source in found:
      if not isinstance(source, pipeline.Windows):
        return None
      store, places = source.store, source.places
      clips, where = np.unique(places[:, 0], return_inverse=True)
      begin = _starts(store, clips)[where.ravel()]
      low = begin + _offsets(store, places[:, 1] + t_in)
      high = begin + _offsets(store, places[:, 1] + length - 1)
      starts, ends = self._of(_simulated(store))
      before = np.searchsorted(starts, high, 'right') - 1
      latest = ends[np.maximum(before, 0)] if len(ends) else np.full(len(low), 'NaT', low.dtype)
      flag = (before >= 0) & (latest >= low)  # False of NaT
      path = str(store.path.resolve())
      if path in self._stores and np.isnat(begin).any():
        flag |= np.isnat(begin) & np.isin(places[:, 0], _clips(store, self._splits[path]))
      flags.append(flag)
      firsts.append(low)
      lasts.append(high)
    if not flags:
      return None
    flag, low, high = map(np.concatenate, (flags, firsts, lasts))
    scored = pipeline.picked(len(flag), limit)
    flag, low, high = flag[scored], low[scored], high[scored]
    if not flag.any():
      return None
    timed = flag & ~np.isnat(low)
    day = lambda t: str(t.astype('datetime64[D]'))
    ends = dict(first=day(low[timed].min()), last=day(high[timed].max())) if timed.any() else dict(
        first=None, last=None)
    return dict(windows=int(flag.sum()), of=len(flag), **ends)
