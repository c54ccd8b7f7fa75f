"""Grids of runs: what `get_sweep(h)` of a config file builds, and the command of every run.

A sweep is a list of settings, `{'model': 'convlstm', 'optimizer.learning_rate': 1e-3}`: a plain
name is a word of the config file, a name with a dot any field of `configs/common.py`.

  def get_sweep(h, name=''):
    return h.product(h.zip(model=['simvp', 'convlstm'], batch_size=[8, 4]), seed=[0, 1, 2])
"""

import builtins
import inspect
import itertools
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stp_jax import config as config_files

Settings = dict[str, Any]
# Every file system takes a name of so many bytes; the run's number keeps cut ones apart.
_LONGEST_NAME = 120


class SweepError(ValueError):
  """A sweep that cannot be read; one line that names the file."""


def sweep(name: str, values: Iterable[Any]) -> list[Settings]:
  """One setting per value of one word or field."""
  return [{name: value} for value in values]


def _parts(sweeps: Sequence[Iterable[Settings]], axes: Mapping[str, Iterable[Any]]):
  return [list(s) for s in sweeps] + [sweep(k, v) for k, v in axes.items()]


def _merged(group: Iterable[Settings]) -> Settings:
  whole: Settings = {}
  for settings in group:
    twice = whole.keys() & settings.keys()
    if twice:
      raise SweepError(f'{sorted(twice)[0]!r} is swept twice')
    whole |= settings
  return whole


def product(*sweeps: Iterable[Settings], **axes: Iterable[Any]) -> list[Settings]:
  """Every combination; the last one named changes fastest."""
  return [_merged(group) for group in itertools.product(*_parts(sweeps, axes))]


def zip(*sweeps: Iterable[Settings], **axes: Iterable[Any]) -> list[Settings]:
  """The first values together, the second ones together, ...

  Raises:
    SweepError: lists of different lengths.
  """
  parts = _parts(sweeps, axes)
  if len({len(p) for p in parts}) > 1:
    raise SweepError('zip: lists of ' + ', '.join(str(len(p)) for p in parts) + ' values; '
                     'give equally many')
  return [_merged(group) for group in builtins.zip(*parts)]


def chain(*sweeps: Iterable[Settings]) -> list[Settings]:
  """One sweep after the other."""
  return [dict(s) for part in sweeps for s in part]


def words(text: str) -> Settings:
  """The setting that `a=1,b=x` of a config's words says."""
  return {k: v for k, _, v in (w.partition('=') for w in text.split(',') if w)}


def _text(value: Any) -> str:
  if isinstance(value, bool):
    return str(value).lower()
  return '+'.join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def read(path_and_words: str) -> tuple[str, str, str, list[Settings]]:
  """The sweep of `path.py[:words]`; the word `sweep=NAME` chooses one of several.

  Returns:
    path, the words that every run gets, the sweep's name, its settings.

  Raises:
    SweepError: no such file, no `get_sweep`, an unknown name, or an empty sweep.
  """
  path, _, text = path_and_words.partition(':')
  if not pathlib.Path(path).is_file():
    raise SweepError(f'{path}: no such config file; see configs/')
  words = [w for w in text.split(',') if w]
  name = next((w.partition('=')[2] for w in words if w.partition('=')[0] == 'sweep'), '')
  common = ','.join(w for w in words if w.partition('=')[0] != 'sweep')
  module = config_files.module(pathlib.Path(path))
  if not hasattr(module, 'get_sweep'):
    raise SweepError(f'{path}: has no get_sweep(h); configs/iono_mixer.py shows one')
  import stp_jax.sweep as h
  named = len(inspect.signature(module.get_sweep).parameters) > 1
  if name and not named:
    raise SweepError(f'{path}: has one sweep only; leave out sweep={name}')
  try:
    settings = [dict(s) for s in (module.get_sweep(h, name) if named else module.get_sweep(h))]
  except SweepError as error:
    raise SweepError(f'{path}: {error}') from error
  except (ValueError, TypeError) as error:
    raise SweepError(f'{path}: get_sweep(h, name) fails ({error})') from error
  if not settings:
    raise SweepError(f'{path}: the sweep {name or "get_sweep"} is empty')
  return path, common, name, settings


def choose(name: str, sweeps: Mapping[str, list[Settings]]) -> list[Settings]:
  """`sweeps[name]`, the first one without a name; an unknown name lists the known ones."""
  if name and name not in sweeps:
    raise SweepError(f'sweep={name}: choose one of {" ".join(sweeps)}')
  return sweeps[name or next(iter(sweeps))]


def label(settings: Settings) -> str:
  """A folder name: `model-simvp_seed-0`."""
  if 'name' in settings:  # a run that names itself, by which others of its sweep may find it
    return re.sub(r'[^A-Za-z0-9_.+-]+', '-', _text(settings['name']))
  text = '_'.join(f'{k.rpartition(".")[2]}-{_text(v)}' for k, v in settings.items())
  return re.sub(r'[^A-Za-z0-9_.+-]+', '-', text)


def labels(settings: Sequence[Settings]) -> list[str]:
  """A folder name for every run, no two alike."""
  names = [label(s)[:_LONGEST_NAME] for s in settings]
  return [f'{n}_{i}' if names.count(n) > 1 else n for i, n in enumerate(names)]


def arguments(path: str, common: str, settings: Settings) -> list[str]:
  """What `stp_jax.main` is called with for one run, but for its workdir."""
  own = [f'{k}={_text(v)}' for k, v in settings.items() if '.' not in k]
  # The run's own value of a word wins over one that is given for all.
  swept = {k for k in settings if '.' not in k}
  kept = [w for w in common.split(',') if w and w.partition('=')[0] not in swept]
  words = ','.join(kept + own)
  flags = [f'--config.{k.removeprefix("config.")}={v}' for k, v in settings.items() if '.' in k]
  return [f'--config={path}{":" if words else ""}{words}', *flags]
