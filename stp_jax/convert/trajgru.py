"""TrajGRU: `encoder.layer1.W_hz.0.weight` is backbone/encoder/layer1/W_hz_0/kernel.

A single convolution is a list of one, `encoder.conv1.0.weight`; with listed=false it is not.
"""

import re
from collections.abc import Mapping

import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.shapes import numbers

# The update gate, which upstream's code cancels (with update_gate=paper it is one of ours), and
# what the forecaster's first cell would do with an input, for it has none.
_UNUSED = (r'(.*\.)?W_[xh]z(\.\d+)?\.(weight|bias)',
           r'forecast\.layer1\.(gammma_x|W_x[zrh])\.weight')

_PATHS = ('W_hz', 'W_hr', 'W_hh')


def cell_key(path: rules.Path) -> str:
  """Of a cell alone: its paths are lists."""
  return rules.spell(path, _PATHS)


def key(path: rules.Path) -> str:
  """Of the whole network, where the layers of a level's stage are a list too."""
  stages = [p.rpartition('_')[0] for p in path if re.fullmatch(r'(de)?conv\d+_\d', p)]
  return rules.spell(path, (*_PATHS, *stages))


def dead(weights: Mapping[str, np.ndarray], frame: tuple[int, int]) -> dict[str, np.ndarray]:
  """Both, as zeros, where they are not there."""
  del frame
  found = {}
  for name in weights:
    if 'W_xr' in name or 'W_hr' in name:  # the reset gate is as large as the update gate
      found[name.replace('W_xr', 'W_xz').replace('W_hr', 'W_hz')] = np.zeros_like(weights[name])
  levels = numbers(weights, r'encoder\.layer(\d+)\.')
  stem = f'encoder.conv{levels[-1]}'
  inputs = len(weights.get(f'{stem}.0.bias', weights.get(f'{stem}.bias')))
  cell = 'forecast.layer1'
  features = len(weights[f'{cell}.W_xr.bias'])
  side = weights[f'{cell}.generate_flow.weight'].shape[-1]
  flow = len(weights[f'{cell}.gammma_x.bias'])
  found[f'{cell}.gammma_x.weight'] = np.zeros((flow, inputs, side, side), np.float32)
  # Nothing that is left tells the size of this kernel; upstream's first is that of the encoder's.
  side = weights['encoder.layer1.W_xr.weight'].shape[-1]
  for gate in 'zrh':
    found[f'{cell}.W_x{gate}.weight'] = np.zeros((features, inputs, side, side), np.float32)
  return found


FAMILY = rules.Family(
    'trajgru', key, unused=_UNUSED, dead=dead,
    layouts=((r'.*\.deconv\d+(\.0)?\.weight', 'transposed'),))
CELL = rules.Family('trajgru_cell', cell_key, unused=_UNUSED)
