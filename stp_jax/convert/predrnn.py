"""The PredRNN family and MIM: `cell_list.0.conv_x.0.weight` is
backbone/cell_list_0/conv_x/conv/kernel."""

from collections.abc import Mapping

import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.convlstm import output_convolution, readout
from stp_jax.convert.shapes import numbers

_LISTS = ('cell_list', 'stlstm_layer', 'stlstm_layer_diff')
_ITEMS = {'conv': '0', 'norm': '1'}


def key(path: rules.Path) -> str:
  """A convolution and its layer norm are items 0 and 1 of a list in PyTorch."""
  if len(path) > 2:
    path = (*path[:-2], _ITEMS.get(path[-2], path[-2]), path[-1])
  return rules.spell(path, _LISTS)


# Upstream builds these and never calls them: the output convolution of a causal LSTM, the 1 x 1 of
# the branches that model the change.
_UNUSED = dict(
    predrnnpp=(r'cell_list\.\d+\.conv_o\..*',), mim=(r'stlstm_layer_diff\.\d+\.conv_last\..*',))


def _dead_predrnnpp(weights: Mapping[str, np.ndarray], frame: tuple[int, int]
                    ) -> dict[str, np.ndarray]:
  del frame
  cells = numbers(weights, r'cell_list\.(\d+)\.')
  return {k: v for i in cells for k, v in output_convolution(weights, f'cell_list.{i}').items()}


def _dead_mim(weights: Mapping[str, np.ndarray], frame: tuple[int, int]) -> dict[str, np.ndarray]:
  del frame
  name = 'stlstm_layer_diff.{}'
  return {
      f'{name.format(i)}.conv_last.weight': readout(
          weights[f'{name.format(i)}.conv_h_concat.0.weight'].shape[1])
      for i in numbers(weights, r'stlstm_layer_diff\.(\d+)\.')}


_DEAD = dict(predrnnpp=_dead_predrnnpp, mim=_dead_mim)
FAMILIES = {
    name: rules.Family(name, key, unused=_UNUSED.get(name, ()),
                       **(dict(dead=_DEAD[name]) if name in _DEAD else {}))
    for name in ('predrnn', 'predrnnpp', 'predrnnv2', 'mim')}
