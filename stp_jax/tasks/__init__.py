"""Tasks own the loss and the scores; they are the only thing the training loop knows."""

import importlib
import importlib.util
import pathlib
import sys

_TASKS = {'forecast': 'Forecast', 'masked': 'Masked', 'beam': 'Beam', 'rebuild': 'Rebuild'}


def find(name: str):
  """The class of a task: of this package, or one's own as 'module:Class' or 'file.py:Class'.

  Raises:
    ValueError: an unknown name (the known are listed), a file or class that is not there, or a
      class that is no `tasks.base.Task`.
  """
  if ':' in name:
    return _own(name)
  if name not in _TASKS:
    raise ValueError(f'task.name={name!r}: choose one of {" ".join(_TASKS)}, or your own as '
                     'module:Class or file.py:Class')
  return getattr(importlib.import_module(f'stp_jax.tasks.{name}'), _TASKS[name])


def kind(name: str) -> str:
  """The task of this package that `name` is or derives from, or 'custom'."""
  if name in _TASKS:
    return name
  known = {f'stp_jax.tasks.{module}.{cls}': module for module, cls in _TASKS.items()}
  for cls in find(name).__mro__:
    if f'{cls.__module__}.{cls.__qualname__}' in known:
      return known[f'{cls.__module__}.{cls.__qualname__}']
  return 'custom'


def build(config, spec):
  """The task `config.task.name` on data described by `spec`."""
  return find(config.task.name)(config, spec)


def _own(name: str):
  from stp_jax.tasks import base
  path, _, cls = name.rpartition(':')
  if path.endswith('.py'):
    file = pathlib.Path(path).resolve()
    if not file.is_file():
      raise ValueError(f'task.name={name}: no file {path} (a path from {pathlib.Path.cwd()})')
    key = f'stp_jax_task_{file.stem}_{abs(hash(str(file))):x}'
    if key not in sys.modules:  # one class, however often it is asked for
      spec = importlib.util.spec_from_file_location(key, file)
      sys.modules[key] = importlib.util.module_from_spec(spec)
      try:
        spec.loader.exec_module(sys.modules[key])
      except BaseException:
        del sys.modules[key]
        raise
    module = sys.modules[key]
  else:
    try:
      module = importlib.import_module(path)
    except ModuleNotFoundError as error:
      raise ValueError(f'task.name={name}: {error}') from error
  found = getattr(module, cls, None)
  if not (isinstance(found, type) and issubclass(found, base.Task)):
    raise ValueError(f'task.name={name}: {path} has no class {cls} derived from '
                     'stp_jax.tasks.base.Task')
  return found
