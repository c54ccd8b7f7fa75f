"""E3D-LSTM: `cell_list.0.conv_x.0.conv3d.weight` is backbone/cell_list_0/conv_x/conv/kernel."""

from collections.abc import Mapping

import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.shapes import numbers

# Upstream applies it to a memory that stays zero; with memory='updated' it is one of ours.
_UNUSED = (r'cell_list\.\d+\.conv_gm\.0\.conv3d\.weight',)


def key(path: rules.Path) -> str:
  """A cell's convolutions are wrapped as `conv3d`; a convolution and its norm are items 0 and 1."""
  path = tuple('_norm_c_t' if part == 'norm_c_t' else part for part in path)
  if path[-2] == 'conv':
    path = (*path[:-2], '0', 'conv3d', path[-1])
  elif path[-2] == 'norm':
    path = (*path[:-2], '1', path[-1])
  elif path[-2] == 'conv_last' and len(path) > 2:
    path = (*path[:-1], 'conv3d', path[-1])
  return rules.spell(path, ('cell_list',))


def dead(weights: Mapping[str, np.ndarray], frame: tuple[int, int]) -> dict[str, np.ndarray]:
  """The convolution of the global memory, of the same shape as that of the hidden state."""
  del frame
  name = 'cell_list.{}.{}.0.conv3d.weight'
  return {name.format(i, 'conv_gm'): np.zeros_like(weights[name.format(i, 'conv_h')])
          for i in numbers(weights, r'cell_list\.(\d+)\.')}


FAMILY = rules.Family('e3dlstm', key, unused=_UNUSED, dead=dead)
