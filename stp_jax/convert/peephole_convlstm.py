"""Peephole ConvLSTM: `encoder.encoder.0.conv_x.weight` is
backbone/encoder/encoder_0/conv_x/kernel."""

from collections.abc import Mapping

import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.shapes import numbers

# The forget gate's peephole is never read (with peepholes='all' it is one of ours); the forecaster
# is fed zeros.
_UNUSED = (r'(encoder\.encoder|forecast\.forecast)\.\d+\.w_cf',
           r'forecast\.forecast\.0\.conv_x\.weight')


def key(path: rules.Path) -> str:
  """Names follow PyTorch but for the two lists of cells."""
  return rules.spell(path, ('encoder', 'forecast'))


def dead(weights: Mapping[str, np.ndarray], frame: tuple[int, int]) -> dict[str, np.ndarray]:
  """What upstream never reads, see `rules.complete`."""
  del frame
  cells = [f'{part}.{part}.{i}' for part in ('encoder', 'forecast')
           for i in numbers(weights, rf'{part}\.{part}\.(\d+)\.')]
  found = {f'{cell}.w_cf': np.zeros_like(weights[f'{cell}.w_ci']) for cell in cells}
  name = '{}.0.conv_x.weight'.format
  found[name('forecast.forecast')] = np.zeros_like(weights[name('encoder.encoder')])
  return found


FAMILY = rules.Family(
    'peephole_convlstm', key, unused=_UNUSED, layouts=((r'(.*\.)?w_c[ifo]', 'planes'),), dead=dead)
