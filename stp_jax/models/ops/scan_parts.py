"""What every method of the selective scan shares: its inputs, a stretch of them, one step."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from stp_jax.typing import Array


class ScanInputs(NamedTuple):
  """Arguments of a scan with one group. D is the last axis wherever it stands.

  The state is `[B, N, D]`, not `[B, D, N]`: N is 16, too short to fill vector registers.

  Attributes:
    u, delta: `[B, L, D]`.
    A: `[N, D]`.
    B, C: `[B, L, N]`, or constant `[N, D]`.
    state: `[B, N, D]`, the first one; its type is that of all arithmetic.
    D: `[D]` or None.
    z: `[B, L, D]` or None.
    delta_bias: `[D]` or None.
  """
  u: Array
  delta: Array
  A: Array
  B: Array
  C: Array
  state: Array
  D: Array | None = None
  z: Array | None = None
  delta_bias: Array | None = None

  @property
  def length(self) -> int:
    return self.u.shape[1]

  def widened(self) -> 'ScanInputs':
    """What has no length, in the type of the state; the rest as it is."""
    kind = self.state.dtype
    return ScanInputs(*(
        a if a is None or a.ndim == 3 else jnp.asarray(a, kind) for a in self))

  def padded(self, chunk: int) -> 'ScanInputs':
    """With zeros at the end, so that chunks of this length fit; `steps` keeps them from acting."""
    extra = -self.length % chunk
    if not extra:
      return self
    pad = lambda a: a if a is None or a.ndim != 3 else jnp.pad(a, ((0, 0), (0, extra), (0, 0)))
    return ScanInputs(*(a if name == 'state' else pad(a) for name, a in self._asdict().items()))


def stretch(a: Array, start: Array | int, length: int, kind: jnp.dtype) -> Array:
  """Steps `start .. start + length` of `[B, L, ...]`, time first and of type `kind`."""
  return jnp.moveaxis(lax.dynamic_slice_in_dim(a, start, length, 1), 1, 0).astype(kind)


def steps(u: Array, delta: Array, bias: Array | None, *, softplus: bool, live: Array | None
          ) -> tuple[Array, Array]:
  """Step sizes and what enters the state, delta' and delta' u, `[K, B, D]` each.

  Args:
    live: `[K, 1, 1]`; where False the step size is zero, so that the state stays as it is.
  """
  delta = delta if bias is None else delta + bias
  if softplus:  # torch's: the identity above 20
    delta = jnp.where(delta > 20, delta, jnp.log1p(jnp.exp(jnp.minimum(delta, 20))))
  if live is not None:
    delta = jnp.where(live, delta, 0)
  return delta, delta * u


def live_steps(length: int, start: Array | int, chunk: int) -> Array | None:
  """Which steps of a chunk lie before the end, `[K, 1, 1]`; None where all chunks are whole."""
  if length % chunk == 0:
    return None
  return (start + jnp.arange(chunk) < length)[:, None, None]


def read_out(y: Array, u: Array, D: Array | None, z: Array | None) -> Array:
  """Skip and gate on the sum over states."""
  y = y if D is None else y + D * u
  return y if z is None else y * jax.nn.silu(z)


def along(b: Array) -> tuple[Array | None, Callable[[Array | None], Array]]:
  """B or C as a loop takes it: what it runs over, and the factor of the state it makes of a slice.

  `[K, B, N]` -> slices `[B, N]` -> `[B, N, 1]`; a constant `[N, D]` is always itself.
  """
  if b.ndim == 3:
    return b, lambda now: now[..., None]
  return None, lambda _: b


def advance(h: Array, delta: Array, x: Array, A: Array, b: Array) -> Array:
  """One step of the state `[B, N, D]`; delta, x `[B, D]`, b as `along` makes it."""
  return jnp.exp(delta[:, None] * A) * h + x[:, None] * b


class Stretch(NamedTuple):
  """A stretch of K steps, time first, all in the type of the state."""
  u: Array
  delta: Array
  B: Array
  C: Array
  z: Array | None


def cut(inputs: ScanInputs, start: Array | int, length: int) -> Stretch:
  """Steps `start .. start + length` of the inputs; constants are whole."""
  take = functools.partial(stretch, start=start, length=length, kind=inputs.state.dtype)
  return Stretch(*(
      a if a is None or a.ndim == 2 else take(a)
      for a in (inputs.u, inputs.delta, inputs.B, inputs.C, inputs.z)))


def run(inputs: ScanInputs, h: Array, part: Stretch, *, softplus: bool, live: Array | None = None
        ) -> tuple[Array, Array]:
  """The steps of a stretch one after the other.

  Args:
    inputs: widened.
    h: `[B, N, D]`.

  Returns:
    The state after them, and y `[K, B, D]`.
  """
  delta, x = steps(part.u, part.delta, inputs.delta_bias, softplus=softplus, live=live)
  (b_steps, b_at), (c_steps, c_at) = along(part.B), along(part.C)

  def body(h, now):
    delta, x, b, c = now
    h = advance(h, delta, x, inputs.A, b_at(b))
    return h, jnp.sum(h * c_at(c), 1)

  h, y = lax.scan(body, h, (delta, x, b_steps, c_steps))
  return h, read_out(y, part.u, inputs.D, part.z)
