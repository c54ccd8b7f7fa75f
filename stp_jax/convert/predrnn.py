"""The PredRNN family and MIM: `cell_list.0.conv_x.0.weight` is
backbone/cell_list_0/conv_x/conv/kernel."""

from stp_jax.convert import rules

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
FAMILIES = {
    name: rules.Family(name, key, unused=_UNUSED.get(name, ()))
    for name in ('predrnn', 'predrnnpp', 'predrnnv2', 'mim')}
