"""gSTA, the gated spatiotemporal attention of SimVP v2 (Tan et al. 2022, arXiv:2211.12509)."""

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.simvp.translators.metaformer import GatedBlock, large_kernel
from stp_jax.typing import Array


class Gate(nn.Module):
  """sigmoid(g) * f, both halves from the large kernel; the input itself is not multiplied."""
  initializer: str = 'he_out'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    f, g = jnp.split(large_kernel(x, 2 * x.shape[-1], self.initializer, self.dtype), 2, -1)
    return nn.sigmoid(g) * f


class GSTABlock(GatedBlock):
  """A MetaFormer block with the gSTA gate."""
  gate: type[nn.Module] | None = Gate
