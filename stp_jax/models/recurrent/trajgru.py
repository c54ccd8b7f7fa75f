"""TrajGRU (Shi et al. 2017, arXiv:1706.03458): a GRU that looks along paths that it learns.

Three levels by default, an encoder that reads the input and a forecaster that starts from its
states and sees nothing else. Submodules carry the names of github.com/miaomiaoToday/GS2PM and of
github.com/dreaming-coder/Spatiotemporal-Prediction, one code in two places.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D, bias_init
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.models.layers.warp import warp
from stp_jax.models.recurrent.peephole_convlstm import CLIPS, EmptyConv, clipped
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array

GATES = ('paper', 'upstream')


class Link(nn.Module):
  """Kernel and bias of one path's 1 x 1 convolution, which the cell runs with all others."""
  features: int

  @nn.compact
  def __call__(self, start: Array | None) -> tuple[Array, Array]:
    """`start` `[features + 1, features]`: both at initialisation."""
    n = self.features
    if start is None:
      start = jnp.zeros((n + 1, n))  # only its shape is looked at
    kernel = self.param('kernel', lambda _: start[None, None, :n])
    return kernel[0, 0], self.param('bias', lambda _: start[n])


class TrajGRUCell(nn.Module):
  """One step.

  Attributes:
    features: of the state.
    kernel_size: of the convolutions of the input, odd.
    links: paths that lead to each pixel.
    inputs: channels of x, for one that is always absent.
    flow_features: between input, state and flows.
    update_gate: paper: h = (1 - z) candidate + z h. upstream: the candidate alone, because its code
      weighs the candidate with both z and 1 - z; z has no parameters then.
    dtype: compute type of the convolutions; flows, gates and states are at least float32.
  """
  features: int
  kernel_size: int = 3
  links: int = 9
  inputs: int = 0
  flow_features: int = 32
  update_gate: str = 'paper'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array | None, h: Array) -> Array:
    """`[B, h, w, in]` or None (an input of zeros), state `[B, h, w, features]` -> new state.

    Raises:
      ValueError: unknown update gate.
    """
    if self.update_gate not in GATES:
      raise ValueError(f'TrajGRU: update_gate {self.update_gate!r}: one of {" ".join(GATES)}')
    n = self.features
    conv = lambda value, features, k, name: wide(
        Conv2D(features, k, dtype=self.dtype, name=name)(value))

    def read(features, k, name):
      if x is None:
        return wide(EmptyConv(features, self.inputs * k * k, name=name)())
      return conv(x, features, k, name)

    both = read(self.flow_features, 5, 'gammma_x') + conv(h, self.flow_features, 5, 'gammma_h')
    flows = conv(nn.leaky_relu(both, 0.2), 2 * self.links, 5, 'generate_flow')
    flows = jnp.moveaxis(flows.reshape(*h.shape[:-1], self.links, 2), -2, 1)
    fetched = jnp.moveaxis(warp(h, flows, 'zeros'), 1, -2).reshape(*h.shape[:-1], -1)
    names = ('h', 'r', 'z') if self.update_gate == 'paper' else ('h', 'r')
    # All paths of all gates in one product: a sum over paths is one over their channels.
    kernel, bias = zip(*(self._paths(f'W_h{name}') for name in names))
    kernel, bias = jnp.concatenate(kernel, -1), jnp.concatenate(bias, -1)
    fetched, kernel = nn.dtypes.promote_dtype(fetched, kernel, dtype=self.dtype)
    moved = jnp.split(wide(fetched @ kernel) + bias, len(names), -1)
    seen = [read(n, self.kernel_size, f'W_x{name}') for name in names]
    r = nn.sigmoid(seen[1] + moved[1])
    candidate = nn.leaky_relu(seen[0] + r * moved[0], 0.2)
    if self.update_gate == 'upstream':
      return candidate
    z = nn.sigmoid(seen[2] + moved[2])
    return (1 - z) * candidate + z * h

  def _paths(self, name: str) -> tuple[Array, Array]:
    """Kernel `[links features, features]` and bias of all paths together."""
    n, starts = self.features, [None] * self.links
    if self.is_initializing():
      # One draw for all: hundreds of small ones take minutes to compile.
      starts = bias_init('torch', n)(self.make_rng('params'), (self.links, n + 1, n))
    kernels, biases = zip(*(
        Link(n, name=f'{name}_{i}')(start) for i, start in enumerate(starts)))
    return jnp.concatenate(kernels), sum(biases)


class Encoder(nn.Module):
  """Halves the frame level by level, each with a state of its own."""
  stems: Sequence[int]
  cells: Sequence[dict[str, Any]]
  item: str  # ends the names of single convolutions
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, states: Sequence[Array], frame: Array) -> list[Array]:
    """New states, finest first."""
    x, new = frame, []
    for i, (stem, cell, h) in enumerate(zip(self.stems, self.cells, states, strict=True), 1):
      x = Conv2D(stem, 3, 2, dtype=self.dtype, name=f'conv{i}{self.item}')(x)
      x = TrajGRUCell(**cell, dtype=self.dtype, name=f'layer{i}')(x, h)
      new.append(x)
    return new


