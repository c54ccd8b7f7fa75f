"""A parity case: one folder `<group>/<case>/` described whole by its `case.json`."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np


class CaseError(ValueError):
  """A folder that is no case, or a case that lacks something; one line."""


class Unsupported(CaseError):
  """A case that asks for something this package has not built."""


@dataclasses.dataclass
class Result:
  """What a family computed for a case; absent parts fail where the case asks for them.

  Attributes:
    outputs: output name -> array, in the case's layout.
    files: side file -> {name: array}, for outputs that are compared with another npz.
    values: JSON pointer -> number or list.
    loss: the loss that was differentiated.
    grads: PyTorch key -> gradient in PyTorch's layout; for inputs, the name of the stored array.
    n_params: parameters, those that nothing uses included.
    notes: further failures, in words.
  """
  outputs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  files: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
  values: dict[str, Any] = dataclasses.field(default_factory=dict)
  loss: float | None = None
  grads: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  n_params: int | None = None
  notes: list[str] = dataclasses.field(default_factory=list)


class Case:
  """The arrays are read when they are first asked for.

  Attributes:
    folder: its path.
    spec: `case.json`.
  """

  def __init__(self, folder: str | pathlib.Path):
    self.folder = pathlib.Path(folder)
    try:
      self.spec: dict[str, Any] = json.loads((self.folder / 'case.json').read_text())
    except (OSError, json.JSONDecodeError) as error:
      raise CaseError(f'{self.folder}/case.json: {error}') from error
    missing = [k for k in ('group', 'case', 'kind', 'model', 'config', 'compare')
               if k not in self.spec]
    if missing:
      raise CaseError(f'{self.folder}/case.json: no field {", ".join(missing)}')

  def __repr__(self) -> str:
    return f'Case({self.name})'

  @property
  def name(self) -> str:
    return f'{self.spec["group"]}/{self.spec["case"]}'

  @property
  def config(self) -> dict[str, Any]:
    return self.spec['config']

  @property
  def double(self) -> bool:
    """Whether to run it in float64."""
    return self.spec.get('precision') == 'float64'

  def arrays(self, file: str) -> dict[str, np.ndarray]:
    """All arrays of an npz of the folder; empty where there is none."""
    path = self.folder / file
    if not path.exists():
      return {}
    with np.load(path, allow_pickle=False) as data:
      return dict(data)

  @functools.cached_property
  def io(self) -> dict[str, np.ndarray]:
    return self.arrays('io.npz')

  @functools.cached_property
  def weights(self) -> dict[str, np.ndarray]:
    return self.arrays('weights.npz')

  @functools.cached_property
  def grads(self) -> dict[str, np.ndarray]:
    return self.arrays('grads.npz')

  def input(self, name: str) -> np.ndarray:
    """Raises CaseError where the case has no such input."""
    if f'input/{name}' not in self.io:
      raise CaseError(f'{self.name}: io.npz has no input/{name}')
    return self.io[f'input/{name}']

  def wants(self, output: str) -> bool:
    """Whether `output` is compared."""
    return any(e['output'] == output for e in self.spec['compare'])


def find(folder: str | pathlib.Path) -> tuple[list[pathlib.Path], bool]:
  """The case folders in a case, a group or a tree; and whether they were named: not a whole tree.

  Raises:
    CaseError: no case there.
  """
  folder = pathlib.Path(folder)
  for depth, pattern in enumerate(('case.json', '*/case.json', '*/*/case.json')):
    found = sorted(p.parent for p in folder.glob(pattern))
    if found:
      return found, depth < 2
  raise CaseError(f'{folder}: no case.json in it, in its folders, or in theirs')


def groups(folders: list[pathlib.Path]) -> Iterator[tuple[str, list[pathlib.Path]]]:
  """Cases by the group their folder is in, in order."""
  by_group: dict[str, list[pathlib.Path]] = {}
  for folder in folders:
    by_group.setdefault(folder.resolve().parent.name, []).append(folder)
  yield from by_group.items()
