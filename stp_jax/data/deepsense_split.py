"""From rows to clips: frames kept once, cut where time or number jumps, no frame in two splits."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from stp_jax.data.deepsense_csv import CsvError, Row, frame_number

SPLITS = ('train', 'validation', 'test')
UNLABELLED = 'submission'
UPSTREAM_SEED, UPSTREAM_SHARE, UPSTREAM_COPIES = 100, 0.9, 47

Frame = tuple  # (root, camera path, radar path, lidar path)


@dataclasses.dataclass
class Clip:
  """Frames in order, and the samples that end in it: `{frame's place in the clip: row}`."""
  key: str
  split: str
  frames: list[Frame]
  samples: dict[int, Row]


@dataclasses.dataclass
class Plan:
  """What a store will hold; `counts` are facts for the data card."""
  clips: list[Clip]
  counts: dict[str, int]


def frames_of(row: Row) -> list[Frame]:
  return [(row.root, *paths) for paths in row.frames]


def _shares(split: str) -> tuple[float, ...]:
  try:
    shares = tuple(float(w) for w in split.removeprefix('time:').replace('+', ',').split(','))
    if len(shares) not in (2, 3) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
      raise ValueError
  except ValueError:
    raise CsvError(f'--split {split}: time:0.8,0.1,0.1 (shares that sum to 1), one name, or '
                   'upstream') from None
  return shares


class _Order:
  """The frames of a set of rows that belong together, sorted, and where they jump."""

  def __init__(self, rows: Sequence[Row], max_step: int, max_seconds: float):
    seen = dict.fromkeys(f for row in rows for f in frames_of(row))
    facts = {f: frame_number(f[1]) for f in seen}
    if any(number is None for _, number, _ in facts.values()):
      facts = {f: ('', i, None) for i, f in enumerate(seen)}  # no numbers: as the CSV has them
    steps = [facts[b][1] - facts[a][1] for row in rows
             for a, b in itertools.pairwise(frames_of(row)) if facts[a][0] == facts[b][0]]
    usual = collections.Counter(s for s in steps if s > 0).most_common(1)
    self.step = max_step or (usual[0][0] if usual else 1)
    self.facts, self.max_seconds = facts, max_seconds
    self.frames = sorted(seen, key=lambda f: (facts[f][0], facts[f][1], f[1]))

  def jumps(self, a: Frame, b: Frame) -> bool:
    (p, n, s), (q, m, t) = self.facts[a], self.facts[b]
    late = s is not None and t is not None and (t - s) % 86400 > self.max_seconds
    return p != q or not 0 < m - n <= self.step or late


def _blocks(order: _Order, rows: list[Row], split: str) -> tuple[list[str], list[Row], int]:
  """The split of each row of a scenario, in time, and those that no split may have."""
  ends = {f: i for i, f in enumerate(order.frames)}
  rows = sorted(rows, key=lambda r: ends[frames_of(r)[-1]])
  if not split.startswith('time:'):
    return [split] * len(rows), rows, 0
  shares = _shares(split)
  starts = [i for i, (a, b) in enumerate(itertools.pairwise(rows), 1)
            if any(order.jumps(x, y) for x, y in itertools.pairwise(
                order.frames[ends[frames_of(a)[-1]]:ends[frames_of(b)[-1]] + 1]))]
  named = _assigned(rows, _near(starts, shares, len(rows)))
  used = [n for n, share in zip(SPLITS, shares) if share]
  if {n for n, _ in named} != set(used) and len(starts) + 1 >= len(used):
    # A few short sequences: whole ones, rather than a split that has no sample.
    named = _assigned(rows, _whole(starts, shares, len(rows)))
  return [n for n, _ in named], [r for _, r in named], len(rows) - len(named)


def _near(starts: list[int], shares: Sequence[float], count: int) -> list[int]:
  """Where the blocks begin: at a jump where one is near, which costs no sample."""
  borders: list[int] = []
  slack = 0.5 * min(s for s in shares if s) * count
  for share in np.cumsum(shares)[:-1]:
    ideal = round(share * count)
    later = [s for s in starts if s > (borders or [0])[-1]]
    near = min(later, key=lambda s: abs(s - ideal), default=ideal)
    borders.append(near if abs(near - ideal) <= slack else ideal)
  return borders


def _whole(starts: list[int], shares: Sequence[float], count: int) -> list[int]:
  """Where blocks of whole sequences begin, each of at least one unless its share is 0."""
  borders, first = [], 0
  for k, share in enumerate(np.cumsum(shares)[:-1]):
    after = sum(s > 0 for s in shares[k + 1:])
    if not shares[k]:
      borders.append(borders[-1] if borders else 0)
      continue
    last = len(starts) - after + 1  # leaves a sequence to each block that follows
    options = starts[first:last] if after else [count]
    borders.append(min(options, key=lambda s: abs(s - share * count)))
    first = starts.index(borders[-1]) + 1 if after else len(starts)
  return borders


def _assigned(rows: list[Row], borders: list[int]) -> list[tuple[str, Row]]:
  """(split, row), without rows that use a frame of an earlier row's other split."""
  owner: dict[Frame, str] = {}
  kept = []
  for i, row in enumerate(rows):
    name = SPLITS[int(np.searchsorted(borders, i, 'right'))]
    if all(owner.get(f, name) == name for f in frames_of(row)):
      owner.update(dict.fromkeys(frames_of(row), name))
      kept.append((name, row))
  return kept


