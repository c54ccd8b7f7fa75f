"""PredRNN (Wang et al. 2017, NeurIPS) as OpenSTL and the Channel Mixer Layer stack it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.convlstm import GateConv, state
from stp_jax.typing import Array

Carry = Any
Deltas = tuple[Array, Array]


def check_features(model: str, features: Sequence[int], least: int = 1) -> None:
  """ValueError where a memory that visits all layers meets layers of different widths."""
  if len(features) < least:
    raise ValueError(f'{model}: features {tuple(features)}: give at least {least} layers')
  if len(set(features)) > 1:
    raise ValueError(
        f'{model}: features {tuple(features)} differ, but one memory visits all layers; '
        'give every layer the same number')


def read_out(channels: int, zero: bool, dtype: jnp.dtype | None) -> Conv2D:
  """The 1 x 1 convolution from the top hidden state to the prediction."""
  return Conv2D(
      channels, 1, use_bias=False, initializer='zeros' if zero else 'torch', dtype=dtype,
      name='conv_last')


class STLSTMCell(nn.Module):
  """Spatiotemporal LSTM: a memory c through time, a memory m through the layers.

  Gates in the order i, f, g, i', f', g', o; a forget bias of 1; separate input, hidden and memory
  convolutions.
  """
  features: int
  kernel_size: int = 5
  layer_norm: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array, m: Array) -> tuple[Array, Array, Array, Deltas]:
    """`[B, h, w, in]`, states `[B, h, w, features]` -> new h, c, m, and what was added to c, m."""
    gate = lambda n, name: GateConv(
        n * self.features, self.kernel_size, self.layer_norm, self.dtype, name=name)
    i_x, f_x, g_x, j_x, e_x, k_x, o_x = jnp.split(gate(7, 'conv_x')(x), 7, -1)
    i_h, f_h, g_h, o_h = jnp.split(gate(4, 'conv_h')(h), 4, -1)
    j_m, e_m, k_m = jnp.split(gate(3, 'conv_m')(m), 3, -1)
    delta_c = nn.sigmoid(i_x + i_h) * nn.tanh(g_x + g_h)
    c = nn.sigmoid(f_x + f_h + 1) * c + delta_c
    delta_m = nn.sigmoid(j_x + j_m) * nn.tanh(k_x + k_m)
    m = nn.sigmoid(e_x + e_m + 1) * m + delta_m
    memory = jnp.concatenate([c, m], -1)
    o = nn.sigmoid(o_x + o_h + gate(1, 'conv_o')(memory))
    last = Conv2D(self.features, 1, use_bias=False, dtype=self.dtype, name='conv_last')
    return o * nn.tanh(wide(last(memory))), c, m, (delta_c, delta_m)


class PredRNN(nn.Module):
  """A stack of ST-LSTM layers with a 1 x 1 read-out; a step module (`models.rollout`).

  The memory m goes up through the layers within a step, and from the top layer to the bottom one
  of the next step.

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer, all alike.
    kernel_size: odd.
    layer_norm: normalise each convolution's output over (H, W, C); fixes the frame size.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of the convolutions; states and gates are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (128, 128, 128, 128)
  kernel_size: int = 5
  layer_norm: bool = False
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it
  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def initial_carry(self, frame: Array, steps: int) -> Carry:
    """Zero states [(h, c), ...] and m; `frame` `[B, h, w, in]` gives batch and size.

    Raises:
      ValueError: layers of different widths.
    """
    del steps
    check_features(type(self).__name__, self.features)
    layers = [(state(frame, f), state(frame, f)) for f in self.features]
    return layers, state(frame, self.features[0])

  @nn.compact
  def __call__(self, carry: Carry, frame: Array, t: Array
               ) -> tuple[Carry, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: even kernel."""
    del t
    layers, m = carry
    new, deltas, x = [], [], frame
    for i, (features, (h, c)) in enumerate(zip(self.features, layers, strict=True)):
      x, c, m, added = STLSTMCell(
          features, self.kernel_size, self.layer_norm, self.dtype, name=f'cell_list_{i}')(
              x, h, c, m)
      new.append((x, c))
      deltas.append(added)
    output = read_out(self.channels, self.zero_readout, self.dtype)(x)
    return (new, m), output, self.terms(deltas)

  def terms(self, deltas: Sequence[Deltas]) -> dict[str, Array]:
    """Auxiliary losses `[B]` of a step from what each layer added to its memories."""
    del deltas
    return {}
