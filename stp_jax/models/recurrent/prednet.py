"""PredNet (Lotter et al. 2017, arXiv:1605.08104): layers that pass their prediction errors upwards.

In time step t every layer has said what it expects of frame t; the frame comes in, what each layer
gets wrong goes up, and from the errors the recurrent layers, top first, expect frame t + 1.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D, convolution, kernel_init
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

_ACTIVATIONS = dict(relu=nn.relu, tanh=nn.tanh)
EXTRAPOLATIONS = ('own', 'previous')


class _Weights(nn.Module):
  """Weights of a convolution whose widths are known when it is called; biases start at zero."""
  kernel_size: int

  @nn.compact
  def __call__(self, inputs: int, features: int) -> tuple[Array, Array]:
    k = self.kernel_size
    kernel = self.param('kernel', kernel_init('torch'), (k, k, inputs, features))
    return kernel, self.param('bias', nn.initializers.zeros, (features,))


def _hard_sigmoid(x: Array) -> Array:
  return jnp.clip(0.2 * x + 0.5, 0, 1)


def _up(x: Array) -> Array:
  return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def _pool(x: Array) -> Array:
  b, h, w, c = x.shape
  return jnp.max(x.reshape(b, h // 2, 2, w // 2, 2, c), (2, 4))


class PredNet(nn.Module):
  """A step module (`models.rollout`); frames lie in [0, pixel_max].

  Layer 0 is as wide as the input, and its expectation of the image is the prediction. Where that is
  not what is asked for, because forcings are fused in or the output corrects an anchor, a linear
  1 x 1 read-out of the lowest recurrent layer makes the output, and the expectations stay inside.

  Its terms are the mean errors of each layer, `error_0`, `error_1`, ..., each averaged over the
  steps without the first one, for which nothing could be expected. They are what Lotter et al.
  minimise: (1, 0, 0, ...) "L_0" or (1, 0.1, 0.1, ...) "L_all", with every frame fed true
  (`sampling.name='standard', sampling.rate=0`, and `stop_step` out of reach). A fed prediction
  has no error in layer 0. `error_0` is half the mean absolute error of the frames fed, so the whole
  of "L_all" is `task.loss='mae'` with weights of 0.2 from `error_1` up.

  Attributes:
    channels: channels of a prediction, in patched space.
    features: channels of the layers above 0, each at half the size of the one below.
    r_features: channels of the recurrent part of every layer, 0 included; () = those of the layer.
    kernel_size, a_kernel_size, ahat_kernel_size: odd, of the recurrent gates, of the convolutions
      of errors (one fewer than layers) and of those that make the expectations; one for all layers,
      or one each.
    pixel_max: largest value of an expected image; None: unbounded.
    activation: relu | tanh, of the layers above 0.
    error_activation: relu | tanh, of both signs of an error.
    signed_error: terms are the mean of E_l instead of |E_l|. Published so, which is the same with
      relu, but with an odd activation the two signs cancel and the loss is zero whatever happens.
    extrapolation: what stands for a frame that is not given. 'own': the prediction of that frame.
      'previous': of the frame before, as in the published code, where a forecast therefore sees
      everything a step late.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type of the convolutions; states, errors and gates are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (32, 64, 128, 256)
  r_features: Sequence[int] = ()
  kernel_size: int | Sequence[int] = 3
  a_kernel_size: int | Sequence[int] = 3
  ahat_kernel_size: int | Sequence[int] = 3
  pixel_max: float | None = 1.0
  activation: str = 'relu'
  error_activation: str = 'relu'
  signed_error: bool = False
  extrapolation: str = 'own'
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'frames'  # the rollout that drives it

  @property
  def multiple(self) -> int:
    """Frame sides, in patches, must divide by this."""
    return 2 ** len(self.features)

  def setup(self):
    layers = len(self.features) + 1
    make = lambda field, count: [_Weights(k) for k in self._sizes(field, count)]
    gates = {name: make('kernel_size', layers) for name in 'ifco'}
    self.i, self.f, self.c, self.o = gates.values()
    self.A = make('a_kernel_size', layers - 1)
    self.Ahat = make('ahat_kernel_size', layers)
    self.readout = Conv2D(
        self.channels, 1, initializer='zeros' if self.zero_readout else 'torch', dtype=self.dtype)

  def _sizes(self, field: str, count: int) -> tuple[int, ...]:
    value = getattr(self, field)
    sizes = (value,) * count if isinstance(value, int) else tuple(value)
    if len(sizes) != count or any(k % 2 == 0 for k in sizes):
      raise ValueError(f'PredNet: {field}={value}: an odd number, or {count} of them')
    return sizes

  def _check(self, frame: Array) -> None:
    h, w = frame.shape[1:3]
    if h % self.multiple or w % self.multiple:
      raise ValueError(f'PredNet: frames of {h} x {w} do not divide by {self.multiple}; pad them')
    for field in ('activation', 'error_activation'):
      if getattr(self, field) not in _ACTIVATIONS:
        raise ValueError(f'PredNet: {field}={getattr(self, field)!r}: relu or tanh')
    if self.extrapolation not in EXTRAPOLATIONS:
      raise ValueError(f'PredNet: extrapolation={self.extrapolation!r}: own or previous')
    if self.extrapolation == 'previous' and self.zero_readout:
      raise ValueError('PredNet: extrapolation=previous feeds frames, not corrections; anchor=none')
    if self.r_features and len(self.r_features) != len(self.features) + 1:
      raise ValueError(f'PredNet: r_features={self.r_features}: {len(self.features) + 1} numbers')

  def _convolve(self, x: Array, *weights: tuple[Array, Array]) -> Array:
    """One convolution with the outputs of several side by side."""
    kernel, bias = (jnp.concatenate(parts, -1) for parts in zip(*weights))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    return wide(convolution(x, kernel) + bias)

  def _expectation(self, layer: int, r: Array, features: int) -> Array:
    x = self._convolve(r, self.Ahat[layer](r.shape[-1], features))
    if layer:
      return _ACTIVATIONS[self.activation](x)
    x = nn.relu(x)
    return x if self.pixel_max is None else jnp.minimum(x, self.pixel_max)

  def expect(self, carry: dict[str, Any], errors: Sequence[Array]) -> tuple[dict[str, Any], Array]:
    """The way down: errors of every layer -> the next carry and the prediction."""
    r, c, above = list(carry['r']), list(carry['c']), None
    for layer in reversed(range(len(r))):
      inputs = [r[layer], errors[layer], *([] if above is None else [_up(above)])]
      x = jnp.concatenate(inputs, -1)
      gates = self._convolve(x, *(
          w[layer](x.shape[-1], r[layer].shape[-1]) for w in (self.i, self.f, self.o, self.c)))
      i, f, o, g = jnp.split(gates, 4, -1)
      i, f, o = _hard_sigmoid(i), _hard_sigmoid(f), _hard_sigmoid(o)
      c[layer] = f * c[layer] + i * nn.tanh(g)
      above = r[layer] = o * nn.tanh(c[layer])
    width = errors[0].shape[-1] // 2
    ahat = self._expectation(0, r[0], width)
    prediction = ahat
    if width != self.channels or self.zero_readout:
      prediction = wide(self.readout(r[0]))
    carry = dict(carry, r=r, c=c, ahat=ahat)
    if self.extrapolation == 'previous':
      carry['seen'] = (carry['seen'][1], prediction)
    return carry, prediction

  def observe(self, carry: dict[str, Any], frame: Array) -> list[Array]:
    """The way up: a frame `[B, h, w, in]` -> errors `[B, h / 2^l, w / 2^l, 2 features of l]`."""
    act, a, errors = _ACTIVATIONS[self.error_activation], wide(frame), []
    for layer, r in enumerate(carry['r']):
      ahat = self._expectation(layer, r, a.shape[-1]) if layer else carry['ahat']
      errors.append(jnp.concatenate([act(ahat - a), act(a - ahat)], -1))
      if layer < len(self.features):
        weights = self.A[layer](errors[-1].shape[-1], self.features[layer])
        a = _pool(_ACTIVATIONS[self.activation](self._convolve(errors[-1], weights)))
    return errors

  def mean_errors(self, errors: Sequence[Array]) -> list[Array]:
    """Mean over space and channels of each layer, `[B]`."""
    size = (lambda e: e) if self.signed_error else jnp.abs
    return [jnp.mean(size(e), (1, 2, 3)) for e in errors]

  def initial_carry(self, frame: Array, steps: int) -> dict[str, Any]:
    """What is expected of the first frame, from zero states; `frame` gives batch and size."""
    self._check(frame)
    widths = (frame.shape[-1], *self.features)
    zeros = lambda layer, features: jnp.zeros(
        (frame.shape[0], *(n // 2 ** layer for n in frame.shape[1:3]), features),
        wide(frame[:0]).dtype)
    states = lambda: [zeros(layer, n) for layer, n in enumerate(self.r_features or widths)]
    carry = dict(r=states(), c=states(), scale=jnp.asarray(steps / max(steps - 1, 1)))
    if self.extrapolation == 'previous':
      carry['seen'] = (zeros(0, self.channels),) * 2
    errors = [zeros(layer, 2 * n) for layer, n in enumerate(widths)]
    return self.expect(carry, errors)[0]

  def feedback(self, carry: dict[str, Any], previous: Array) -> Array:
    """The image that stands for a frame that is not given; `previous`: its prediction."""
    return previous if self.extrapolation == 'own' else carry['seen'][0]

  def __call__(self, carry: dict[str, Any], frame: Array, t: Array
               ) -> tuple[dict[str, Any], Array, dict[str, Array]]:
    """See `models.rollout.rollout_frames`."""
    errors = self.observe(carry, frame)
    weight = jnp.where(t > 0, carry['scale'], 0)
    means = self.mean_errors(errors)
    terms = {f'error_{layer}': weight * mean for layer, mean in enumerate(means)}
    carry, prediction = self.expect(carry, errors)
    return carry, prediction, terms
