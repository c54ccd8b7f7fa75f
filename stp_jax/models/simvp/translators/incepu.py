"""IncepU, the translator of the first SimVP (Gao et al. 2022, arXiv:2206.05099)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import GroupNorm
from stp_jax.typing import Array

KERNELS = (3, 5, 7, 11)
GROUPS = 8


class GroupConv(nn.Module):
  """Grouped convolution, group norm of as many groups, leaky ReLU."""
  features: int
  kernel_size: int
  groups: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = Conv2D(self.features, self.kernel_size, groups=self.groups, dtype=self.dtype,
               name='conv')(x)
    return nn.leaky_relu(GroupNorm(self.groups, name='norm')(x), 0.2)


class Inception(nn.Module):
  """1 x 1 to `hidden`, then the sum of four grouped convolutions of growing kernels."""
  hidden: int
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    groups = 1 if self.hidden % GROUPS else GROUPS
    if self.features % groups:
      raise ValueError(
          f'SimVP incepu: {self.features} channels do not divide by {groups} groups; choose '
          f'multiples of {groups} for T * hid_S and hid_T')
    x = Conv2D(self.hidden, 1, dtype=self.dtype, name='conv1')(x)
    return sum(
        GroupConv(self.features, k, groups, self.dtype, name=f'layers_{i}')(x)
        for i, k in enumerate(KERNELS))


class IncepU(nn.Module):
  """A U of inception blocks at one resolution: `depth` down, `depth` up, joined by skips.

  It has no MLPs, no dropout and no short cut around it.
  """
  hidden: int
  depth: int
  mlp_ratio: float = 8.0
  drop: float = 0.0
  drop_path: float = 0.0
  drop_path_floor: float = 0.0
  dtype: jnp.dtype | None = None

  ignores: ClassVar[tuple[str, ...]] = ('drop', 'drop_path')

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: fewer than two blocks, channels not in groups."""
    if self.depth < 2:
      raise ValueError(f'SimVP: N_T must be at least 2, got {self.depth}')
    channels, last = x.shape[-1], self.depth - 1
    block = lambda features, name: Inception(self.hidden // 2, features, self.dtype, name=name)
    outputs = []
    for i in range(self.depth):
      x = block(self.hidden, f'enc_{i}')(x)
      outputs.append(x)
    x = block(self.hidden, 'dec_0')(x)
    for i in range(1, self.depth):
      x = jnp.concatenate([x, outputs[last - i]], -1)
      x = block(channels if i == last else self.hidden, f'dec_{i}')(x)
    return x
