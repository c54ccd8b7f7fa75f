"""E3D-LSTM (Wang et al. 2019, ICLR) as GS2PM re-cut it for its comparison: one narrow layer.

Each layer sees a window of frames and attends to all that its cell held since the beginning. The
kernels are as deep as the window and nothing is padded along it, so every gate has a single slice,
which all slices of a state share. Layer norms have no parameters. Submodules carry upstream's names
(github.com/miaomiaoToday/GS2PM).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from stp_jax.models.layers.conv3d import DepthConv
from stp_jax.models.layers.norms import standardize
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.recall import recall
from stp_jax.models.recurrent.e3dlstm import ATTENTIONS, rows, unrows
from stp_jax.typing import Array


def straight(history: Array, count: Array) -> Array:
  """The first `count` remembered states as upstream reads them: cut into rows when joined.

  Upstream joins the states along depth, channels first, and cuts the result into rows of C numbers.
  Where a state's slices hold a multiple of C numbers the rows are those of each state alone; where
  not, rows reach from one state into the next, or into the next channel, and change with `count`.

  Args:
    history: `[B, S, N, C]`, each state cut into rows by itself; N places of C channels.
    count: int, at least 1.

  Returns:
    `[B, S, N, C]`; the rows of the first `count` states are one after the other.
  """
  b, states, places, channels = history.shape
  if places % channels == 0:
    return history
  count = jnp.minimum(count, states)
  # Beyond `count` nothing is read; the index only has to exist.
  index = jnp.minimum(jnp.arange(states * places * channels), count * places * channels - 1)
  channel, rest = index // (count * places), index % (count * places)
  source = (rest // places) * places * channels + channel * places + rest % places
  return history.reshape(b, -1)[:, source].reshape(history.shape)


class E3DCell(nn.Module):
  """One layer. Gates of conv3d_x r, i, g, i', g', f', o; of conv3d_h r, i, g, o; of conv3d_m i',
  g', f'. The forget bias is that of f'."""
  features: int
  kernel_size: tuple[int, int, int] = (2, 3, 3)
  forget_bias: float = 0.01
  attention: str = 'places'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array, m: Array, history: Array, count: Array
               ) -> tuple[Array, Array, Array]:
    """Volumes `[B, window, h, w, .]`, the states so far `[B, S, window h w, features]`.

    Returns:
      New h, c and m.
    """
    def conv(n, name, value):
      layer = DepthConv(
          n * self.features, self.kernel_size[0], self.kernel_size[1:], use_bias=True,
          dtype=self.dtype, name=name)
      return wide(layer(value))

    gates = lambda n, name, value: jnp.split(standardize(conv(n, name, value), 4), n, -1)
    r_x, i_x, g_x, j_x, k_x, e_x, o_x = gates(7, 'conv3d_x', x)
    r_h, i_h, g_h, o_h = gates(4, 'conv3d_h', h)
    j_m, k_m, e_m = gates(3, 'conv3d_m', m)
    raw = self.attention == 'upstream'
    query = nn.sigmoid(r_x + r_h)
    past = straight(history, count) if raw else history
    found = unrows(recall(rows(query, raw), past, count, self.dtype), query, raw)
    c = nn.sigmoid(i_x + i_h) * nn.tanh(g_x + g_h) + standardize(c + found, 4)
    m = (nn.sigmoid(j_x + j_m) * nn.tanh(k_x + k_m)
         + nn.sigmoid(e_x + e_m + self.forget_bias) * m)
    o = nn.sigmoid(o_x + o_h + conv(1, 'conv3d_oc', c) + conv(1, 'conv3d_om', m))
    both = DepthConv(self.features, use_bias=True, dtype=self.dtype, name='conv1x1x1')(
        jnp.concatenate([c, m], -1))
    return o * nn.tanh(wide(both)), c, m


class GS2PME3DLSTM(nn.Module):
  """A stack of such layers with a read-out over depth; a step module (`models.rollout`).

  Training keeps the history as it was at every step: B steps^2 window h w C numbers a layer.

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer, all equal: one memory passes through them.
    window: frames that a layer sees at once.
    kernel_size: (depth, rows, columns); the depth is that of the window, or 1; the sides odd.
    forget_bias: of the gate of m.
    recall: past states that a layer attends to; 0 = all of the rollout, and the zeros before it.
    attention: 'places': attend from place to place, as in the paper. 'upstream': rows are cut from
      the channel-first volumes without transposing them (`e3dlstm.rows`, `straight`), what
      upstream's weights were trained with.
    skipped: see `gs2pm_cuts.Cut`.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of convolutions and attention's products; norms, states, gates and the
      softmax are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (2,)
  window: int = 2
  kernel_size: Sequence[int] = (2, 3, 3)
  forget_bias: float = 0.01
  recall: int = 0
  attention: str = 'places'
  skipped: int = 0
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it
  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def _check(self) -> None:
    name = type(self).__name__
    if self.attention not in ATTENTIONS:
      raise ValueError(f'{name}: attention {self.attention!r}: one of {" ".join(ATTENTIONS)}')
    if len(set(self.features)) != 1 or self.recall < 0:
      raise ValueError(
          f'{name}: features {self.features} must be equal, recall {self.recall} not negative')
    if len(self.kernel_size) != 3 or self.kernel_size[0] not in (1, self.window):
      raise ValueError(
          f'{name}: kernel_size {tuple(self.kernel_size)}: give (depth, rows, columns), with a '
          f'depth of 1 or of the window, {self.window}')

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zeros: (h, c, history) a layer, m, the frames before; and how many states there are.

    The history holds `steps` states, the zero one first. A carry that is handed on forgets the
    oldest ones for new ones. ValueError: fields out of range.
    """
    self._check()
    b, h, w, inputs = frame.shape
    entries = min(self.recall or steps, steps)
    dtype, features = wide(frame[:0]).dtype, self.features[0]
    volume = jnp.zeros((b, self.window, h, w, features), dtype)
    history = jnp.zeros((b, entries, self.window * h * w, features), dtype)
    return dict(
        layers=[(volume, volume, history) for _ in self.features], memory=volume,
        previous=jnp.zeros((b, self.window - 1, h, w, inputs), frame.dtype),
        count=jnp.ones((), jnp.int32))

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: fields out of range."""
    del t
    self._check()
    x = frames = jnp.concatenate([carry['previous'], frame[:, None]], 1)
    memory, count, layers = carry['memory'], carry['count'], []
    for i, (h, c, history) in enumerate(carry['layers']):
      x, c, memory = E3DCell(
          self.features[i], tuple(self.kernel_size), self.forget_bias, self.attention, self.dtype,
          name=f'cell_list_{i}')(x, h, c, memory, history, count)
      history = lax.dynamic_update_index_in_dim(
          history, rows(c, self.attention == 'upstream'), count % history.shape[1], 1)
      layers.append((x, c, history))
    output = DepthConv(
        self.channels, self.window, use_bias=True,
        initializer='zeros' if self.zero_readout else 'torch', dtype=self.dtype,
        name='conv_last')(x)[:, 0]
    return (dict(layers=layers, memory=memory, previous=frames[:, 1:], count=count + 1), output, {})
