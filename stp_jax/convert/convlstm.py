"""ConvLSTM: `cell_list.0.conv_x.0.weight` is backbone/cell_list_0/conv_x/conv/kernel."""

from collections.abc import Mapping

import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.shapes import numbers

# The output convolution of each cell and the 1x1 of ST-LSTM are built upstream and never called.
_UNUSED = r'cell_list\.\d+\.(conv_o|conv_last)\..*'


def key(path: rules.Path) -> str:
  """A convolution and its layer norm are items 0 and 1 of a list in PyTorch."""
  if path[-2] in ('conv', 'norm') and path[0].startswith('cell_list'):
    path = (*path[:-2], '0' if path[-2] == 'conv' else '1', path[-1])
  return rules.spell(path, ('cell_list',))


def output_convolution(weights: Mapping[str, np.ndarray], cell: str) -> dict[str, np.ndarray]:
  """`<cell>.conv_o`, of both memories, as upstream builds it beside `<cell>.conv_h`."""
  four, hidden, *kernel = weights[f'{cell}.conv_h.0.weight'].shape
  dead = {f'{cell}.conv_o.0.weight': np.zeros((hidden, 2 * hidden, *kernel), np.float32)}
  norm = weights.get(f'{cell}.conv_h.1.weight')
  if norm is not None:
    volume = (four // 4, *norm.shape[1:])
    dead |= {f'{cell}.conv_o.1.weight': np.ones(volume, np.float32),
             f'{cell}.conv_o.1.bias': np.zeros(volume, np.float32)}
  return dead


def readout(hidden: int) -> np.ndarray:
  """The 1 x 1 convolution of both memories of a cell."""
  return np.zeros((hidden, 2 * hidden, 1, 1), np.float32)


def dead(weights: Mapping[str, np.ndarray], frame: tuple[int, int]) -> dict[str, np.ndarray]:
  """Both convolutions of every cell, see `rules.complete`."""
  del frame
  found = {}
  for i in numbers(weights, r'cell_list\.(\d+)\.'):
    hidden = weights[f'cell_list.{i}.conv_h.0.weight'].shape[1]
    found |= output_convolution(weights, f'cell_list.{i}')
    found[f'cell_list.{i}.conv_last.weight'] = readout(hidden)
  return found


FAMILY = rules.Family('convlstm', key, unused=(_UNUSED,), dead=dead)
