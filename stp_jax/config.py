"""Config files and their words: `configs/x.py:key=value,key=value,smoke`."""

import ast
import importlib.util
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections

# Keywords of a backbone, an importer, a model's terms: whoever takes them knows what is valid.
_FREE = ('model.backbone', 'data.dataset_options', 'task.term_weights', 'optimizer.slow')


# Fields that older runs' configs lack, with the values that mean what those runs did.
_ADDED = {
    'data.domains': (), 'data.balanced': False, 'data.frame_size': (), 'data.frame_channels': 0,
    'data.test_windows': 0, 'task.stage': '', 'optimizer.slow': {}, 'data.preferred': (5, 5),
    'task.scores': 'auto',
    'task.events': dict(thresholds=(), scales=(1, 4, 16), full_scale=0.0, full_scale_units='',
                        full_scale_thresholds=()),
    'model.frame': 'geographic', 'model.padding': 'zero',
    'optimizer.accumulate': 1, 'watchdog_minutes': 0.0, 'protocol': 'standard',
    'optimizer.clip_value': 0.0, 'optimizer.plateau_factor': 0.1, 'optimizer.plateau_patience': 10,
    'optimizer.plateau_threshold': 1e-4, 'optimizer.plateau_cooldown': 0,
    'validation.epochs': 0, 'validation.metric': '', 'validation.direction': 'min',
    'validation.patience': 0, 'validation.min_delta': 0.0}
_SECTIONS = ('validation',)  # that came later, whole


class WordError(ValueError):
  """A word that the config file does not know, or a value of the wrong type."""


def parse_words(text: str | None, known: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """Reads `a=1,b=x,flag` against defaults, which give the names and the types.

  Args:
    text: the words; empty or None means none.
    known: name -> default. A bool default may be given as a bare word.

  Raises:
    WordError: unknown word, or value that cannot be read; the known words are listed.
  """
  words = ml_collections.ConfigDict(dict(known), type_safe=False)
  for item in filter(None, (text or '').split(',')):
    name, given, value = item.partition('=')
    if name not in known:
      listed = ' '.join(f'{k}={v}' for k, v in known.items())
      raise WordError(f'unknown config word {name!r}; the words and their defaults: {listed}')
    default = known[name]
    if not given and not isinstance(default, bool):
      raise WordError(f'config word {name!r} needs a value: {name}={default}')
    if isinstance(default, bool):
      if value.lower() not in ('', 'true', 'false', '1', '0'):
        raise WordError(f'config word {name}={value}: true or false')
      words[name] = value.lower() in ('', 'true', '1')
    else:
      try:
        words[name] = type(default)(value)
      except ValueError as error:
        raise WordError(f'config word {name}={value}: not {type(default).__name__}') from error
  return words


def choose(word: str, value: str, options: Mapping[str, Any]) -> Any:
  """`options[value]`; an unknown value is a WordError that lists the valid ones."""
  if value not in options:
    raise WordError(f'config word {word}={value}: choose one of {" ".join(map(str, options))}')
  return options[value]


def load(path_and_words: str, overrides: Mapping[str, str] | None = None
         ) -> ml_collections.ConfigDict:
  """The locked config of `path.py[:words]` with overrides `{'optimizer.learning_rate': '3e-4'}`.

  A run's own `config.json` is read as well; it takes no words.

  Raises:
    FileNotFoundError: no such config file.
    WordError: a word that it does not know.
    ValueError: an override of an unknown field (the section's are listed), or of another type.
  """
  path, _, words = path_and_words.partition(':')
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f'{path}: no such config file; see configs/')
  if path.endswith('.json'):
    config = _from_json(pathlib.Path(path), words)
  else:
    config = module(pathlib.Path(path)).get_config(words)
    config.words = words
  config.lock()
  override(config, overrides)
  return config


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Adds the fields that came after a run was written; returns `config`."""
  for section in _SECTIONS:
    if section not in config:
      config[section] = ml_collections.ConfigDict()
  for name, default in _ADDED.items():
    section, _, field = name.rpartition('.')
    if section and section not in config:
      continue
    target = config[section] if section else config
    if field not in target:
      target[field] = default
  return config


def _from_json(path: pathlib.Path, words: str) -> ml_collections.ConfigDict:
  try:
    tree = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path}: not JSON: {error}') from error
  if words or not isinstance(tree, dict):
    raise WordError(f'{path}: a written config takes no words; use --config.section.field=value')
  return complete(ml_collections.ConfigDict(_tuples(tree), type_safe=False))


def _tuples(tree: Any) -> Any:
  if isinstance(tree, dict):
    return {k: _tuples(v) for k, v in tree.items()}
  return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


def _value(text: str) -> Any:
  """A Python literal; true and false as in words."""
  return dict(true=True, false=False)[text] if text in ('true', 'false') else ast.literal_eval(text)


def override(config: ml_collections.ConfigDict, overrides: Mapping[str, str] | None) -> None:
  """Sets fields of a locked config from text.

  Raises:
    ValueError: an unknown field (the section's are listed), or a value of another type.
  """
  for name, text in (overrides or {}).items():
    *sections, field = name.split('.')
    target = config
    for section in sections:
      target = target[section] if section in target else None
      if not isinstance(target, ml_collections.ConfigDict):
        target = ml_collections.ConfigDict()
    if field not in target and '.'.join(sections) in _FREE:
      with config.unlocked():
        try:
          target[field] = _value(text)
        except (ValueError, SyntaxError):
          target[field] = text
      continue
    if field not in target:
      valid = ' '.join(sorted(target)) or 'no such section'
      raise ValueError(f'--config.{name}: unknown field; known: {valid}')
    old = target[field]
    try:
      new = text if isinstance(old, str) else _value(text)
      target[field] = type(old)(new) if isinstance(old, (float, tuple)) else new
    except (ValueError, SyntaxError, TypeError):
      raise ValueError(f'--config.{name}={text}: not a {type(old).__name__}') from None


def split_overrides(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
  """Separates `--config.a.b=v` from the flags that absl reads."""
  rest, found = [], {}
  for argument in arguments:
    if argument.startswith('--config.'):
      name, given, value = argument.removeprefix('--config.').partition('=')
      if not given:
        raise ValueError(f'{argument}: write --config.{name}=value')
      found[name] = value
    else:
      rest.append(argument)
  return rest, found


def module(path: pathlib.Path):
  """Imports a config file by its path."""
  file = path.resolve()
  root = str(file.parent.parent)  # `from configs import common` works from any folder
  if root not in sys.path:
    sys.path.insert(0, root)
  spec = importlib.util.spec_from_file_location(f'stp_jax_config_{file.stem}', file)
  loaded = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(loaded)
  return loaded
