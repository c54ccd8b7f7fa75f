"""Mamba (Gu and Dao 2023, arXiv:2312.00752), and MambaFusion's gated bidirectional block of two."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.layers.conv import bias_init, kernel_init
from stp_jax.models.layers.norms import LayerNorm, VolumeLayerNorm
from stp_jax.models.layers.precision import wide
from stp_jax.models.ops.selective_scan import scan_tokens
from stp_jax.typing import Array

Carry = tuple[Array, Array]


def _linear(features: int, inputs: int, name: str, initializer: str, use_bias: bool,
            dtype: jnp.dtype | None) -> nn.Dense:
  return nn.Dense(
      features, use_bias=use_bias, kernel_init=kernel_init(initializer),
      bias_init=bias_init(initializer, inputs), dtype=dtype, name=name)


def _step_bias(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
  """A bias under softplus whose step sizes spread evenly over the decades from 0.001 to 0.1."""
  low, high = math.log(1e-3), math.log(1e-1)
  size = jnp.maximum(jnp.exp(jax.random.uniform(key, shape, dtype, low, high)), 1e-4)
  return size + jnp.log(-jnp.expm1(-size))  # the inverse of softplus


def _decays(key: jax.Array, shape: tuple[int, int]) -> Array:
  """log(1 .. N) for every feature."""
  del key
  return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=jnp.float32)), shape)


class _StepProjection(nn.Module):
  """The linear layer of the step sizes; its bias is left to the scan, which adds it in float32."""
  features: int
  initializer: str = 'torch'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    kernel = self.param(
        'kernel', kernel_init(self.initializer), (x.shape[-1], self.features))
    start = _step_bias if self.initializer == 'torch' else nn.initializers.zeros
    bias = self.param('bias', start, (self.features,))
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    return x @ kernel, bias


class _CausalConv(nn.Module):
  """A filter per feature over this step and the `size - 1` before it; torch's start."""
  size: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, before: Array) -> Array:
    """`[B, L, D]` and the steps before it `[B, size - 1, D]` -> `[B, L, D]`."""
    kernel = self.param('kernel', kernel_init('torch'), (self.size, 1, x.shape[-1]))
    bias = self.param('bias', bias_init('torch', self.size), (x.shape[-1],))
    x, before, kernel, bias = nn.dtypes.promote_dtype(x, before, kernel, bias, dtype=self.dtype)
    x, length = jnp.concatenate([before, x], 1), x.shape[1]
    # Sums of shifted sequences: XLA's grouped convolution is many times slower on a CPU.
    taps = (wide(x[:, k:k + length] * kernel[k, 0]) for k in range(self.size))
    return (sum(taps) + wide(bias)).astype(x.dtype)


