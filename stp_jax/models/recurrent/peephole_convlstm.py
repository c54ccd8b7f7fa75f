"""ConvLSTM with peepholes as an encoder and a forecaster (Shi et al. 2015, arXiv:1506.04214).

The encoder reads the input; the forecaster starts from its states, layer by layer, and is fed
nothing: a forecast never sees a frame of its own. Built as in Spatiotemporal-Prediction
(github.com/dreaming-coder/Spatiotemporal-Prediction, 8dae381), whose network GS2PM compares with.
Submodules carry the names they have there.
"""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D, bias_init
from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.convlstm import state
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array

PEEPHOLES = ('all', 'upstream')
CLIPS = ('none', 'unit', 'positive')
States = list[tuple[Array, Array]]


class EmptyConv(nn.Module):
  """A convolution that is only ever given zeros: its bias `[features]` is all it has."""
  features: int
  fan_in: int

  @nn.compact
  def __call__(self) -> Array:
    return self.param('bias', bias_init('torch', self.fan_in), (self.features,))


class PeepholeConvLSTMCell(nn.Module):
  """One layer. Gates in the order i, f, g, o; peepholes from c to i and f, from the new c to o.

  The peepholes `w_ci`, `w_cf`, `w_co` are `[1, h, w, features]`, start at zero and fix the frame
  size.

  Attributes:
    peepholes: 'all', or 'upstream', which never reads its w_cf.
    inputs: channels of the frame that is missing where x is None.
  """
  features: int
  kernel_size: int = 3
  forget_bias: float = 0.01
  peepholes: str = 'all'
  inputs: int = 1
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array | None, h: Array, c: Array) -> tuple[Array, Array]:
    """`[B, h, w, in]`, or None: zeros; states `[B, h, w, features]` -> new h and c.

    Raises:
      ValueError: frames of another size than the peepholes.
    """
    conv = lambda name, value: wide(Conv2D(
        4 * self.features, self.kernel_size, dtype=self.dtype, name=name)(value))
    if x is None:
      fan_in = self.inputs * self.kernel_size ** 2
      given = wide(EmptyConv(4 * self.features, fan_in, name='conv_x')())
    else:
      given = conv('conv_x', x)
    i, f, g, o = jnp.split(given + conv('conv_h', h), 4, -1)
    f = f + self.forget_bias
    if self.peepholes == 'all':
      f = f + self._peephole('w_cf', c)
    i = nn.sigmoid(i + self._peephole('w_ci', c))
    c = nn.sigmoid(f) * c + i * nn.tanh(g)
    return nn.sigmoid(o + self._peephole('w_co', c)) * nn.tanh(c), c

  def _peephole(self, name: str, c: Array) -> Array:
    h, w = c.shape[-3:-1]
    if self.has_variable('params', name):
      given = self.get_variable('params', name).shape[1:3]
      if given != (h, w):
        raise ValueError(
            f'PeepholeConvLSTM: {name} was made for {given[0]} x {given[1]} patches, the frames '
            f'have {h} x {w}; resize them, or initialise the model at this size')
    return self.param(name, nn.initializers.zeros, (1, h, w, self.features)) * c


class Stack(nn.Module):
  """The layers of the encoder or, with `channels`, of the forecaster.

  Attributes:
    layers: (features, kernel size) of each.
    prefix: of the layers' names.
    channels: of the 1 x 1 read-out of all layers' h; 0 = none.
    inputs: channels of a frame.
  """
  layers: Sequence[tuple[int, int]]
  prefix: str
  channels: int
  inputs: int
  forget_bias: float
  peepholes: str
  zero_readout: bool
  dtype: jnp.dtype | None

  @nn.compact
  def __call__(self, states: States, x: Array | None) -> tuple[States, Array]:
    """[(h, c), ...], a frame `[B, h, w, in]` or None -> new ones, and the read-out or the top h."""
    new = []
    for i, ((features, kernel_size), (h, c)) in enumerate(zip(self.layers, states, strict=True)):
      x, c = PeepholeConvLSTMCell(
          features, kernel_size, self.forget_bias, self.peepholes, self.inputs, self.dtype,
          name=f'{self.prefix}_{i}')(x, h, c)
      new.append((x, c))
    if not self.channels:
      return new, x
    return new, wide(Conv2D(
        self.channels, 1, use_bias=False, initializer='zeros' if self.zero_readout else 'torch',
        dtype=self.dtype, name='conv_last')(jnp.concatenate([h for h, _ in new], -1)))


