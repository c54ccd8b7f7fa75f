"""The data card: what went into a store, printed by `prepare` and kept in its meta.json."""

import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from stp_jax.data.clip_store import ClipStore, StoreError


class Statistics:
  """Minimum, mean, maximum, spread and missing share of a stream, in its units, streaming."""

  def __init__(self, scale: float = 1.0, missing: int | None = None, offset: float = 0.0):
    self._scale, self._missing, self._offset = scale, missing, offset
    self._count = self._all = 0
    self._sum = self._squares = 0.0
    self._low, self._high = np.inf, -np.inf

  def add(self, raw: np.ndarray) -> None:
    """Takes raw values of any shape."""
    value = raw.ravel() if self._missing is None else raw[raw != self._missing]
    if value.dtype.kind == 'f':
      value = value[np.isfinite(value)]
    self._all += raw.size
    if value.size:
      value = value.astype(np.float64)
      self._count += value.size
      self._sum += value.sum()
      self._squares += (value**2).sum()
      self._low, self._high = min(self._low, value.min()), max(self._high, value.max())

  def result(self) -> dict[str, float | None]:
    """min, mean, max, std in physical units (None where nothing is there), missing share."""
    missing = round(1 - self._count / max(self._all, 1), 6)
    if not self._count:
      return dict(min=None, mean=None, max=None, std=None, missing=missing)
    mean = self._sum / self._count
    spread = max(self._squares / self._count - mean**2, 0) ** 0.5
    values = {k: v * self._scale + self._offset
              for k, v in dict(min=self._low, mean=mean, max=self._high).items()}
    values |= dict(std=spread * abs(self._scale))
    return {k: round(float(v), 4) for k, v in values.items()} | {'missing': missing}


def sampled(store: ClipStore, count: int = 100, stream: str = 'frames') -> dict[str, dict]:
  """`Statistics` of at most `count` clips, spread evenly, by a name that tells how many."""
  spec = store.streams[stream]
  statistics, last = Statistics(spec.scale, spec.missing, spec.offset), len(store.clips) - 1
  picked = np.unique(np.linspace(0, last, min(count, last + 1)).round().astype(int))
  for i in picked.tolist():
    statistics.add(store.frames(i, stream=stream))
  of = '' if len(picked) > last else f', {len(picked)} of {last + 1} clips'
  return {f'{stream} [{spec.units}{of}]': statistics.result()}


def equal_clips(store: ClipStore, length: int) -> dict:
  """What `clips` counts, of a store whose clips all have `length` frames, one window each."""
  splits = {split: dict(clips=n, frames=n * length, windows=n)
            for split, n in store.clips.by_split().items()}
  return dict(clips=len(store.clips), frames=store.meta['frames'], window=length, splits=splits,
              clips_too_short=0)


def clips(spans: Sequence[Mapping], window: int) -> dict:
  """Counts of clips `{'split', 'length'}`: per split, and those too short for `window` frames."""
  splits = {}
  for span in spans:
    row = splits.setdefault(span['split'], dict(clips=0, frames=0, windows=0))
    row['clips'] += 1
    row['frames'] += span['length']
    row['windows'] += max(0, span['length'] - window + 1)
  return dict(
      clips=len(spans), frames=sum(s['length'] for s in spans), window=window, splits=splits,
      clips_too_short=sum(s['length'] < window for s in spans))


def text(card: Mapping) -> str:
  """The card for a person to read."""
  lines = [f'{card["name"]}: {card["frames"]} frames in {card["clips"]} clips']
  if card.get('first'):
    lines[0] += f', {card["first"]} to {card["last"]} UT'
  lines += [f'  {key.replace("_", " ")}: {value}' for key, value in card.get('facts', {}).items()]
  lines.append(f'  {"split":<12}{"clips":>7}{"frames":>9}{"windows of":>14} {card["window"]}')
  for name, row in card['splits'].items():
    lines.append(f'  {name:<12}{row["clips"]:>7}{row["frames"]:>9}{row["windows"]:>14}')
  if card['clips_too_short']:
    lines.append(f'  {card["clips_too_short"]} of {card["clips"]} clips are shorter than a window '
                 f'of {card["window"]} frames')
  for name, row in card.get('statistics', {}).items():
    values = 'no values' if row['min'] is None else ', '.join(
        f'{k} {row[k]:g}' for k in ('min', 'mean', 'max', 'std'))
    lines.append(f'  {name}: {values}; missing {100 * row["missing"]:.2f} %')
  return '\n'.join(lines + [f'  note: {note}' for note in card.get('notes', ())])


def checksums(paths: Sequence[pathlib.Path]) -> dict[str, int]:
  """CRC-32 of whole files by name: what a store was made from, without where it lay."""
  result = {}
  for path in paths:
    if path.name in result:
      raise StoreError(f'{path}: a second file of this name; keep one of them')
    result[path.name] = 0
    with path.open('rb') as file:
      while chunk := file.read(1 << 24):
        result[path.name] = zlib.crc32(chunk, result[path.name])
  return result


def already_made(out, recipe: Mapping) -> ClipStore | None:
  """The store at `out` if this recipe made it (its card is printed), None if nothing is there.

  Raises:
    StoreError: a store made from other inputs or options; found here before any input is read.
  """
  if not (pathlib.Path(out) / 'meta.json').exists():
    return None
  try:
    store = ClipStore(out)
  except StoreError as error:
    raise StoreError(f'{error}: delete {out} first') from error
  if store.meta['recipe'] != json.loads(json.dumps(recipe)):
    raise StoreError(f'{out}: holds a store made from other inputs or options; delete it or choose '
                     'another --out')
  print(text(store.meta['card']))
  return store
