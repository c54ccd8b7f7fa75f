"""Sizes of the networks that GS2PM compares with, from the shapes of their weights.

Published weights hold nothing of forget biases and of how many predictions are skipped.
"""

from collections.abc import Callable

from stp_jax.convert import infer_compared
from stp_jax.convert.shapes import BACKBONE, Fields, Weights, kernels, numbers


def _sides(found: list) -> tuple[int, ...]:
  return tuple(int(w.shape[-1]) for w in found)


def _predrnn(weights: Weights) -> Fields:
  hidden = kernels(weights, 'cell_list.{}.conv_h.weight')
  return dict(features=tuple(int(w.shape[1]) for w in hidden), kernel_size=_sides(hidden))


def _predrnnpp(weights: Weights) -> Fields:
  cells, highway = kernels(weights, 'cell_list.{}.conv_w4.weight'), weights['ghu.conv_z.weight']
  return dict(
      features=tuple(int(w.shape[0]) for w in cells), kernel_size=_sides(cells),
      ghu_features=int(highway.shape[1]), ghu_kernel_size=int(highway.shape[-1]))


def _e3dlstm(weights: Weights) -> Fields:
  hidden = kernels(weights, 'cell_list.{}.conv3d_h.weight')
  return dict(
      features=tuple(int(w.shape[1]) for w in hidden),
      kernel_size=tuple(int(n) for n in hidden[0].shape[2:]),
      window=int(weights['conv_last.weight'].shape[2]))


def _peephole_convlstm(weights: Weights) -> Fields:
  hidden = kernels(weights, 'encoder.encoder.{}.conv_h.weight')
  return dict(features=tuple(int(w.shape[1]) for w in hidden), kernel_size=_sides(hidden))


# Sizes, the read-out, and the channels that the network reads.
_Reader = tuple[Callable[[Weights], Fields], str, Callable[[Weights], int]]
_input = lambda key: lambda weights: int(weights[key].shape[1])
READERS: dict[str, _Reader] = dict(
    gs2pm_predrnn=(_predrnn, 'conv_last.weight', _input('cell_list.0.conv_x.weight')),
    gs2pm_mim=(_predrnn, 'conv_last.weight', _input('cell_list.0.conv_x.weight')),
    gs2pm_predrnnpp=(
        # It reads the frame beside two of its own states.
        _predrnnpp, 'conv_last.weight',
        lambda w: int(w['cell_list.0.conv_w1.weight'].shape[1])
        - 2 * int(w['cell_list.0.conv_w4.weight'].shape[0])),
    gs2pm_e3dlstm=(_e3dlstm, 'conv_last.weight', _input('cell_list.0.conv3d_x.weight')),
    peephole_convlstm=(
        _peephole_convlstm, 'forecast.conv_last.weight', _input('encoder.encoder.0.conv_x.weight')),
    **infer_compared.STEPS)


def fields(model: str, weights: Weights) -> Fields:
  """Dotted config fields. KeyError, IndexError: weights of another model."""
  return {f'{BACKBONE}{k}': v for k, v in READERS[model][0](weights).items()}


def head(model: str, weights: Weights) -> int:
  """Channels of the read-out: patches times image channels."""
  return int(weights[READERS[model][1]].shape[0])


def width(model: str, weights: Weights) -> int:
  """Channels of what the network reads, patches times channels."""
  return READERS[model][2](weights)


def simvp_v1(weights: Weights) -> Fields:
  """Dotted config fields of the first SimVP. KeyError: weights of another model."""
  latent = int(weights['enc.enc.0.conv.conv.weight'].shape[0])
  sizes = dict(
      hid_S=latent, hid_T=int(weights['hid.enc.0.layers.0.conv.weight'].shape[0]),
      N_S=len(numbers(weights, r'enc\.enc\.(\d+)\.')),
      N_T=len(numbers(weights, r'hid\.enc\.(\d+)\.')))
  # The translator reads all input frames at once.
  frames = int(weights['hid.enc.0.conv1.weight'].shape[1]) // latent
  return {f'{BACKBONE}{k}': v for k, v in sizes.items()} | {'data.t_in': frames}
