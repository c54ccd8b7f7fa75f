"""Looking into a state_dict: which numbers a list of modules has, and its tensors in order."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]
Fields = dict[str, Any]
BACKBONE = 'model.backbone.'


def numbers(weights: Weights, pattern: str) -> list[int]:
  """The sorted distinct numbers that the pattern's group takes in the keys."""
  found = (re.match(pattern, key) for key in weights)
  return sorted({int(match[1]) for match in found if match})


def kernels(weights: Weights, pattern: str) -> list[np.ndarray]:
  """The tensors `pattern` with `{}` replaced by each number that occurs there, in order."""
  found = numbers(weights, re.escape(pattern).replace(r'\{\}', r'(\d+)') + '$')
  return [weights[pattern.format(i)] for i in found]
