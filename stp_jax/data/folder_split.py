"""Which frames of one's own clips belong to which split, cut at gaps; see `folder`."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from stp_jax.data import folder_times, splits
from stp_jax.data.clip_store import StoreError
from stp_jax.data.folder_clips import Clip

NAMES = ('train', 'validation', 'test')
_FOLDERS = dict(train='train', training='train', val='validation', valid='validation',
                validation='validation', test='test', testing='test')


@dataclasses.dataclass(frozen=True)
class Span:
  """Frames `start` to before `stop` of clip number `clip`."""
  clip: int
  start: int
  stop: int
  split: str


@dataclasses.dataclass(frozen=True)
class Clock:
  """Seconds between frames, None without a clock and why; and what was found of gaps.

  Attributes:
    gaps, lost: all of them, and the frames that are missing there. timed: gaps told by times.
    told: seconds of --cadence, or 0.
  """
  step: int | None
  gaps: int = 0
  lost: int = 0
  note: str = ''
  timed: int = 0
  told: int = 0


def clock(clips: Sequence[Clip], minutes: float) -> Clock:
  """The cadence: as told, else the step that is most frequent.

  A store has a clock only where all its clips have times, whole minutes apart or more. Without one,
  clips are cut by their own times, where they have them.

  Args:
    minutes: 0: not told.
  """
  told = round(60 * minutes)
  timed = [c for c in clips if c.times is not None]
  steps = [np.diff(c.times).astype('m8[s]').astype(int) for c in timed if c.length > 1]
  every = np.concatenate(steps) if steps else np.zeros(0, int)
  step = told or (folder_times.frequent(every) if len(every) else 0)
  without = [c.name for c in clips if c.times is None]
  if len(without) == len(clips):
    note = ''
  elif without:
    note = f'{len(without)} of {len(clips)} clips have no times ({without[0]})'
  elif not len(every):
    note = 'no clip has two frames'
  elif not step:
    note = 'frames less than a second apart'
  elif folder_times.by_calendar(every) and not told:
    note = 'frames are months or years apart'
  elif step < 60:
    note = f'frames {step} s apart, and a clock counts minutes'
  else:
    return Clock(step, int((every != step).sum()),
                 int(folder_times.missing(every, step).sum()), told=told)
  gaps = [_gaps(c, told) for c in clips]
  found = [sum(len(g) for c, g in zip(clips, gaps) if (c.times is None) == none)
           for none in (True, False)]
  return Clock(None, sum(found), sum(sum(g.values()) for g in gaps),
               f'no clock: {note}; lead times are counted in frames' if note else '', found[1],
               told)


def _gaps(clip: Clip, told: int) -> dict[int, int]:
  """{index: frames missing before it} of a clip in a store without a clock."""
  return clip.cuts if clip.times is None else folder_times.time_gaps(clip.times, told)


def _cuts(clip: Clip, clock: Clock) -> list[int]:
  """Where a clip is cut because time jumps, or the numbers of its files."""
  if clock.step is None:
    return list(_gaps(clip, clock.told))
  return (np.flatnonzero(np.diff(clip.times).astype(int) != clock.step) + 1).tolist()


def plan(clips: Sequence[Clip], clock: Clock, split: str, window: int
         ) -> tuple[list[Span], str]:
  """Spans of all clips in order, and how they were split, in words.

  Args:
    clock: what `clock` found.
    split: 'folders' (of the usual names, or told: 'folders:good=train,bad=test', which leaves out
      others), 'clip', 'time', the last two with shares ('time:0.7,0.2,0.1'), the name of one split
      for all, or '': folders named train and test where they are, else by time where there is
      a clock or fewer than three clips, else by clip.

  Raises:
    ValueError: an option that cannot be read, or folders that are not there.
    StoreError: too few frames to split.
  """
  word, _, text = split.partition(':')
  known = _mapping(text) if word == 'folders' and text else _FOLDERS
  tops = [known.get(c.name.partition('/')[0].lower()) for c in clips]
  if not word:
    whole = [c for c in clips if c.length >= window]
    word = ('folders' if {'train', 'test'} <= set(tops) else
            'time' if clock.step is not None or len(whole) < 3 else 'clip')
  try:
    shares = splits.shares(f'time:{text}' if text and word != 'folders' else 'time')
  except ValueError as error:
    raise ValueError(str(error).replace('time:', f'{word}:')) from None
  if word == 'folders':
    if (None in tops and known is _FOLDERS) or set(tops) == {None}:
      raise ValueError(f'--split folders: {clips[tops.index(None)].name} lies below none of '
                       f'{" ".join(known)}')
    labels = [np.full(c.length, t or '') for c, t in zip(clips, tops)]
    left = f'; {tops.count(None)} clips below others are left out' if None in tops else ''
    how = f'by the folders{left}'
  elif word == 'clip':
    labels, how = _by_clip(clips, shares, window)
  elif word == 'time':
    labels, how = _by_time(clips, shares, window, bool(text))
  else:
    name = splits.assign(np.zeros(1, 'M8[m]'), split)[0]  # one name; checks it
    labels, how = [np.full(c.length, name) for c in clips], f'all is {name}'
  spans = []
  for i, (clip, label) in enumerate(zip(clips, labels)):
    change = np.flatnonzero(label[1:] != label[:-1]) + 1
    ends = sorted({0, clip.length, *_cuts(clip, clock), *change.tolist()})
    spans += [Span(i, a, b, str(label[a])) for a, b in itertools.pairwise(ends) if label[a]]
  return spans, how


def _mapping(text: str) -> dict[str, str]:
  """{folder in small letters: split} of 'good=train,bad=test'."""
  found = {}
  for item in text.split(','):
    name, given, split = (part.strip() for part in item.partition('='))
    if not name or not given:
      raise ValueError(f'--split folders:{text}: write folder=split,folder=split')
    splits.assign(np.zeros(1, 'M8[m]'), split)  # checks the name
    found[name.lower()] = split
  return found


def _by_clip(clips, shares, window) -> tuple[list[np.ndarray], str]:
  """Whole clips, spread evenly: names are often sorted by what the clips show."""
  long = [i for i, c in enumerate(clips) if c.length >= window] or list(range(len(clips)))
  if len(long) < 3:
    raise StoreError(f'--split clip: {len(long)} clips of at least {window} frames; three are '
                     'needed, or --split time')
  held = [max(1, round(s * len(long))) if s else 0 for s in (*shares[1:], 0.0)[:2]]
  places = [long[int((k + 0.5) * len(long) / sum(held))] for k in range(sum(held))]
  names = np.full(len(clips), 'train', object)
  names[places] = 'validation'
  for k in range(held[1]):
    names[places[int((k + 1) * len(places) / held[1]) - 1]] = 'test'
  how = 'by clip, spread over their order'
  return [np.full(c.length, n) for c, n in zip(clips, names)], how


def _by_time(clips, shares, window, told: bool) -> tuple[list[np.ndarray], str]:
  """Blocks of time, in order; each can hold a window where there are frames enough."""
  if any(c.times is None for c in clips):  # in the order of the clips
    ends = np.cumsum([c.length for c in clips])
    times = [np.arange(e - c.length, e) for c, e in zip(clips, ends)]
  else:  # clips of one time belong together, wherever they were taken
    times = [c.times.astype('M8[ms]').astype(np.int64) for c in clips]
  every = np.unique(np.concatenate(times))
  count = len(every)
  if count < 4:
    raise StoreError(f'{clips[0].name}: {count} frames in all; at least 4 are needed to train and '
                     'to test')
  held = [round(s * count) for s in (*shares[1:], 0.0)[:2]]
  if not told:
    if count >= 4 * window:
      held = [max(h, window) for h in held]
    else:
      held = [0, window if count >= 2 * window else max(2, count // 3)]
  labels = []
  for t in times:
    rank = np.searchsorted(every, t)
    number = (rank >= count - sum(held)).astype(int) + (rank >= count - held[1])
    labels.append(np.array(NAMES)[number])
  return labels, 'by time, in blocks that share no frame'
