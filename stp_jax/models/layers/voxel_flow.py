"""The blocks of DMVFN (Hu et al. 2023, arXiv:2303.09875) and the features of its routing."""

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.resize import enlarge, shrink
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.typing import Array


class ConvPReLU(nn.Module):
  """3 x 3 convolution, then PReLU with a slope per channel that starts at 1/4."""
  features: int
  stride: int = 1
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = Conv2D(self.features, 3, self.stride, dtype=self.dtype, name='conv')(x)
    slope = _Slope(name='prelu')(x.shape[-1]).astype(x.dtype)
    return jnp.where(x >= 0, x, slope * x)


class _Slope(nn.Module):

  @nn.compact
  def __call__(self, features: int) -> Array:
    return self.param('weight', nn.initializers.constant(0.25), (features,))


class Block(nn.Module):
  """MVFB: what it adds to the flows and to the mask, seen at 1 / scale and at half the resolution.
  """
  features: int
  scale: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, flow: Array) -> tuple[Array, Array]:
    """`[B, H, W, 4 C + 1]`, `[B, H, W, 4]` -> flow `[B, H, W, 4]`, mask `[B, H, W, 1]`, wide."""
    n = self.features
    conv = lambda features, name, stride=1: ConvPReLU(features, stride, self.dtype, name=name)
    coarse = jnp.concatenate([shrink(x, self.scale), shrink(flow, self.scale) / self.scale], -1)
    y = conv(n, 'conv0_1', 2)(conv(n // 2, 'conv0_0', 2)(coarse))
    z = y
    for i in range(3):
      z = conv(n, f'convblock_{i}')(z)
    y = enlarge(conv(n // 4, 'conv_sq')(z + y), 2 * self.scale)
    fine = conv(8, 'conv1_0', 2)(jnp.concatenate([x, flow], -1))
    fine = conv(8, 'convblock1_0')(fine)
    out = wide(ConvTranspose2D(5, 4, 2, 1, 0, dtype=self.dtype, name='lastconv')(
        jnp.concatenate([y, fine], -1)))
    return out[..., :4], out[..., 4:]


class Routing(nn.Module):
  """`[B, H, W, 2 C]` -> features `[B, features]`, at least float32."""
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = lambda i: Conv2D(self.features, 3, dtype=self.dtype, name=f'routing_{i}')
    return jnp.mean(wide(conv(2)(nn.relu(conv(0)(x)))), (1, 2))
