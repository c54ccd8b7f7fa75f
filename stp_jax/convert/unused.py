"""How many parameters upstream builds that nothing uses: upstream's total = ours + these.

A family names them by pattern (`rules.Family.unused`); here they are counted where no weights are
at hand.
"""

from typing import Any


def _st_lstm(features: int, kernel_size: int, norm: int) -> tuple[int, int]:
  """conv_o (2 n -> n, k x k, its layer norm) and conv_last (2 n -> n, 1 x 1) of a cell."""
  return (2 * features ** 2 * kernel_size ** 2 + 2 * features * norm, 2 * features ** 2)


def unused_count(name: str, backbone: Any, height: int, width: int) -> int:
  """Parameters of upstream's module that its forward pass never reaches.

  Args:
    name: of the model, see `models.BACKBONES`.
    backbone: the backbone module (an unbound one will do).
    height, width: of the frame in patches, for layer norms over the volume.
  """
  get = lambda field, default=None: getattr(backbone, field, default)
  norm = height * width if get('layer_norm') else 0
  if name == 'convlstm':  # inherits from the ST-LSTM's list of layers, and calls neither
    return sum(sum(_st_lstm(f, backbone.kernel_size, norm)) for f in backbone.features)
  if name == 'predrnnpp':  # conv_om took the place of conv_o
    return sum(_st_lstm(f, backbone.kernel_size, norm)[0] for f in backbone.features)
  if name == 'mim':  # the recurrences that model the change have no memory m to read out
    return sum(_st_lstm(f, 1, 0)[1] for f in backbone.features[1:])
  if name == 'e3dlstm' and get('memory') == 'upstream':  # conv_gm sees a memory that stays zero
    return sum(4 * f * f * 2 * backbone.kernel_size ** 2 for f in backbone.features)
  if name == 'mau' and get('head') == 'pointwise':  # OpenSTL's merge and conv_last_sr
    f, c = backbone.features[-1], backbone.channels
    return (2 * f + 1) * f + (2 * c + 1) * c
  return 0
