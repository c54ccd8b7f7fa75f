"""SimVP, its translators: `enc.enc.0.conv.conv.weight` is backbone/enc/enc_0/conv/conv/kernel."""

import math
from collections.abc import Mapping

import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.shapes import numbers
from stp_jax.models.simvp.translators.swin import visible, window_and_shift

_LISTS = ('enc', 'dec', 'conv', 'fc', 'layers', 'pws')


def key(path: rules.Path) -> str:
  """Names follow PyTorch but for the lists (`dec.dec.0.conv.conv.0`, `gating_unit.fc.2`)."""
  return rules.spell(path, _LISTS)


def _window_index(side: int) -> np.ndarray:
  """int64 `[side ** 2, side ** 2]`: which bias stands for the offset of two pixels of a window."""
  rows, columns = (x.reshape(-1) for x in np.indices((side, side)))
  offset = lambda x: x[:, None] - x[None] + side - 1
  return (offset(rows) * (2 * side - 1) + offset(columns)).astype(np.int64)


def dead(weights: Mapping[str, np.ndarray], frame: tuple[int, int]) -> dict[str, np.ndarray]:
  """Swin's buffers: both follow from the sizes of windows and frame; the mask is never read."""
  halvings = len(numbers(weights, r'enc\.enc\.(\d+)\.')) // 2
  height, width = (-(-n // 2 ** halvings) for n in frame)
  found = {}
  for i in numbers(weights, r'hid\.enc\.(\d+)\.block\.attn\.relative_position_bias_table'):
    block = f'hid.enc.{i}.block'
    table = weights[f'{block}.attn.relative_position_bias_table']
    side = (math.isqrt(len(table)) + 1) // 2
    found[f'{block}.attn.relative_position_index'] = _window_index(side)
    window, shift = window_and_shift(height, width, i, side)
    if shift and window == side:
      seen = visible(height, width, window, shift, 'standard')
      found[f'{block}.attn_mask'] = np.where(seen, 0, -100).astype(np.float32)
  return found


FAMILY = rules.Family(
    'simvp', key, dead=dead,
    buffers=(r'.*\.num_batches_tracked', r'.*\.relative_position_index', r'.*\.attn_mask'),
    # TAU's squeeze and excite: linear layers there, 1 x 1 convolutions here.
    # MogaNet's factors per channel: [1, C, 1, 1] there; other blocks have [C] under these names.
    layouts=((r'.*\.fc\.\d\.weight', 'linear'), (r'.*\.(layer_scale_\d|sigma)', 'planes')))
