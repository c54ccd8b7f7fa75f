"""The month-and-hour climatology of the training maps, linear in the 10.7 cm solar flux."""

from collections.abc import Iterable, Sequence

import numpy as np
from tqdm import tqdm

from stp_jax.data import georeference
from stp_jax.data.clip_store import ClipStore, StoreError

_CHUNK = 512  # frames in memory at a time
# A slope counts as much as its flux is spread. A month-hour cell with this sum of squares (10 days
# that differ by 30 solar flux units) stands half on its own, half on the pooled slope.
_TRUST = 10 * 30.0**2


def calendar(times: np.ndarray) -> np.ndarray:
  """float32 `[..., 2]`, (month counted from mid-month to mid-month, hour UT) of datetime64 times.

  The middle of month k is k, the end of it k + 1/2: what `models.anchor.climatology` blends.
  """
  times = np.asarray(times, 'datetime64[m]')
  month = times.astype('datetime64[M]')
  length = ((month + 1).astype('datetime64[m]') - month.astype('datetime64[m]')).astype(float)
  share = (times - month.astype('datetime64[m]')).astype(float) / length
  number = month.astype(int) % 12 + 1
  hour = (times - times.astype('datetime64[D]').astype('datetime64[m]')).astype(float) / 60
  position = (number + share - 0.5 - 1) % 12 + 1
  return np.stack([position, hour], -1).astype(np.float32)


