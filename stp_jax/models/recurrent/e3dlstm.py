"""E3D-LSTM (Wang et al. 2019, ICLR) as OpenSTL stacks it: 3-D convolutions, recall by attention.

Each layer sees two frames at once (depth 2) and, instead of forgetting, attends to everything that
its cell held since the beginning.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from stp_jax.models.layers.conv3d import DepthConv
from stp_jax.models.layers.norms import VolumeLayerNorm
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.recall import recall
from stp_jax.typing import Array

WINDOW = 2  # frames that a layer sees at once
MEMORIES = ('updated', 'upstream')
ATTENTIONS = ('places', 'upstream')


class VolumeConv(nn.Module):
  """A convolution as deep as the window, its one slice repeated, then optionally a layer norm."""
  features: int
  kernel_size: int = 5
  layer_norm: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, zero: bool = False) -> Array:
    """`[B, 2, h, w, in]` -> `[B, 2, h, w, features]`, at least float32.

    zero: x is known to hold nothing but zeros; the convolution then has no parameters.
    """
    if zero:
      y = jnp.zeros((*x.shape[:-1], self.features), wide(x[:0]).dtype)
    else:
      conv = DepthConv(self.features, WINDOW, self.kernel_size, dtype=self.dtype, name='conv')
      y = wide(conv(x))
      y = jnp.broadcast_to(y, (y.shape[0], WINDOW, *y.shape[2:]))
    return VolumeLayerNorm(rank=4, name='norm')(y) if self.layer_norm else y


def rows(x: Array, raw: bool) -> Array:
  """`[B, 2, h, w, C]` -> `[B, 2 h w, C]`.

  A row is a place with its channels; `raw`: C consecutive numbers of the channel-first volume,
  most often one channel of C neighbouring places.
  """
  volume = jnp.moveaxis(x, -1, 1) if raw else x
  return volume.reshape(x.shape[0], -1, x.shape[-1])


def unrows(x: Array, like: Array, raw: bool) -> Array:
  """The inverse of `rows`; `like` has the shape that comes out."""
  if not raw:
    return x.reshape(like.shape)
  return jnp.moveaxis(x.reshape(x.shape[0], x.shape[-1], *like.shape[1:4]), 1, -1)


class E3DLSTMCell(nn.Module):
  """One eidetic layer. Gates of conv_h: i, g, r, o; of conv_x: i, g, r, o, i', g', f'; of conv_gm:
  i, f, g, m."""
  features: int
  kernel_size: int = 5
  layer_norm: bool = False
  memory: str = 'updated'
  attention: str = 'places'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array, memory: Array, history: Array, count: Array
               ) -> tuple[Array, Array, Array]:
    """Volumes `[B, 2, h, w, .]` and the states so far, `[B, S, 2 h w, features]`, `count` of S.

    Returns:
      New h, c and memory.
    """
    gate = lambda name, n: VolumeConv(
        n * self.features, self.kernel_size, self.layer_norm, self.dtype, name=name)
    i_x, g_x, r_x, o_x, i2_x, g2_x, f2_x = jnp.split(gate('conv_x', 7)(x), 7, -1)
    i_h, g_h, r_h, o_h = jnp.split(gate('conv_h', 4)(h), 4, -1)
    # Upstream returns the memory it was given, so that it stays zero and only norms' biases count.
    still = self.memory == 'upstream'
    i_m, f_m, g_m, m_m = jnp.split(gate('conv_gm', 4)(memory, still), 4, -1)
    raw = self.attention == 'upstream'
    found = recall(rows(nn.sigmoid(r_x + r_h), raw), history, count, self.dtype)
    c = VolumeLayerNorm(rank=4, name='norm_c_t')(c + unrows(found, c, raw))
    c += nn.sigmoid(i_x + i_h) * nn.tanh(g_x + g_h)
    new = nn.sigmoid(f2_x + f_m + 1) * nn.tanh(m_m) + nn.sigmoid(i2_x + i_m) * nn.tanh(g2_x + g_m)
    o = nn.tanh(o_x + o_h + gate('conv_new_cell', 1)(c) + gate('conv_new_gm', 1)(new))
    both = DepthConv(self.features, dtype=self.dtype, name='conv_last')(
        jnp.concatenate([c, new], -1))
    return nn.tanh(wide(both)) * nn.sigmoid(o), c, memory if still else new


class E3DLSTM(nn.Module):
  """A stack of eidetic layers with a read-out over depth; a step module (`models.rollout`).

  Training keeps the history as it was at every step: B steps^2 2 h w C numbers a layer. Larger
  patches, or a smaller `recall`, make it small. Layer norms over the volume fix the frame size.

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer, all equal: one memory passes through them.
    kernel_size: odd; the kernels are 2 deep.
    layer_norm: normalise each convolution's output over (2, H, W, C).
    recall: past states that a layer attends to; 0 = all of the rollout, and the zeros before it.
    memory: 'updated': the global memory is what the layer made of it, as in the paper. 'upstream':
      what it was before, in OpenSTL (c74deb5) and its forks: it stays zero, conv_gm is not used.
    attention: 'places': attend from place to place, as in the paper. 'upstream': rows are cut from
      the channel-first volume without transposing it (`rows`). Published weights: both 'upstream'.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of convolutions and attention's products; states, gates and the softmax are
      at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (128, 128, 128, 128)
  kernel_size: int = 5
  layer_norm: bool = False
  recall: int = 0
  memory: str = 'updated'
  attention: str = 'places'
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it
  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def _check(self) -> None:
    for name, known in (('memory', MEMORIES), ('attention', ATTENTIONS)):
      if getattr(self, name) not in known:
        raise ValueError(f'E3DLSTM: {name} {getattr(self, name)!r}: one of {" ".join(known)}')
    if len(set(self.features)) != 1 or self.recall < 0:
      raise ValueError(
          f'E3DLSTM: features {self.features} must be equal, recall {self.recall} not negative')

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zeros: (h, c, history) a layer, the memory, the frame before; and how many states there are.

    The history holds `steps` states, the zero one first. A carry that is handed on forgets the
    oldest ones for new ones.
    """
    self._check()
    b, h, w, _ = frame.shape
    entries = min(self.recall or steps, steps)
    dtype, features = wide(frame[:0]).dtype, self.features[0]
    volume = jnp.zeros((b, WINDOW, h, w, features), dtype)
    history = jnp.zeros((b, entries, WINDOW * h * w, features), dtype)
    return dict(
        layers=[(volume, volume, history) for _ in self.features], memory=volume,
        previous=jnp.zeros_like(frame), count=jnp.ones((), jnp.int32))

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: fields out of range."""
    del t
    self._check()
    x, memory, count = jnp.stack([carry['previous'], frame], 1), carry['memory'], carry['count']
    layers = []
    for i, (h, c, history) in enumerate(carry['layers']):
      x, c, memory = E3DLSTMCell(
          self.features[i], self.kernel_size, self.layer_norm, self.memory, self.attention,
          self.dtype, name=f'cell_list_{i}')(x, h, c, memory, history, count)
      history = lax.dynamic_update_index_in_dim(
          history, rows(c, self.attention == 'upstream'), count % history.shape[1], 1)
      layers.append((x, c, history))
    output = DepthConv(
        self.channels, WINDOW, initializer='zeros' if self.zero_readout else 'torch',
        dtype=self.dtype, name='conv_last')(x)[:, 0]
    return dict(layers=layers, memory=memory, previous=frame, count=count + 1), output, {}
