"""The journal of a store that is being written: what a rerun after a kill may take over.

Its first line says what the store is made from, every other one tells of a shard: its clips, their
keys, and checksums of its files. A line carries a checksum of its own.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from tqdm import tqdm

from stp_jax import files


def _crc(entry: Mapping) -> int:
  return zlib.crc32(json.dumps(entry).encode())


class Journal:
  """Reads and writes `journal.jsonl` of a folder.

  Args:
    head: its first line; the journal of another one is not taken over.
    names: the files of shard number k.
  """

  def __init__(self, folder: pathlib.Path, head: Mapping, names: Callable[[int], Sequence[str]]):
    self._folder, self._head, self._names = folder, dict(head), names
    self.path = folder / 'journal.jsonl'

  def begin(self) -> None:
    """Writes the first line."""
    self.append(self._head)

  def append(self, entry: Mapping) -> None:
    """Adds a line; the disk has it on return."""
    with self.path.open('a') as file:
      file.write(json.dumps(dict(entry, crc=_crc(entry))) + '\n')
      file.flush()
      os.fsync(file.fileno())

  def _lines(self) -> Iterator[tuple[int, dict]]:
    if not self.path.exists():
      return
    with self.path.open('rb') as file:
      end, shard = 0, -1  # the first line is of none
      for line in file:
        try:
          entry = json.loads(line)
          # A version before this one wrote no checksums of lines.
          good = line.endswith(b'\n') and entry.pop('crc', None) in (None, _crc(entry))
          if shard < 0:
            good = good and entry == self._head
          else:
            good = good and entry['sums'].keys() == set(self._names(shard)) and (
                len(entry['keys']) == len(entry['clips']))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
          good = False
        if not good:
          return
        end += len(line)
        if shard >= 0:
          yield end, entry
        shard += 1

  def entries(self) -> Iterator[dict]:
    """The lines of shards, up to the first damaged one."""
    return (entry for _, entry in self._lines())

  def resume(self) -> Iterator[dict]:
    """The shards that are as they were written, up to the first that is not; to be read to the end.

    What follows a damaged shard is cut off the journal, and is to be made again: the clips of a
    store have an order. Files of shards that the journal does not have are removed.
    """
    kept, end = set(), 0
    for place, entry in tqdm(
        self._lines(), desc='checking what is there', unit='shard', delay=2, total=self._count()):
      if any(not (self._folder / n).is_file() or files.checksum(self._folder / n) != s
             for n, s in entry['sums'].items()):
        break
      yield entry
      kept |= entry['sums'].keys()
      end = place
    if kept:
      os.truncate(self.path, end)
    for file in self._folder.glob('*-[0-9][0-9][0-9][0-9][0-9].npy'):
      if file.name not in kept:
        file.unlink()

  def _count(self) -> int | None:
    if not self.path.exists():
      return None
    with self.path.open('rb') as file:
      return max(0, sum(1 for _ in file) - 1)
