"""What a store's maps look like: mean, change over hours and days, and the scale of that change.

The same numbers for real and simulated stores, so that data cards can be laid side by side.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from stp_jax.data.clip_store import ClipStore

LAGS = (2, 24, 48, 72)  # hours
WAVES = 6  # zonal wavenumbers 0..5


def statistics(
    store: ClipStore, splits: Iterable[str] | None = None, *, span: tuple[str, str] | None = None,
    stream: str = 'frames', pairs: int = 300,
) -> dict:
  """Statistics of a stream's first channel, in the stream's units.

  Means are over valid pixels, weighted with cos latitude where the store has a grid; padding rows
  and columns are left out.

  Args:
    store: any clip store.
    splits: those to look at; all by default.
    span: ISO times; frames outside `first <= time < last` are left out. Stores without a clock have
      no frames in a span.
    stream: the stream.
    pairs: at most this many maps or pairs of maps per number, spread evenly.

  Returns:
    `{'frames': maps counted, 'mean', 'rms_difference': {hours: value}, 'wavenumber_share': [6]}`;
    the last is the share of zonal wavenumbers 0..5 in the 24-hour difference (rows without missing
    values), None where the store has no longitudes or no such pair. Values are None without frames.
  """
  grid = store.meta['grid']
  height, width, _ = store.streams[stream].shape
  rows, columns = grid.get('rows', height), grid.get('columns', width)
  latitude = np.asarray(grid.get('latitude', np.zeros(rows)))[:rows]
  weight = np.cos(np.radians(latitude))[:, None]
  ranges = list(_ranges(store, splits, span))
  read = lambda clip, i: store.physical(
      store.frames(clip, i, 1, stream)[0, :rows, :columns, 0], stream).astype(np.float64)

  def mean(values):
    valid = np.isfinite(values) * weight
    return (np.where(valid > 0, values, 0) * weight).sum(), valid.sum()

  result = dict(
      frames=sum(stop - start for _, start, stop in ranges),
      mean=_ratio(mean(read(c, i)) for c, i in _spread(ranges, 0, pairs)),
      rms_difference={}, wavenumber_share=None)
  for hours in LAGS:
    lag = hours / store.cadence_hours
    if lag != int(lag):
      continue
    squares, power = [], np.zeros(0)
    for clip, i in _spread(ranges, int(lag), pairs):
      difference = read(clip, i + int(lag)) - read(clip, i)
      squares.append(mean(difference ** 2))
      whole = np.isfinite(difference).all(1)
      if hours == 24 and 'longitude' in grid and whole.any():
        waves = np.abs(np.fft.rfft(difference[whole])) ** 2
        waves[:, 1:(difference.shape[1] + 1) // 2] *= 2  # their negative twins
        power = (power if power.size else 0) + (waves * weight[whole]).sum(0)
    if squares:
      value = _ratio(squares)
      result['rms_difference'][str(hours)] = None if value is None else value ** 0.5
    if power.sum():
      result['wavenumber_share'] = (power / power.sum())[:WAVES].tolist()
  return result


def _ratio(sums: Iterable[tuple[float, float]]) -> float | None:
  total = np.sum(list(sums), axis=0)
  return float(total[0] / total[1]) if total.ndim and total[1] else None


def _ranges(store, splits, span):
  """(clip, first frame, frame behind the last) of what is asked for."""
  wanted = set(store.splits if splits is None else splits)
  for i, clip in enumerate(store.clips):
    if clip.split not in wanted:
      continue
    if span is None:
      yield i, 0, clip.length
    elif (times := clip.times(store.cadence_hours)) is not None:
      first, last = np.searchsorted(times, np.array(span, 'datetime64[m]'))
      if last > first:
        yield i, int(first), int(last)


def _spread(ranges, lag, pairs):
  """At most `pairs` evenly spread (clip, frame), each with a frame `lag` later in its range."""
  counts = np.array([max(stop - start - lag, 0) for _, start, stop in ranges], int)
  if not counts.sum():
    return
  ends = np.cumsum(counts)
  # Offsets at the golden ratio: an even step would meet the same hours of the day again and again.
  count = min(pairs, ends[-1])
  picks = np.arange(ends[-1]) if count == ends[-1] else np.unique(
      ((np.arange(count) + np.arange(count) * 0.618034 % 1) / count * ends[-1]).astype(int))
  for pick in picks:
    which = int(np.searchsorted(ends, pick, 'right'))
    clip, start, _ = ranges[which]
    yield clip, int(start + pick - (ends[which] - counts[which]))


def table(rows: Mapping[str, Mapping]) -> str:
  """Lines of text, one per row of `statistics` results (missing numbers are '-')."""
  number = lambda v, form: '-' if v is None else format(v, form)
  width = max(map(len, rows), default=0)
  lines = [f'{"":{width}} {"mean":>6} ' + ' '.join(f'{f"{h} h":>6}' for h in LAGS)
           + '  zonal wavenumbers 0-5 of the 24 h difference']
  for name, row in rows.items():
    differences = row.get('rms_difference', {})
    share = ' '.join(format(v, '.2f') for v in row.get('wavenumber_share') or ()) or '-'
    lines.append(
        f'{name:{width}} {number(row.get("mean"), ".1f"):>6} '
        + ' '.join(f'{number(differences.get(str(h)), ".2f"):>6}' for h in LAGS) + f'  {share}')
  return '\n'.join(lines)
