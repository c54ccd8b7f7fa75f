"""ConvLSTM in blocks with skips (Su et al. 2020, arXiv:2002.09131), and its tensor-train cell.

As GS2PM compares with it (github.com/miaomiaoToday/GS2PM), whose names the submodules carry.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.convlstm import state
from stp_jax.typing import Array

CELLS = ('convlstm', 'convttlstm')


def _gates(gates: Array, c: Array) -> tuple[Array, Array]:
  """Gates i, f, o, g `[B, h, w, 4 features]` and the memory -> new h and c."""
  i, f, o, g = jnp.split(wide(gates), 4, -1)
  c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
  return nn.sigmoid(o) * nn.tanh(c), c


class NetCell(nn.Module):
  """One convolution of input and hidden state side by side makes all gates."""
  features: int
  kernel_size: int = 3
  use_bias: bool = True
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, carry: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    """`[B, h, w, in]` -> new h `[B, h, w, features]`, and the state (h, c)."""
    h, c = carry
    conv = Conv2D(
        4 * self.features, self.kernel_size, use_bias=self.use_bias, dtype=self.dtype, name='conv')
    h, c = _gates(conv(jnp.concatenate([x, h], -1)), c)
    return h, (h, c)


class TensorTrainCell(nn.Module):
  """Gates from the last `steps` hidden states, in `order` overlapping windows of equal length.

  The windows are folded into one another, oldest first, through narrow convolutions.
  """
  features: int
  kernel_size: int = 3
  use_bias: bool = True
  dtype: jnp.dtype | None = None
  order: int = 3
  steps: int = 3
  ranks: int = 8

  @nn.compact
  def __call__(self, x: Array, carry: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    """`[B, h, w, in]` -> new h `[B, h, w, features]`, and the state.

    The state: hidden states, oldest first `[B, h, w, steps features]`, and c.
    """
    (past, c), n = carry, self.features
    conv = lambda features, name: Conv2D(
        features, self.kernel_size, use_bias=self.use_bias, dtype=self.dtype, name=name)
    long, folded = (self.steps - self.order + 1) * n, None
    for i in range(self.order):
      window = conv(self.ranks, f'layers__{i}')(past[..., i * n:i * n + long])
      folded = window if i == 0 else window + conv(self.ranks, f'layers_{i - 1}')(folded)
    x, folded = (a.astype(jnp.result_type(x, folded)) for a in (x, folded))
    h, c = _gates(conv(4 * n, f'layers_{self.order - 1}')(jnp.concatenate([x, folded], -1)), c)
    return h, (jnp.concatenate([past[..., n:], h], -1), c)


class Stack(nn.Module):
  """The cells, their skips and the read-out, without a loop over time.

  Attributes:
    channels: channels of a prediction, in patched space.
    features: hidden channels of each block.
    layers: cells of each block.
    skip: the output of a block is read again this many blocks later, beside that block's own, and
      so on to the read-out. None: no skips; as with no more blocks than that.
    kernel_size: odd.
    use_bias: of the cells' convolutions.
    cell: convlstm | convttlstm; `order`, `steps` and `ranks` are of the latter.
    squash: a sigmoid at the output; off for frames that leave (0, 1).
    zero_readout: start by predicting zero (for residual forecasts, which are not squashed either).
    dtype: compute type of the convolutions; states and gates are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (32, 48, 48, 32)
  layers: Sequence[int] = (3, 3, 3, 3)
  skip: int | None = 2
  kernel_size: int = 3
  use_bias: bool = True
  cell: str = 'convlstm'
  order: int = 3
  steps: int = 3
  ranks: int = 8
  squash: bool = True
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def setup(self):
    self._check()
    self.cells = [
        [self._cell(n, f'b{block}l{layer}') for layer in range(layers)]
        for block, (n, layers) in enumerate(zip(self.features, self.layers))]
    self.output = Conv2D(
        self.channels, 1, initializer='zeros' if self.zero_readout else 'torch', dtype=self.dtype)

  def _cell(self, features: int, name: str) -> nn.Module:
    common = dict(
        features=features, kernel_size=self.kernel_size, use_bias=self.use_bias, dtype=self.dtype,
        name=name)
    if self.cell == 'convlstm':
      return NetCell(**common)
    return TensorTrainCell(**common, order=self.order, steps=self.steps, ranks=self.ranks)

  def _check(self) -> None:
    name = type(self).__name__
    if self.cell not in CELLS:
      raise ValueError(f'{name}: cell {self.cell!r}: one of {" ".join(CELLS)}')
    if len(self.features) != len(self.layers) or min(self.layers, default=0) < 1:
      raise ValueError(
          f'{name}: features {tuple(self.features)}, layers {tuple(self.layers)}: give one of each '
          'for every block, and at least one layer')
    if self.cell == 'convttlstm' and not 1 <= self.order <= self.steps:
      raise ValueError(f'{name}: order={self.order}, steps={self.steps}: 1 <= order <= steps')

  def initial(self, frame: Array) -> list[list[Any]]:
    """Zero states (hidden, c) of all cells; `frame` `[B, h, w, in]` gives batch and size."""
    past = self.steps if self.cell == 'convttlstm' else 1
    return [
        [(state(frame, past * n), state(frame, n)) for _ in range(layers)]
        for n, layers in zip(self.features, self.layers)]

  def through(self, states: Any, frame: Array) -> tuple[Any, Array]:
    """Once through all blocks: new states, and what the read-out sees, at least float32."""
    new, waiting, x = [], [], frame
    for block, carries in zip(self.cells, states, strict=True):
      after = []
      for cell, carry in zip(block, carries, strict=True):
        x, carry = cell(x, carry)
        after.append(carry)
      new.append(after)
      waiting.append(x)
      if self.skip is not None and len(waiting) > self.skip:
        x = jnp.concatenate([x, waiting.pop(0)], -1)
    return new, x

  def read(self, seen: Array) -> Array:
    """`[B, h, w, in]` -> an image `[B, h, w, channels]`, at least float32."""
    image = wide(self.output(seen))
    return nn.sigmoid(image) if self.squash and not self.zero_readout else image


class ConvLSTMNet(Stack):
  """A step module (`models.rollout`); see `Stack` for the fields."""

  kind: ClassVar[str] = 'frames'  # the rollout that drives it

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zero states of all cells; `frame` `[B, h, w, in]` gives batch and size."""
    del steps
    return self.initial(frame)

  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: fields that do not fit."""
    del t
    carry, seen = self.through(carry, frame)
    return carry, self.read(seen), {}
