"""The two-layer perceptron of transformers, on tokens or as 1 x 1 convolutions on images."""

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D, kernel_init
from stp_jax.typing import Array


def dense(
    features: int, name: str, initializer: str = 'trunc_normal', dtype: jnp.dtype | None = None,
) -> nn.Dense:
  """A linear layer with one of our initialisers; its bias starts at zero."""
  return nn.Dense(features, kernel_init=kernel_init(initializer), dtype=dtype, name=name)


class Mlp(nn.Module):
  """Linear to `hidden`, exact GELU, linear back, dropout after both.

  Attributes:
    pointwise: the layers are 1 x 1 convolutions (kernels `[1, 1, in, out]`).
  """
  hidden: int
  drop: float = 0.0
  pointwise: bool = False
  initializer: str = 'trunc_normal'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[..., C]` -> the same."""
    def layer(features, name):
      if self.pointwise:
        return Conv2D(features, 1, initializer=self.initializer, dtype=self.dtype, name=name)
      return dense(features, name, self.initializer, self.dtype)

    drop = lambda y: nn.Dropout(self.drop)(y, deterministic=not train)
    y = drop(nn.gelu(layer(self.hidden, 'fc1')(x), approximate=False))
    return drop(layer(x.shape[-1], 'fc2')(y))
