"""GS2PM's own cuts of recurrent networks: `cell_list.0.conv_x.weight` is
backbone/cell_list_0/conv_x/kernel."""

from collections.abc import Mapping

import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.shapes import numbers


def key(path: rules.Path) -> str:
  """Names follow PyTorch but for the list of cells."""
  return rules.spell(path, ('cell_list',))


_DIFFERENCE = 'cell_list.{}.mim_n.conv_h_diff'


def _dead_mim(weights: Mapping[str, np.ndarray], frame: tuple[int, int]) -> dict[str, np.ndarray]:
  """The convolution of a difference that is always zero; its bias counts."""
  del frame
  found = {}
  for i in numbers(weights, r'cell_list\.(\d+)\.mim_n\.'):
    name = _DIFFERENCE.format(i)
    below = weights[f'cell_list.{i}.conv_x.weight'].shape[1:]
    found[f'{name}.weight'] = np.zeros((len(weights[f'{name}.bias']), *below), np.float32)
  return found


FAMILIES = {
    **{name: rules.Family(name, key)
       for name in ('gs2pm_predrnn', 'gs2pm_predrnnpp', 'gs2pm_e3dlstm')},
    # With difference='time' it is one of ours.
    'gs2pm_mim': rules.Family(
        'gs2pm_mim', key, unused=(r'cell_list\.\d+\.mim_n\.conv_h_diff\.weight',), dead=_dead_mim)}
