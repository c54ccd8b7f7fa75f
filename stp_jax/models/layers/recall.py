"""Attention to a growing history, one remembered state at a time.

The scores of all states at once would be `[B, N, S N]`: most of the memory and, while few of the S
places are filled, most of the work. Here the softmax is accumulated state by state over those that
are filled (Milakov and Gimelshein 2018, arXiv:1805.02867), and the backward pass makes the scores
again (Dao et al. 2022, arXiv:2205.14135). On a CPU that is 4 times faster even with all filled.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


def _product(spec: str, x: Array, y: Array, dtype: Any) -> Array:
  cast = lambda a: a if dtype is None else a.astype(dtype)
  return jnp.einsum(spec, cast(x), cast(y), preferred_element_type=wide(x[:0]).dtype)


def _state(history: Array, j: Array) -> Array:
  return lax.dynamic_index_in_dim(history, j, 1, keepdims=False)


def _accumulate(query: Array, history: Array, count: Array, dtype: Any) -> tuple[Array, Array]:
  """The result, and the logarithm of the softmax's denominator `[B, N]`."""
  def body(j, state):
    total, weight, top = state
    keys = _state(history, j)
    scores = _product('bqc,bkc->bqk', query, keys, dtype)
    higher = jnp.maximum(top, jnp.max(scores, -1))
    values = jnp.exp(scores - higher[..., None])
    shrink = jnp.exp(top - higher)
    total = total * shrink[..., None] + _product('bqk,bkc->bqc', values, keys, dtype)
    return total, weight * shrink + jnp.sum(values, -1), higher

  zero = jnp.zeros(query.shape[:2], query.dtype)
  total, weight, top = lax.fori_loop(
      0, jnp.minimum(count, history.shape[1]), body, (jnp.zeros_like(query), zero, zero - jnp.inf))
  return total / weight[..., None], top + jnp.log(weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def recall(query: Array, history: Array, count: Array, dtype: Any = None) -> Array:
  """Dot-product attention, unscaled, to everything remembered; keys are the values too.

  Args:
    query: `[B, N, C]`, at least float32.
    history: `[B, S, N, C]`, of query's type.
    count: int, at least 1: the first `count` of the S states are attended to, the others not read.
    dtype: of the products' factors; None = as they are. Sums and the softmax are query's type.

  Returns:
    `[B, N, C]`.
  """
  return _accumulate(query, history, count, dtype)[0]


def _forward(query, history, count, dtype):
  found, norm = _accumulate(query, history, count, dtype)
  return found, (query, history, count, found, norm)


def _backward(dtype, residuals, g):
  query, history, count, found, norm = residuals
  mean = jnp.sum(g * found, -1)

  def body(j, state):
    d_query, d_history = state
    keys = _state(history, j)
    weights = jnp.exp(_product('bqc,bkc->bqk', query, keys, dtype) - norm[..., None])
    d_scores = weights * (_product('bqc,bkc->bqk', g, keys, dtype) - mean[..., None])
    d_query += _product('bqk,bkc->bqc', d_scores, keys, dtype)
    d_keys = _product('bqk,bqc->bkc', d_scores, query, dtype)
    d_keys += _product('bqk,bqc->bkc', weights, g, dtype)
    return d_query, lax.dynamic_update_index_in_dim(d_history, d_keys, j, 1)

  d_query, d_history = lax.fori_loop(
      0, jnp.minimum(count, history.shape[1]), body,
      (jnp.zeros_like(query), jnp.zeros_like(history)))
  return d_query, d_history, None


recall.defvjp(_forward, _backward)