class Forecast(nn.Module):
  """The way back up, whose first cell has no input."""
  widths: Sequence[int]
  cells: Sequence[dict[str, Any]]
  outputs: int
  item: str
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, states: Sequence[Array]) -> tuple[list[Array], Array]:
    """States, coarsest first -> new ones, and an image `[B, H, W, outputs]`, at least float32."""
    x, new, last = None, [], len(self.cells)
    for i, (width, cell, h) in enumerate(zip(self.widths, self.cells, states, strict=True), 1):
      h = TrajGRUCell(**cell, dtype=self.dtype, name=f'layer{i}')(x, h)
      new.append(h)
      name = f'deconv{i}{"_0" if i == last else self.item}'
      x = ConvTranspose2D(width, dtype=self.dtype, name=name)(h)
    x = Conv2D(width, 3, dtype=self.dtype, name=f'deconv{last}_1')(x)
    return new, wide(Conv2D(self.outputs, 1, dtype=self.dtype, name=f'deconv{last}_2')(x))


class TrajGRU(nn.Module):
  """A forecaster with its own two time loops (kind 'window' of `models.forecaster`).

  Attributes:
    channels: C of a frame.
    features: of the state at each level, finest first.
    stems: channels that the convolution before each level makes; half the size each.
    kernels, links: of the encoder's cells, finest level first.
    back_kernels, back_links: of the forecaster's cells, coarsest level first.
    widths: channels of the transposed convolution after each of them.
    outputs: channels that are forecast: 0: all; 1: one, which stands for all of them (GS2PM's).
    flow_features, update_gate: see `TrajGRUCell`.
    clip: of predictions: none | unit (0 to 1) | positive; of Spatiotemporal-Prediction.
    listed: names of single convolutions end in _0, for they are lists of one in PyTorch; not so in
      Spatiotemporal-Prediction's network for Moving MNIST.
    dtype: compute type of the convolutions; flows, gates and states are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (64, 96, 96)
  stems: Sequence[int] = (8, 96, 96)
  kernels: Sequence[int] = (5, 5, 3)
  links: Sequence[int] = (13, 13, 9)
  back_kernels: Sequence[int] = (5, 5, 3)
  back_links: Sequence[int] = (13, 13, 9)
  widths: Sequence[int] = (96, 96, 8)
  outputs: int = 0
  flow_features: int = 32
  update_gate: str = 'paper'
  clip: str = 'none'
  listed: bool = True
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'window'

  @property
  def multiple(self) -> int:
    """Frame sides must divide by this."""
    return 2 ** len(self.features)

  def setup(self):
    lists = dict(stems=self.stems, kernels=self.kernels, links=self.links, widths=self.widths,
                 back_kernels=self.back_kernels, back_links=self.back_links)
    for name, values in lists.items():
      if len(values) != len(self.features):
        raise ValueError(
            f'TrajGRU: {name} {tuple(values)} for {len(self.features)} levels (features '
            f'{tuple(self.features)}); give one for each')
    if self.clip not in CLIPS:
      raise ValueError(f'TrajGRU: clip {self.clip!r}: one of {" ".join(CLIPS)}')
    if self.outputs not in (0, 1, self.channels):
      raise ValueError(f'TrajGRU: outputs={self.outputs}: 0 (all {self.channels} channels) or 1')

    def cells(features, kernels, links, inputs):
      return [dict(features=n, kernel_size=k, links=count, inputs=inputs,
                   flow_features=self.flow_features, update_gate=self.update_gate)
              for n, k, count in zip(features, kernels, links)]

    item = '_0' if self.listed else ''
    self.encoder = Encoder(
        self.stems, cells(self.features, self.kernels, self.links, 0), item, self.dtype)
    self.forecast = Forecast(
        self.widths,
        cells(self.features[::-1], self.back_kernels, self.back_links, self.stems[-1]),
        self.outputs or self.channels, item, self.dtype)

  def __call__(
      self, frames: Array, use_true: Array, *, t_in: int, train: bool = False, truth: bool = False,
      remat: bool = False, unroll: int = 1,
  ) -> tuple[Array, Array | None, dict[str, Array]]:
    """Forecasts.

    Args:
      frames: `[B, T, H, W, C]`; only the first `t_in` are read.

    Returns:
      prediction `[B, T - t_in, H, W, C]`, at least float32; None; no terms.

    Raises:
      ValueError: sides that do not divide by `multiple`; fields that do not fit.
    """
    del use_true, train, truth
    b, total, h, w, _ = frames.shape
    if h % self.multiple or w % self.multiple:
      raise ValueError(f'TrajGRU: frames of {h} x {w} do not divide by {self.multiple}; pad them')
    frames = wide(frames[:, :t_in])
    states = [
        jnp.zeros((b, h >> i, w >> i, n), frames.dtype) for i, n in enumerate(self.features, 1)]
    look = lambda module, states, frame: (module.encoder(states, frame), None)
    step = lambda module, states, _: module.forecast(states)
    if self.is_initializing():
      # One step makes all variables; scans would only cost compile time.
      states, _ = look(self, states, frames[:, 0])
      images = jnp.repeat(step(self, states[::-1], None)[1][:, None], total - t_in, 1)
    else:
      loop = lambda body, length, axes: scan_time(
          body, self, length=length, in_axes=(axes,), out_axes=1, remat=remat, unroll=unroll)
      states, _ = loop(look, t_in, 1)(self, states, frames)
      _, images = loop(step, total - t_in, nn.broadcast)(self, states[::-1], None)
    images = clipped(images, self.clip)
    return jnp.broadcast_to(images, (*images.shape[:-1], self.channels)), None, {}
