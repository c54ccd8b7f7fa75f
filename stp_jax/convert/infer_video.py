"""Sizes of PredNet, PhyDNet, CrevNet and DMVFN, from the shapes of their weights.

Strides leave no trace in shapes: PhyDNet's `downscale`, DMVFN's `scales` and all activations have
to be told.
"""

from collections.abc import Callable

from stp_jax.convert.shapes import BACKBONE, Fields, Weights, kernels, numbers


def _prefixed(**fields) -> Fields:
  return {f'{BACKBONE}{k}': v for k, v in fields.items()}


def _prednet(weights: Weights) -> Fields:
  errors, expected = kernels(weights, 'A.{}.weight'), kernels(weights, 'Ahat.{}.weight')
  gates = kernels(weights, 'i.{}.weight')
  sides = lambda found: tuple(int(w.shape[-1]) for w in found)
  return _prefixed(
      features=tuple(int(w.shape[0]) for w in errors),
      r_features=tuple(int(w.shape[0]) for w in gates), kernel_size=sides(gates),
      a_kernel_size=sides(errors), ahat_kernel_size=sides(expected))


def _phydnet(weights: Weights) -> Fields:
  filters = weights['phycell.cell_list.0.F.conv1.weight']
  return _prefixed(
      features=int(filters.shape[1]), kernel_size=int(filters.shape[-1]),
      hidden=tuple(int(w.shape[0]) // 4 for w in kernels(
          weights, 'convcell.cell_list.{}.conv.weight')))


def _crevnet(weights: Weights) -> Fields:
  # The last convolution of a block is as wide as the half it is added to: alike in one stage.
  widths = []
  for i in numbers(weights, r'encoder\.stack\.(\d+)\.'):
    name = f'encoder.stack.{i}.bottleneck_block'
    last = [w for w in kernels(weights, f'{name}.{{}}.weight') if w.ndim > 1][-1]
    widths.append(int(last.shape[0]))
  stages = sorted(set(widths))
  return _prefixed(
      blocks=tuple(widths.count(n) for n in stages),
      layers=len(numbers(weights, r'frame_predictor\.convlstm\.(\d+)\.')))


def _dmvfn(weights: Weights) -> Fields:
  return _prefixed(
      features=tuple(int(w.shape[0]) for w in kernels(weights, 'stu.{}.conv0.1.0.weight')),
      routing_features=int(weights['routing.routing.0.weight'].shape[0]))


READERS: dict[str, Callable[[Weights], Fields]] = dict(
    prednet=_prednet, phydnet=_phydnet, crevnet=_crevnet, dmvfn=_dmvfn)
# Channels of a frame.
CHANNELS: dict[str, Callable[[Weights], int]] = dict(
    prednet=lambda w: int(w['Ahat.0.weight'].shape[0]),
    phydnet=lambda w: int(w['encoder.encoder_E.c1.main.0.weight'].shape[1]),
    # Half of the 4 C that two by two pixels make.
    crevnet=lambda w: int(w['encoder.stack.0.bottleneck_block.0.weight'].shape[1]) // 2,
    dmvfn=lambda w: int(w['routing.routing.0.weight'].shape[1]) // 2)
