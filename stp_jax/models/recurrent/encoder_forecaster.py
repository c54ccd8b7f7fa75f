"""ConvLSTM and ConvGRU with group norm as encoder-forecasters.

The encoder reads the input level by level, each coarser than the last; the forecaster starts from
its states, coarsest first, and is fed nothing: a forecast never sees a frame of its own. Built as
in github.com/jhhuang96/ConvLSTM-PyTorch (d449429), whose names the submodules carry.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.stage import Layer, Stage, kind_of
from stp_jax.models.recurrent.normed_cells import NormedGRUCell, NormedLSTMCell
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array

OUTPUTS = ('linear', 'upstream')


class Encoder(nn.Module):
  """One step through all levels, finest first."""
  cell: type[nn.Module]
  stages: Sequence[Sequence[Layer]]
  features: Sequence[int]
  kernel_size: int
  dtype: jnp.dtype | None

  @nn.compact
  def __call__(self, states: Sequence[Any], x: Array) -> list[Any]:
    """States, a frame `[B, H, W, C]` -> new states."""
    new = []
    for i, (layers, features, state) in enumerate(zip(self.stages, self.features, states), 1):
      x = Stage(layers, self.dtype, name=f'stage{i}')(x)
      cell = self.cell(features, self.kernel_size, self.dtype, name=f'rnn{i}')
      state, x = cell(state, x)
      new.append(state)
    return new


class Decoder(nn.Module):
  """The way back up, coarsest level first; the first cell is given `inputs` channels of zeros."""
  cell: type[nn.Module]
  stages: Sequence[Sequence[Layer]]
  features: Sequence[int]
  kernel_size: int
  dtype: jnp.dtype | None
  inputs: int
  linear: bool

  @nn.compact
  def __call__(self, states: Sequence[Any]) -> tuple[list[Any], Array]:
    """States, coarsest first -> new ones, and an image `[B, H, W, C]`, at least float32."""
    first = states[0][0] if isinstance(states[0], tuple) else states[0]
    x, new = jnp.zeros((*first.shape[:-1], self.inputs), first.dtype), []
    for i, (layers, features, state) in enumerate(zip(self.stages, self.features, states)):
      level = len(self.features) - i
      cell = self.cell(features, self.kernel_size, self.dtype, name=f'rnn{level}')
      state, x = cell(state, x)
      new.append(state)
      x = Stage(layers, self.dtype, self.linear and level == 1, name=f'stage{level}')(x)
    return new, wide(x)


class EncoderForecaster(nn.Module):
  """A forecaster with its own two time loops (kind 'window' of `models.forecaster`).

  Attributes:
    channels: C of a frame.
    features: of the state at each level, finest first, in the encoder and in the forecaster; the
      first level is as large as the frame, each further one half as large.
    stems: channels that the convolution before each level makes.
    widths: channels of what follows each level on the way back, coarsest first.
    kernel_size: of the cells, odd.
    output: linear. upstream: what its name says, a leaky ReLU, ends the forecast too, so that it
      shrinks negative values; published weights were trained so.
    inputs: channels of the zeros that the coarsest cell is fed in the forecast; 0: stems[-1].
    down, up: instead of stems and widths, in their order: the layers of each level by name (see
      `layers.stage`), for other strides, pools, activations.
    dtype: compute type of the convolutions; norms, gates and states are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (64, 96, 96)
  stems: Sequence[int] = (16, 64, 96)
  widths: Sequence[int] = (96, 96, 16)
  kernel_size: int = 5
  output: str = 'linear'
  inputs: int = 0
  down: Sequence[Sequence[Layer]] = ()
  up: Sequence[Sequence[Layer]] = ()
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'window'
  cell: ClassVar[type[nn.Module]] = NormedLSTMCell

  @property
  def multiple(self) -> int:
    """Frame sides must divide by this."""
    return math.prod(
        layer[3] for stage in self._down for layer in stage if kind_of(layer[0]) != 'deconv')

  @property
  def _down(self) -> Sequence[Sequence[Layer]]:
    return self.down or [
        [(f'conv{i}_leaky_1', n, 3, 1 if i == 1 else 2, 1)] for i, n in enumerate(self.stems, 1)]

  @property
  def _up(self) -> Sequence[Sequence[Layer]]:
    if self.up:
      return self.up
    last = len(self.widths)
    up = [[(f'deconv{i}_leaky_1', n, 4, 2, 1)] for i, n in enumerate(self.widths[:-1], 1)]
    return [*up, [(f'conv{last}_leaky_1', self.widths[-1], 3, 1, 1),
                  (f'conv{last + 1}_leaky_1', 0, 1, 1, 0)]]

  def setup(self):
    name, levels = type(self).__name__, len(self.features)
    if self.output not in OUTPUTS:
      raise ValueError(f'{name}: output {self.output!r}: one of {" ".join(OUTPUTS)}')
    for field in ('down' if self.down else 'stems', 'up' if self.up else 'widths'):
      if len(getattr(self, field)) != levels:
        raise ValueError(
            f'{name}: {field} {getattr(self, field)} for {levels} levels (features '
            f'{tuple(self.features)}); give one for each')
    own = lambda layer: (layer[0], layer[1] or self.channels, *layer[2:])
    down, up = ([[own(layer) for layer in stage] for stage in s] for s in (self._down, self._up))
    common = dict(cell=self.cell, kernel_size=self.kernel_size, dtype=self.dtype)
    self.encoder = Encoder(stages=down, features=self.features, **common)
    self.decoder = Decoder(
        stages=up, features=self.features[::-1], inputs=self.inputs or self.stems[-1],
        linear=self.output == 'linear', **common)

  def _sizes(self, side: int) -> list[int]:
    """A side of the state at each level. ValueError: the way back does not end at `side`."""
    sizes = [side]
    for layers in self._down:
      sizes.append(Stage.size(layers, sizes[-1]))
    for layers, size, target in zip(self._up, sizes[:0:-1], [*sizes[-2:0:-1], side]):
      if Stage.size(layers, size) != target or size < 1:
        raise ValueError(
            f'{type(self).__name__}: {side} pixels become {sizes[1:]}, and {size} of them '
            f'{Stage.size(layers, size)} again, not {target}; pad to a multiple of {self.multiple}')
    return sizes[1:]

  def __call__(
      self, frames: Array, use_true: Array | None = None, *, t_in: int, train: bool = False,
      truth: bool = False, remat: bool = False, unroll: int = 1,
  ) -> tuple[Array, None, dict[str, Array]]:
    """Forecasts.

    Args:
      frames: `[B, T, H, W, C]`; those after the first t_in are not read, whatever `use_true` says.
      train, truth: change nothing.

    Returns:
      prediction `[B, T - t_in, H, W, C]`, at least float32; None; no terms.

    Raises:
      ValueError: sides that do not divide by `multiple`; fields that do not fit.
    """
    del use_true, train, truth
    b, total, h, w, _ = frames.shape
    frames = wide(frames[:, :t_in])
    states = [
        self.cell.start(jnp.zeros((b, *size, n), frames.dtype))
        for *size, n in zip(self._sizes(h), self._sizes(w), self.features)]
    look = lambda module, states, frame: (module.encoder(states, frame), None)
    step = lambda module, states, _: module.decoder(states)
    if self.is_initializing():
      # One step makes all variables; scans would only cost compile time.
      states, _ = look(self, states, frames[:, 0])
      return jnp.repeat(step(self, states[::-1], None)[1][:, None], total - t_in, 1), None, {}
    loop = lambda body, length, axis: scan_time(
        body, self, length=length, in_axes=(axis,), out_axes=1, remat=remat, unroll=unroll)
    states, _ = loop(look, t_in, 1)(self, states, frames)
    _, images = loop(step, total - t_in, nn.broadcast)(self, states[::-1], None)
    return images, None, {}


class EDConvLSTM(EncoderForecaster):
  """With ConvLSTM cells; see `EncoderForecaster`."""


class EDConvGRU(EncoderForecaster):
  """With ConvGRU cells; see `EncoderForecaster`."""
  cell: ClassVar[type[nn.Module]] = NormedGRUCell
