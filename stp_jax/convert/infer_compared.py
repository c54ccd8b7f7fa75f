"""Sizes of the other networks that GS2PM compares with, from the shapes of their weights.

`infer_gs2pm` reads those that are its own cuts of networks of ours.
"""

from collections.abc import Callable

from stp_jax.convert.shapes import BACKBONE, Fields, Weights, kernels, numbers


def _prefixed(**fields) -> Fields:
  return {f'{BACKBONE}{k}': v for k, v in fields.items()}


def _outputs(found: list) -> tuple[int, ...]:
  return tuple(int(w.shape[0]) for w in found)


def _unet(weights: Weights) -> Fields:
  first, read = (int(n) for n in weights['embed.0.weight'].shape[:2])
  outputs = int(weights['out.0.weight'].shape[0])
  stages = (first, *_outputs(kernels(weights, 'enc.{}.0.weight')))
  return _prefixed(features=stages, outputs=0 if outputs == read else outputs) | {
      'data.t_in': read, 'data.t_out': outputs}


def _motionrnn(weights: Weights) -> Fields:
  hidden = kernels(weights, 'cell_list.{}.conv_h.weight')
  return dict(
      features=tuple(int(w.shape[1]) for w in hidden),
      kernel_size=tuple(int(w.shape[-1]) for w in hidden))


def _skip(features: tuple[int, ...], widths: list[int]) -> int | None:
  """After how many blocks an output is read again; `widths`: of what each block emits."""
  fits = lambda skip: all(
      w == n + (features[b - skip] if b >= skip else 0)
      for b, (n, w) in enumerate(zip(features, widths)))
  return next((s for s in range(len(features)) if fits(s)), None)


def _convlstmnet(weights: Weights) -> Fields:
  blocks = numbers(weights, r'layers\.b(\d+)l0\.')
  layers = tuple(len(numbers(weights, rf'layers\.b{b}l(\d+)\.')) for b in blocks)
  tensor_train = 'layers.b0l0.layers_.0.weight' in weights
  if tensor_train:
    order = len(kernels(weights, 'layers.b0l0.layers_.{}.weight'))
    ranks, past = weights['layers.b0l0.layers_.0.weight'].shape[:2]
    first = [weights[f'layers.b{b}l0.layers.{order - 1}.weight'] for b in blocks]
  else:
    first = [weights[f'layers.b{b}l0.conv.weight'] for b in blocks]
  features = tuple(int(w.shape[0]) // 4 for w in first)
  beside = [int(ranks)] * len(first) if tensor_train else features
  widths = [int(w.shape[1]) - n for w, n in zip(first, beside)][1:]
  widths.append(int(weights['layers.output.weight'].shape[1]))
  fields = dict(
      features=features, layers=layers, skip=_skip(features, widths),
      kernel_size=int(first[0].shape[-1]), cell='convttlstm' if tensor_train else 'convlstm',
      use_bias=any(k.startswith('layers.b0l0.') and k.endswith('.bias') for k in weights))
  if tensor_train:
    fields |= dict(order=order, ranks=int(ranks), steps=int(past) // features[0] + order - 1)
  return fields


def _net_input(weights: Weights) -> int:
  """Channels that the first cell reads, beside its own state."""
  key = 'layers.b0l0.conv.weight'
  if key in weights:
    four, read = weights[key].shape[:2]
    return int(read) - int(four) // 4
  order = len(kernels(weights, 'layers.b0l0.layers_.{}.weight'))
  return int(weights[f'layers.b0l0.layers.{order - 1}.weight'].shape[1]
             - weights['layers.b0l0.layers_.0.weight'].shape[0])


def _trajgru(weights: Weights) -> Fields:
  levels = numbers(weights, r'encoder\.layer(\d+)\.')
  def cells(half, key, axis):
    return tuple(int(weights[f'{half}.layer{i}.{key}'].shape[axis]) for i in levels)
  def links(half):
    return tuple(len(numbers(weights, rf'{half}\.layer{i}\.W_hr\.(\d+)\.')) for i in levels)
  listed = 'encoder.conv1.0.bias' in weights
  item = '.0' if listed else ''
  of = lambda key, levels=levels: tuple(len(weights[key.format(i)]) for i in levels)
  outputs = len(weights[f'forecast.deconv{levels[-1]}.2.bias'])
  return _prefixed(
      features=cells('encoder', 'W_hr.0.bias', 0), stems=of(f'encoder.conv{{}}{item}.bias'),
      kernels=cells('encoder', 'W_xr.weight', -1), links=links('encoder'),
      back_kernels=cells('forecast', 'W_xr.weight', -1), back_links=links('forecast'),
      widths=(*of(f'forecast.deconv{{}}{item}.bias', levels[:-1]),
              *of('forecast.deconv{}.0.bias', levels[-1:])),
      flow_features=of('encoder.layer{}.gammma_x.bias')[0],
      outputs=0 if outputs == CHANNELS['trajgru'](weights) else outputs,
      listed=listed, clip='none' if listed else 'unit')  # the latter is a network for 0 to 1


def _lmc(weights: Weights) -> Fields:
  motion = 'memory.motion_matching_encoder.{}.bias'
  return _prefixed(
      features=tuple(len(weights[f'encoder.{i}.bias']) for i in (0, 4)),
      layers=len(numbers(weights, r'convlstm_list\.(\d+)\.')),
      motion=tuple(len(weights[motion.format(i)]) for i in (0, 3, 6, 11)),
      memory_size=len(weights['memory.memory_w']), attention=len(weights['attention_func.2.bias']))


READERS: dict[str, Callable[[Weights], Fields]] = dict(
    unet=_unet, escl=lambda w: _prefixed(**_convlstmnet(w)), trajgru=_trajgru, lmc=_lmc)
# Channels of a frame.
CHANNELS: dict[str, Callable[[Weights], int]] = dict(
    unet=lambda w: 3,  # its weights do not tell; GS2PM trains on colours
    escl=_net_input,
    trajgru=lambda w: int(
        w.get('encoder.conv1.0.weight', w.get('encoder.conv1.weight')).shape[1]),
    lmc=lambda w: int(w['encoder.0.weight'].shape[1]))
# Step modules, which may have patches: sizes by field, the read-out, the channels that they read.
STEPS: dict[str, tuple[Callable[[Weights], Fields], str, Callable[[Weights], int]]] = dict(
    motionrnn=(_motionrnn, 'conv_last.weight', lambda w: int(
        w['cell_list.0.conv_x.weight'].shape[1])),
    convlstmnet=(_convlstmnet, 'layers.output.weight', _net_input))
