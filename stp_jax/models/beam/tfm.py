"""Fusion over time: one Mamba for all sensors, then a weighted sum of the frames."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.beam.heads import linear
from stp_jax.models.layers.mamba import Mamba
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


class TimeMamba(nn.Module):
  """MambaFusion's TFM: what each frame weighs follows from its largest and its mean feature.

  The linear layer between frames is shared by the sensors, so that T is fixed at initialisation;
  the GPS fixes have their own and skip the Mamba.

  Attributes:
    d_state, d_conv, expand, method: of the Mamba.
    dtype: compute type; scan, softmax and sums are float32.
  """
  d_state: int = 16
  d_conv: int = 4
  expand: int = 2
  method: str = 'auto'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, sensors: Mapping[str, Array], gps: Array | None) -> Array:
    """Sequences `[B, T, C]` by sensor and fixes `[B, 2, C]` (or None) -> their sum `[B, C]`."""
    mamba = Mamba(
        d_state=self.d_state, d_conv=self.d_conv, expand=self.expand, method=self.method,
        dtype=self.dtype, name='mamba')
    weigh = None
    total = 0.0
    for x in sensors.values():
      weigh = weigh or linear(x.shape[1], x.shape[1], 'mlp_0')
      total = total + _pool(mamba(x), weigh)
    if gps is not None:
      total = total + _pool(gps, linear(gps.shape[1], gps.shape[1], 'mlp_gps_0'))
    return total


def _pool(x: Array, weigh: nn.Dense) -> Array:
  """`[B, T, C]` -> `[B, C]`, a convex combination over T; at least float32."""
  x = wide(x)
  # The gradient of `jnp.max` divides by the number of elements that equal the result. XLA may
  # compute them twice and round otherwise: none does, and the gradient is 0 / 0. (It happened.)
  largest = jnp.take_along_axis(x, jnp.argmax(x, -1, keepdims=True), -1)[..., 0]
  weights = jax.nn.softmax(weigh(largest + jnp.mean(x, -1)), -1)
  return jnp.einsum('bt,btc->bc', weights, x)
