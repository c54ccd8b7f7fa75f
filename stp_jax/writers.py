"""Where numbers go: `metrics.jsonl` always, TensorBoard when tensorboardX is installed."""

import contextlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping

from stp_jax import files


class Writer:
  """Appends one JSON line per step; process 0 only.

  A run that resumes at `first_step` drops later lines: the file holds every step exactly once.
  """

  def __init__(self, workdir, first_step: int, active: bool = True):
    self._file, self._board = None, None
    if not active:
      return
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    if path.exists():
      for line in path.read_text(errors='replace').splitlines():
        try:
          if json.loads(line)['step'] <= first_step:
            kept.append(line)
        except (ValueError, KeyError, TypeError):
          continue  # the half line of a killed run
    # Whole or not at all: what these steps told is never computed again.
    files.write_text(path, ''.join(line + '\n' for line in kept))
    self._file = path.open('a')
    if importlib.util.find_spec('tensorboardX'):
      import tensorboardX
      self._board = tensorboardX.SummaryWriter(str(path.parent / 'tensorboard'))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars of one step."""
    if self._file is None:
      return
    self._file.write(json.dumps({'step': step, **values}) + '\n')
    for name, value in values.items() if self._board else ():
      self._board.add_scalar(name, value, step)

  def flush(self) -> None:
    """Hands everything to the system.

    Raises:
      OSError: with the file's name; the disk is full or broken.
    """
    if self._file:
      with files.naming(self._file.name):
        self._file.flush()
    if self._board:
      self._board.flush()

  def close(self) -> None:
    self.flush()
    if self._file:
      self._file.close()
    if self._board:
      self._board.close()

  def __enter__(self):
    return self

  def __exit__(self, kind, *_):
    # What ended the run is told, not that its last lines could not be written either.
    with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
      self.close()
