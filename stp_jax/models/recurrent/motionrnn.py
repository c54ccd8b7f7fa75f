"""MotionRNN (Wu et al. 2021, arXiv:2103.02243) on the ST-LSTM of GS2PM's PredRNN.

Between two layers of the stack a MotionGRU moves the state along a flow that it learns, in part the
trend of the past and in part the change of the moment. Submodules carry upstream's names
(github.com/miaomiaoToday/GS2PM).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.models.layers.warp import warp
from stp_jax.models.recurrent.convlstm import state
from stp_jax.models.recurrent.gs2pm_cuts import STLSTMCell
from stp_jax.models.recurrent.predrnn import check_features, read_out
from stp_jax.typing import Array

HIGHWAYS = ('paper', 'upstream')
POINTS = 9  # of a 3 x 3 neighbourhood: each has a flow of its own


class Encoder(nn.Module):
  """Half the size, a quarter of the channels."""
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, h: Array) -> Array:
    return Conv2D(self.features, 3, 2, dtype=self.dtype, name='encoder')(h)


class Transient(nn.Module):
  """The flow's change of the moment: a GRU over points, 2 POINTS channels."""
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, e: Array, flow: Array) -> Array:
    conv = lambda name, other: wide(Conv2D(2 * POINTS, 1, dtype=self.dtype, name=name)(
        jnp.concatenate([e, other.astype(e.dtype)], -1)))
    u, r = nn.sigmoid(conv('conv_u', flow)), nn.sigmoid(conv('conv_r', flow))
    return u * nn.tanh(conv('conv_z', r * flow)) + (1 - u) * flow


class Broadcast(nn.Module):
  """What the flows fetch around each pixel, weighted per point."""
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, e: Array, flow: Array) -> Array:
    """`[B, h, w, n]`, flow `[B, h, w, 18]`, columns' nine first -> `[B, h, w, 9 n]`, by channel."""
    share = nn.sigmoid(wide(Conv2D(POINTS, 3, dtype=self.dtype, name='conv_m')(e)))
    around = np.arange(POINTS)
    offset = np.stack([around // 3 - 1, around % 3 - 1], -1)[:, None, None]
    flow = jnp.moveaxis(flow.reshape(*flow.shape[:-1], 2, POINTS), (-2, -1), (-1, 1))
    fetched = warp(e, flow + offset, 'zeros')  # [B, 9, h, w, n]
    fetched = jnp.moveaxis(fetched, 1, -1) * share[..., None, :]
    return fetched.reshape(*e.shape[:-1], -1)


class Decoder(nn.Module):
  """Back to full size and width."""
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = Conv2D(self.features // 4, 1, dtype=self.dtype, name='conv_1x1')(x)
    return ConvTranspose2D(self.features, dtype=self.dtype, name='deconv')(x)


class MotionGRU(nn.Module):
  """Moves a hidden state.

  Attributes:
    features: of the state, a multiple of 4.
    alpha: how fast the trend follows the flow.
  """
  features: int
  alpha: float = 0.5
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, h: Array, flow: Array, trend: Array) -> tuple[Array, Array, Array]:
    """`[B, h, w, features]`, flow and trend `[B, h / 2, w / 2, 18]` -> the same three, new."""
    e = Encoder(self.features // 4, self.dtype, name='encoder')(h)
    transient = Transient(self.dtype, name='transient')(e, flow)
    trend = trend + self.alpha * (flow - trend)
    flow = transient + trend
    moved = Broadcast(self.dtype, name='broadcast')(e, flow)
    moved = wide(Decoder(self.features, self.dtype, name='decoder')(moved))
    conv = Conv2D(self.features, 1, dtype=self.dtype, name='conv_1x1')
    gate = nn.sigmoid(wide(conv(jnp.concatenate([moved, h], -1))))
    return gate * h + (1 - gate) * moved, flow, trend


class MotionRNN(nn.Module):
  """ST-LSTM layers with MotionGRUs between them; a step module (`models.rollout`).

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer, all alike, a multiple of 4.
    kernel_size: odd; one for all layers, or one each.
    forget_bias: of the memory c.
    alpha: see `MotionGRU`.
    highway: what a layer keeps of the one below. paper: the state that its output gate holds back,
      (1 - o) h. upstream: all of it, h, because its code writes every layer's gate into the place
      of the first; its weights were trained like that.
    skipped: predictions after the input that are fed back but not emitted; 1: upstream's count of
      steps, see `recurrent.gs2pm_cuts`.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of the convolutions; norms, gates, flows and states at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (32, 32, 32, 32)
  kernel_size: int | Sequence[int] = 3
  forget_bias: float = 0.01
  alpha: float = 0.5
  highway: str = 'paper'
  skipped: int = 0
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it
  multiple: ClassVar[int] = 2  # frame sides in patches must divide by this

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zero [(h, c), ...], m and [(flow, trend), ...]; `frame` `[B, h, w, in]` gives their sizes.

    Raises:
      ValueError: layers of different widths or of no multiple of 4; odd sides.
    """
    del steps
    check_features('MotionRNN', self.features, 2)
    h, w = frame.shape[1:3]
    if self.features[0] % 4 or h % 2 or w % 2:
      raise ValueError(
          f'MotionRNN: {h} x {w}, features {tuple(self.features)}: even sides, multiples of 4')
    flow = state(frame[:, ::2, ::2], 2 * POINTS)
    layers = [(state(frame, n), state(frame, n)) for n in self.features]
    return layers, state(frame, self.features[0]), [(flow, flow)] * (len(layers) - 1)

  def _kernels(self) -> tuple[int, ...]:
    k, layers = self.kernel_size, len(self.features)
    sizes = (k,) * layers if isinstance(k, int) else tuple(k)
    if len(sizes) != layers:
      raise ValueError(f'MotionRNN: {len(sizes)} kernel sizes for {layers} layers; give one each')
    return sizes

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: fields that do not fit."""
    del t
    if self.highway not in HIGHWAYS:
      raise ValueError(f'MotionRNN: highway {self.highway!r}: one of {" ".join(HIGHWAYS)}')
    layers, m, flows = carry
    x, below, new_layers, new_flows = frame, None, [], []
    for i, (n, k, (h, c)) in enumerate(zip(self.features, self._kernels(), layers, strict=True)):
      if i:
        x, *flow = MotionGRU(n, self.alpha, self.dtype, name=f'motion_gru_{i - 1}')(
            below, *flows[i - 1])
        new_flows.append(tuple(flow))
      h, c, m, o = STLSTMCell(n, k, self.forget_bias, self.dtype, name=f'cell_list_{i}')(
          x, h, c, m)
      if i:
        h = h + (below if self.highway == 'upstream' else (1 - o) * below)
      below = h
      new_layers.append((h, c))
    image = read_out(self.channels, self.zero_readout, self.dtype)(below)
    return (new_layers, m, new_flows), image, {}
