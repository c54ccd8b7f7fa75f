"""2-D convolution, channels last, with a gradient that stays fast inside a loop on a CPU.

XLA's CPU backend runs a convolution through its fast kernels inside a `while` body (every scan over
time) only if it is already written as `NHWC, HWIO -> NHWC` with stride 1. The gradients that
autodiff makes are not, and run 20 to 50 times slower there. So on a CPU a convolution is rewritten
as such stride-1 ones and its gradient is spelled out in the same form. On GPU and TPU the native
convolution and its native gradient are used.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stp_jax.models.layers.context import held
from stp_jax.models.layers.periodic import extended, is_periodic
from stp_jax.typing import Array

Padding = tuple[tuple[int, int], tuple[int, int]]
_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
_METHOD = contextvars.ContextVar('convolution method', default='auto')


def convolution_method(name: str) -> contextlib.AbstractContextManager[None]:
  """Within it, convolutions are traced as 'native' or 'rewritten' ones; 'auto' asks the platform.

  For counting operations, for exporting to another platform, and for tests.
  """
  if name not in ('auto', 'native', 'rewritten'):
    raise ValueError(f'convolution method {name!r}: auto, native or rewritten')
  return held(_METHOD, name)


def use_native() -> bool:
  """Whether convolutions are left to XLA; decided when a function is traced."""
  method = _METHOD.get()
  return method == 'native' or (method == 'auto' and jax.default_backend() != 'cpu')


def _native(x: Array, kernel: Array, stride: int, padding: Padding, groups: int) -> Array:
  return lax.conv_general_dilated(
      x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS,
      feature_group_count=groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _plain(x: Array, kernel: Array, padding: Padding) -> Array:
  """Stride 1, one group: the form that is fast in a loop."""
  return _native(x, kernel, 1, padding, 1)


def _plain_forward(x, kernel, padding):
  return _plain(x, kernel, padding), (x, kernel)


def _plain_backward(padding, residuals, g):
  x, kernel = residuals
  # dx: the same convolution with the kernel turned round and its channels swapped.
  turned = jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
  around = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, padding))
  dx = _native(g, turned, 1, around, 1)
  # dw: x is the image, g the kernel, examples take the place of input channels.
  dw = _native(jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(g, (1, 2, 0, 3)), 1, padding, 1)
  return dx, jnp.transpose(dw, (1, 2, 0, 3))


_plain.defvjp(_plain_forward, _plain_backward)


def _strided(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
  """A stride becomes channels: space to depth of the image and of the kernel, then stride 1."""
  size = -(-kernel.shape[0] // stride)  # of the new kernel
  outputs = [(n + sum(p) - kernel.shape[0]) // stride + 1 for n, p in zip(x.shape[1:3], padding)]
  # Rows and columns that the last window does not reach are cut, missing ones are zeros.
  ends = [(o + size - 1) * stride - n - p[0] for o, n, p in zip(outputs, x.shape[1:3], padding)]
  x = lax.pad(x, jnp.zeros((), x.dtype), (
      (0, 0, 0), (padding[0][0], ends[0], 0), (padding[1][0], ends[1], 0), (0, 0, 0)))
  b, h, w, c = x.shape
  x = x.reshape(b, h // stride, stride, w // stride, stride, c).transpose(0, 1, 3, 2, 4, 5)
  extra = size * stride - kernel.shape[0]
  kernel = jnp.pad(kernel, ((0, extra), (0, extra), (0, 0), (0, 0)))
  kernel = kernel.reshape(size, stride, size, stride, c, -1).transpose(0, 2, 1, 3, 4, 5)
  return _plain(
      x.reshape(*x.shape[:3], -1), kernel.reshape(size, size, stride * stride * c, -1),
      ((0, 0), (0, 0)))


def convolution(
    x: Array, kernel: Array, *, stride: int = 1, padding: Padding | None = None, groups: int = 1,
) -> Array:
  """Convolves as torch's conv2d does (a cross-correlation, zero padding).

  Under `layers.periodic` the columns that are padded come from the other edge.

  Args:
    x: `[B, H, W, in]`.
    kernel: `[k, k, in / groups, out]`, of x's type.
    padding: (top, bottom), (left, right); None pads (k - 1) / 2 on every side.

  Returns:
    `[B, H', W', out]`, H' = (H + padding - k) // stride + 1.
  """
  k = kernel.shape[0]
  padding = padding or (((k - 1) // 2,) * 2,) * 2
  if is_periodic() and any(padding[1]):
    x, padding = extended(x, *padding[1]), (padding[0], (0, 0))
  if kernel.shape[:2] == (1, 1) and stride == groups == 1 and not any(map(any, padding)):
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
  # The rewritten gradient pads by k - 1 - padding, which must not be negative.
  if use_native() or max(map(max, padding)) > k - 1:
    return _native(x, kernel, stride, padding, groups)
  if groups > 1:
    # One plain convolution per group: the grouped one has a gradient 74 times slower (8 groups).
    # A loop, not a list: it is compiled once, and runs at least as fast.
    apart = lambda a: jnp.moveaxis(a.reshape(*a.shape[:-1], groups, -1), -2, 0)
    y = lax.map(
        lambda pair: convolution(*pair, stride=stride, padding=padding), (apart(x), apart(kernel)))
    return jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:-1], -1)
  if stride > 1:
    return _strided(x, kernel, stride, padding)
  return _plain(x, kernel, padding)


def kernel_init(name: str, groups: int = 1) -> Callable:
  """Initialiser of a kernel `[k, k, in / groups, out]` (or `[in, out]`, of a dense layer), by name.

  torch: U(+-1 / sqrt(fan in)), torch's default. trunc_normal: std 0.02, cut at +-2 (a hundred std).
  he_out: N(0, sqrt(2 / fan out)), fan out counted per group. xavier: N(0, sqrt(2 / (fan in + fan
  out))), fan out of the whole kernel, as torch counts it: a depthwise one has k k C. orthogonal.
  small: U(+-0.001). zeros.
  """
  def torch(key, shape, dtype=jnp.float32):
    bound = math.prod(shape[:-1]) ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  def trunc_normal(key, shape, dtype=jnp.float32):
    return jax.random.truncated_normal(key, -100, 100, shape, dtype) * 0.02

  def he_out(key, shape, dtype=jnp.float32):
    fan_out = math.prod(shape[:-2]) * shape[-1] // groups
    return jax.random.normal(key, shape, dtype) * (2 / fan_out) ** 0.5

  def xavier(key, shape, dtype=jnp.float32):
    fans = math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1]
    return jax.random.normal(key, shape, dtype) * (2 / fans) ** 0.5

  def small(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -1e-3, 1e-3)

  makers = dict(
      torch=torch, trunc_normal=trunc_normal, he_out=he_out, xavier=xavier,
      orthogonal=nn.initializers.orthogonal(), small=small, zeros=nn.initializers.zeros)
  if name not in makers:
    raise ValueError(f'initialiser {name!r}: one of {" ".join(makers)}')
  return makers[name]


def bias_init(name: str, fan_in: int) -> Callable:
  """Torch draws a default bias like the kernel; the named initialisers start it at zero."""
  if name != 'torch':
    return nn.initializers.zeros
  bound = fan_in ** -0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Conv2D(nn.Module):
  """Convolution with torch's defaults: parameters `kernel` `[k, k, in / groups, out]`, `bias`.

  Attributes:
    features: channels out.
    kernel_size: odd, unless `padding` is given.
    padding: pixels on every side; None = (kernel_size - 1) / 2.
    initializer: see `kernel_init`.
    dtype: compute type; None = that of the input and the parameters.
  """
  features: int
  kernel_size: int = 3
  stride: int = 1
  padding: int | None = None
  groups: int = 1
  use_bias: bool = True
  initializer: str = 'torch'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, first: int = 0) -> Array:
    """`[..., H, W, in]` -> `[..., H', W', features - first]`; `first`: leading outputs left out."""
    k, inputs = self.kernel_size, x.shape[-1]
    if self.padding is None and k % 2 == 0:
      raise ValueError(f'{self.name}: kernel_size {k} is even; give an odd one')
    if inputs % self.groups or self.features % self.groups:
      raise ValueError(
          f'{self.name}: {inputs} to {self.features} channels, {self.groups} groups: not divisible')
    shape = (k, k, inputs // self.groups, self.features)
    kernel = self.param('kernel', kernel_init(self.initializer, self.groups), shape)[..., first:]
    bias = None
    if self.use_bias:
      fan_in = k * k * shape[2]
      bias = self.param('bias', bias_init(self.initializer, fan_in), (self.features,))[first:]
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    p = (k - 1) // 2 if self.padding is None else self.padding
    y = convolution(
        x.reshape(-1, *x.shape[-3:]), kernel, stride=self.stride, padding=((p, p), (p, p)),
        groups=self.groups)
    y = y.reshape(*x.shape[:-3], *y.shape[1:])
    return y if bias is None else y + bias
