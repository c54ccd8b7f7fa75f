"""VAN, large kernel attention (Guo et al. 2022, arXiv:2202.09741)."""

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.simvp.translators.metaformer import GatedBlock, large_kernel
from stp_jax.typing import Array


class Gate(nn.Module):
  """The input times the large kernel's view of it."""
  initializer: str = 'he_out'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return x * large_kernel(x, x.shape[-1], self.initializer, self.dtype)


class VANBlock(GatedBlock):
  """A MetaFormer block with large kernel attention."""
  gate: type[nn.Module] | None = Gate
