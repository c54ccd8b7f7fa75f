"""LMC-Memory (Lee et al. 2021, arXiv:2104.00924): a forecaster that recalls long-term motion.

A 3-D network sums up the changes from frame to frame; what it finds at each place asks a memory,
whose answer joins the state of a ConvLSTM stack on the way to the next frame. As GS2PM compares
with it (github.com/miaomiaoToday/GS2PM), whose names the submodules carry.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.mlp import dense
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.models.recurrent.lmc_memory import Memory
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array


class FrameEncoder(nn.Module):
  """Four convolutions, each with an ELU; every second one, from the first, halves the frame."""
  features: Sequence[int]
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[N, H, W, C]` -> `[N, H / 4, W / 4, features[1]]`."""
    a, b = self.features
    for i, (n, stride) in enumerate(((a, 2), (a, 1), (b, 2), (b, 1))):
      x = nn.elu(Conv2D(n, 3, stride, dtype=self.dtype, name=f'item_{2 * i}')(x))
    return x


class FrameDecoder(nn.Module):
  """The way back, with transposed convolutions; the last one has no ELU."""
  channels: int
  features: Sequence[int]
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[N, H / 4, W / 4, in]` -> `[N, H, W, channels]`."""
    a, b = self.features
    for i, (n, s) in enumerate(((b, 1), (a, 2), (a, 1), (self.channels, 2))):
      x = ConvTranspose2D(n, 3, s, 1, s - 1, dtype=self.dtype, name=f'item_{2 * i}')(
          nn.elu(x) if i else x)
    return x


class LMCCell(nn.Module):
  """ConvLSTM. Gates in the order i, g, f, o; separate input and hidden convolutions."""
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """`[B, h, w, in]`, states `[B, h, w, features]` -> new h and c, at least float32."""
    conv = lambda name, value: wide(
        Conv2D(4 * self.features, dtype=self.dtype, name=name)(value))
    i, g, f, o = jnp.split(conv('conv2d_x', x) + conv('conv2d_h', h), 4, -1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
    return nn.sigmoid(o) * nn.tanh(c), c


class Attention(nn.Module):
  """How much of each of the memory's channels a state calls for."""
  hidden: int
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[B, h, w, in]` -> shares `[B, 1, 1, features]`, at least float32."""
    x = jnp.mean(wide(x), (1, 2), keepdims=True)
    linear = lambda n, item: dense(n, f'item_{item}', 'torch', self.dtype)
    return nn.sigmoid(wide(linear(self.features, 4)(nn.relu(linear(self.hidden, 2)(x)))))


class LMC(nn.Module):
  """A forecaster with its own two time loops (kind 'window' of `models.forecaster`).

  Attributes:
    channels: C of a frame.
    features: of the frame encoder at half and at a quarter of the size; the last ones are also the
      channels of the ConvLSTM's states and of the memory's answer.
    layers: of the ConvLSTM.
    motion: features of the motion encoders.
    memory_size: rows of the memory.
    attention: hidden width.
    phase: 2: the memory is asked with the motion of the input (matching). 1: with that of a longer
      clip, by the other encoder (storing): in training all frames, where they are there. The
      published training alternates; GS2PM's only has phase 2.
    squash: a sigmoid at the output; off for frames that leave (0, 1).
    dtype: compute type of the convolutions; states, gates and memory are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (64, 128)
  layers: int = 4
  motion: Sequence[int] = (64, 128, 256, 512)
  memory_size: int = 100
  attention: int = 16
  phase: int = 2
  squash: bool = True
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'window'
  multiple: ClassVar[int] = 16  # frame sides must divide by this

  def setup(self):
    if len(self.features) != 2 or len(self.motion) != 4 or self.phase not in (1, 2):
      raise ValueError(
          f'LMC: features {tuple(self.features)}, motion {tuple(self.motion)}, phase {self.phase}: '
          '2 and 4 widths, phase 1 or 2')
    n = self.features[1]
    self.encoder = FrameEncoder(self.features, self.dtype)
    self.decoder = FrameDecoder(self.channels, self.features, self.dtype)
    self.convlstm_list = [LMCCell(n, self.dtype) for _ in range(self.layers)]
    self.memory = Memory(self.memory_size, self.motion, n, self.dtype)
    self.attention_func = Attention(self.attention, n, self.dtype)

  def __call__(
      self, frames: Array, use_true: Array, *, t_in: int, train: bool = False, truth: bool = False,
      remat: bool = False, unroll: int = 1, long: Array | None = None,
  ) -> tuple[Array, Array | None, dict[str, Array]]:
    """Forecasts.

    Args:
      frames: `[B, T, H, W, C]`; those after the input are read where `use_true` `[B, T]` says so,
        and for the memory in phase 1 where `truth` says that they are there.
      t_in: input frames, always read.
      long: `[B, t, H, W, C]`, the clip that the memory is asked with; None: see `phase`.

    Returns:
      prediction `[B, T - t_in, H, W, C]`, at least float32; None; no terms.

    Raises:
      ValueError: sides that do not divide by `multiple`; fields that do not fit.
    """
    del train
    h, w = frames.shape[2:4]
    if h % self.multiple or w % self.multiple:
      raise ValueError(f'LMC: frames of {h} x {w} do not divide by {self.multiple}; pad them')
    frames, ahead = wide(frames), frames.shape[1] - t_in
    if long is None:
      long = frames if truth and self.phase == 1 else frames[:, :t_in]
    recalled = self.memory(wide(long), self.phase)
    zeros = jnp.zeros((*recalled.shape[:3], self.features[1]), frames.dtype)
    states = [(zeros, zeros)] * self.layers

    def look(module: Any, states: Any, code: Array) -> tuple[Any, None]:
      return module.step(states, code), None

    def forecast(module: Any, carry: Any, xs: Any) -> tuple[Any, Array]:
      states, own = carry
      frame, known = xs
      # `where`, not arithmetic: an unused future frame may hold anything.
      frame = jnp.where(known[:, None, None, None], frame, own)
      states = module.step(states, module.encoder(frame))
      own = module.image(states[-1], recalled)
      return (states, own), own

    loop = lambda body, length, axes: scan_time(
        body, self, length=length, in_axes=(axes,), out_axes=1, remat=remat, unroll=unroll)
    use = (jnp.asarray(use_true) > 0).at[:, :t_in].set(True)
    own, last = jnp.zeros_like(frames[:, 0]), t_in - 1
    if self.is_initializing():
      # One step makes all variables; scans would only cost compile time.
      _, image = forecast(self, (states, own), (frames[:, last], use[:, last]))
      return jnp.repeat(image[:, None], ahead, 1), None, {}
    if last:
      # No step but the last reads its own frames: all are encoded at once.
      codes = self.encoder(frames[:, :last].reshape(-1, *frames.shape[2:]))
      codes = codes.reshape(-1, last, *codes.shape[1:])
      states, _ = loop(look, last, 1)(self, states, codes)
    _, images = loop(forecast, ahead, (1, 1))(
        self, (states, own), (frames[:, last:-1], use[:, last:-1]))
    return images, None, {}

  def step(self, states: Any, code: Array) -> Any:
    """The ConvLSTM's next states [(h, c), ...]."""
    x, new = code, []
    for cell, (h, c) in zip(self.convlstm_list, states, strict=True):
      x, c = cell(x, h, c)
      new.append((x, c))
    return new

  def image(self, top: tuple[Array, Array], recalled: Array) -> Array:
    """The next frame `[B, H, W, C]`, at least float32."""
    h, c = top
    share = self.attention_func(jnp.concatenate([c, recalled], -1))
    image = wide(self.decoder(jnp.concatenate([h, recalled * share], -1)))
    return nn.sigmoid(image) if self.squash else image
