"""PredRNN and PredRNN++ as GS2PM re-cut them for its comparison: small, and without patches.

They, and `gs2pm_mim`, differ from the networks of the papers (`predrnn`, `predrnnpp`, `mim` beside
this file) in more than sizes: convolutions have biases, the layer norms have no parameters and are
always there, one convolution may read several states side by side, forget gates have a bias of
0.01, and the gates come in another order. So each is a network of its own. Submodules carry
upstream's names (github.com/miaomiaoToday/GS2PM).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import standardize
from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.convlstm import state
from stp_jax.models.recurrent.predrnn import check_features, read_out
from stp_jax.typing import Array


class Cell(nn.Module):
  """What the cells share: gates, and the fields that they are made of."""
  features: int
  kernel_size: int = 3
  forget_bias: float = 0.01
  dtype: jnp.dtype | None = None

  def gates(self, n: int, name: str, *values: Array, features: int = 0) -> list[Array]:
    """n gates `[B, h, w, features]` of one convolution of the values side by side, normalised."""
    width = features or self.features
    return jnp.split(standardize(self.conv(n * width, name, *values)), n, -1)

  def conv(self, features: int, name: str, *values: Array, kernel_size: int = 0) -> Array:
    """A convolution of the values side by side, at least float32."""
    conv = Conv2D(features, kernel_size or self.kernel_size, dtype=self.dtype, name=name)
    return wide(conv(jnp.concatenate(values, -1)))


class STLSTMCell(Cell):
  """Spatiotemporal LSTM. Gates in the order g, i, f, g', i', f', o; the forget bias is f's alone.

  Its output convolution is not normalised.
  """

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array, m: Array
               ) -> tuple[Array, Array, Array, Array]:
    """`[B, h, w, in]`, states `[B, h, w, features]` -> new h, c, m, and the output gate."""
    g_x, i_x, f_x, k_x, j_x, e_x, o_x = self.gates(7, 'conv_x', x)
    g_h, i_h, f_h, o_h = self.gates(4, 'conv_h', h)
    k_m, j_m, e_m = self.gates(3, 'conv_m', m)
    c = nn.sigmoid(f_x + f_h + self.forget_bias) * c + nn.sigmoid(i_x + i_h) * nn.tanh(g_x + g_h)
    m = nn.sigmoid(e_x + e_m) * m + nn.sigmoid(j_x + j_m) * nn.tanh(k_x + k_m)
    o = nn.sigmoid(o_x + o_h + self.conv(self.features, 'conv_o', c, m))
    return o * nn.tanh(self.conv(self.features, 'conv1x1', c, m, kernel_size=1)), c, m, o


class CausalLSTMCell(Cell):
  """Causal LSTM whose memory m leaves with the width of the next layer.

  Gates of conv_w1 g, i, f and of conv_w2 g', i', f', all with the forget bias. The output gate is a
  tanh that sees no h.
  """
  out_features: int = 1

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array, m: Array) -> tuple[Array, Array, Array]:
    """`[B, h, w, in]`, states `[B, h, w, features]` -> new h and c, m `[..., out_features]`."""
    g, i, f = self.gates(3, 'conv_w1', x, h, c)
    c = nn.sigmoid(f + self.forget_bias) * c + nn.sigmoid(i) * nn.tanh(g)
    k, j, e = self.gates(3, 'conv_w2', x, c, m, features=self.out_features)
    carried = nn.tanh(self.conv(self.out_features, 'conv_w3', m, kernel_size=1))
    m = nn.sigmoid(e + self.forget_bias) * carried + nn.sigmoid(j) * nn.tanh(k)
    o = nn.tanh(self.gates(1, 'conv_w4', x, c, m)[0])
    both = self.conv(self.features, 'conv_w5', c, m, kernel_size=1)
    return o * nn.tanh(standardize(both)), c, m


class GradientHighway(nn.Module):
  """Gradient highway unit; its convolutions have no bias. Gates p, s."""
  features: int
  kernel_size: int = 3
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, z: Array) -> Array:
    """`[B, h, w, in]`, `[B, h, w, features]` -> new z."""
    def half(name, value):
      conv = Conv2D(
          2 * self.features, self.kernel_size, use_bias=False, dtype=self.dtype, name=name)
      return standardize(conv(value))

    p, s = jnp.split(half('conv_x', x) + half('conv_z', z), 2, -1)
    s = nn.sigmoid(s)
    return s * nn.tanh(p) + (1 - s) * z


class Cut(nn.Module):
  """The fields that the step modules (`models.rollout`) below share.

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer.
    kernel_size: odd; one for all layers, or one each.
    forget_bias: of the gates that have one. Upstream's 0.01; the papers' networks have 1.
    skipped: predictions after the input that are fed back but not emitted. 0: the prediction made
      from the last input frame is that of the next frame. 1: upstream's count of steps, with which
      its weights were trained: that prediction is thrown away, and the one after it comes first.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of the convolutions; norms, states and gates are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (16, 16, 16, 16)
  kernel_size: int | Sequence[int] = 3
  forget_bias: float = 0.01
  skipped: int = 0
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it
  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def layers(self) -> list[tuple[int, int]]:
    """(features, kernel size) of each layer; ValueError where there are not as many of both."""
    k = self.kernel_size
    sizes = (k,) * len(self.features) if isinstance(k, int) else tuple(k)
    if len(sizes) != len(self.features):
      raise ValueError(
          f'{type(self).__name__}: {len(sizes)} kernel sizes {sizes} for {len(self.features)} '
          'layers; give one, or one each')
    return list(zip(self.features, sizes))

  def common(self) -> tuple[float, jnp.dtype | None]:
    """The last fields of a cell."""
    return self.forget_bias, self.dtype

  def predict(self, h: Array) -> Array:
    """`[B, h, w, features]` of the last layer -> `[B, h, w, channels]`."""
    return read_out(self.channels, self.zero_readout, self.dtype)(h)