def clipped(image: Array, clip: str) -> Array:
  """unit: to 0..1. positive: what is below 0 becomes 0. none. No gradient where it clips."""
  # `where`, not `clip`, whose gradient at the limits themselves is half that of the inside.
  if clip == 'none':
    return image
  low = jnp.where(image < 0, 0, image)
  return jnp.where(low > 1, 1, low) if clip == 'unit' else low


class PeepholeConvLSTM(nn.Module):
  """An encoder-forecaster with a time loop of its own ('window', see `models.Forecaster`).

  Peepholes fix the frame size at initialisation.

  Attributes:
    channels: channels of a frame and of a prediction, in patched space.
    features: hidden channels of each layer, in the encoder and in the forecaster.
    kernel_size: odd; one for all layers, or one each.
    forget_bias: of the forget gates.
    peepholes: 'all': w_cf acts on the forget gate, as in the paper. 'upstream': it is never read,
      so it is no parameter; published weights are of that kind.
    clip: of predictions: none | unit (0 to 1; Moving MNIST and KTH there) | positive (TaxiBJ).
    zero_readout: start by predicting zero.
    dtype: compute type of the convolutions; states and gates are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (96, 96)
  kernel_size: int | Sequence[int] = 3
  forget_bias: float = 0.01
  peepholes: str = 'all'
  clip: str = 'none'
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'window'
  multiple: ClassVar[int] = 1  # frame sides in patches must divide by this

  def setup(self):
    k = self.kernel_size
    sizes = (k,) * len(self.features) if isinstance(k, int) else tuple(k)
    if len(sizes) != len(self.features) or not sizes:
      raise ValueError(
          f'PeepholeConvLSTM: {len(sizes)} kernel sizes {sizes} for {len(self.features)} layers; '
          'give one, or one each')
    for name, known in (('peepholes', PEEPHOLES), ('clip', CLIPS)):
      if getattr(self, name) not in known:
        raise ValueError(
            f'PeepholeConvLSTM: {name} {getattr(self, name)!r}: one of {" ".join(known)}')
    layers = tuple(zip(self.features, sizes))
    common = (self.channels, self.forget_bias, self.peepholes, self.zero_readout, self.dtype)
    self.encoder = Stack(layers, 'encoder', 0, *common)
    self.forecast = Stack(layers, 'forecast', self.channels, *common)

  def __call__(
      self, frames: Array, use_true: Array | None = None, *, t_in: int, train: bool = False,
      truth: bool = False, remat: bool = False, unroll: int = 1,
  ) -> tuple[Array, None, dict[str, Array]]:
    """Forecasts.

    Args:
      frames: `[B, T, h, w, D]`; those after the first t_in are not read, whatever `use_true` says.
      train, truth: change nothing.

    Returns:
      prediction `[B, T - t_in, h, w, D]`; None; no terms.

    Raises:
      ValueError: even kernels, another frame size than the weights'.
    """
    del use_true, train, truth
    steps, states = frames.shape[1] - t_in, [
        (state(frames[:, 0], f), state(frames[:, 0], f)) for f in self.features]
    encode = lambda module, states, frame: (module.encoder(states, frame)[0], None)
    forecast = lambda module, states, _: module.forecast(states, None)
    if self.is_initializing():
      # One step makes all variables; a scan would only cost compile time.
      _, image = forecast(self, encode(self, states, frames[:, 0])[0], None)
      return clipped(jnp.repeat(image[:, None], steps, 1), self.clip), None, {}
    loop = lambda body, length, axis: scan_time(
        body, self, length=length, in_axes=(axis,), out_axes=1, remat=remat, unroll=unroll)
    states, _ = loop(encode, t_in, 1)(self, states, frames[:, :t_in])
    _, images = loop(forecast, steps, 0)(self, states, jnp.arange(steps))
    return clipped(images, self.clip), None, {}
