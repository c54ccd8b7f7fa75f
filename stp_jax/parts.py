"""A batch computed in parts, one after the other: the memory of one part, the gradient of all."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from stp_jax import sharding
from stp_jax.typing import Array, Batch, PyTree


def gradient(
    grad_fn: Callable, params: PyTree, model_state: PyTree, batch: Batch, rng: jax.Array,
    count: int, mesh: Mesh,
) -> tuple[Array, dict[str, Array], PyTree, PyTree]:
  """Means over `count` parts of a batch.

  Args:
    grad_fn: `(params, model_state, batch, rng) -> ((loss, (metrics, updated)), grads)`. Each part
      sees the statistics that the one before it left.
    batch: `[B, ...]`, B a multiple of count times the devices of `mesh`.

  Returns:
    loss, metrics, updated collections of the last part, gradient.
  """
  # The same rows on any mesh, so that the parts do not depend on the number of devices.
  split = lambda x: jax.lax.with_sharding_constraint(
      x.reshape(count, -1, *x.shape[1:]), sharding.parts_sharding(mesh))

  def part(model_state, given):
    (loss, (metrics, updated)), grads = grad_fn(params, model_state, *given)
    return {**model_state, **updated}, (loss, metrics, grads, updated)

  def add(carry, given):
    model_state, total = carry
    model_state, (loss, metrics, grads, updated) = part(model_state, given)
    return (model_state, jax.tree.map(jnp.add, total, (loss, metrics, grads))), updated

  given = jax.tree.map(split, batch), jax.random.split(rng, count)
  zero = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      jax.eval_shape(part, model_state, jax.tree.map(lambda x: x[0], given))[1][:3])
  (_, total), updated = jax.lax.scan(add, (model_state, zero), given)
  loss, metrics, grads = jax.tree.map(lambda x: x / count, total)
  return loss, metrics, jax.tree.map(lambda x: x[-1], updated), grads
