"""Transposed 2-D convolution, channels last, fast inside a loop on a CPU too.

A transposed convolution of stride s is s x s ordinary ones of stride 1, one for each position of an
output pixel within its s x s cell. On a CPU they run as one convolution with s s times the channels
(the form whose gradient `layers.conv` keeps fast), without the zeros between the pixels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stp_jax.models.layers.conv import bias_init, convolution, use_native
from stp_jax.models.layers.periodic import extended, is_periodic, periodic_columns
from stp_jax.typing import Array


def _phases(x: Array, kernel: Array, stride: int, padding: int, size: tuple[int, int]) -> Array:
  """One output pixel is y[s m + r] = sum over d of x[m - d] w[s d + r + padding]."""
  k, s = kernel.shape[0], stride
  least = -((s - 1 + padding) // s)  # of d
  most = (k - 1 - padding) // s
  taps = most - least + 1
  front = -(s * least + padding)
  extra = taps * s - k - front
  kernel = jnp.pad(
      kernel[::-1, ::-1], ((front, extra), (front, extra), (0, 0), (0, 0)))  # w, unturned
  kernel = kernel.reshape(taps, s, taps, s, *kernel.shape[2:])[::-1, :, ::-1]
  kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, x.shape[-1], -1)
  cells = [-(-n // s) for n in size]
  # Negative where an output is cut short: those rows reach nothing.
  pads = [(most, m - least - n) for m, n in zip(cells, x.shape[1:3])]
  x = lax.pad(x, jnp.zeros((), x.dtype), (
      (0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))
  y = convolution(x, kernel, padding=((0, 0), (0, 0)))
  y = y.reshape(*y.shape[:3], s, s, -1).transpose(0, 1, 3, 2, 4, 5)
  y = y.reshape(y.shape[0], cells[0] * s, cells[1] * s, -1)
  return y[:, :size[0], :size[1]]


def transposed_convolution(
    x: Array, kernel: Array, *, stride: int, padding: int = 0, output_padding: int = 0,
) -> Array:
  """Convolves as torch's conv_transpose2d does.

  Args:
    x: `[B, H, W, in]`.
    kernel: `[k, k, in, out]`, turned: as an ordinary convolution of the spread-out image wants it.

  Returns:
    `[B, H', W', out]`, H' = (H - 1) stride - 2 padding + k + output_padding.

  Raises:
    ValueError: columns that go round (`layers.periodic`), but W' is not W stride.
  """
  k = kernel.shape[0]
  if is_periodic():
    width = x.shape[2]
    if (width - 1) * stride - 2 * padding + k + output_padding != width * stride:
      raise ValueError(
          f'a transposed convolution (kernel {k}, stride {stride}, padding {padding}) does not '
          f'make {width * stride} columns of {width}, so they cannot go round')
    m = -(-k // stride)
    with periodic_columns(False):
      y = transposed_convolution(
          extended(x, m, m), kernel, stride=stride, padding=padding, output_padding=output_padding)
    return y[:, :, m * stride:(m + width) * stride]
  if use_native():
    pads = (k - 1 - padding, k - 1 - padding + output_padding)
    return lax.conv_general_dilated(
        x, kernel, (1, 1), (pads, pads), lhs_dilation=(stride, stride),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  size = tuple((n - 1) * stride - 2 * padding + k + output_padding for n in x.shape[1:3])
  return _phases(x, kernel, stride, padding, size)


class ConvTranspose2D(nn.Module):
  """Transposed convolution with torch's defaults: `kernel` `[k, k, in, out]` (turned), `bias`.

  The fan in of torch's initialisation is k k out here, because its kernel is `[in, out, k, k]`.
  The defaults double the size.
  """
  features: int
  kernel_size: int = 3
  stride: int = 2
  padding: int = 1
  output_padding: int = 1
  use_bias: bool = True
  initializer: str = 'torch'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[..., H, W, in]` -> `[..., H', W', features]`. ValueError: unknown initializer."""
    if self.initializer not in ('torch', 'zeros'):
      raise ValueError(f'{self.name}: initializer {self.initializer!r}: torch or zeros')
    k = self.kernel_size
    fan_in = k * k * self.features

    def init(key, shape, dtype=jnp.float32):
      bound = fan_in ** -0.5 if self.initializer == 'torch' else 0.0
      return jax.random.uniform(key, shape, dtype, -bound, bound)

    kernel = self.param('kernel', init, (k, k, x.shape[-1], self.features))
    bias = None
    if self.use_bias:
      bias = self.param('bias', bias_init(self.initializer, fan_in), (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = transposed_convolution(
        x.reshape(-1, *x.shape[-3:]), kernel, stride=self.stride, padding=self.padding,
        output_padding=self.output_padding)
    y = y.reshape(*x.shape[:-3], *y.shape[1:])
    return y if bias is None else y + bias