def slot(hours: np.ndarray, count: int) -> np.ndarray:
  """int32 `[...]`: the nearest of `count` slots of the day, from 00 UT on; the earlier of two.

  Maps at 24 / count hours have a slot each, whatever hour they begin at. An hour between two slots
  (01, 03, ... UT of maps every two hours) once took the even one, so that such maps met in half of
  the slots: tables that were fitted then on maps at odd hours, or on more maps a day than slots,
  must be refitted (delete the run's `baselines.npz` and `climatology.npz`; the anchor's tables are
  in its checkpoints: train it again).

  Args:
    hours: `[...]` UT, of numpy or JAX, traced or not. count: P, slots of a day.
  """
  # Times are whole minutes: a quarter of one is more than float32 hours err by, and less than what
  # lies between a time and the middle of two slots, unless it is that middle.
  return (((hours * 60 - 0.25) * (count / 1440) + 0.5) // 1).astype(np.int32) % count


def driver_column(store: ClipStore, name: str = 'f107') -> np.ndarray | None:
  """float32 `[N]`: the newest F10.7 available at each frame's time, or None without that column."""
  names = [f.name for f in store.forcings]
  return store.column('forcings_known')[:, names.index(name)] if name in names else None


def _sums(stores: Sequence[ClipStore], splits: set[str], slots: int, progress: bool) -> dict:
  """Streaming sums by month, slot and pixel: count, y, f, ff, fy with f counted from its mean."""
  columns = [driver_column(store) for store in stores]
  selected = [
      (store, column, i, clip) for store, column in zip(stores, columns)
      for i, clip in enumerate(store.clips) if clip.split in splits]
  if not selected:
    raise StoreError(
        f'{stores[0].path}: no clip in splits {sorted(splits)}; it has {stores[0].splits}')
  known = np.concatenate([
      np.zeros(clip.length) * np.nan if column is None
      else column[clip.start:clip.start + clip.length].astype(float)
      for _, column, _, clip in selected])
  driver_mean = float(np.nanmean(known)) if np.isfinite(known).any() else 0.0

  height, width, _ = stores[0].streams['frames'].shape
  sums = {k: np.zeros((12, slots, height, width)) for k in ('n', 'y', 'f', 'ff', 'fy')}
  for store, column, i, clip in tqdm(selected, 'climatology', unit='clip', disable=not progress):
    times = clip.times(store.cadence_hours)
    if times is None:
      raise StoreError(
          f'{store.path}: clip {i} ({clip.source}) has no time; a climatology needs a clock')
    months = times.astype('datetime64[M]').astype(int) % 12
    hours = (times - times.astype('datetime64[D]')).astype('timedelta64[m]').astype(float) / 60
    parts = slot(hours, slots)
    flux = np.zeros(clip.length) if column is None else (
        column[clip.start:clip.start + clip.length].astype(float) - driver_mean)
    flux = np.where(np.isfinite(flux), flux, 0)
    for start in range(0, clip.length, _CHUNK):
      maps = store.physical(store.frames(i, start, min(_CHUNK, clip.length - start)))[..., 0]
      here = slice(start, start + len(maps))
      for m, p in sorted(set(zip(months[here].tolist(), parts[here].tolist()))):
        rows = (months[here] == m) & (parts[here] == p)
        y = maps[rows].astype(float)
        seen = np.isfinite(y)
        y = np.where(seen, y, 0)
        f = np.where(seen, flux[here][rows][:, None, None], 0)
        for key, value in (('n', seen), ('y', y), ('f', f), ('ff', f * f), ('fy', f * y)):
          sums[key][m, p] += value.sum(0)
  return dict(sums, driver_mean=driver_mean)


def _nearest(value: np.ndarray, there: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
  """Fills what is not there from the nearest neighbour on the circle `axis`, earlier first."""
  filled, known = value.copy(), there.copy()
  for distance in range(1, value.shape[axis] // 2 + 1):
    for shift in (distance, -distance):
      take = ~known & np.roll(there, shift, axis)
      filled = np.where(take, np.roll(value, shift, axis), filled)
      known = known | take
  return filled, known


def fit(
    store: ClipStore | Sequence[ClipStore], splits: str | Iterable[str] = ('train',),
    frames_per_day: int | None = None, *, min_maps: int = 3, progress: bool = False,
) -> dict[str, np.ndarray]:
  """Fits the climatology of `models.anchor` on training clips, streaming: memory stays flat.

  Every month-hour-pixel mean is linear in F10.7. The slope of a cell is shrunk towards one slope
  per cell that is proportional to its level (the same percentage for the whole globe): with few
  years a free slope is noise, and the proportional one leaves the *shape* of a map alone.

  Args:
    store: one clip store or several on the same grid; stream `frames` with one channel.
    splits: the splits to learn from: training only.
    frames_per_day: P; default 24 / cadence.
    min_maps: cells with fewer maps take the nearest month that has them.
    progress: show a bar.

  Returns:
    float32 `base`, `slope` `[12, P, H, W]` (TECU, TECU per solar flux unit; slope 0 without an
    `f107` column), `driver_mean` `[]`, `hourly` `[P, H, W]`, physical units.

  Raises:
    StoreError: no clip in these splits, no clock, another grid, no value at all.
  """
  stores = [store] if isinstance(store, ClipStore) else list(store)
  splits = {splits} if isinstance(splits, str) else set(splits)
  shapes = {s.streams['frames'].shape for s in stores}
  if len(shapes) > 1 or next(iter(shapes))[2] != 1:
    raise StoreError(
        f'{stores[0].path}: a climatology needs one grid with one channel, not {sorted(shapes)}')
  for other in stores[1:]:
    if not georeference.same_places(stores[0].meta['grid'], other.meta['grid']):
      raise StoreError(
          f'{other.path}: {georeference.places(other.meta["grid"])} are another grid than '
          f'{georeference.places(stores[0].meta["grid"])} of {stores[0].path}; a climatology needs '
          'stores of one region')
  slots = frames_per_day or round(24 / stores[0].cadence_hours)
  sums = _sums(stores, splits, slots, progress)
  n = sums['n']
  if not n.any():
    raise StoreError(f'{stores[0].path}: every value of splits {sorted(splits)} is missing')

  count = np.maximum(n, 1)
  level, flux = sums['y'] / count, sums['f'] / count
  spread = np.maximum(sums['ff'] - n * flux**2, 0)
  together = sums['fy'] - n * flux * level
  # Pooled percentage per flux unit, summed over months: one month alone says little about it.
  mean = np.mean(together * level, (1, 2, 3)), np.mean(spread * level**2, (1, 2, 3))
  relative = np.clip(
      mean[0].sum() / (mean[1].sum() + _TRUST * np.mean(level[n > 0]**2)), 0, 0.02)
  # `level` belongs to the cell's own mean flux: bring it to the common one before it is a scale.
  common = level / np.maximum(1 + relative * flux, 0.2)
  slope = (together + _TRUST * relative * common) / (spread + _TRUST)
  base = np.maximum(level - slope * flux, 0.2 * common)

  there = n >= min(min_maps, n.max())
  for axis in (0, 1):  # the nearest month of the same hour; then, with gaps in the day, the hour
    base, slope = _nearest(base, there, axis)[0], _nearest(slope, there, axis)[0]
    there = _nearest(there, there, axis)[1]
  # A pixel that no map ever showed: the mean of what is there (it is masked in every score).
  base = np.where(there, base, base[there].mean())
  slope = np.where(there, slope, 0)

  hours = n.sum(0)
  hourly, known = _nearest(sums['y'].sum(0) / np.maximum(hours, 1), hours > 0, 0)
  hourly = np.where(known, hourly, hourly[known].mean())
  arrays = dict(
      base=base, slope=slope, driver_mean=np.asarray(sums['driver_mean']), hourly=hourly)
  return {k: np.asarray(v, np.float32) for k, v in arrays.items()}
