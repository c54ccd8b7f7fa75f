"""A case's weights in our modules, and our gradients under PyTorch's keys."""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from stp_jax.convert import rules, torch_checkpoint
from stp_jax.parity.case import Case
from stp_jax.typing import PyTree


def load(case: Case, family: rules.Family, init: Callable[[], PyTree]
         ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Converts `weights.npz` strictly.

  Args:
    init: makes the module's variables; only their shapes are computed.

  Returns:
    Variables, in float64 where the case asks; the tensors that nothing uses.
  """
  variables, unused = rules.to_flax(family, case.weights, jax.eval_shape(init))
  if case.double:
    variables = jax.tree.map(lambda x: x.astype(np.float64), variables)
  return variables, unused


def gradients(family: rules.Family, grads: PyTree) -> dict[str, np.ndarray]:
  """Gradients of the parameters in PyTorch's layout."""
  return rules.to_torch(family, {'params': grads})


def checkpoint_notes(case: Case) -> list[str]:
  """What is wrong with reading the PyTorch files beside a case; empty without PyTorch."""
  if importlib.util.find_spec('torch') is None:
    return []
  notes = []
  for file, about in case.spec.get('checkpoints', {}).items():
    found = torch_checkpoint.load(case.folder / file).weights
    expected = case.arrays(about['equals'] or 'weights.npz')
    if found.keys() != expected.keys():
      notes.append(f'{file}: keys differ from the weights')
    elif about['equals'] and any((found[k] != expected[k]).any() for k in found):
      notes.append(f'{file}: differs from {about["equals"]}')
  return notes
