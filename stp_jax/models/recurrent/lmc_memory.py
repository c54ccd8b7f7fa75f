"""The memory of LMC (Lee et al. 2021, arXiv:2104.00924): motions that were seen before.

A 3-D network sums up the changes from frame to frame; what it finds at each place asks the memory.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.layers.conv3d import DepthConv
from stp_jax.models.layers.pooling import halve
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.typing import Array

CHANGES = 8  # the least number that the motion encoder can halve three times


class MotionEncoder(nn.Module):
  """Six 3-D convolutions with ReLUs and four poolings; the mean over what is left of time.

  Submodules are numbered as items of one list.
  """
  features: Sequence[int]
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Changes `[B, at least CHANGES, H, W, C]` -> `[B, H / 16, W / 16, features[-1]]`, wide."""
    a, b, c, d = self.features
    for item, n in ((0, a), (3, b), (6, c), (8, c), (11, d), (13, d)):
      x = nn.relu(DepthConv(
          n, 3, 3, depth_padding=1, use_bias=True, dtype=self.dtype, name=f'item_{item}')(x))
      if item not in (6, 11):
        x = halve(x, (1, 2, 3) if item else (2, 3))
    return jnp.mean(wide(x), 1)


class Memory(nn.Module):
  """What is known of motions like those that are seen.

  Attributes:
    size: of the memory, in rows.
    features: of the motion encoders; the memory's rows are as long as the last.
    embedded: channels of the answer.
  """
  size: int
  features: Sequence[int]
  embedded: int
  dtype: jnp.dtype | None = None

  def setup(self):
    self.motion_matching_encoder = MotionEncoder(self.features, self.dtype)
    self.motion_context_encoder = MotionEncoder(self.features, self.dtype)
    self.memory_w = self.param(
        'memory_w', nn.initializers.normal(1.0), (self.size, self.features[-1]))
    self.embedder = [
        ConvTranspose2D(n, dtype=self.dtype) for n in (self.features[2], self.embedded)]

  def __call__(self, frames: Array, phase: int) -> Array:
    """Frames `[B, t, H, W, C]` -> `[B, H / 4, W / 4, embedded]`, at least float32.

    Fewer than CHANGES + 1 frames are completed by repeating the first: nothing moved.
    """
    short = max(0, CHANGES + 1 - frames.shape[1])
    frames = jnp.concatenate([frames[:, :1]] * short + [frames], 1)
    changes = frames[:, 1:] - frames[:, :-1]
    encoders = self.motion_context_encoder, self.motion_matching_encoder
    if self.is_initializing():
      # Each phase uses one of them, but a run may follow on one of the other phase.
      encoders[2 - phase](changes)
    x = self.recall(encoders[phase - 1](changes))
    for layer in self.embedder:
      x = nn.relu(layer(x))
    return wide(x)

  def recall(self, query: Array) -> Array:
    """`[..., features]` -> the memory's rows, weighted by how much they point the same way."""
    rows = self.memory_w.astype(query.dtype)
    likeness = _unit(query) @ _unit(rows).T
    return jax.nn.softmax(likeness, -1) @ rows


def _unit(x: Array, least: float = 1e-12) -> Array:
  """Length 1 along the last axis; zero stays zero."""
  square = jnp.sum(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.where(square > least ** 2, square, least ** 2))
