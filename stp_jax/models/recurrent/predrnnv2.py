"""PredRNN.V2 (Wang et al. 2021, arXiv:2103.09504): PredRNN whose two memories are kept apart."""

from collections.abc import Sequence

import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.predrnn import Deltas, PredRNN
from stp_jax.typing import Array

_EPSILON = 1e-12


def _direction(x: Array) -> Array:
  """`[..., h, w, C]` as unit vectors over (h, w); what is zero stays zero, its gradient finite."""
  square = jnp.sum(jnp.square(x), (-3, -2), keepdims=True)
  # The root has no derivative at 0, where a memory that took nothing in has no direction either.
  some = square > 0
  norm = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 1)
  return x / jnp.maximum(norm, _EPSILON)


def alignment(a: Array, b: Array) -> Array:
  """|cosine| of two fields over space, averaged over channels: `[..., h, w, C]` -> `[...]`."""
  cosine = jnp.sum(_direction(a) * _direction(b), (-3, -2))
  return jnp.mean(jnp.abs(cosine), -1)


class PredRNNV2(PredRNN):
  """PredRNN with the term 'decouple'; a step module, fields and shapes as there.

  `decouple` is how much what a layer adds to c looks like what it adds to m, both through one
  shared 1 x 1 `adapter`, averaged over layers: 0 where they are orthogonal, 1 where they are
  alike. The published weight is 0.1 (`task.term_weights`). Predictions do not depend on the
  adapter.
  """

  def terms(self, deltas: Sequence[Deltas]) -> dict[str, Array]:
    """{'decouple': [B]}, at least float32."""
    adapter = Conv2D(
        self.features[0], 1, use_bias=False, dtype=self.dtype, name='adapter')
    both = [jnp.stack(d) for d in zip(*deltas, strict=True)]  # [layers, B, h, w, C] of c, of m
    added_c, added_m = (wide(x) for x in adapter(jnp.stack(both)))
    return {'decouple': jnp.mean(alignment(added_c, added_m), 0)}
