"""ConvLSTM and ConvGRU cells with group norm.

Shi et al. 2015 (arXiv:1506.04214) and Ballas et al. 2016 (arXiv:1511.06432), normalised as in
github.com/jhhuang96/ConvLSTM-PyTorch (d449429), whose names the submodules carry.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import GroupNorm
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


def groups(channels: int) -> int:
  """Groups of 32 channels; where these do not fit, the next smaller number of groups that does."""
  return next(n for n in range(max(1, channels // 32), 0, -1) if channels % n == 0)


class NormedConv(nn.Module):
  """Convolves the input beside the state, and normalises all gates together.

  A group is 32 channels, whichever gates they belong to.
  """
  features: int
  kernel_size: int
  dtype: jnp.dtype | None

  @nn.compact
  def __call__(self, x: Array, h: Array) -> Array:
    """`[B, h, w, in]`, `[B, h, w, state]` -> `[B, h, w, features]`, at least float32."""
    y = Conv2D(self.features, self.kernel_size, dtype=self.dtype, name='conv')(
        jnp.concatenate([x, h], -1))
    return GroupNorm(groups(self.features), name='norm')(wide(y))


class NormedLSTMCell(nn.Module):
  """One step; gates in the order i, f, g, o. The state is (h, c)."""
  features: int
  kernel_size: int = 5
  dtype: jnp.dtype | None = None

  @staticmethod
  def start(zeros: Array) -> Any:
    """The state before the first frame."""
    return zeros, zeros

  @nn.compact
  def __call__(self, carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
    """State, `[B, h, w, in]` -> new state and h `[B, h, w, features]`."""
    h, c = carry
    gates = NormedConv(4 * self.features, self.kernel_size, self.dtype, name='conv')(x, h)
    i, f, g, o = jnp.split(gates, 4, -1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
    h = nn.sigmoid(o) * nn.tanh(c)
    return (h, c), h


class NormedGRUCell(nn.Module):
  """One step; h' = (1 - z) h + z n. The state is h."""
  features: int
  kernel_size: int = 5
  dtype: jnp.dtype | None = None

  @staticmethod
  def start(zeros: Array) -> Any:
    """The state before the first frame."""
    return zeros

  @nn.compact
  def __call__(self, h: Array, x: Array) -> tuple[Array, Array]:
    """State, `[B, h, w, in]` -> new state, twice."""
    conv = lambda features, name: NormedConv(features, self.kernel_size, self.dtype, name=name)
    z, r = jnp.split(nn.sigmoid(conv(2 * self.features, 'conv1')(x, h)), 2, -1)
    h = (1 - z) * h + z * nn.tanh(conv(self.features, 'conv2')(x, r * h))
    return h, h
