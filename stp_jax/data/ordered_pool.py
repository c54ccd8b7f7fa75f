"""A process pool that hands results back in order, never more than a few ahead, with a bar."""

import collections
import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from stp_jax.data import orphans

_CHUNK = 8


def _many(function: Callable, jobs: Sequence[tuple]) -> list:
  return [function(*job) for job in jobs]


def ordered(
    function: Callable, jobs: Sequence[tuple], workers: int, desc: str = 'reading',
    unit: str = 'frame',
) -> Iterator[Any]:
  """`function(*job)` of every job, in order; an exception in a worker is raised here.

  Whoever takes fewer than all must `close()` it, for the processes' sake.

  Args:
    function: importable by name, for it is sent to fresh processes (a fork of one that runs jax may
      hang). workers: processes; 1: none, everything is done here.
  """
  with tqdm(total=len(jobs), desc=desc, unit=unit, disable=not jobs) as bar:
    if workers <= 1 or len(jobs) <= 2 * _CHUNK:
      for job in jobs:
        result = function(*job)
        bar.update()
        yield result
      return
    chunks = [jobs[i:i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    context = multiprocessing.get_context('spawn')
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(chunks)), context, initializer=orphans.watch)
    try:
      waiting: collections.deque = collections.deque()
      rest = iter(chunks)
      while True:
        # A bound on what waits: a slow disk must not fill the memory with frames.
        while len(waiting) < 4 * workers and (chunk := next(rest, None)) is not None:
          waiting.append(pool.submit(_many, function, chunk))
        if not waiting:
          return
        for result in waiting.popleft().result():
          bar.update()
          yield result
    finally:
      pool.shutdown(wait=True, cancel_futures=True)
