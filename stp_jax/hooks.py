"""Small companions of the loop: the progress line and the watchdog."""

import faulthandler
import sys
import time


class Progress:
  """Prints `step, values, steps/s, frames/s, ETA`; compile time is left out of the rates."""

  def __init__(self, first: int, last: int, frames_per_step: int, active: bool = True):
    self._last, self._frames, self._active = last, frames_per_step, active
    self._mark = (first, time.perf_counter())
    self._warm = False

  def pause(self, step: int) -> None:
    """Restarts the clock after work that is no step: a compilation, an evaluation."""
    self._mark = (step, time.perf_counter())

  def validated(self, step: int, scores: dict[str, float]) -> None:
    """Prints the scores of a validation; its time is no step's."""
    self.pause(step)
    if self._active and scores:
      line = '  '.join(f'{k} {v:.6g}' for k, v in scores.items() if v is not None)
      print(f'step {step}/{self._last}  {line}', file=sys.stderr, flush=True)

  def report(self, step: int, values: dict[str, float]) -> None:
    begin, since = self._mark
    rate = (step - begin) / max(time.perf_counter() - since, 1e-9)
    self._mark = (step, time.perf_counter())
    if self._active:
      line = '  '.join(
          [f'step {step}/{self._last}', *(f'{k} {v:.4g}' for k, v in values.items())])
      if rate:  # no rate for the step that compiled
        eta = time.strftime('%H:%M:%S', time.gmtime((self._last - step) / rate))
        line += f'  {rate:.2f} steps/s  {rate * self._frames:.0f} frames/s  ETA {eta}'
      print(line, file=sys.stderr, flush=True)


class Watchdog:
  """Dumps the stack of every thread when no step ends for so long; a context manager.

  The dump comes from a thread of C that needs no lock of Python's, so it also comes where the
  process hangs inside a collective or a driver. It is written to standard error and repeated.
  """

  def __init__(self, minutes: float):
    """`minutes` 0: off."""
    self._seconds = 60 * minutes

  def __enter__(self):
    self.alive()  # the first step may hang too: restoring, connecting devices, reading
    return self

  def alive(self) -> None:
    """A step ended, or something else that takes long did."""
    if self._seconds:
      faulthandler.dump_traceback_later(self._seconds, repeat=True, file=sys.__stderr__)

  def __exit__(self, *_):
    if self._seconds:
      faulthandler.cancel_dump_traceback_later()
