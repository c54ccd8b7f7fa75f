"""What `prepare folder` says: the card of a store, or of what was only looked at."""

import pathlib
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data.clip_store import ClipStore
from stp_jax.data.folder_clips import Found
from stp_jax.data.folder_split import Clock, Span
from stp_jax.data.folder_values import Coding, Looked

SHEET = 'thumbnails.png'
_SHOWN = 20  # skipped frames named on the card


def facts(found: Found, coding: Coding, clock: Clock, how: str, seen: Looked | None
          ) -> dict[str, str]:
  """What was inferred, in words."""
  stream = coding.stream
  height, width, channels = stream.shape
  lengths = [c.length for c in found.clips]
  before = found.clips[0].shape
  sizes = '' if before[:2] == (height, width) and len(found.sizes) < 2 else (
      f', resized from {" ".join(f"{h}x{w}" for h, w in list(found.sizes)[:3])}'
      f'{" and others" if len(found.sizes) > 3 else ""}')
  result = {
      'kind': f'{found.kind}: {found.layout}',
      'frames': f'{height} x {width}, {channels} channel{"s" if channels > 1 else ""}'
                f'{" (made grey)" if coding.grey else ""}{sizes}',
      'values': coding.text,
      'clips found': f'{len(lengths)} of {min(lengths)} to {max(lengths)} frames',
      'split': how}
  if found.notes:
    result['files'] = '; '.join(found.notes)
  if found.missing is not None:
    result['missing value'] = f'{found.missing:g}'
  if seen:
    result['values found'] = f'{seen.low:g} to {seen.high:g} in {seen.frames} frames'
    top = 65535 * found.scale + found.offset
    if stream.dtype == 'uint16' and coding.base is None and seen.high == top:
      result['is it a value?'] = f'{top:g} is the largest of its type; if it means none, --missing'
  if 'latitude' in found.grid:
    lat, lon = found.grid['latitude'], found.grid['longitude']
    result['grid'] = f'latitude {lat[0]:g} to {lat[-1]:g}, longitude {lon[0]:g} to {lon[-1]:g}'
  elif 'x' in found.grid:
    x, y, unit = found.grid['x'], found.grid['y'], found.grid['xy_units']
    result['grid'] = f'x {x[0]:g} to {x[-1]:g}, y {y[0]:g} to {y[-1]:g} {unit}, projected'
  if clock.step:
    result['cadence'] = f'{clock.step / 60:g} min'
    result['gaps'] = f'{clock.gaps}, {clock.lost} frames'
  else:
    result['cadence'] = clock.note or 'no clock: lead times are counted in frames'
    if clock.gaps:
      result['gaps'] = f"{clock.gaps} in the files' numbers, {clock.lost} frames"
  return result


def _notes(found: Mapping[str, Mapping], bad: Sequence[str], window: int) -> list[str]:
  notes = [f'split {k}: no window of {window} frames' for k, v in found.items()
           if not v['windows']]
  if bad:
    more = f' and {len(bad) - _SHOWN} more' if len(bad) > _SHOWN else ''
    notes.append(f'skipped: {" ".join(bad[:_SHOWN])}{more}')
  return notes


def checked(name: str, found: Found, spans: Sequence[Span], clock: Clock,
            told: Mapping[str, str], bad: Sequence[str], window: int) -> dict:
  """The card of what was looked at with --check."""
  rows = [dict(split=split, length=length) for split, length in _readable(found, spans, bad)]
  card = dict(name=name, **_span(found, clock), **cards.clips(rows, window))
  card['facts'] = {**told, 'frames or files unreadable': len(bad)}
  card['notes'] = _notes(card['splits'], bad, window)
  return card


def _readable(found: Found, spans: Sequence[Span], bad: Sequence[str]) -> list[tuple[str, int]]:
  """(split, frames) of the clips that a store would have: unreadable frames cut them."""
  wrong, rows = set(bad), []
  for s in spans:
    clip = found.clips[s.clip].name
    cuts = [i for i in range(s.start, s.stop) if f'{clip}[{i}]' in wrong] if wrong else []
    for first, last in zip([s.start, *(c + 1 for c in cuts)], [*cuts, s.stop]):
      if last > first:
        rows.append((s.split, last - first))
  return rows


def _span(found: Found, clock: Clock) -> dict[str, str]:
  if not clock.step:
    return {}
  ends = [t for c in found.clips for t in (c.times[0], c.times[-1])]
  return dict(first=str(min(ends))[:16], last=str(max(ends))[:16])


def card(store: ClipStore, told: Mapping[str, str], bad: Sequence[str], window: int, clock: Clock
         ) -> dict:
  """The card of a store."""
  rows = [dict(split=c.split, length=c.length) for c in store.clips]
  result = dict(name=store.name, **cards.clips(rows, window))
  if clock.step:
    times = [c.times(store.cadence_hours) for c in store.clips]
    result |= dict(first=str(min(t[0] for t in times)), last=str(max(t[-1] for t in times)))
  result['facts'] = {**told, 'frames or files skipped': len(bad), 'thumbnails': SHEET}
  result['statistics'] = cards.sampled(store)
  result['notes'] = _notes(result['splits'], bad, window)
  if store.streams['frames'].shape[-1] == 3 and _all_grey(store):
    result['notes'].append('red, green and blue are equal in the frames looked at: --grey stores '
                           'a third, and trains faster')
  return result


def _all_grey(store: ClipStore) -> bool:
  picked = np.unique(np.linspace(0, len(store.clips) - 1, min(8, len(store.clips))).astype(int))
  return all((f == f[..., :1]).all() for f in (store.frames(i, 0, 1) for i in picked.tolist()))


def following(path: pathlib.Path, config: str = 'moving_frames') -> str:
  """The next command."""
  store = shlex.quote(str(path))
  return f'next: python -m stp_jax.main --config=configs/{config}.py --store={store}'
