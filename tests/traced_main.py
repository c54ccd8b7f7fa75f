"""`stp_jax.main`, which also writes what this process read: one line per window, `STP_TRACE`."""

import os
import runpy
import sys

from stp_jax.data import pipeline

if __name__ == '__main__':
  _read = pipeline.WindowSource.__getitem__
  _trace = open(f'{os.environ["STP_TRACE"]}-{os.getpid()}', 'a', buffering=1)

  def traced(self, index):
    print(self._windows[index].tolist(), file=_trace)
    return _read(self, index)

  pipeline.WindowSource.__getitem__ = traced
  sys.argv[0] = 'stp_jax.main'
  runpy.run_module('stp_jax.main', run_name='__main__')