class Mamba(nn.Module):
  """A selective state-space layer, version 1; keeps the width of its input.

  Parameters are called as in the published code: in_proj, conv1d, x_proj, dt_proj, A_log, D,
  out_proj.

  Attributes:
    d_state: states N per feature.
    d_conv: length of the causal convolution before the scan.
    expand: inner features per feature of the input.
    dt_rank: rank of the step sizes; 'auto': width / 16, rounded up.
    initializer: of the linear layers, see `layers.conv.kernel_init`. 'torch' is Mamba's own start,
      with step sizes from 0.001 to 0.1. Another one starts all biases at zero, that of the step
      sizes included (they are then 0.69); 'trunc_normal' is what MambaFusion's fusions start from.
    method: of the scan, see `ops.selective_scan`.
    dtype: compute type; step sizes, scan and its state are at least float32.
  """
  d_state: int = 16
  d_conv: int = 4
  expand: int = 2
  dt_rank: int | str = 'auto'
  initializer: str = 'torch'
  method: str = 'auto'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, carry: Carry | None = None) -> Array | tuple[Array, Carry]:
    """`[B, L, C]` -> the same, at each step from the steps up to it.

    Args:
      x: any L >= 1.
      carry: what a call with the steps before has left (`initial_carry` at the start); None: a
        sequence on its own.

    Returns:
      The output; where a carry is given, also the next one.

    Raises:
      ValueError: an empty sequence, a method or an initialiser that does not exist.
    """
    batch, length, width = x.shape
    inner = self.expand * width
    rank = -(-width // 16) if self.dt_rank == 'auto' else self.dt_rank
    linear = lambda features, inputs, name: _linear(
        features, inputs, name, self.initializer, False, self.dtype)
    before, state = carry or (jnp.zeros((batch, self.d_conv - 1, inner), x.dtype), None)
    u, z = jnp.split(linear(2 * inner, width, 'in_proj')(x), 2, -1)
    tail = jnp.concatenate([before.astype(u.dtype), u], 1)[:, length:]
    u = nn.silu(_CausalConv(self.d_conv, self.dtype, name='conv1d')(u, before))
    delta, b, c = jnp.split(
        linear(rank + 2 * self.d_state, inner, 'x_proj')(u), (rank, rank + self.d_state), -1)
    delta, bias = _StepProjection(inner, self.initializer, self.dtype, name='dt_proj')(delta)
    a_log = self.param('A_log', _decays, (inner, self.d_state))
    skip = self.param('D', nn.initializers.ones, (inner,))
    y, state = scan_tokens(
        u, delta, -jnp.exp(wide(a_log)), b, c, skip, z, bias, softplus=True, initial_state=state,
        method=self.method)
    y = linear(width, inner, 'out_proj')(y)
    return y if carry is None else (y, (tail, state))

  @nn.nowrap
  def initial_carry(self, batch: int, width: int, dtype: jnp.dtype = jnp.float32) -> Carry:
    """The carry before the first step: inputs of the convolution, and the float32 state."""
    inner = self.expand * width
    return (jnp.zeros((batch, self.d_conv - 1, inner), dtype),
            jnp.zeros((batch, inner, self.d_state), jnp.promote_types(dtype, jnp.float32)))


class BiMambaBlock(nn.Module):
  """MambaFusion's gated block: a Mamba in each direction, the backward one gates the other.

    f = fc1(norm(x));  y = backward(f) * (leaky_relu(fc2(f), 0.2) + forward(f))

  Attributes:
    align: 'aligned': the backward branch sees the reversed sequence and its result is put back in
      order. 'upstream': it is not, and fc2 sees the reversed sequence too, so that step t meets
      step L - 1 - t.
    residual: return x + y, as a deep stack needs. Upstream returns y, a product of two small
      numbers: with its start (`initializer='trunc_normal'`) a few blocks later all is zero, and
      nothing in them has a gradient.
    norm: 'joint': one mean and variance for all of (L, C), and a gain and shift for each of L x C
      numbers, as published; L is fixed at initialisation. 'token': per token, for any L. The
      default is the published one: beside the positions that a fusion adds, which fix L anyway, it
      does no harm.
    d_state, d_conv, expand, dt_rank, initializer, method: of the Mambas, see there; `initializer`
      also of fc1 and fc2.
    dtype: compute type; norms and scans are at least float32.
  """
  align: str = 'aligned'
  residual: bool = True
  norm: str = 'joint'
  d_state: int = 16
  d_conv: int = 4
  expand: int = 2
  dt_rank: int | str = 'auto'
  initializer: str = 'torch'
  method: str = 'auto'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool = False) -> Array:
    """`[B, L, C]` -> the same, in x's type. ValueError: an unknown word in a field."""
    del train  # nothing here is random
    if self.align not in ('aligned', 'upstream'):
      raise ValueError(f'BiMambaBlock: align {self.align!r}: aligned or upstream')
    if self.norm not in ('joint', 'token'):
      raise ValueError(f'BiMambaBlock: norm {self.norm!r}: joint or token')
    width = x.shape[-1]
    linear = lambda name: _linear(width, width, name, self.initializer, True, self.dtype)
    mamba = lambda name: Mamba(
        self.d_state, self.d_conv, self.expand, self.dt_rank, self.initializer, self.method,
        self.dtype, name=name)
    norm = VolumeLayerNorm(rank=2, name='ln1') if self.norm == 'joint' else LayerNorm(name='ln1')
    f = linear('fc1')(norm(x))
    turned = f[:, ::-1]
    gate = mamba('backward_mamba')(turned)
    if self.align == 'aligned':
      gate, turned = gate[:, ::-1], f
    y = gate * (nn.leaky_relu(linear('fc2')(turned), 0.2) + mamba('forward_mamba')(f))
    return (x + y if self.residual else y).astype(x.dtype)
