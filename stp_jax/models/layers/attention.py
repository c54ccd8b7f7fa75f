"""Multi-head self-attention over tokens, as timm has it: `qkv` and `proj`, heads inside each third.

Dosovitskiy et al. 2021, arXiv:2010.11929 (plain); Liu et al. 2021, arXiv:2103.14030 (in windows).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.conv import kernel_init
from stp_jax.models.layers.mlp import dense
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


def attend(
    x: Array, heads: int, drop: float, train: bool, dtype: jnp.dtype | None,
    bias: Array | None = None, mask: np.ndarray | None = None, initializer: str = 'trunc_normal',
) -> Array:
  """Inside a compact module: attention of all tokens to all tokens, softmax at least in float32.

  Args:
    x: `[..., N, C]`.
    heads: each has C // heads features.
    drop: dropout of weights and result.
    bias: `[heads, N, N]`, added to the products of (query, key).
    mask: `[..., 1, N, N]`, False where a query must not see a key; every query sees one.

  Returns:
    `[..., N, C]`.
  """
  channels, size = x.shape[-1], x.shape[-1] // heads
  qkv = dense(3 * heads * size, 'qkv', initializer, dtype)(x)
  q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:-1], 3, heads, size), -3, 0)
  weights = wide(jnp.einsum('...qhd,...khd->...hqk', q * size ** -0.5, k))
  if bias is not None:
    weights = weights + bias
  if mask is not None:
    weights = jnp.where(mask, weights, jnp.finfo(weights.dtype).min)
  weights = jax.nn.softmax(weights, -1).astype(v.dtype)
  weights = nn.Dropout(drop)(weights, deterministic=not train)
  y = jnp.einsum('...hqk,...khd->...qhd', weights, v)
  y = dense(channels, 'proj', initializer, dtype)(y.reshape(*x.shape[:-1], heads * size))
  return nn.Dropout(drop)(y, deterministic=not train)


class SelfAttention(nn.Module):
  """Attention among all tokens of an example."""
  heads: int = 8
  drop: float = 0.0
  initializer: str = 'trunc_normal'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[..., N, C]` -> the same. ValueError: C does not divide by the heads."""
    if x.shape[-1] % self.heads:
      raise ValueError(
          f'attention: {x.shape[-1]} channels do not divide by {self.heads} heads; choose '
          f'multiples of {self.heads} for T * hid_S and hid_T')
    return attend(
        x, self.heads, self.drop, train, self.dtype, initializer=self.initializer)


def relative_positions(window: int) -> np.ndarray:
  """Row of the bias table for (query, key) `[N, N]`, N = window ** 2 pixels in row-major order."""
  rows, columns = np.divmod(np.arange(window ** 2), window)
  apart = lambda at: at[:, None] - at[None] + window - 1
  return apart(rows) * (2 * window - 1) + apart(columns)


class WindowAttention(nn.Module):
  """Attention among the pixels of a square window, with a learned bias per head and distance."""
  window: int
  heads: int = 8
  drop: float = 0.0
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool, mask: np.ndarray | None = None) -> Array:
    """`[..., window ** 2, C]` -> the same; mask: see `attend`. ValueError: C < heads."""
    if x.shape[-1] < self.heads:
      raise ValueError(
          f'attention: {x.shape[-1]} channels are too few for {self.heads} heads; choose more for '
          'T * hid_S and hid_T')
    table = self.param(
        'relative_position_bias_table', kernel_init('trunc_normal'),
        ((2 * self.window - 1) ** 2, self.heads))
    bias = jnp.moveaxis(wide(table)[relative_positions(self.window)], -1, 0)
    return attend(x, self.heads, self.drop, train, self.dtype, bias, mask)