def arrange(
    rows: Sequence[Row], *, split: str = 'time:0.8,0.1,0.1', max_step: int = 0,
    max_seconds: float = 3.0,
) -> Plan:
  """Clips of the store, from all rows of all tables.

  A row whose own frames jump is left out, but for rows without labels, all of which a submission
  needs. Rows that repeat an earlier one (the same last frame and as many labels) are left out.

  Args:
    split: 'time:...' cuts each scenario of each set into blocks of time, at a jump where one is
      near; rows that would use frames of two blocks are left out. Any other name is the split of
      everything. Rows without labels are always the split 'submission'.
    max_step: the largest step of the frame number; 0: the usual one within rows.
    max_seconds: the longest time from frame to frame, where file names tell it.

  Raises:
    CsvError: an unreadable split, or a scenario that nothing is left of.
  """
  if split.startswith('time') and split != 'time':
    _shares(split)
  split = 'time:0.8,0.1,0.1' if split == 'time' else split
  counts = collections.Counter(rows=len(rows), jumps=0, rows_with_jumps=0, rows_across_splits=0,
                               repeated_rows=0)
  groups: dict[tuple, list[Row]] = {}
  seen: set = set()
  for row in rows:
    last = (frames_of(row)[-1], bool(row.beams))
    counts['repeated_rows'] += last in seen
    if last not in seen:
      seen.add(last)
      groups.setdefault((row.root, row.scenario, bool(row.beams)), []).append(row)
  clips, taken = [], {}
  for (root, scenario, labelled), members in sorted(groups.items(), key=lambda g: str(g[0])):
    order = _Order(members, max_step, max_seconds)
    good = [r for r in members if not labelled or not any(
        order.jumps(a, b) for a, b in itertools.pairwise(frames_of(r)))]
    counts['rows_with_jumps'] += len(members) - len(good)
    counts['jumps'] += sum(order.jumps(a, b) for a, b in itertools.pairwise(order.frames))
    names, good, dropped = _blocks(order, good, split if labelled else UNLABELLED)
    counts['rows_across_splits'] += dropped
    if not good:
      raise CsvError(f'scenario{scenario} in {root}: every row jumps in time or number; raise '
                     '--max-step or --max-seconds, or leave the scenario out with --scenarios')
    made = _clips(order, list(zip(names, good)), f'{root.name}/scenario{scenario}')
    for clip in made:
      for frame in clip.frames:
        if taken.setdefault(frame, clip.split) != clip.split:
          raise CsvError(f'{root}/{frame[1]}: in the splits {taken[frame]} and {clip.split}; keep '
                         'labelled and unlabelled sets in folders and stores of their own')
    clips += made
  return Plan(clips, dict(counts))


def _clips(order: _Order, named: list[tuple[str, Row]], prefix: str) -> list[Clip]:
  """Runs of frames of one split without a jump that no row spans."""
  place = {f: i for i, f in enumerate(order.frames)}
  split_of, spanned = {}, set()
  for name, row in named:
    numbers = [place[f] for f in frames_of(row)]
    split_of.update(dict.fromkeys(frames_of(row), name))
    spanned.update(range(min(numbers), max(numbers)))
  clips, last = [], None
  for i, frame in enumerate(order.frames):
    if frame not in split_of:
      continue
    whole = last is not None and all(
        k in spanned or (i == last + 1 and not order.jumps(order.frames[k], order.frames[k + 1]))
        for k in range(last, i))
    if not whole or split_of[frame] != clips[-1].split:
      clips.append(Clip(f'{prefix}/{split_of[frame]}-{len(clips):04d}', split_of[frame], [], {}))
    clips[-1].frames.append(frame)
    last = i
  where = {f: (clip, i) for clip in clips for i, f in enumerate(clip.frames)}
  for _, row in named:
    clip, i = where[frames_of(row)[-1]]
    clip.samples[i] = row
  return clips


def upstream_copies(adaptation: Sequence[bool], seed: int = UPSTREAM_SEED) -> np.ndarray:
  """How often each sample lies in upstream's training and validation set, int `[N, 2]`.

  Upstream lines up the development rows, 47 augmented copies of the adaptation rows and these rows
  themselves, shuffles that line and cuts it 90 to 10: neighbours in time and copies of one sample
  lie on both sides. The shuffle is torch.randperm's on the CPU.

  Args:
    adaptation: of each sample, in the tables' order.
  """
  adaptation = np.asarray(adaptation, bool)
  extra = np.flatnonzero(adaptation)
  line = np.concatenate([np.flatnonzero(~adaptation), np.tile(extra, UPSTREAM_COPIES + 1)])
  draws = np.random.RandomState(seed)
  order = np.arange(len(line))
  for i in range(len(line) - 1):
    z = i + int(draws.randint(0, 1 << 32, dtype=np.uint32)) % (len(line) - i)
    order[i], order[z] = order[z], order[i]
  cut = math.floor(UPSTREAM_SHARE * len(line))
  sides = (line[order[:cut]], line[order[cut:]])
  return np.stack([np.bincount(s, minlength=len(adaptation)) for s in sides], 1)
