"""The clips of a store as columns: half a million of them take some 50 MB, not a gigabyte.

On disk (`clips.json`) every clip is a line of a JSON list, so that it is read and written line by
line; a file in any other layout of JSON is read whole.
"""

import array
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# NumPy also takes 'today' and zones of time, with a warning, and years of any length.
_is_date = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9:.]+)?').fullmatch


def check_time(time: str) -> None:
  """Raises ValueError unless this is the ISO time of a clip, or empty."""
  if time and not _is_date(time):
    raise ValueError(f'time {time[:40]!r} is no ISO date and time')
  np.datetime64(time, 'm')  # a ValueError for a 31st of February


@dataclasses.dataclass(frozen=True)
class Clip:
  """Consecutive frames at the store's cadence. `time`: ISO time of the first frame, or None."""
  start: int  # first frame, counted over the whole store
  length: int
  split: str
  source: str
  time: str | None
  shard: int
  offset: int  # first frame inside its shard

  def times(
      self, cadence_hours: float, start: int = 0, length: int | None = None) -> np.ndarray | None:
    """datetime64[m] `[length]` of frames from `start` on, of all without a length.

    Frames may lie after the clip's end: those of a forecast do. None when the source has no clock.
    """
    if self.time is None:
      return None
    numbers = start + np.arange(self.length - start if length is None else length)
    return np.datetime64(self.time, 'm') + np.round(numbers * cadence_hours * 60).astype(
        'timedelta64[m]')


class Clips(Sequence):
  """A list of `Clip`, made when they are asked for.

  Attributes:
    splits: names in the order they first appear.
  """

  def __init__(self, rows: Iterable[dict]):
    numbers = {k: array.array('q') for k in ('start', 'length', 'shard', 'offset', 'split', 'end')}
    text, codes = bytearray(), {}
    for row in rows:
      for name in ('start', 'length', 'shard', 'offset'):
        numbers[name].append(row[name])
      if not isinstance(row['split'], str):
        raise ValueError(f'split {row["split"]!r} is no text')
      numbers['split'].append(codes.setdefault(row['split'], len(codes)))
      time = f'{row["time"] or ""}'
      try:
        check_time(time)
      except ValueError as error:
        raise ValueError(f'clip {len(numbers["end"])}: {error}') from error
      text += f'{row["source"]}\0{time}'.encode()
      numbers['end'].append(len(text))
    self._columns = {k: np.frombuffer(v, np.int64) if v else np.zeros(0, np.int64)
                     for k, v in numbers.items()}
    self._shard, self._offset, self._length = (numbers[k] for k in ('shard', 'offset', 'length'))
    self._text, self.splits = bytes(text), tuple(codes)

  def __len__(self) -> int:
    return len(self._columns['start'])

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    if not -len(self) <= index < len(self):
      raise IndexError(f'clip {index} of {len(self)}')
    index %= len(self)
    row = {k: int(v[index]) for k, v in self._columns.items()}
    begin = int(self._columns['end'][index - 1]) if index else 0
    source, _, time = self._text[begin:row.pop('end')].decode().rpartition('\0')
    return Clip(**dict(row, split=self.splits[row['split']], source=source, time=time or None))

  def check(self, frames: int) -> int:
    """The clip that reaches farthest into its shard, if no two clips share a frame or a row.

    Clips lie behind each other, in shards and in the rows of the forcings alike: one that reads
    frames of another would bring those of a test split into training.

    Args:
      frames: of the whole store.

    Raises:
      ValueError: no clip, or one that lies elsewhere; by its number.
    """
    if not len(self):
      raise ValueError('no clip')
    start, length, shard, offset = (self._columns[k] for k in (
        'start', 'length', 'shard', 'offset'))

    def must(good: np.ndarray, numbers: np.ndarray | None, what: str) -> None:
      if not good.all():
        i = int(good.argmin())
        i = i if numbers is None else int(numbers[i])
        raise ValueError(f'clip {i} (start {start[i]}, length {length[i]}, shard {shard[i]}, '
                         f'offset {offset[i]}) {what}')

    # No sum of what the file says, which could overflow, before it is known to be small.
    must((length >= 1) & (length <= frames) & (start <= frames - length) & (shard >= 0)
         & (offset >= 0) & (offset <= start), None,
         f'does not lie inside the store\'s {frames} frames')
    order = np.argsort(start, kind='stable')
    # A shard's first frame, counted over the whole store, is the same whichever clip says so.
    begin, end, number, first = (
        x[order] for x in (start, start + length, shard, start - offset))
    must(begin[1:] >= end[:-1], order[1:], 'begins inside the clip before it')
    must(np.where(number[1:] == number[:-1], first[1:] == first[:-1],
                  (number[1:] > number[:-1]) & (first[1:] >= end[:-1])), order[1:],
         'does not lie behind the clip before it')
    return int((offset + length).argmax())

  def place(self, index: int) -> tuple[int, int, int]:
    """(shard, offset, length) of a clip: what reading frames takes, ten times faster."""
    return self._shard[index], self._offset[index], self._length[index]

  def by_split(self) -> dict[str, int]:
    """Clips of each split."""
    counts = np.bincount(self._columns['split'], minlength=len(self.splits))
    return dict(zip(self.splits, counts.tolist()))

  def windows(self, splits: Iterable[str], length: int, stride: int) -> np.ndarray:
    """int32 `[K, 2]` (clip, start) of every whole window in these splits, in order."""
    wanted = set(splits)
    chosen = np.array([s in wanted for s in self.splits], bool)
    lengths = self._columns['length']
    there = chosen[self._columns['split']] if len(self) else np.zeros(0, bool)
    counts = np.where(there & (lengths >= length), (lengths - length) // stride + 1, 0)
    clips = np.repeat(np.arange(len(self), dtype=np.int32), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    starts = (np.arange(len(clips)) - first) * stride
    return np.stack([clips, starts.astype(np.int32)], 1)


def read(path: pathlib.Path) -> Clips:
  """The clips of a `clips.json`."""
  def lines() -> Iterator[dict]:
    with path.open() as file:
      for line in file:
        line = line.strip().rstrip(',')
        if line not in ('[', ']', ''):
          yield json.loads(line)
  try:
    return Clips(lines())
  except (json.JSONDecodeError, KeyError, TypeError):  # laid out by another hand
    return Clips(json.loads(path.read_text()))


def write(file, rows: Iterable[dict]) -> None:
  """Writes rows as the lines of a JSON list into an open text file."""
  between = '[\n'
  for row in rows:
    file.write(between + json.dumps(row))
    between = ',\n'
  file.write('\n]\n')
