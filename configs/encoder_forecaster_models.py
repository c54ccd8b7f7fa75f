"""What configs/video.py sets for encoder-forecasters, by the data that they were published for.

ConvLSTM-PyTorch and the course's copy of it (ed_convlstm, ed_convgru), Spatiotemporal-Prediction.
"""

import collections

Preset = collections.namedtuple('Preset', 'backbone patch batch_size learning_rate')
_ED = dict(
    moving_mnist=Preset({}, 1, 4, 1e-4),  # the networks' own defaults
    course=Preset(dict(stems=(64, 64, 96)), 1, 4, 1e-4))  # 160 x 240 x 3, 11 -> 11
_PEEPHOLE = dict(features=(128, 64, 64), kernel_size=5)
_FIVE = dict(features=(96,) * 3, links=(5, 5, 9), back_links=(5, 5, 9))
PRESETS = dict(
    ed_convgru=_ED, ed_convlstm=_ED,
    peephole_convlstm=dict(
        moving_mnist=Preset(dict(_PEEPHOLE, clip='unit'), 4, 8, 1e-3),
        kth=Preset(dict(_PEEPHOLE, clip='unit'), 4, 8, 1e-3),
        taxibj=Preset(dict(_PEEPHOLE, clip='positive'), 1, 32, 1e-3)),
    trajgru=dict(
        moving_mnist=Preset(dict(
            features=(64, 96, 128), stems=(8, 96, 128), widths=(96, 64, 8), listed=False,
            clip='unit'), 1, 8, 1e-4),
        kth=Preset(dict(clip='unit'), 1, 4, 1e-4),
        taxibj=Preset(dict(_FIVE, clip='positive'), 1, 32, 1e-4)))
# Minutes on two cores, and seconds; our choice.
_LOW = dict(features=(16, 32), stems=(8, 16), widths=(16, 8))
_LEAST = dict(features=(4, 8), stems=(4, 4), widths=(4, 4))
_TWO = dict(kernels=(3, 3), links=(3, 3), back_kernels=(3, 3), back_links=(3, 3), flow_features=8)
_ONE = dict(_TWO, links=(1, 1), back_links=(1, 1), flow_features=4)
SMALL = dict(
    ed_convgru=dict(_LOW, kernel_size=3), ed_convlstm=dict(_LOW, kernel_size=3),
    peephole_convlstm=dict(features=(32, 32)), trajgru=dict(_LOW, **_TWO))
SMOKE = dict(
    ed_convgru=_LEAST, ed_convlstm=_LEAST, peephole_convlstm=dict(features=(8, 8)),
    trajgru=dict(_LEAST, **_ONE))


def preset(model: str, dataset: str) -> Preset:
  """The published one, or that of Moving MNIST without its limits to the values of a forecast."""
  found = PRESETS[model].get(dataset)
  if found:
    return found
  found = PRESETS[model]['moving_mnist']
  return found._replace(backbone={k: v for k, v in found.backbone.items() if k != 'clip'})
