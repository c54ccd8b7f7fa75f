"""PredRNN++ (Wang et al. 2018, arXiv:1804.06300) as OpenSTL and the Channel Mixer Layer have it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.convlstm import GateConv, state
from stp_jax.models.recurrent.predrnn import check_features, read_out
from stp_jax.typing import Array

CELLS = ('predrnnpp', 'channel_mixer')


class CausalLSTMCell(nn.Module):
  """Causal LSTM: the memory c is renewed first, and m from it.

  Gates: conv_x i, f, g, i', f', g', o; conv_h i, f, g, o; conv_c i, f, g; conv_m i', f', m;
  conv_c2m i', g', f', o. A forget bias of 1; the output gate is a tanh.
  """
  features: int
  kernel_size: int = 5
  layer_norm: bool = False
  cell: str = 'predrnnpp'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array, m: Array) -> tuple[Array, Array, Array]:
    """`[B, h, w, in]`, states `[B, h, w, features]` -> new h, c and m."""
    def gates(n, name, value):
      conv = GateConv(
          n * self.features, self.kernel_size, self.layer_norm, self.dtype, name=name)
      return jnp.split(conv(value), n, -1)

    i_x, f_x, g_x, j_x, e_x, k_x, o_x = gates(7, 'conv_x', x)
    i_h, f_h, g_h, o_h = gates(4, 'conv_h', h)
    # Upstream's fork feeds the memory of the layers where the paper has that of time.
    i_c, f_c, g_c = gates(3, 'conv_c', m if self.cell == 'channel_mixer' else c)
    j_m, e_m, m_m = gates(3, 'conv_m', m)
    c = (nn.sigmoid(f_x + f_h + f_c + 1) * c
         + nn.sigmoid(i_x + i_h + i_c) * nn.tanh(g_x + g_h + g_c))
    j_c, k_c, e_c, o_c = gates(4, 'conv_c2m', c)
    m = (nn.sigmoid(e_x + e_m + e_c + 1) * nn.tanh(m_m)
         + nn.sigmoid(j_x + j_m + j_c) * nn.tanh(k_x + k_c))
    o = nn.tanh(o_x + o_h + o_c + gates(1, 'conv_om', m)[0])
    last = Conv2D(self.features, 1, use_bias=False, dtype=self.dtype, name='conv_last')
    return o * nn.tanh(wide(last(jnp.concatenate([c, m], -1)))), c, m


class GradientHighway(nn.Module):
  """Gradient highway unit: a shortcut through time between the first layer and the second.

  Its convolutions start at U(+-0.001), so that at first it halves its state in every step.
  """
  features: int
  kernel_size: int = 5
  layer_norm: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, z: Array) -> Array:
    """Both `[B, h, w, features]` -> new z."""
    gate = lambda name: GateConv(
        2 * self.features, self.kernel_size, self.layer_norm, self.dtype, 'small', name=name)
    p, u = jnp.split(gate('x_concat')(x) + gate('z_concat')(z), 2, -1)
    u = nn.sigmoid(u)
    return u * nn.tanh(p) + (1 - u) * z


class PredRNNPlusPlus(nn.Module):
  """A stack of causal LSTM layers with a gradient highway; a step module (`models.rollout`).

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer, all alike; at least two layers.
    kernel_size: odd.
    layer_norm: normalise each convolution's output over (H, W, C); fixes the frame size. The norms
      of the highway span its 2 x features channels; upstream's span half and crash.
    cell: what conv_c reads. 'predrnnpp': the memory c, as in the paper and in OpenSTL.
      'channel_mixer': the memory m, as the Channel Mixer Layer's code (aff515b) and its published
      weights have it.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of the convolutions; states and gates are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (128, 128, 128, 128)
  kernel_size: int = 5
  layer_norm: bool = False
  cell: str = 'predrnnpp'
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it
  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zero states [(h, c), ...], m and z; `frame` `[B, h, w, in]` gives batch and size.

    Raises:
      ValueError: fewer than two layers, or layers of different widths.
    """
    del steps
    check_features('PredRNNPlusPlus', self.features, least=2)
    zeros = lambda: state(frame, self.features[0])
    return [(zeros(), zeros()) for _ in self.features], zeros(), zeros()

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: unknown cell, even kernel."""
    del t
    if self.cell not in CELLS:
      raise ValueError(f'PredRNNPlusPlus: cell {self.cell!r}: one of {" ".join(CELLS)}')
    layers, m, z = carry
    new, x = [], frame
    for i, (features, (h, c)) in enumerate(zip(self.features, layers, strict=True)):
      h, c, m = CausalLSTMCell(
          features, self.kernel_size, self.layer_norm, self.cell, self.dtype,
          name=f'cell_list_{i}')(x, h, c, m)
      new.append((h, c))
      x = h
      if i == 0:
        x = z = GradientHighway(
            features, self.kernel_size, self.layer_norm, self.dtype, name='gradient_highway')(h, z)
    return (new, m, z), read_out(self.channels, self.zero_readout, self.dtype)(x), {}
