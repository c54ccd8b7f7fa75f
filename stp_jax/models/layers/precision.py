"""Where the compute type ends: norms, gates, carries and sums are at least float32."""

import jax.numpy as jnp

from stp_jax.typing import Array


def wide(x: Array) -> Array:
  """`x` in float32, or in float64 where it already is (parity runs of unstable stacks)."""
  return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
