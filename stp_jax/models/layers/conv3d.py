"""3-D convolution over (depth, H, W), channels last, as 2-D convolutions over stacked slices.

A 2-D convolution that reads d slices side by side as channels is the 3-D one with a kernel of depth
d. So its gradient is that of `layers.conv`, which stays fast in a loop on a CPU.
"""

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import bias_init, convolution, kernel_init
from stp_jax.typing import Array


def depth_convolution(x: Array, kernel: Array, *, stride: int = 1, depth_padding: int = 0) -> Array:
  """Convolves as torch's conv3d does: stride 1 along depth, padding (k - 1) / 2 in space.

  Args:
    x: `[B, depth, H, W, in]`.
    kernel: `[d, k, k', in, out]`, of x's type; k and k' odd, and equal where there is a stride.
    stride: in space. depth_padding: empty slices before and after.

  Returns:
    `[B, depth + 2 depth_padding - d + 1, H', W', out]`, H' = (H - 1) // stride + 1.
  """
  x = jnp.pad(x, ((0, 0), (depth_padding,) * 2, (0, 0), (0, 0), (0, 0)))
  (d, *sides, inputs, features), (b, depth, height, width, _) = kernel.shape, x.shape
  left = depth - d + 1
  slices = jnp.concatenate([x[:, i:i + left] for i in range(d)], -1)
  kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(*sides, d * inputs, features)
  y = convolution(
      slices.reshape(b * left, height, width, d * inputs), kernel, stride=stride,
      padding=tuple(((k - 1) // 2,) * 2 for k in sides))
  return y.reshape(b, left, *y.shape[1:])


class DepthConv(nn.Module):
  """3-D convolution, stride 1 along depth, padding `(kernel - 1) / 2` in space; `kernel`, `bias`.

  Attributes:
    features: channels out.
    kernel_depth, kernel_size: in slices; in pixels, odd, one for both sides or (rows, columns).
    stride: in space. depth_padding: empty slices before and after.
    use_bias: off by default.
    initializer: see `layers.conv.kernel_init`.
    dtype: compute type; None = that of the input and the parameter.
  """
  features: int
  kernel_depth: int = 1
  kernel_size: int | tuple[int, int] = 1
  stride: int = 1
  depth_padding: int = 0
  use_bias: bool = False
  initializer: str = 'torch'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[B, depth, H, W, in]` -> `[B, depth', H', W', features]`, see `depth_convolution`.

    Raises:
      ValueError: an even kernel, or fewer slices than it is deep.
    """
    d, k, inputs = self.kernel_depth, self.kernel_size, x.shape[-1]
    rows, columns = (k, k) if isinstance(k, int) else k
    depth = x.shape[1] + 2 * self.depth_padding
    if rows % 2 == 0 or columns % 2 == 0 or d > depth:
      raise ValueError(
          f'{self.name}: kernel {d} x {rows} x {columns} on {depth} slices; give an odd size, no '
          'deeper')
    shape = (d, rows, columns, inputs, self.features)
    kernel, bias = self.param('kernel', kernel_init(self.initializer), shape), None
    if self.use_bias:
      bias = self.param(
          'bias', bias_init(self.initializer, d * rows * columns * inputs), (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = depth_convolution(x, kernel, stride=self.stride, depth_padding=self.depth_padding)
    return y if bias is None else y + bias
