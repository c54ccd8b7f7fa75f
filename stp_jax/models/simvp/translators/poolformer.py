"""PoolFormer (Yu et al. 2022, arXiv:2111.11418): pooling in the place of attention."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from stp_jax.models.layers.mlp import Mlp
from stp_jax.models.layers.norms import GroupNorm
from stp_jax.models.layers.periodic import is_periodic
from stp_jax.models.layers.precision import wide
from stp_jax.models.simvp.translators.metaformer import ScaledBlock
from stp_jax.typing import Array


def mean_of_neighbours(x: Array) -> Array:
  """Mean of the 3 x 3 pixels around each, those beyond the edge left out; `[B, h, w, C]`.

  Under `layers.periodic` those beyond the left and the right edge are the ones of the other edge.
  """
  wraps = is_periodic()

  def around(y, axis):  # sums of three; slices, because windows are slow to differentiate
    n = y.shape[axis]
    y = jnp.pad(y, [(1, 1) if i == axis else (0, 0) for i in range(y.ndim)],
                mode='wrap' if wraps and axis == 2 else 'constant')
    return sum(lax.slice_in_dim(y, i, i + n, axis=axis) for i in range(3))

  def count(n):
    i = np.arange(n)
    return 1 + np.minimum(i, 1) + np.minimum(n - 1 - i, 1)

  columns = np.full(x.shape[2], 3) if wraps else count(x.shape[2])
  counts = np.outer(count(x.shape[1]), columns)[..., None]
  return around(around(x, 1), 2) / counts.astype(x.dtype)


class PoolFormerBlock(ScaledBlock):
  """What pooling changes, then an MLP; both with group norm (one group) and layer scale."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same."""
    channels = x.shape[-1]
    scales = [self.layer_scale(f'layer_scale_{i}', channels, 1e-5) for i in (1, 2)]
    y = wide(GroupNorm(1, name='norm1')(x))
    x = x + self.branch(scales[0] * (mean_of_neighbours(y) - y), train)
    y = Mlp(int(channels * self.mlp_ratio), self.drop, pointwise=True, dtype=self.dtype,
            name='mlp')(GroupNorm(1, name='norm2')(x), train)
    return x + self.branch(scales[1] * y, train)
