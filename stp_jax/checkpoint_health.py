"""Whether a checkpoint is whole: sizes and checksums of its files, written once it is complete.

  <workdir>/checkpoints/<step>/...      what Orbax wrote; renamed into place when all of it is there
  <workdir>/checksums/<step>.json       {file: [bytes, CRC-32]}, by `Sealer`, soon afterwards
  <workdir>/damaged/<step>              a step that did not pass; nothing is deleted
"""

import contextlib
import json
import pathlib
import shutil
import threading

import jax

from stp_jax import files


class CheckpointError(ValueError):
  """A checkpoint that is absent, damaged or of another architecture."""


_HALF = '.orbax-checkpoint-tmp'


def steps(workdir) -> list[int]:
  """The steps that are in place, oldest first."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  return sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit() and p.is_dir())


def _seal_file(workdir, step: int) -> pathlib.Path:
  return pathlib.Path(workdir) / 'checksums' / f'{step}.json'


def seal(workdir, step: int) -> None:
  """Writes the sizes and checksums of a complete step."""
  folder = pathlib.Path(workdir) / 'checkpoints' / str(step)
  found = {str(p.relative_to(folder)): [p.stat().st_size, files.checksum(p)]
           for p in sorted(folder.rglob('*')) if p.is_file()}
  path = _seal_file(workdir, step)
  path.parent.mkdir(exist_ok=True)
  files.write_text(path, json.dumps(found))


def damage(workdir, step: int) -> str:
  """What is wrong with a step: '' where nothing is found. Reads all of it once.

  A step without a seal, whose process ended in between, is read through for bytes that lack.
  """
  folder, path = pathlib.Path(workdir) / 'checkpoints' / str(step), _seal_file(workdir, step)
  try:
    sealed = json.loads(path.read_text())
    told = {str(k): (int(size), int(check)) for k, (size, check) in sealed.items()}
  except FileNotFoundError:
    told = {}  # the process ended before it was sealed, or an older run wrote it
  except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
    told = {}  # the seal itself is cut short: the files may well be whole
  for name, (size, check) in told.items():
    file = folder / name
    if not file.is_file():
      return f'{file} is missing'
    if file.stat().st_size != size:
      return f'{file} has {file.stat().st_size} bytes, not {size}'
    if files.checksum(file) != check:
      return f'{file} was changed (its checksum differs)'
  for name in ('model/_METADATA', '_CHECKPOINT_METADATA', 'info/metadata'):
    try:
      if not isinstance(json.loads((folder / name).read_text()), dict):
        return f'{folder / name} is no JSON object'
    except (OSError, ValueError, RecursionError) as error:
      return f'{folder / name} is unreadable ({str(error)[:80]})'
  return '' if told else _unreadable(folder)


def _unreadable(folder: pathlib.Path) -> str:
  """The first item of a step without a seal whose bytes are not all there; '' if all are.

  A value that was changed and not cut passes.
  """
  import tensorstore as ts
  for manifest in sorted(folder.glob('*/manifest.ocdbt')):
    try:
      store = ts.KvStore.open(
          dict(driver='ocdbt', base=f'file://{manifest.parent.resolve()}/')).result()
      keys = store.list().result()
      for begin in range(0, len(keys), 32):  # some at a time: a model may exceed the memory
        for value in [store.read(key) for key in keys[begin:begin + 32]]:
          value.result()
    except Exception as error:  # tensorstore raises ValueError, OSError and Exception itself
      return f'{manifest.parent} is unreadable ({" ".join(str(error).split())[:120]})'
  return ''


def remove_halves(workdir) -> list[str]:
  """Removes what a process that died while saving left; returns a line for each."""
  lines = []
  for path in sorted((pathlib.Path(workdir) / 'checkpoints').glob(f'*{_HALF}*')):
    shutil.rmtree(path, ignore_errors=True)
    lines.append(f'{path}: half-written, its process ended while saving; removed')
  return lines


def set_aside(workdir, step: int) -> pathlib.Path:
  """Moves a damaged step out of the way of the run that goes on before it."""
  workdir = pathlib.Path(workdir)
  target, number = workdir / 'damaged' / str(step), 0
  while target.exists():
    number += 1
    target = workdir / 'damaged' / f'{step}-{number}'
  target.parent.mkdir(exist_ok=True)
  (workdir / 'checkpoints' / str(step)).rename(target)
  _seal_file(workdir, step).unlink(missing_ok=True)
  return target


@contextlib.contextmanager
def naming_failures(folder, step: int):
  """Turns whatever a save raises, its own or that of the one before, into one line."""
  try:
    yield
  except CheckpointError:
    raise
  except Exception as error:
    # Orbax and TensorStore tell the reason at the end of long chains.
    reason, cause = str(error), error
    while cause is not None:
      if isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
      cause = cause.__cause__ or cause.__context__
    reason = ' '.join(reason.split())
    reason = reason if len(reason) < 240 else f'{reason[:100]} ... {reason[-130:]}'
    workdir = pathlib.Path(folder).parent
    whole = [s for s in steps(workdir)]
    kept = f'step {whole[-1]} is there' if whole else 'no step is there'
    what = 'the last checkpoint' if step < 0 else f'checkpoint {step}, or the one before,'
    raise CheckpointError(f'{folder}: {what} was not written ('
                          f'{reason}); {kept}; make room and run the same command') from error


@contextlib.contextmanager
def closing(checkpoints):
  """Waits for the last save at the end, and says in one line if it failed."""
  try:
    yield checkpoints
  except BaseException:
    with contextlib.suppress(Exception):  # what ended the run is told, not what followed from it
      checkpoints.close()
    raise
  with naming_failures(checkpoints.directory, -1):
    checkpoints.close()


class Sealer:
  """Seals the steps of a run as Orbax completes them, in a thread of its own; a context manager.

  Only process 0 seals. `check` is cheap and never waits.
  """

  def __init__(self, workdir, active: bool):
    self._workdir, self._active = pathlib.Path(workdir), active
    self._wake, self._end = threading.Event(), False
    self._thread = None

  def __enter__(self):
    if self._active:
      self._thread = threading.Thread(target=self._run, daemon=True, name='sealer')
      self._thread.start()
    return self

  def expect(self) -> None:
    """A save has begun: look for its end."""
    self._wake.set()

  def _run(self) -> None:
    while not self._end:
      if not self._wake.wait(timeout=60):
        continue
      # Orbax has no callback for the rename; it is over in seconds, rarely in minutes.
      while not self._end and self._pending() is False:
        threading.Event().wait(0.2)
      self._wake.clear()

  def _pending(self) -> bool:
    """Seals what is new; whether no save is under way any more."""
    try:
      there = steps(self._workdir)
      for step in there:
        if not _seal_file(self._workdir, step).exists():
          seal(self._workdir, step)
      for path in (self._workdir / 'checksums').glob('*.json'):
        if path.stem.isdigit() and int(path.stem) not in there:
          path.unlink(missing_ok=True)
      return not any((self._workdir / 'checkpoints').glob(f'*{_HALF}*'))
    except OSError:  # a step that was removed as it was read, or a full disk: no seal then
      return True

  def __exit__(self, *_):
    if self._thread is not None:
      self._end = True
      self._wake.set()
      self._thread.join()
      self._pending()


def choose(workdir, *, repair: bool) -> tuple[int | None, list[str]]:
  """The newest step that is whole, and a line about every one that is not.

  Args:
    repair: remove half-written steps and set damaged ones aside (a run that goes on); else only
      look (evaluation). With several processes all must call this; process 0 looks for all.

  Returns:
    None without any step. A step of -1 says that there are steps and all are damaged.
  """
  step, lines = None, []
  if jax.process_index() == 0:
    lines += remove_halves(workdir) if repair else []
    there = steps(workdir)
    for step in reversed(there):
      problem = damage(workdir, step)
      if not problem:
        break
      lines.append(f'checkpoint {step} is damaged: {problem}')
      if repair:
        lines[-1] += f'; moved to {set_aside(workdir, step)}'
    else:
      step = -1 if there else None
  if jax.process_count() > 1:
    import numpy as np
    from jax.experimental import multihost_utils
    coded = -2 if step is None else step
    coded = int(multihost_utils.broadcast_one_to_all(np.int32(coded)))
    step = None if coded == -2 else coded
  return step, lines
