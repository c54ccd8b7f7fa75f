"""MAU, the motion-aware unit (Chang et al. 2021, NeurIPS), as OpenSTL and its fork stack it.

A strided encoder, motion-aware cells on the small maps, a transposed decoder. Each cell attends to
its own last `tau` steps: the more a past spatial state resembles the present one, the more of that
step's temporal state enters.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import VolumeLayerNorm
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.typing import Array

HEADS = ('pointwise', 'transposed')
_leaky = lambda x: nn.leaky_relu(x, 0.2)


class NormConv(nn.Module):
  """A convolution with bias, then the layer norm over the (H, W, C) volume that MAU always has."""
  features: int
  kernel_size: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[B, h, w, in]` -> `[B, h, w, features]`, at least float32."""
    y = Conv2D(self.features, self.kernel_size, dtype=self.dtype, name='conv')(x)
    return VolumeLayerNorm(name='norm')(wide(y))


class MAUCell(nn.Module):
  """One motion-aware unit. Gates in the order g, t, s."""
  features: int
  kernel_size: int = 5
  residual: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, temporal: Array, spatial: Array, past_temporal: Array, past_spatial: Array
               ) -> tuple[Array, Array]:
    """States `[B, h, w, features]`, past ones `[tau, B, h, w, features]` -> new states."""
    conv = lambda name, n: NormConv(n * self.features, self.kernel_size, self.dtype, name=name)
    query = conv('conv_s_next', 1)(spatial)
    keep = nn.sigmoid(conv('conv_t_next', 1)(temporal))
    scores = jnp.einsum('jbhwc,bhwc->jb', past_spatial, query) / math.sqrt(query[0].size)
    weights = nn.softmax(scores, 0)
    trend = jnp.einsum('jb,jbhwc->bhwc', weights, past_temporal)
    fused = temporal * keep + (1 - keep) * trend
    t_gate, t_t, t_s = jnp.split(conv('conv_t', 3)(fused), 3, -1)
    s_gate, s_t, s_s = jnp.split(conv('conv_s', 3)(spatial), 3, -1)
    t_gate, s_gate = nn.sigmoid(t_gate), nn.sigmoid(s_gate)
    new_temporal = t_gate * t_t + (1 - t_gate) * s_t
    new_spatial = s_gate * s_s + (1 - s_gate) * t_s
    return new_temporal, new_spatial + spatial if self.residual else new_spatial


class MAU(nn.Module):
  """Encoder, a stack of motion-aware units, decoder; a step module (`models.rollout`).

  Published with patch 1. Layer norms over the volume fix the frame size.

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each layer, all equal.
    kernel_size: of the cells, odd.
    tau: past steps that a cell attends to.
    sr_size: a power of two; the cells work on maps so many times smaller.
    cell_mode: 'normal', or 'residual': the spatial state is added to what a cell makes of it.
    model_mode: 'normal', or 'recall': the decoder adds the encoder's maps of the same size.
    head: 'pointwise': the decoder keeps its width, a 1 x 1 convolution reads it out (OpenSTL).
      'transposed': the decoder's last layer emits the image (the Channel Mixer Layer, aff515b);
      without recall, whose widths do not fit, and with sr_size > 1.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of the convolutions; states, gates and attention are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (64, 64, 64, 64)
  kernel_size: int = 5
  tau: int = 5
  sr_size: int = 4
  cell_mode: str = 'normal'
  model_mode: str = 'normal'
  head: str = 'pointwise'
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it

  @property
  def multiple(self) -> int:
    """Frame sides in patches must divide by this."""
    return max(1, self.sr_size)

  def _check(self) -> None:
    for name, known in (('cell_mode', ('normal', 'residual')), ('model_mode', ('normal', 'recall')),
                        ('head', HEADS)):
      if getattr(self, name) not in known:
        raise ValueError(f'MAU: {name} {getattr(self, name)!r}: one of {" ".join(known)}')
    if self.sr_size < 1 or self.sr_size & (self.sr_size - 1):
      raise ValueError(f'MAU: sr_size {self.sr_size}: a power of two (1, 2, 4 ...)')
    if self.tau < 1 or len(set(self.features)) != 1:
      raise ValueError(f'MAU: tau {self.tau} must be positive, and features {self.features} equal')
    if self.head == 'transposed' and (self.sr_size == 1 or self.model_mode == 'recall'):
      raise ValueError("MAU: head 'transposed' needs sr_size > 1 and no recall; take 'pointwise'")

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zeros, a layer each: temporal state, past temporal and past spatial states, oldest first."""
    del steps
    b, h, w, _ = frame.shape
    dtype = wide(frame[:0]).dtype
    small = (b, h // self.sr_size, w // self.sr_size)
    zeros = lambda *shape: jnp.zeros(shape, dtype)
    return [(zeros(*small, f), zeros(self.tau, *small, f), zeros(self.tau, *small, f))
            for f in self.features]

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: fields out of range, a frame of odd size."""
    del t
    self._check()
    if any(n % self.sr_size for n in frame.shape[1:3]):
      raise ValueError(f'MAU: a frame of {frame.shape[1]} x {frame.shape[2]} patches does not '
                       f'divide by sr_size {self.sr_size}; pad it')
    width, halvings = self.features[0], self.sr_size.bit_length() - 1
    x = _leaky(Conv2D(width, 1, dtype=self.dtype, name='encoders_0')(frame))
    encoded = [x]
    for i in range(halvings):
      x = _leaky(Conv2D(width, 3, stride=2, dtype=self.dtype, name=f'encoders_{i + 1}')(x))
      encoded.append(x)
    new, x = [], wide(x)
    for i, (temporal, past_temporal, past_spatial) in enumerate(carry):
      cell = MAUCell(
          self.features[i], self.kernel_size, self.cell_mode == 'residual', self.dtype,
          name=f'cell_list_{i}')
      temporal, y = cell(temporal, x, past_temporal, past_spatial)
      push = lambda queue, item: jnp.concatenate([queue[1:], item[None]])
      new.append((temporal, push(past_temporal, temporal), push(past_spatial, x)))
      x = y
    readout = 'zeros' if self.zero_readout else 'torch'
    for i in range(halvings):
      last = i == halvings - 1
      image = last and self.head == 'transposed'
      x = ConvTranspose2D(
          self.channels if image else width, initializer=readout if image else 'torch',
          dtype=self.dtype, name=f'decoders_{i}')(x)
      x = x if last else _leaky(x)
      if self.model_mode == 'recall':
        x = x + encoded[-2 - i]
    if self.head == 'pointwise':
      x = Conv2D(self.channels, 1, initializer=readout, dtype=self.dtype, name='srcnn')(x)
    return new, x, {}
