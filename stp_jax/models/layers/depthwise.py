"""Depthwise convolution: one filter per channel, stride 1, optionally dilated.

Neither XLA's CPU backend nor torch likes the grouped form (40 times torch's time forward, up to 552
times backward). On a CPU the k x k shifted images are added up, vectorised over channels, and the
gradient of the filter is gathered row by row, so that no k x k copies of the image are kept.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stp_jax.models.layers.conv import bias_init, kernel_init, use_native
from stp_jax.models.layers.periodic import extended, is_periodic, periodic_columns
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

# Larger filters loop over their rows: 121 shifted images (11 x 11) in one expression take minutes
# to compile in a deep network.
_UNROLLED = 7


def _pad(x: Array, k: int, dilation: int) -> Array:
  p = (k - 1) * dilation // 2
  return jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))


# Traced once for each shape: a deep network has dozens of these layers, all alike.
@functools.partial(jax.jit, static_argnums=2, inline=True)
def _shifted_sum(x: Array, kernel: Array, dilation: int) -> Array:
  k, (h, w) = kernel.shape[0], x.shape[1:3]
  padded = _pad(x, k, dilation)

  def row(total, i):  # what row i of the filter adds
    rows = lax.dynamic_slice_in_dim(padded, i * dilation, h, 1)
    for j in range(k):
      total = total + wide(rows[:, :, j * dilation:j * dilation + w] * kernel[i, j, 0])
    return total, None

  total = jnp.zeros(x.shape, wide(x[:0]).dtype)
  if k > _UNROLLED:
    return lax.scan(row, total, jnp.arange(k))[0].astype(x.dtype)
  for i in range(k):
    total, _ = row(total, i)
  return total.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rewritten(x: Array, kernel: Array, dilation: int) -> Array:
  return _shifted_sum(x, kernel, dilation)


def _forward(x, kernel, dilation):
  return _shifted_sum(x, kernel, dilation), (x, kernel)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _backward(dilation, residuals, g):
  x, kernel = residuals
  k, (b, _, w, c) = kernel.shape[0], x.shape
  rows = jnp.transpose(_pad(x, k, dilation), (1, 0, 2, 3))

  def gather(filter_rows):
    """Gradient of some rows of the filter: one pass over the rows of the image."""
    def body(sums, y):
      row = lax.dynamic_index_in_dim(g, y, 1, keepdims=False)  # [b, w, c]
      above = [
          lax.dynamic_index_in_dim(rows, y + i * dilation, 0, keepdims=False) for i in filter_rows]
      products = [
          wide(a[:, j * dilation:j * dilation + w] * row) for a in above for j in range(k)]
      return [s + p for s, p in zip(sums, products)], None

    start = [jnp.zeros((b, w, c), wide(x[:0]).dtype)] * (k * len(filter_rows))
    sums, _ = lax.scan(body, start, jnp.arange(x.shape[1]))
    return jnp.stack([jnp.sum(s, (0, 1)) for s in sums])

  if k > _UNROLLED:
    dw = lax.map(lambda i: gather([i]), jnp.arange(k))
  else:
    dw = gather(range(k))
  dx = _shifted_sum(g, kernel[::-1, ::-1], dilation)
  return dx, dw.reshape(kernel.shape).astype(kernel.dtype)


_rewritten.defvjp(_forward, _backward)


def depthwise(x: Array, kernel: Array, dilation: int = 1) -> Array:
  """Filters every channel by its own odd k x k filter, stride 1, zero padding, same size.

  Args:
    x: `[B, H, W, C]`.
    kernel: `[k, k, 1, C]`, of x's type.
  """
  p = (kernel.shape[0] - 1) * dilation // 2
  if is_periodic() and p:
    # The same columns once more on either side; what the zeros beyond them reach is cut off.
    with periodic_columns(False):
      return depthwise(extended(x, p, p), kernel, dilation)[:, :, p:-p]
  if not use_native():
    return _rewritten(x, kernel, dilation)
  return lax.conv_general_dilated(
      x, kernel, (1, 1), ((p, p), (p, p)), rhs_dilation=(dilation, dilation),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=x.shape[-1])


class DepthwiseConv2D(nn.Module):
  """Depthwise convolution of the same size; parameters `kernel` `[k, k, 1, C]`, `bias` `[C]`."""
  kernel_size: int = 3
  dilation: int = 1
  use_bias: bool = True
  initializer: str = 'torch'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[..., H, W, C]` -> the same shape."""
    k = self.kernel_size
    if k % 2 == 0:
      raise ValueError(f'{self.name}: kernel_size {k} is even; give an odd one')
    channels = x.shape[-1]
    kernel = self.param('kernel', kernel_init(self.initializer, channels), (k, k, 1, channels))
    bias = None
    if self.use_bias:
      bias = self.param('bias', bias_init(self.initializer, k * k), (channels,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = depthwise(x.reshape(-1, *x.shape[-3:]), kernel, self.dilation).reshape(x.shape)
    return y if bias is None else y + bias
