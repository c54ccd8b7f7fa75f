"""The two blocks of UniFormer (Li et al. 2022, arXiv:2201.09450), called inside a compact module.

Their parameters stand beside one another in that module, under the names of the published code.
"""

from collections.abc import Callable

import jax.numpy as jnp

from stp_jax.models.layers.attention import SelfAttention
from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.depthwise import DepthwiseConv2D
from stp_jax.models.layers.mlp import Mlp
from stp_jax.models.layers.norms import BatchNorm, LayerNorm
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

Branch = Callable[[Array], Array]


def add_position(x: Array, initializer: str, dtype: jnp.dtype | None) -> Array:
  """Adds a 3 x 3 depthwise convolution (`pos_embed`) to `[B, h, w, C]`; at least float32."""
  return x + wide(DepthwiseConv2D(3, initializer=initializer, dtype=dtype, name='pos_embed')(x))


def local_block(
    x: Array, branch: Branch, *, mlp_ratio: float, drop: float, train: bool,
    batch_statistics: bool, initializer: str, dtype: jnp.dtype | None,
) -> Array:
  """Mixes by 5 x 5 depthwise convolutions, normalised over the batch.

  Args:
    x: `[B, h, w, C]`.
    branch: what becomes of a branch before it joins the residual stream (stochastic depth).
    train: dropout. batch_statistics: normalise by the batch's and update the running ones.

  Returns:
    The same shape, at least float32.
  """
  channels = x.shape[-1]
  conv = lambda name: Conv2D(channels, 1, initializer=initializer, dtype=dtype, name=name)
  x = add_position(x, initializer, dtype)
  y = conv('conv1')(BatchNorm(name='norm1')(x, batch_statistics))
  y = DepthwiseConv2D(5, initializer=initializer, dtype=dtype, name='attn')(y)
  x = x + branch(conv('conv2')(y))
  y = Mlp(int(channels * mlp_ratio), drop, pointwise=True, initializer=initializer, dtype=dtype,
          name='mlp')(BatchNorm(name='norm2')(x, batch_statistics), train)
  return x + branch(y)


def global_block(
    tokens: Array, gammas: tuple[Array, Array], branch: Branch, *, mlp_ratio: float, drop: float,
    train: bool, initializer: str, dtype: jnp.dtype | None, heads: int = 8, suffix: str = '',
) -> Array:
  """Mixes by attention among all tokens `[B, N, C]`, normalised per token; the same shape.

  Args:
    gammas: `[C]` each: the layer scales of attention and MLP.
    suffix: of the names of all submodules, where a module holds two such blocks.

  Raises:
    ValueError: C does not divide by the heads.
  """
  y = SelfAttention(heads, drop, initializer, dtype, name=f'attn{suffix}')(
      LayerNorm(name=f'norm1{suffix}')(tokens), train)
  tokens = tokens + branch(gammas[0] * y)
  y = Mlp(int(tokens.shape[-1] * mlp_ratio), drop, initializer=initializer, dtype=dtype,
          name=f'mlp{suffix}')(LayerNorm(name=f'norm2{suffix}')(tokens), train)
  return tokens + branch(gammas[1] * y)
