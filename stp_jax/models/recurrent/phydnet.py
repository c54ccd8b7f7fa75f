"""PhyDNet (Le Guen and Thome 2020, arXiv:2003.01460): a learnt partial differential equation,
corrected by what is seen, beside a ConvLSTM for everything that is no physics."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.conv import Conv2D, bias_init, convolution, kernel_init
from stp_jax.models.layers.norms import GroupNorm
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.typing import Array


def moment_matrix(size: int) -> np.ndarray:
  """`[size, size]` float64: row i holds (x - (size - 1) // 2)^i / i! of the positions x."""
  x = np.arange(size) - (size - 1) // 2
  return np.stack([x.astype(np.float64) ** i / math.factorial(i) for i in range(size)])


def _both_sides(left: np.ndarray, x: Array, right: np.ndarray) -> Array:
  if isinstance(x, np.ndarray):
    return left @ x @ right.T
  # Sums, not products of matrices: those are rounded to less than float32 on accelerators.
  x = jnp.sum(left.astype(x.dtype)[:, :, None] * x[..., None, :, :], -2)
  return jnp.sum(x[..., None, :] * right.astype(x.dtype), -1)


def kernel_to_moments(filters: Array) -> Array:
  """Moments of filters `[..., h, w]`: entry (i, j) is the coefficient of d^(i+j) / dy^i dx^j in the
  differential operator that the filter approximates. NumPy arrays are computed in float64."""
  left, right = (moment_matrix(n) for n in filters.shape[-2:])
  return _both_sides(left, filters, right)


def moments_to_kernel(moments: Array) -> Array:
  """The inverse of `kernel_to_moments`."""
  left, right = (np.linalg.inv(moment_matrix(n)) for n in moments.shape[-2:])
  return _both_sides(left, moments, right)


class RectConv2D(nn.Module):
  """A convolution of the same size with a kernel of odd height and width, not always square."""
  features: int
  kernel_size: Sequence[int]
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[B, h, w, in]` -> `[B, h, w, features]`, at least float32."""
    if any(k % 2 == 0 for k in self.kernel_size):
      raise ValueError(f'{self.name}: kernel_size {tuple(self.kernel_size)}: odd numbers')
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init('torch'), shape)
    bias = self.param('bias', bias_init('torch', math.prod(shape[:-1])), (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    padding = tuple((k // 2, k // 2) for k in self.kernel_size)
    return wide(convolution(x, kernel, padding=padding) + bias)


class Derivatives(nn.Module):
  """The right-hand side of the equation: learnt derivatives, normalised, and their weighted sum."""
  filters: int
  kernel_size: Sequence[int]
  groups: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, h: Array) -> Array:
    """`[B, h, w, C]` -> the same."""
    x = RectConv2D(self.filters, self.kernel_size, self.dtype, name='conv1')(h)
    x = GroupNorm(self.groups, name='bn1')(x)
    return wide(Conv2D(h.shape[-1], 1, dtype=self.dtype, name='conv2')(x))


class PhyCellCell(nn.Module):
  """Prediction by the equation, then correction towards the input by a learnt Kalman gain."""
  filters: int = 49
  kernel_size: Sequence[int] = (7, 7)
  groups: int = 7
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array) -> Array:
    """Input and state `[B, h, w, C]` -> the new state."""
    predicted = h + Derivatives(
        self.filters, self.kernel_size, self.groups, self.dtype, name='F')(h)
    gain = Conv2D(h.shape[-1], 3, dtype=self.dtype, name='convgate')(jnp.concatenate([x, h], -1))
    return predicted + nn.sigmoid(wide(gain)) * (x - predicted)


class PhyConvLSTMCell(nn.Module):
  """ConvLSTM with one biased convolution of [x; h]; gates in the order i, f, o, g."""
  features: int
  kernel_size: Sequence[int] = (3, 3)
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """`[B, h, w, in]`, states `[B, h, w, features]` -> new h and c."""
    gates = RectConv2D(4 * self.features, self.kernel_size, self.dtype, name='conv')(
        jnp.concatenate([x, h], -1))
    i, f, o, g = jnp.split(gates, 4, -1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
    return nn.sigmoid(o) * nn.tanh(c), c


class PhyCell(nn.Module):
  """One PhyCell with k k filters of k x k."""
  kernel_size: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array) -> Array:
    k = self.kernel_size
    return PhyCellCell(k * k, (k, k), k, self.dtype, name='cell_list_0')(x, h)


class ConvLSTMBranch(nn.Module):
  """The ConvLSTM layers, each reading the one below."""
  features: Sequence[int]
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, states: Any) -> tuple[Array, Any]:
    new = []
    for i, (features, (h, c)) in enumerate(zip(self.features, states, strict=True)):
      x, c = PhyConvLSTMCell(features, (3, 3), self.dtype, name=f'cell_list_{i}')(x, h, c)
      new.append((x, c))
    return x, new


class Stage(nn.Module):
  """3 x 3 convolution (transposed where it goes up), GroupNorm, LeakyReLU(0.2)."""
  features: int
  groups: int
  stride: int = 1
  up: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    n, s, more = self.features, self.stride, dict(dtype=self.dtype, name='main_0')
    conv = ConvTranspose2D(n, 3, s, 1, s - 1, **more) if self.up else Conv2D(n, 3, s, **more)
    x = conv(x)
    return nn.leaky_relu(GroupNorm(self.groups, name='main_1')(x), 0.2)


class Stages(nn.Module):
  """Stages in a row; `readout` channels after one more transposed convolution, if not 0."""
  features: Sequence[int]
  groups: int
  strides: Sequence[int]
  up: bool = False
  readout: int = 0
  zero: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    name, last = 'upc' if self.up else 'c', self.strides[-1]
    for i, (features, stride) in enumerate(zip(self.features, self.strides), 1):
      x = Stage(features, self.groups, stride, self.up, self.dtype, name=f'{name}{i}')(x)
    if self.readout:
      start = 'zeros' if self.zero else 'torch'
      x = ConvTranspose2D(self.readout, 3, last, 1, last - 1, initializer=start,
                          dtype=self.dtype, name='upc3')(x)
    return x


class PhyDNet(nn.Module):
  """A step module (`models.rollout`).

  The published loss is the squared error of all T - 1 predictions, summed over them, and the term
  `moments`: the filters' moments are drawn to 1 for one derivative each and 0 for the others. Our
  main loss is a mean, so the published weight is `task.term_weights.moments = 1 / (T - 1)`. The
  published teacher forcing is `sampling.name='standard'` with a `rate` of 0.003 per epoch.

  Attributes:
    channels: channels of a prediction, in patched space.
    downscale: 2 or 4, frame sides over those of the latent; published as `patch_size`.
    features: channels of the latent; those of the first stages are half as many.
    hidden: channels of the ConvLSTM's layers.
    kernel_size: k, odd: k k filters of k x k, one for each derivative below the k-th in y and in x.
    groups: of the encoders' and decoders' group norms.
    squash: a sigmoid at the output; off for frames that leave (0, 1).
    zero_readout: start by predicting zero (for residual forecasts, which are not squashed either).
    dtype: compute type of the convolutions; states and gates are at least float32.
  """
  channels: int = 1
  downscale: int = 4
  features: int = 64
  hidden: Sequence[int] = (128, 128, 64)
  kernel_size: int = 7
  groups: int = 16
  squash: bool = True
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it

  @property
  def multiple(self) -> int:
    """Frame sides, in patches, must divide by this."""
    return self.downscale

  def initial_carry(self, frame: Array, steps: int) -> Any:
    """Zero states (PhyCell's, [(h, c), ...]); `frame` `[B, h, w, in]` gives batch and size."""
    del steps
    b, h, w, _ = frame.shape
    if self.downscale not in (2, 4) or h % self.downscale or w % self.downscale:
      raise ValueError(
          f'PhyDNet: {h} x {w}, downscale={self.downscale}: 2 or 4, and sides divide by it')
    zeros = lambda n: jnp.zeros(
        (b, h // self.downscale, w // self.downscale, n), wide(frame[:0]).dtype)
    return zeros(self.features), [(zeros(n), zeros(n)) for n in self.hidden]

  @nn.compact
  def __call__(self, carry: Any, frame: Array, t: Array) -> tuple[Any, Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`. ValueError: widths that `groups` does not divide."""
    del t
    h, states = carry
    n, last = self.features, self.downscale // 2

    def stages(name, features, strides, **fields):
      return Stages(features, self.groups, strides, dtype=self.dtype, name=name, **fields)

    latent = stages('encoder_E', (n // 2, n // 2, n), (2, 1, last))(frame)
    h = PhyCell(self.kernel_size, self.dtype, name='phycell')(
        wide(stages('encoder_Ep', (n, n), (1, 1))(latent)), h)
    x, states = ConvLSTMBranch(tuple(self.hidden), self.dtype, name='convcell')(
        wide(stages('encoder_Er', (n, n), (1, 1))(latent)), states)
    both = (stages('decoder_Dp', (n, n), (1, 1), up=True)(h)
            + stages('decoder_Dr', (n, n), (1, 1), up=True)(x))
    read = dict(up=True, readout=self.channels, zero=self.zero_readout)
    image = wide(stages('decoder_D', (n // 2, n // 2), (2, 1, last), **read)(both))
    squash = nn.sigmoid if self.squash and not self.zero_readout else lambda y: y
    return (h, states), squash(image), {}

  def target_terms(self, prediction: Array, target: Array) -> dict[str, Array]:
    """`moments` `[B]`, the same for every example: it only depends on the weights."""
    del target
    filters = wide(self.variables['params']['phycell']['cell_list_0']['F']['conv1']['kernel'])
    moments = kernel_to_moments(jnp.transpose(filters, (2, 3, 0, 1)))  # [in, filters, k, k]
    wanted = jnp.eye(self.kernel_size ** 2).reshape(moments.shape[1:])
    term = jnp.sum(jnp.mean(jnp.square(moments - wanted), (1, 2, 3)))
    return {'moments': jnp.broadcast_to(term, prediction.shape[:1])}
