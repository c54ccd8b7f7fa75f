"""Which frame belongs to which split, by time; shared by importers whose frames have a clock."""

import re
from collections.abc import Mapping

import numpy as np

_DEFAULT = (0.8, 0.1, 0.1)
_BY_TIME = ('train', 'validation', 'test')

# Options of an importer that uses `assign`.
OPTIONS = {
    'split': (str, None, "'time' (train, validation, test = the first 80, next 10, last 10 % of "
              "the frames), 'time:0.7,0.2,0.1', or one name for everything ('test')"),
    'validation': (str, None, 'date ranges of the split validation: 2012-11-20..2012-11-21,2013-02 '
                   '(days, months or years, both ends included)'),
    'test': (str, None, 'date ranges of the split test'),
    'test_low': (str, None, 'date ranges of the split test_low (low solar activity)'),
    'test_high': (str, None, 'date ranges of the split test_high (high solar activity)')}


def ranges(text: str, option: str) -> list[tuple[np.datetime64, np.datetime64]]:
  """`2012-11-20..2012-11-21,2013-02` as half-open spans of datetime64[m].

  Days, months and years may be given; both ends are included whole. ',' and '+' separate.

  Raises:
    ValueError: names the option and the word that is no date.
  """
  spans = []
  for word in re.split('[,+]', text):
    ends = [end.strip() for end in word.split('..')]
    try:
      if len(ends) > 2 or not all(re.fullmatch(r'\d{4}(-\d\d(-\d\d)?)?', e) for e in ends):
        raise ValueError
      first, last = np.datetime64(ends[0]), np.datetime64(ends[-1])
    except ValueError:
      raise ValueError(f'--{option}: {word!r} is no date or range like 2012-11-20..2012-11-21'
                       ) from None
    begin, end = first.astype('datetime64[m]'), (last + 1).astype('datetime64[m]')
    if end <= begin:
      raise ValueError(f'--{option}: {word!r} ends before it begins')
    spans.append((begin, end))
  return spans


def shares(split: str) -> tuple[float, ...]:
  """The shares of 'time', or of 'time:0.7,0.2,0.1'; ValueError unless they sum to 1."""
  if split == 'time':
    return _DEFAULT
  try:
    shares = tuple(float(w) for w in re.split('[,+]', split.removeprefix('time:')))
    if not 1 <= len(shares) <= 3 or min(shares) < 0 or not abs(sum(shares) - 1) < 1e-6:
      raise ValueError
  except ValueError:
    raise ValueError(f'--split {split}: give two or three shares that sum to 1, as in '
                     'time:0.8,0.1,0.1') from None
  return shares


def assign(times: np.ndarray, split: str | None = None, named: Mapping[str, str | None] = {}
           ) -> np.ndarray:
  """The split of every frame, a string array `[N]`.

  Args:
    times: rising datetime64 `[N]`.
    split: see OPTIONS; None means 'time', or 'train' where `named` gives date ranges. It concerns
      the frames outside all named ranges.
    named: split name to date ranges (see `ranges`), or None.

  Raises:
    ValueError: an unreadable option, ranges that overlap or that hold no frame.
  """
  times = np.asarray(times, 'datetime64[m]')
  result = np.full(len(times), '', object)
  for name, text in named.items():
    if text is None:
      continue
    inside = np.zeros(len(times), bool)
    for begin, end in ranges(text, name.replace('_', '-')):
      inside |= (times >= begin) & (times < end)
    if not inside.any():
      raise ValueError(f'--{name.replace("_", "-")} {text}: no frame lies in it; the data go from '
                       f'{times[0]} to {times[-1]}')
    taken = result[inside & (result != '')]
    if len(taken):
      raise ValueError(f'--{name.replace("_", "-")} {text}: overlaps with the split {taken[0]}')
    result[inside] = name
  rest = np.flatnonzero(result == '')
  split = split or ('train' if any(named.values()) else 'time')
  if split != 'time' and not split.startswith('time:'):
    if not re.fullmatch('[a-z][a-z0-9_]*', split):
      raise ValueError(f"--split {split}: 'time', 'time:0.8,0.1,0.1' or one name")
    result[rest] = split
    return result.astype(str)
  borders = np.round(np.cumsum(shares(split)) * len(rest)).astype(int)
  for name, start, stop in zip(_BY_TIME, [0, *borders], borders):
    result[rest[start:stop]] = name
  return result.astype(str)
