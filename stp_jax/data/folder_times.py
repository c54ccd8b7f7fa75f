"""Times and gaps of one's own frames: from the names of files, and from times; see `folder`."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

_TIME = re.compile(
    r'(?<!\d)((?:19|20)\d\d)([-_]?)([01]\d)\2([0-3]\d)'
    r'(?:[T_\-]?([012]\d)[-_:h]?([0-5]\d)(?:[-_:]?([0-5]\d))?)?(?!\d)')

_CALENDAR = 27 * 86400  # seconds: longer steps are months or years, which are not equally long
_EQUAL = 1.2  # months, and years, differ by less than that


def times_of(names: Sequence[str]) -> np.ndarray | None:
  """datetime64[s] `[N]` read from names like RAD_201008260005.h5; None unless all have one.

  The hour 24:00 is the midnight that follows. Two names of one time are none either.
  """
  found = []
  for name in names:
    match = _TIME.search(name)
    if match is None:
      return None
    year, _, month, day, hour, minute, second = match.groups()
    clock = (hour or '00', minute or '00', second or '00')
    late = clock == ('24', '00', '00')
    try:
      moment = np.datetime64(f'{year}-{month}-{day}T{"00:00:00" if late else ":".join(clock)}', 's')
    except ValueError:
      return None
    found.append(moment + np.timedelta64(int(late), 'D'))
  times = np.array(found, 'datetime64[s]')
  return times if len(np.unique(times)) == len(times) > 0 else None


def number_gaps(names: Sequence[str]) -> dict[int, int]:
  """{index: files missing before it} of names in order, such as frame007.png; {} unless regular.

  Regular: every name ends in a number, and four of five steps are the same. Only longer steps are
  gaps.
  """
  found = [re.findall(r'\d+', pathlib.PurePath(name).stem) for name in names]
  if len(names) < 3 or not all(found):
    return {}
  steps = np.diff([int(f[-1]) for f in found])
  values, counts = np.unique(steps, return_counts=True)
  step = int(values[np.argmax(counts)])
  if step < 1 or steps.min() < 1 or counts.max() < 0.8 * len(steps):
    return {}
  return {int(i) + 1: int(steps[i] - 1) // step for i in np.flatnonzero(steps > step)}


def frequent(steps: np.ndarray) -> int:
  """The most frequent of some steps; the shortest of those that are equally frequent."""
  values, counts = np.unique(steps, return_counts=True)
  return int(values[np.argmax(counts)])


def missing(steps: np.ndarray, step: int) -> np.ndarray:
  """How many frames are missing within each step, where `step` is the usual one; 0 or more."""
  return np.where(steps > step, -(-steps // step) - 1, 0)


def by_calendar(steps: np.ndarray) -> bool:
  """Whether steps (seconds) are months or years; some may be missing."""
  if steps.min() < _CALENDAR:
    return False
  usual = steps[steps <= _EQUAL * steps.min()]
  return len(usual) == len(steps) or len(np.unique(usual)) > 1


def time_gaps(times: np.ndarray, told: int = 0) -> dict[int, int]:
  """{index: frames missing before it} where rising times leave their usual step.

  Args:
    times: datetime64 `[N]`. told: seconds of a step, where it occurs; 0: the most frequent.
  """
  steps = np.diff(times).astype('m8[ms]').astype(int)
  if not len(steps):
    return {}
  if by_calendar(steps // 1000) and not told:
    step = int(steps.min())
    wrong = steps > _EQUAL * step
    lost = np.maximum(np.rint(steps / np.mean(steps[~wrong])).astype(int) - 1, 0)
  else:
    step = 1000 * told if 1000 * told in steps else frequent(steps)
    # Whole seconds of times that have fractions differ by one.
    slack = step // 4 if step < 2000 else 1000 if step < 60000 else 0
    wrong = abs(steps - step) > slack
    lost = missing(steps, step)
  return {int(i) + 1: int(lost[i]) for i in np.flatnonzero(wrong)}
