"""Tasks own the loss and the scores; they are the only thing the training loop knows."""

import importlib

_TASKS = {'forecast': 'Forecast', 'masked': 'Masked', 'beam': 'Beam', 'rebuild': 'Rebuild'}


def find(name: str):
  """The class of the task `name`; an unknown name lists the known."""
  if name not in _TASKS:
    raise ValueError(f'task.name={name!r}: choose one of {" ".join(_TASKS)}')
  return getattr(importlib.import_module(f'stp_jax.tasks.{name}'), _TASKS[name])


def build(config, spec):
  """The task `config.task.name` on data described by `spec`."""
  return find(config.task.name)(config, spec)
