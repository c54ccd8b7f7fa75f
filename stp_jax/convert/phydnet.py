"""PhyDNet: `encoder.decoder_D.upc1.main.0.weight` is backbone/decoder_D/upc1/main_0/kernel."""

import numpy as np

from stp_jax.convert import rules
from stp_jax.models.recurrent.phydnet import moment_matrix


def key(path: rules.Path) -> str:
  """The cells stand at the top, encoders and decoders below `encoder`."""
  prefix = 'encoder.' if path[0].startswith(('encoder', 'decoder')) else ''
  return prefix + rules.spell(path, ('cell_list', 'main'))


def _constants() -> dict[str, np.ndarray]:
  matrix = moment_matrix(7)
  inverse = np.linalg.inv(matrix)
  return {f'k2m.{name}{axis}': value for axis in (0, 1)
          for name, value in (('_M', matrix), ('_invM', inverse))}


FAMILY = rules.Family(
    'phydnet', key,
    buffers=(r'k2m\._(inv)?M[01]',),
    layouts=((r'encoder\.decoder_D[pr]?\.(upc\d\.main\.0|upc3)\.weight', 'transposed'),),
    # The state_dict lists the two cells twice, as attributes of the model and of its encoder.
    aliases=(('encoder.phycell.', 'phycell.'), ('encoder.convcell.', 'convcell.')),
    constants=_constants())
