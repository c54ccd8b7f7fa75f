"""HorNet, recursive gated convolutions (Rao et al. 2022, arXiv:2207.14284)."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.depthwise import DepthwiseConv2D
from stp_jax.models.layers.mlp import dense
from stp_jax.models.layers.norms import LayerNorm
from stp_jax.models.simvp.translators.metaformer import ScaledBlock
from stp_jax.typing import Array


class GatedConv(nn.Module):
  """gnconv: gates of growing width, C / 2^(order - 1) ... C / 2, C, one after the other."""
  order: int = 4
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: C does not divide by 2^(order - 1)."""
    channels, least = x.shape[-1], 2 ** (self.order - 1)
    if channels % least:
      raise ValueError(
          f'SimVP hornet: {channels} channels do not divide by {least}; choose multiples of '
          f'{least} for T * hid_S and hid_T')
    conv = lambda features, name: Conv2D(
        features, 1, initializer='he_out', dtype=self.dtype, name=name)
    widths = [channels // 2 ** i for i in reversed(range(self.order))]
    y, rest = jnp.split(conv(2 * channels, 'proj_in')(x), [widths[0]], -1)
    rest = DepthwiseConv2D(7, initializer='he_out', dtype=self.dtype, name='dwconv')(rest)
    gates = jnp.split(rest, np.cumsum(widths)[:-1], -1)
    y = y * gates[0]
    for i, gate in enumerate(gates[1:]):
      y = conv(widths[i + 1], f'pws_{i}')(y) * gate
    return conv(channels, 'proj_out')(y)


class HorNetBlock(ScaledBlock):
  """Layer norm, gated convolution; layer norm, linear MLP; both with layer scale."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same."""
    channels = x.shape[-1]
    drop = lambda y: nn.Dropout(self.drop)(y, deterministic=not train)
    gammas = [self.layer_scale(f'gamma{i}', channels, 1e-6) for i in (1, 2)]
    y = GatedConv(dtype=self.dtype, name='gnconv')(LayerNorm(1e-6, name='norm1')(x))
    x = x + self.branch(gammas[0] * y, train)
    y = LayerNorm(1e-6, name='norm2')(x)
    y = dense(int(channels * self.mlp_ratio), 'pwconv1', dtype=self.dtype)(y)
    y = drop(nn.gelu(y, approximate=False))
    y = drop(dense(channels, 'pwconv2', dtype=self.dtype)(y))
    return x + self.branch(gammas[1] * y, train)
