"""MIM as GS2PM re-cut it for its comparison (see `gs2pm_cuts`): small, and without peepholes."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.norms import standardize
from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.convlstm import state
from stp_jax.models.recurrent.gs2pm_cuts import Cell, Cut, STLSTMCell
from stp_jax.models.recurrent.peephole_convlstm import EmptyConv
from stp_jax.models.recurrent.predrnn import check_features
from stp_jax.typing import Array

DIFFERENCES = ('time', 'upstream')


class NonStationary(Cell):
  """MIM-N: a memory of what changes. Gates of conv_h_diff g, i, f, o; of conv_n g, i, f."""

  @nn.compact
  def __call__(self, change: Array | None, n: Array) -> tuple[Array, Array]:
    """`[B, h, w, in]`, or None: no change; n `[B, h, w, features]` -> new n, and its output."""
    if change is None:
      bias = EmptyConv(4 * self.features, n.shape[-1] * self.kernel_size ** 2, name='conv_h_diff')()
      plane = jnp.broadcast_to(wide(bias), (*n.shape[:-1], 4 * self.features))
      gates = jnp.split(standardize(plane), 4, -1)
    else:
      gates = self.gates(4, 'conv_h_diff', change)
    g_n, i_n, f_n = self.gates(3, 'conv_n', n)
    g, i, f, o = gates
    n = nn.sigmoid(f + f_n + self.forget_bias) * n + nn.sigmoid(i + i_n) * nn.tanh(g + g_n)
    return n, nn.sigmoid(o + self.gates(1, 'conv_w_no', n)[0]) * nn.tanh(n)


class Stationary(Cell):
  """MIM-S: a memory of what stays, in the place of a forget gate. Gates g, i, f, o."""

  @nn.compact
  def __call__(self, change: Array, c: Array, s: Array) -> tuple[Array, Array]:
    """All `[B, h, w, features]` -> new s, and what is kept of c."""
    g, i, f, o = (a + b for a, b in zip(
        self.gates(4, 'conv_d', change), self.gates(4, 'conv_c', c)))
    s = nn.sigmoid(f + self.forget_bias) * s + nn.sigmoid(i) * nn.tanh(g)
    return s, nn.sigmoid(o + self.gates(1, 'conv_w_so', s)[0]) * nn.tanh(s)


class MIMCell(Cell):
  """Gates of conv_x g, i, g', i', f', o; of conv_h g, i, o; of conv_m g', i', f'."""

  @nn.compact
  def __call__(self, x: Array, change: Array | None, h: Array, c: Array, m: Array, n: Array,
               s: Array) -> tuple[Array, Array, Array, Array, Array]:
    """`[B, h, w, in]` x and its change, states `[B, h, w, features]` -> new h, c, m, n and s."""
    g_x, i_x, k_x, j_x, e_x, o_x = self.gates(6, 'conv_x', x)
    g_h, i_h, o_h = self.gates(3, 'conv_h', h)
    k_m, j_m, e_m = self.gates(3, 'conv_m', m)
    common = (self.features, self.kernel_size, self.forget_bias, self.dtype)
    n, change = NonStationary(*common, name='mim_n')(change, n)
    s, kept = Stationary(*common, name='mim_s')(change, c, s)
    c = kept + nn.sigmoid(i_x + i_h) * nn.tanh(g_x + g_h)
    m = (nn.sigmoid(e_x + e_m + self.forget_bias) * m
         + nn.sigmoid(j_x + j_m) * nn.tanh(k_x + k_m))
    o = nn.sigmoid(o_x + o_h + self.conv(self.features, 'conv_o_c', c)
                   + self.conv(self.features, 'conv_o_m', m))
    return o * nn.tanh(self.conv(self.features, 'conv1x1', c, m, kernel_size=1)), c, m, n, s


class GS2PMMIM(Cut):
  """GS2PM's MIM (Wang et al. 2019): an ST-LSTM layer, MIM layers on it. See `Cut` for the others.

  Attributes:
    difference: what MIM-N, the memory of what changes, reads. 'time': how the layer below changed
      since the last step, as in the paper. 'upstream': nothing, because there that layer's old
      state is overwritten before it is subtracted; of the convolution only the bias is left.
  """
  features: Sequence[int] = (4, 4, 4, 4)
  difference: str = 'time'

  def initial_carry(self, frame: Array, steps: int) -> dict[str, Any]:
    """Zeros: h, c of the layers; n, s of all but the first; m.

    ValueError: layers of different widths, an unknown difference.
    """
    del steps
    check_features('GS2PMMIM', self.features)
    if self.difference not in DIFFERENCES:
      raise ValueError(
          f'GS2PMMIM: difference {self.difference!r}: one of {" ".join(DIFFERENCES)}')
    zeros = [state(frame, f) for f in self.features]
    return dict(h=zeros, c=zeros, m=zeros[0], n=zeros[1:], s=zeros[1:])

  @nn.compact
  def __call__(self, carry: dict[str, Any], frame: Array, t: Array
               ) -> tuple[dict[str, Any], Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: fields that do not fit."""
    del t
    first, *rest = self.layers()
    before, m = carry['h'], carry['m']
    h, c, m, _ = STLSTMCell(*first, *self.common(), name='cell_list_0')(
        frame, before[0], carry['c'][0], m)
    new = dict(h=[h], c=[c], n=[], s=[])
    for i, sizes in enumerate(rest, 1):
      change = h - before[i - 1] if self.difference == 'time' else None
      h, c, m, n, s = MIMCell(*sizes, *self.common(), name=f'cell_list_{i}')(
          h, change, before[i], carry['c'][i], m, carry['n'][i - 1], carry['s'][i - 1])
      for name, value in dict(h=h, c=c, n=n, s=s).items():
        new[name].append(value)
    return dict(new, m=m), self.predict(h), {}
