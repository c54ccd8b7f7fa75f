"""A few convolutions and pools in a row, described by their names."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.typing import Array

# (name, features, kernel size, stride, padding); features are not read of a pool, and 0 stands for
# the channels of a frame. The name says what it is: a pool, else a deconv, else a conv, and what
# follows it: a relu, else a leaky one (0.2).
Layer = tuple[str, int, int, int, int]
_KINDS = ('pool', 'deconv', 'conv')


def kind_of(name: str) -> str:
  """pool, deconv or conv. ValueError: the name says none of them."""
  kind = next((kind for kind in _KINDS if kind in name), None)
  if kind is None:
    raise ValueError(f'layer {name!r}: its name holds none of {" ".join(_KINDS)}')
  return kind


class Stage(nn.Module):
  """The layers between two cells. `linear`: without the activation of the last one."""
  layers: Sequence[Layer]
  dtype: jnp.dtype | None
  linear: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[B, h, w, in]` -> `[B, h', w', features of the last layer]`."""
    for i, (name, features, k, stride, padding) in enumerate(self.layers, 1):
      kind = kind_of(name)
      if kind == 'pool':
        x = nn.max_pool(x, (k, k), (stride, stride), ((padding, padding),) * 2)
        continue
      if kind == 'deconv':
        layer = ConvTranspose2D(features, k, stride, padding, 0, dtype=self.dtype, name=name)
      else:
        layer = Conv2D(features, k, stride, padding, dtype=self.dtype, name=name)
      x = layer(x)
      if self.linear and i == len(self.layers):
        break
      if 'relu' in name:
        x = nn.relu(x)
      elif 'leaky' in name:
        x = nn.leaky_relu(x, 0.2)
    return x

  @staticmethod
  def size(layers: Sequence[Layer], side: int) -> int:
    """How long a side is after the layers."""
    for name, _, k, stride, padding in layers:
      more = 2 * padding - k
      if kind_of(name) == 'deconv':
        side = (side - 1) * stride - more
      else:
        side = (side + more) // stride + 1
    return side
