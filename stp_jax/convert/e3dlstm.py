"""E3D-LSTM: `cell_list.0.conv_x.0.conv3d.weight` is backbone/cell_list_0/conv_x/conv/kernel."""

from stp_jax.convert import rules

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


FAMILY = rules.Family('e3dlstm', key, unused=_UNUSED)
