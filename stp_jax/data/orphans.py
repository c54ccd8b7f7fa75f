"""Worker processes that end when the process that started them does, even by kill -9."""

import multiprocessing
import os
import threading


def watch() -> None:
  """Ends this worker as soon as its parent is gone; the initializer of a pool.

  A killed parent closes no queue: a worker that waits for its next job would wait forever, and
  would hold the files that it has mapped.
  """
  parent = multiprocessing.parent_process()
  if parent is None:
    return

  def wait():
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True, name='parent-watch').start()


def worker_init(index: int, count: int) -> None:
  """The same for Grain, which tells a worker its number."""
  del index, count
  watch()
