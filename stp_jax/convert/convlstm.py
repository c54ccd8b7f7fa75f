"""ConvLSTM: `cell_list.0.conv_x.0.weight` is backbone/cell_list_0/conv_x/conv/kernel."""

from stp_jax.convert import rules

# The output convolution of each cell and the 1x1 of ST-LSTM are built upstream and never called.
_UNUSED = r'cell_list\.\d+\.(conv_o|conv_last)\..*'


def key(path: rules.Path) -> str:
  """A convolution and its layer norm are items 0 and 1 of a list in PyTorch."""
  if path[-2] in ('conv', 'norm') and path[0].startswith('cell_list'):
    path = (*path[:-2], '0' if path[-2] == 'conv' else '1', path[-1])
  return rules.spell(path, ('cell_list',))


FAMILY = rules.Family('convlstm', key, unused=(_UNUSED,))
