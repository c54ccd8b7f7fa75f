"""Encoder-forecasters with group norm: `encoder.rnn1.conv.0.weight` is
backbone/encoder/rnn1/conv/conv/kernel, `encoder.stage1.conv1_leaky_1.bias` has the same names."""

from stp_jax.convert import rules
from stp_jax.convert.shapes import BACKBONE, Fields, Weights, numbers

_ITEMS = dict(conv='0', norm='1')
_GATES = dict(ed_convlstm=('conv', 4), ed_convgru=('conv2', 1))  # the last, and how many


def key(path: rules.Path) -> str:
  """Names follow PyTorch; a convolution of a cell and its norm are items of a list."""
  if path[1].startswith('rnn'):
    path = (*path[:3], _ITEMS[path[3]], path[4])
  return rules.spell(path)


FAMILIES = {
    name: rules.Family(
        name, key, layouts=((r'.*\.stage\d+\.[^.]*deconv[^.]*\.weight', 'transposed'),))
    for name in _GATES}


def _fields(model: str, weights: Weights) -> Fields:
  """Sizes, where the layers have their usual names; strides leave no trace in shapes."""
  gates, count = _GATES[model]
  levels = numbers(weights, r'encoder\.rnn(\d+)\.')
  last = levels[-1]
  width = lambda name: len(weights[f'{name}.bias'])
  features = tuple(width(f'encoder.rnn{i}.{gates}.0') // count for i in levels)
  kernel = weights[f'decoder.rnn{last}.{gates}.0.weight']
  up = [(f'stage{last + 1 - i}', f'{"deconv" if i < last else "conv"}{i}') for i in levels]
  found = dict(
      features=features, kernel_size=int(kernel.shape[-1]),
      stems=tuple(width(f'encoder.stage{i}.conv{i}_leaky_1') for i in levels),
      widths=tuple(width(f'decoder.{stage}.{name}_leaky_1') for stage, name in up),
      inputs=int(kernel.shape[1]) - features[-1])
  return {f'{BACKBONE}{k}': v for k, v in found.items()}


READERS = {name: lambda weights, name=name: _fields(name, weights) for name in _GATES}
# Channels of a frame.
CHANNELS = {
    name: lambda weights: int(weights['encoder.stage1.conv1_leaky_1.weight'].shape[1])
    for name in _GATES}
