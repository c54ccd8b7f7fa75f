"""Memory in Memory (Wang et al. 2019, arXiv:1811.07490) as OpenSTL and the Channel Mixer Layer
stack it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.convlstm import GateConv, state
from stp_jax.models.recurrent.predrnn import STLSTMCell, check_features, read_out
from stp_jax.typing import Array


class PeepholeLSTM(nn.Module):
  """The form that MIM-N (non-stationary) and MIM-S (stationary) share; MIM-N is just this.

  Gates in the order i, g, f, o; a forget bias of 1; peepholes `ct_weight` `[h, w, 2 features]` (i,
  f) and `oc_weight` `[h, w, features]`, which start at zero and fix the frame size.
  """
  features: int
  kernel_size: int = 5
  layer_norm: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """`[B, h, w, in]`, states `[B, h, w, features]` -> new h and c."""
    return self.recur(x, h, c)

  def gates(self, n: int, name: str, value: Array) -> list[Array]:
    """n gates `[B, h, w, features]` of a convolution."""
    conv = GateConv(n * self.features, self.kernel_size, self.layer_norm, self.dtype, name=name)
    return jnp.split(conv(value), n, -1)

  def recur(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """The recurrence; ValueError where the frame size is not that of the weights."""
    i_h, g_h, f_h, o_h = self.gates(4, 'conv_h_concat', h)
    i_x, g_x, f_x, o_x = self.gates(4, 'conv_x_concat', x)
    i_c, f_c = jnp.split(self._peephole('ct_weight', 2, c), 2, -1)
    new = (nn.sigmoid(f_h + f_x + f_c * c + 1) * c
           + nn.sigmoid(i_h + i_x + i_c * c) * nn.tanh(g_h + g_x))
    o = nn.sigmoid(o_h + o_x + self._peephole('oc_weight', 1, c) * new)
    return o * nn.tanh(new), new

  def _peephole(self, name: str, n: int, c: Array) -> Array:
    h, w = c.shape[-3:-1]
    if self.has_variable('params', name):
      given = self.get_variable('params', name).shape[:2]
      if given != (h, w):
        raise ValueError(
            f'MIM: {name} was made for {given[0]} x {given[1]} patches, the frames have {h} x {w}; '
            'resize them, or initialise the model at this size')
    return self.param(name, nn.initializers.zeros, (h, w, n * self.features))


class MIMBlock(PeepholeLSTM):
  """ST-LSTM whose forget gate is two recurrences: the change of x, and a memory S of it (MIM-S).

  Gates: conv_t_cc i, g, o; conv_s_cc and conv_x_cc i, g, f, o.
  """

  @nn.compact
  def __call__(self, x: Array, change: Array, h: Array, c: Array, m: Array, s: Array
               ) -> tuple[Array, Array, Array, Array]:
    """All `[B, h, w, features]` -> new h, c, m and S."""
    i_t, g_t, o_t = self.gates(3, 'conv_t_cc', h)
    i_s, g_s, f_s, o_s = self.gates(4, 'conv_s_cc', m)
    i_x, g_x, f_x, o_x = self.gates(4, 'conv_x_cc', x)
    m = nn.sigmoid(f_x + f_s + 1) * m + nn.sigmoid(i_x + i_s) * nn.tanh(g_x + g_s)
    kept, s = self.recur(change, c, s)
    c = kept + nn.sigmoid(i_x + i_t) * nn.tanh(g_x + g_t)
    last = Conv2D(self.features, 1, use_bias=False, dtype=self.dtype, name='conv_last')
    memory = wide(last(jnp.concatenate([c, m], -1)))
    return nn.sigmoid(o_x + o_t + o_s) * nn.tanh(memory), c, m, s


class MIM(nn.Module):
  """An ST-LSTM layer, MIM blocks on it, a 1 x 1 read-out; a step module (`models.rollout`).

  The peepholes fix the frame size at initialisation.

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer, all alike.
    kernel_size: odd.
    layer_norm: normalise each convolution's output over (H, W, C).
    memory_gradient: let gradients flow through S from step to step. Upstream cuts them there, and
      so do we unless asked.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of the convolutions; states and gates are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (128, 128, 128, 128)
  kernel_size: int = 5
  layer_norm: bool = False
  memory_gradient: bool = False
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it
  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def initial_carry(self, frame: Array, steps: int) -> dict[str, Any]:
    """Zeros: h, c of the layers; S, and the change's h, c, of all but the first; m.

    `frame` `[B, h, w, in]` gives batch and size. ValueError: layers of different widths.
    """
    del steps
    check_features('MIM', self.features)
    zeros = [state(frame, f) for f in self.features]
    return dict(h=zeros, c=zeros, m=zeros[0], s=zeros[1:], change_h=zeros[1:], change_c=zeros[1:])

  def next_carry(self, carry: dict[str, Any]) -> dict[str, Any]:
    """The carry of a new sequence that goes on with the S of the last one.

    Upstream never resets S: it leaks from batch to batch, from training into the test. We start
    every sequence from zero; who wants upstream's habit hands this to `rollout_frames`.
    """
    return {**jax.tree.map(jnp.zeros_like, carry), 's': carry['s']}

  @nn.compact
  def __call__(self, carry: dict[str, Any], frame: Array, t: Array
               ) -> tuple[dict[str, Any], Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: even kernel, another frame size."""
    common = (self.kernel_size, self.layer_norm, self.dtype)
    h, c, m = list(carry['h']), list(carry['c']), carry['m']
    s, change_h, change_c = [], [], []
    before = h[0]
    h[0], c[0], m, _ = STLSTMCell(self.features[0], *common, name='stlstm_layer_0')(
        frame, h[0], c[0], m)
    change = h[0] - before
    rows = zip(carry['s'], carry['change_h'], carry['change_c'], strict=True)
    for i, (memory, d_h, d_c) in enumerate(rows, 1):
      new = PeepholeLSTM(self.features[i], *common, name=f'stlstm_layer_diff_{i - 1}')(
          change, d_h, d_c)
      # Step 0 has no predecessor to differ from: nothing changed, and its branch stays at zero.
      change, d_c = jax.tree.map(lambda x: jnp.where(t > 0, x, jnp.zeros_like(x)), new)
      if not self.memory_gradient:
        memory = jax.lax.stop_gradient(memory)
      h[i], c[i], m, memory = MIMBlock(self.features[i], *common, name=f'stlstm_layer_{i}')(
          h[i - 1], change, h[i], c[i], m, memory)
      s.append(memory)
      change_h.append(change)
      change_c.append(d_c)
    output = read_out(self.channels, self.zero_readout, self.dtype)(h[-1])
    return dict(h=h, c=c, m=m, s=s, change_h=change_h, change_c=change_c), output, {}