class GS2PMPredRNN(Cut):
  """GS2PM's PredRNN (Wang et al. 2017): a stack of ST-LSTM layers. See `Cut` for the fields."""

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zero states [(h, c), ...] and m. ValueError: layers of different widths."""
    del steps
    check_features('GS2PMPredRNN', self.features)
    return [(state(frame, f), state(frame, f)) for f in self.features], state(
        frame, self.features[0])

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: fields that do not fit."""
    del t
    (layers, m), new, x = carry, [], frame
    for i, (sizes, (h, c)) in enumerate(zip(self.layers(), layers, strict=True)):
      x, c, m, _ = STLSTMCell(*sizes, *self.common(), name=f'cell_list_{i}')(x, h, c, m)
      new.append((x, c))
    return (new, m), self.predict(x), {}


class GS2PMPredRNNPlusPlus(Cut):
  """GS2PM's PredRNN++ (Wang et al. 2018): causal LSTM layers and a gradient highway.

  Layers may differ in width: the memory m takes that of the layer it goes to. See `Cut` for the
  other fields.

  Attributes:
    ghu_features, ghu_kernel_size: of the highway, between the first layer and the second.
  """
  features: Sequence[int] = (16, 8, 8)
  kernel_size: int | Sequence[int] = 5
  ghu_features: int = 16
  ghu_kernel_size: int = 5

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zero states [(h, c), ...], m and z. ValueError: fewer than two layers."""
    del steps
    if len(self.features) < 2:
      raise ValueError(f'GS2PMPredRNNPlusPlus: features {tuple(self.features)}: two layers or more')
    layers = [(state(frame, f), state(frame, f)) for f in self.features]
    return layers, state(frame, self.features[0]), state(frame, self.ghu_features)

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: fields that do not fit."""
    del t
    (layers, m, z), new, x = carry, [], frame
    for i, (sizes, (h, c)) in enumerate(zip(self.layers(), layers, strict=True)):
      following = self.features[(i + 1) % len(self.features)]
      x, c, m = CausalLSTMCell(*sizes, *self.common(), following, name=f'cell_list_{i}')(x, h, c, m)
      new.append((x, c))
      if i == 0:
        x = z = GradientHighway(
            self.ghu_features, self.ghu_kernel_size, self.dtype, name='ghu')(x, z)
    return (new, m, z), self.predict(x), {}
