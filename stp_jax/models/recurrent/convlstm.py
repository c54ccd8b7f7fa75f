"""ConvLSTM (Shi et al. 2015, arXiv:1506.04214) as OpenSTL and the Channel Mixer Layer stack it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import VolumeLayerNorm
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

CELLS = ('convlstm', 'channel_mixer')


class GateConv(nn.Module):
  """A bias-free convolution, then optionally a layer norm over the whole (H, W, C) volume."""
  features: int
  kernel_size: int = 5
  layer_norm: bool = False
  dtype: jnp.dtype | None = None
  initializer: str = 'torch'

  @nn.compact
  def __call__(self, x: Array, first: int = 0) -> Array:
    """`[B, h, w, in]` -> `[B, h, w, features - first]`, at least float32."""
    conv = Conv2D(
        self.features, self.kernel_size, use_bias=False, initializer=self.initializer,
        dtype=self.dtype, name='conv')
    if not self.layer_norm:
      return wide(conv(x, first))
    # The norm's statistics need every output, also those that nobody reads.
    return wide(VolumeLayerNorm(name='norm')(wide(conv(x))))[..., first:]


def state(frame: Array, features: int) -> Array:
  """Zeros `[B, h, w, features]`, at least float32."""
  return jnp.zeros((*frame.shape[:-1], features), wide(frame[:0]).dtype)


class ConvLSTMCell(nn.Module):
  """One layer. Gates in the order i, f, g, o; separate input and hidden convolutions; no forget
  bias."""
  features: int
  kernel_size: int = 5
  layer_norm: bool = False
  cell: str = 'convlstm'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array | None) -> tuple[Array, Array | None]:
    """`[B, h, w, in]`, states `[B, h, w, features]` -> new h and c."""
    gate = lambda name: GateConv(
        4 * self.features, self.kernel_size, self.layer_norm, self.dtype, name=name)
    if self.cell == 'channel_mixer':
      # Upstream returns o * g: c reaches nothing, so i, f and c are not computed.
      live = 2 * self.features
      g, o = jnp.split(gate('conv_x')(x, live) + gate('conv_h')(h, live), 2, -1)
      return nn.sigmoid(o) * nn.tanh(g), None
    i, f, g, o = jnp.split(gate('conv_x')(x) + gate('conv_h')(h), 4, -1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
    return nn.sigmoid(o) * nn.tanh(c), c


class ConvLSTM(nn.Module):
  """A stack of ConvLSTM layers with a 1 x 1 read-out; a step module (`models.rollout`).

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer; they may differ.
    kernel_size: odd.
    layer_norm: normalise each convolution's output over (H, W, C); fixes the frame size.
    cell: 'convlstm': h = o tanh(c). 'channel_mixer': h = o g, what the Channel Mixer Layer's code
      (aff515b) computes and its published weights were trained with: the memory c is never read.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of the convolutions; states and gates are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (128, 128, 128, 128)
  kernel_size: int = 5
  layer_norm: bool = False
  cell: str = 'convlstm'
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it
  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zero states [(h, c), ...]; `frame` `[B, h, w, in]` gives batch and size."""
    del steps
    dead = self.cell == 'channel_mixer'
    return [(state(frame, f), None if dead else state(frame, f)) for f in self.features]

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: unknown cell, even kernel."""
    del t
    if self.cell not in CELLS:
      raise ValueError(f'ConvLSTM: cell {self.cell!r}: one of {" ".join(CELLS)}')
    new, x = [], frame
    for i, (features, (h, c)) in enumerate(zip(self.features, carry, strict=True)):
      x, c = ConvLSTMCell(
          features, self.kernel_size, self.layer_norm, self.cell, self.dtype,
          name=f'cell_list_{i}')(x, h, c)
      new.append((x, c))
    output = Conv2D(
        self.channels, 1, use_bias=False, initializer='zeros' if self.zero_readout else 'torch',
        dtype=self.dtype, name='conv_last')(x)
    return new, output, {}
