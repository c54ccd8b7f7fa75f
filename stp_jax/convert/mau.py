"""MAU: `encoders.1.encoder_t0.weight` is backbone/encoders_1/kernel."""

from collections.abc import Mapping

import numpy as np

from stp_jax.convert import rules

# OpenSTL builds two further heads that it never calls.
_UNUSED = (r'merge\..*', r'conv_last_sr\..*')


def key(path: rules.Path) -> str:
  """Encoder and decoder layers carry their number twice; a cell's convolution and norm are 0, 1."""
  module, _, number = path[0].rpartition('_')
  if module == 'encoders':
    path = (path[0], f'encoder_t{int(number) - 1}' if int(number) else 'encoder_t_conv-1', path[-1])
  elif module == 'decoders':
    path = (path[0], f'c_decoder{number}', path[-1])
  elif path[0] == 'srcnn':
    path = ('srcnn', '0', path[-1])
  elif path[-2] in ('conv', 'norm'):
    path = (*path[:-2], '0' if path[-2] == 'conv' else '1', path[-1])
  return rules.spell(path, ('cell_list', 'encoders', 'decoders'))


def dead(weights: Mapping[str, np.ndarray], frame: tuple[int, int]) -> dict[str, np.ndarray]:
  """OpenSTL's two heads, where the weights are of its form."""
  del frame
  if 'srcnn.0.weight' not in weights:
    return {}
  channels, hidden = weights['srcnn.0.weight'].shape[:2]
  zeros = lambda *shape: np.zeros(shape, np.float32)
  return {
      'merge.weight': zeros(hidden, 2 * hidden, 1, 1), 'merge.bias': zeros(hidden),
      'conv_last_sr.weight': zeros(channels, 2 * channels, 1, 1),
      'conv_last_sr.bias': zeros(channels)}


FAMILY = rules.Family(
    'mau', key, unused=_UNUSED, dead=dead, layouts=((r'decoders\..*\.weight', 'transposed'),))
