"""Invertible encoder of triples of frames (i-RevNet, Jacobsen et al. 2018, arXiv:1802.07088)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv3d import DepthConv
from stp_jax.models.layers.norms import BatchNorm
from stp_jax.models.layers.patches import patchify, unpatchify
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

Pair = tuple[Array, Array]


class Bottleneck(nn.Module):
  """F of a reversible block: [norm, ReLU,] conv, norm, ReLU, conv, norm, ReLU, conv; 3 x 3 x 3."""
  features: int
  stride: int = 1
  first: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, 3, h, w, in]` -> `[B, 3, h / stride, w / stride, features]`, at least float32."""
    inner = max(self.features // 2, 1)
    # Places in the torch list, where ReLUs and a dropout of rate 0 count too.
    places = (0, 1, 3, 5, 7) if self.first else (2, 3, 5, 7, 9)

    def conv(x, features, stride, place):
      return wide(DepthConv(
          features, 3, 3, stride, depth_padding=1, dtype=self.dtype,
          name=f'bottleneck_block_{place}')(x))

    def norm(x, place):
      return nn.relu(BatchNorm(name=f'bottleneck_block_{place}')(x, train))

    x = x if self.first else norm(x, 0)
    x = conv(x, inner, self.stride, places[0])
    x = conv(norm(x, places[1]), inner, 1, places[2])
    return conv(norm(x, places[3]), self.features, 1, places[4])


class ReversibleEncoder(nn.Module):
  """Two halves of channels, additive couplings (x1, x2) -> (x2, F(x2) + x1), three resolutions.

  A halving moves 2 x 2 pixels into the channels, so the code has as many numbers as the frames. The
  inverse calls the same F: in training each of its batch norms is updated once more.
  """
  channels: int
  blocks: Sequence[int] = (4, 5, 3)
  dtype: jnp.dtype | None = None

  def setup(self):
    stack = []
    for stage, count in enumerate(self.blocks):
      for i in range(count):
        stride = 2 if stage and not i else 1
        stack.append(Bottleneck(
            2 * self.channels * 4 ** stage, stride, not stack, self.dtype))
    self.stack = stack

  def encode(self, x: Array, train: bool) -> Pair:
    """`[B, 3, H, W, C]` -> two halves `[B, 3, H / 8, W / 8, 32 C]` (three resolutions)."""
    x1, x2 = jnp.split(patchify(x, 2), 2, -1)
    for f in self.stack:
      y = f(x2, train)
      if f.stride == 2:
        x1, x2 = patchify(x1, 2), patchify(x2, 2)
      x1, x2 = x2, y + x1
    return x1, x2

  def decode(self, code: Pair, train: bool) -> Array:
    """The inverse of `encode`, but for the batch statistics in training."""
    x2, y = code
    for f in self.stack[::-1]:
      if f.stride == 2:
        x2 = unpatchify(x2, 2)
      x1 = y - f(x2, train)
      if f.stride == 2:
        x1 = unpatchify(x1, 2)
      x2, y = x1, x2
    return unpatchify(jnp.concatenate([x2, y], -1), 2)
