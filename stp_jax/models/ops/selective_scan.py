"""The selective scan of Mamba (Gu and Dao 2023, arXiv:2312.00752), in plain JAX.

For every example, feature d and state n:

  delta'_t = softplus(delta_t + delta_bias)
  h_t = exp(delta'_t A) h_{t-1} + delta'_t B_t u_t          (h_{-1}: the initial state, or zero)
  y_t = (sum over n of C_t h_t + D u_t) * silu(z_t)

Methods, equal up to rounding:

  sequential   `lax.scan` over time. Its gradient keeps several `[B, N, D]` arrays of every step.
  recompute    keeps the states between chunks, and in its gradient runs a chunk again: nothing of
               size B L D N is ever held (`recomputed_scan`). On a CPU about a fifth of the time and
               a twentieth of the memory of `sequential` at L 962 (`python -m stp_jax.benchmark
               selective_scan`). Reverse mode only.
  associative  `lax.associative_scan` over the whole length: log2(L) deep, B L D N memory.
  chunked      associative inside a chunk, one chunk after the other, each rematerialised.
  auto         sequential up to 16 steps; beyond, recompute on a CPU, and chunked elsewhere, where
               a loop over single steps waits for launches (reasoned, not measured).

There is no kernel of our own for GPU or TPU.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from stp_jax.models.layers.precision import wide
from stp_jax.models.ops.recomputed_scan import recomputed_scan
from stp_jax.models.ops.scan_parts import ScanInputs, cut, live_steps, read_out, run, steps
from stp_jax.typing import Array

METHODS = ('auto', 'sequential', 'recompute', 'associative', 'chunked')
_SHORT = 16  # steps up to which a plain loop is best


def default_chunk(length: int) -> int:
  """About sqrt(length), which keeps the fewest states; a divisor of the length if one is near."""
  root = math.isqrt(length - 1) + 1
  near = [k for k in range(max(1, root // 2), 2 * root) if length % k == 0]
  return min(near, key=lambda k: abs(k - root), default=root)


def _sequential(softplus: bool, chunk: int, inputs: ScanInputs) -> tuple[Array, Array]:
  del chunk
  inputs = inputs.widened()
  h, y = run(inputs, inputs.state, cut(inputs, 0, inputs.length), softplus=softplus)
  return jnp.moveaxis(y, 0, 1).astype(inputs.u.dtype), h


def _at_once(inputs: ScanInputs, h: Array, start: Array | int, chunk: int, softplus: bool,
             live: Array | None) -> tuple[Array, Array]:
  """A chunk by an associative scan: the state after it, and y `[K, B, D]`."""
  part = cut(inputs, start, chunk)
  delta, x = steps(part.u, part.delta, inputs.delta_bias, softplus=softplus, live=live)
  each = lambda b: b[..., None] if b.ndim == 3 else b
  decay = jnp.exp(delta[:, :, None] * inputs.A)  # [K, B, N, D]

  def join(first, second):  # of h -> a h + b, one after the other
    return first[0] * second[0], second[0] * first[1] + second[1]

  decay, added = lax.associative_scan(join, (decay, x[:, :, None] * each(part.B)), axis=0)
  states = decay * h + added
  y = jnp.sum(states * each(part.C), 2)
  return states[-1], read_out(y, part.u, inputs.D, part.z)


def _associative(softplus: bool, chunk: int, inputs: ScanInputs) -> tuple[Array, Array]:
  del chunk
  inputs = inputs.widened()
  h, y = _at_once(inputs, inputs.state, 0, inputs.length, softplus, None)
  return jnp.moveaxis(y, 0, 1).astype(inputs.u.dtype), h


def _chunked(softplus: bool, chunk: int, inputs: ScanInputs) -> tuple[Array, Array]:
  length, padded = inputs.length, inputs.widened().padded(chunk)

  @jax.checkpoint
  def body(h, start):
    return _at_once(padded, h, start, chunk, softplus, live_steps(length, start, chunk))

  h, y = lax.scan(body, padded.state, jnp.arange(0, padded.length, chunk))
  y = jnp.moveaxis(y.reshape(padded.length, *y.shape[2:])[:length], 0, 1)
  return y.astype(inputs.u.dtype), h


_RUN = dict(
    sequential=_sequential, recompute=recomputed_scan, associative=_associative, chunked=_chunked)


def _resolve(method: str, length: int) -> str:
  if method not in METHODS:
    raise ValueError(f'selective scan: method {method!r}: one of {" ".join(METHODS)}')
  if method != 'auto':
    return method
  if length <= _SHORT:
    return 'sequential'
  return 'recompute' if jax.default_backend() == 'cpu' else 'chunked'


def _check(**named: tuple[Array | None, tuple[tuple[int | None, ...], ...]]) -> None:
  """ValueError where an array has none of its shapes; None in a shape is any size but 0."""
  for name, (a, shapes) in named.items():
    fits = lambda s, a=a: len(s) == a.ndim and all(
        n == m or (m is None and n > 0) for n, m in zip(a.shape, s))
    if a is not None and not any(map(fits, shapes)):
      wanted = ' or '.join(str(list(s)).replace('None', '*') for s in shapes)
      raise ValueError(
          f'selective scan: {name} (time before features) is {list(a.shape)}; it must be {wanted}')


def scan_tokens(
    u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array | None = None,
    z: Array | None = None, delta_bias: Array | None = None, *, softplus: bool = False,
    initial_state: Array | None = None, method: str = 'auto', chunk: int | None = None,
) -> tuple[Array, Array]:
  """The selective scan of `[B, L, D]` arrays: what a model of tokens has, nothing is transposed.

  B and C are `[B, L, N]`, `[B, L, G, N]` or constant `[D, N]`; all else is as `selective_scan`
  says.
  """
  method = _resolve(method, u.shape[1] if u.ndim == 3 else 0)
  if u.ndim != 3 or not u.size:
    raise ValueError(f'selective scan: u is {list(u.shape)}: three axes, none of them empty')
  (batch, length, features), states = u.shape, A.shape[-1]
  if chunk is not None and chunk < 1:
    raise ValueError(f'selective scan: chunk {chunk}: 1 or more')
  like_b = (batch, length, states), (batch, length, None, states), (features, states)
  _check(
      delta=(delta, (u.shape,)), A=(A, ((features, None),)), B=(B, like_b), C=(C, like_b),
      D=(D, ((features,),)), z=(z, (u.shape,)), delta_bias=(delta_bias, ((features,),)),
      initial_state=(initial_state, ((batch, features, states),)))
  given = [a for a in (u, delta, A, B, C, D, z, delta_bias, initial_state) if a is not None]
  kind = wide(jnp.zeros((), jnp.result_type(*given))).dtype
  if initial_state is None:
    state = jnp.zeros((batch, states, features), kind)
  else:
    state = jnp.swapaxes(jnp.asarray(initial_state, kind), 1, 2)
  chunk = min(chunk or default_chunk(length), length)
  scan = lambda inputs: _RUN[method](softplus, chunk, inputs)
  counts = [b.shape[2] for b in (B, C) if b.ndim == 4]
  for count in counts:
    if features % count:
      raise ValueError(f'selective scan: {features} features do not divide into {count} groups')
  groups = math.lcm(*counts)

  def grouped(b):  # groups [B, L, G, N]; a constant [N, G, D / G]
    if b.ndim == 2:
      return b.T.reshape(states, groups, -1)
    b = b if b.ndim == 4 else b[:, :, None]
    return jnp.repeat(b, groups // b.shape[2], 2)

  split = lambda a: None if a is None else a.reshape(*a.shape[:-1], groups, features // groups)
  inputs = ScanInputs(
      split(u), split(delta), split(A.T), grouped(B), grouped(C), split(state), split(D), split(z),
      split(delta_bias))
  # Everywhere the groups are the last axis but one.
  if groups == 1:
    y, last = scan(ScanInputs(*(None if a is None else jnp.squeeze(a, -2) for a in inputs)))
  else:
    axes = ScanInputs(*(None if a is None else a.ndim - 2 for a in inputs))
    y, last = jax.vmap(scan, (axes,), 2)(inputs)
    y, last = (a.reshape(*a.shape[:2], features) for a in (y, last))
  return y, jnp.swapaxes(last, 1, 2)


def selective_scan(
    u: Array, delta: Array, A: Array, B: Array, C: Array, D: Array | None = None,
    z: Array | None = None, delta_bias: Array | None = None, *, softplus: bool = False,
    initial_state: Array | None = None, method: str = 'auto', chunk: int | None = None,
) -> tuple[Array, Array]:
  """The selective scan, in the layout of the published code.

  Args:
    u: `[B, D, L]`, L >= 1.
    delta: `[B, D, L]`, step sizes before bias and softplus.
    A: `[D, N]`, negative (real).
    B: `[B, N, L]`; `[B, G, N, L]`: D / G successive features share a group; or constant `[D, N]`.
    C: like B, whatever B is.
    D: `[D]`, the skip.
    z: `[B, D, L]`, the gate.
    delta_bias: `[D]`.
    softplus: whether step sizes go through it (the identity above 20, as in torch).
    initial_state: `[B, D, N]`; zero if None.
    method: see the module.
    chunk: steps of a chunk, for `recompute` and `chunked`; None: about sqrt(L). L need not be a
      multiple.

  Returns:
    y `[B, D, L]` in u's type, and the state after the last step, `[B, D, N]`, float32 (float64
    where an input is).

  Raises:
    ValueError: an unknown method, a shape that does not fit; names the array.
  """
  if u.ndim != 3:
    raise ValueError(f'selective scan: u is {list(u.shape)}; it must be [B, D, L]')
  tokens = lambda a: a if a is None or a.ndim < 3 else jnp.moveaxis(a, -1, 1)
  y, last = scan_tokens(
      tokens(u), tokens(delta), A, tokens(B), tokens(C), D, tokens(z), delta_bias,
      softplus=softplus, initial_state=initial_state, method=method, chunk=chunk)
  return jnp.moveaxis(y, 1, -1), last
