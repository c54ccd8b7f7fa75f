"""The selective scan with a gradient that recomputes its states, chunk by chunk.

The forward pass keeps the state at the start of each chunk. The backward pass goes through the
chunks from the last to the first: it runs a chunk again, keeps the K states and decays inside it,
and walks back over them. Besides arguments and results, the memory is that of L / K + 2 K states.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from stp_jax.models.ops.scan_parts import (
    ScanInputs,
    along,
    cut,
    live_steps,
    read_out,
    run,
    steps,
    stretch,
)
from stp_jax.typing import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recomputed_scan(softplus: bool, chunk: int, inputs: ScanInputs) -> tuple[Array, Array]:
  """y `[B, L, D]` in u's type, and the last state `[B, N, D]`.

  Args:
    softplus: of the step size.
    chunk: steps K of a chunk; L need not be a multiple.
    inputs: every one of them has a gradient.
  """
  return _forward(softplus, chunk, inputs)[0]


def _join(chunks: Array, length: int) -> Array:
  """`[L / K, B, K, ...]` -> `[B, L, ...]`, without the padding."""
  joined = jnp.moveaxis(chunks, 0, 1)
  return joined.reshape(joined.shape[0], -1, *joined.shape[3:])[:, :length]


def _forward(softplus, chunk, inputs):
  length, padded = inputs.length, inputs.widened().padded(chunk)

  def body(h, start):
    live = live_steps(length, start, chunk)
    new, y = run(padded, h, cut(padded, start, chunk), softplus=softplus, live=live)
    return new, (jnp.moveaxis(y, 0, 1).astype(inputs.u.dtype), h)

  starts = jnp.arange(0, padded.length, chunk)
  last, (y, boundaries) = lax.scan(body, padded.state, starts)
  return (_join(y, length), last), (inputs, boundaries)


def _over_features(a: Array, b: Array) -> Array:
  """The sum of `[B, N, D]` times `[B, D]` over D; a product of matrices, as sums over the last axis
  are slow on a CPU."""
  return jnp.einsum('bnd,bd->bn', a, b, precision=lax.Precision.HIGHEST)


def _states_again(h, part, decay, x, g):
  """Runs a chunk again.

  Args:
    h: the state before it.
    decay: exp(delta A), `[K, B, N, D]`.
    x, g: delta u, and the gradient of y before skip and gate, `[K, B, D]`.

  Returns:
    The states before each step `[K, B, N, D]`, y before skip and gate, and the gradient of C:
    `[K, B, N]`, or for a constant C `[B, N, D]`, to be summed over examples.
  """
  (b_steps, b_at), (c_steps, c_at) = along(part.B), along(part.C)
  constant = c_steps is None

  def body(carry, now):
    h, total = carry
    decay, x, b, c, g = now
    new = decay * h + x[:, None] * b_at(b)
    y = jnp.sum(new * c_at(c), 1)
    g_c = None if constant else _over_features(new, g)
    total = total + new * g[:, None] if constant else None
    return (new, total), (h, y, g_c)

  total = jnp.zeros_like(h) if constant else None
  (_, total), (before, y, g_c) = lax.scan(body, (h, total), (decay, x, b_steps, c_steps, g))
  return before, y, total if constant else g_c


def _walk_back(A, carry, part, decay, delta, x, g, before):
  """The gradient of a chunk's recurrence, from its last step to its first.

  Args:
    A: `[B, N, D]`: repeated, or every step would repeat it.
    carry: the gradient of the state after the chunk, sums for A and for a constant B (or None);
      `[B, N, D]` each: examples are added up once, at the end.
    decay, x, g: as before.
    before: the states before each step, `[K, B, N, D]`.

  Returns:
    The carry, and the gradients of delta, x and B (None where it is constant).
  """
  (b_steps, b_at), (c_steps, c_at) = along(part.B), along(part.C)
  constant = b_steps is None

  def body(carry, now):
    g_h, g_A, total = carry
    decay, delta, x, b, c, g, before = now
    g_h = g_h + g[:, None] * c_at(c)
    g_x = jnp.sum(g_h * b_at(b), 1)
    g_b = None if constant else _over_features(g_h, x)
    total = total + g_h * x[:, None] if constant else None
    g_h = g_h * decay
    g_exponent = g_h * before
    g_delta = jnp.sum(g_exponent * A, 1)
    return (g_h, g_A + g_exponent * delta[:, None], total), (g_delta, g_x, g_b)

  return lax.scan(body, carry, (decay, delta, x, b_steps, c_steps, g, before), reverse=True)


def _backward(softplus: bool, chunk: int, residuals: Any, cotangents: Any) -> tuple[ScanInputs]:
  (inputs, boundaries), (g_y, g_last) = residuals, cotangents
  length, padded = inputs.length, inputs.widened().padded(chunk)
  g_y = jnp.pad(g_y, ((0, 0), (0, padded.length - length), (0, 0)))
  kind = padded.state.dtype
  # The barrier keeps the compiler from moving the repetition back into the loop.
  A = lax.optimization_barrier(jnp.broadcast_to(padded.A, padded.state.shape))
  zeros = lambda a: None if a is None else jnp.zeros(a.shape, kind)
  constant_b, constant_c = padded.B.ndim == 2, padded.C.ndim == 2

  def body(carry, now):
    (walk, g_c, g_D, g_bias), (start, h) = carry, now
    part = cut(padded, start, chunk)
    prepare = functools.partial(steps, softplus=softplus, live=live_steps(length, start, chunk))
    (delta, x), pull_steps = jax.vjp(prepare, part.u, part.delta, padded.delta_bias)
    g = stretch(g_y, start, chunk, kind)
    g_sum = g if part.z is None else g * jax.nn.silu(part.z)
    decay = jnp.exp(delta[:, :, None] * padded.A)  # of all steps at once: on all cores
    before, y, new_c = _states_again(h, part, decay, x, g_sum)
    walk, (g_delta, g_x, g_b) = _walk_back(A, walk, part, decay, delta, x, g_sum, before)
    _, g_u, new_D, g_z = jax.vjp(read_out, y, part.u, padded.D, part.z)[1](g)
    more_u, g_delta, new_bias = pull_steps((g_delta, g_x))
    add = lambda total, new: None if total is None else total + new
    carry = walk, add(g_c, new_c), add(g_D, new_D), add(g_bias, new_bias)
    found = dict(u=g_u + more_u, delta=g_delta, B=g_b, C=None if constant_c else new_c, z=g_z)
    out = {k: None if v is None else jnp.moveaxis(v, 0, 1).astype(getattr(inputs, k).dtype)
           for k, v in found.items()}
    return carry, out

  state = zeros(padded.state)
  walk = jnp.asarray(g_last, kind), state, state if constant_b else None
  carry = walk, state if constant_c else None, zeros(padded.D), zeros(padded.delta_bias)
  starts = jnp.arange(0, padded.length, chunk)
  carry, found = lax.scan(body, carry, (starts, boundaries), reverse=True)
  (g_state, g_A, g_b), g_c, g_D, g_bias = carry
  found = {k: None if v is None else _join(v, length) for k, v in found.items()}
  over_examples = lambda total: jnp.sum(total, 0)
  found |= dict(A=over_examples(g_A), D=g_D, delta_bias=g_bias, state=g_state)
  found |= dict(B=over_examples(g_b)) if constant_b else {}
  found |= dict(C=over_examples(g_c)) if constant_c else {}
  return (ScanInputs(**{
      k: None if v is None else v.astype(getattr(inputs, k).dtype) for k, v in found.items()}),)


recomputed_scan.defvjp(_forward, _backward)
