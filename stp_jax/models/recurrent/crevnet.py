"""CrevNet (Yu et al. 2020, 'Efficient and information-preserving future frame prediction', ICLR).

As OpenSTL and the Channel Mixer Layer have it: three consecutive frames, a triple, go through an
invertible encoder (i-RevNet, Jacobsen et al. 2018, arXiv:1802.07088), a recurrent predictor moves
the code one frame on, and the encoder run backwards gives the next triple. So of every predicted
triple one frame is new and two are seen again.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import bias_init, kernel_init
from stp_jax.models.layers.conv3d import DepthConv, depth_convolution
from stp_jax.models.layers.norms import BatchNorm
from stp_jax.models.layers.patches import patchify, unpatchify
from stp_jax.models.layers.precision import wide
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array

Pair = tuple[Array, Array]
PUBLISHED_SIDE = 64


class Bottleneck(nn.Module):
  """F of a reversible block: [norm, ReLU,] conv, norm, ReLU, conv, norm, ReLU, conv; 3 x 3 x 3."""
  features: int
  stride: int = 1
  first: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, 3, h, w, in]` -> `[B, 3, h / stride, w / stride, features]`, at least float32."""
    inner = max(self.features // 2, 1)
    # Places in the torch list, where ReLUs and a dropout of rate 0 count too.
    places = (0, 1, 3, 5, 7) if self.first else (2, 3, 5, 7, 9)

    def conv(x, features, stride, place):
      return wide(DepthConv(
          features, 3, 3, stride, depth_padding=1, dtype=self.dtype,
          name=f'bottleneck_block_{place}')(x))

    def norm(x, place):
      return nn.relu(BatchNorm(name=f'bottleneck_block_{place}')(x, train))

    x = x if self.first else norm(x, 0)
    x = conv(x, inner, self.stride, places[0])
    x = conv(norm(x, places[1]), inner, 1, places[2])
    return conv(norm(x, places[3]), self.features, 1, places[4])


class ReversibleEncoder(nn.Module):
  """Two halves of channels, additive couplings (x1, x2) -> (x2, F(x2) + x1), three resolutions.

  A halving moves 2 x 2 pixels into the channels, so the code has as many numbers as the frames. The
  inverse calls the same F: in training each of its batch norms is updated once more.
  """
  channels: int
  blocks: Sequence[int] = (4, 5, 3)
  dtype: jnp.dtype | None = None

  def setup(self):
    stack = []
    for stage, count in enumerate(self.blocks):
      for i in range(count):
        stride = 2 if stage and not i else 1
        stack.append(Bottleneck(
            2 * self.channels * 4 ** stage, stride, not stack, self.dtype))
    self.stack = stack

  def encode(self, x: Array, train: bool) -> Pair:
    """`[B, 3, H, W, C]` -> two halves `[B, 3, H / 8, W / 8, 32 C]` (three resolutions)."""
    x1, x2 = jnp.split(patchify(x, 2), 2, -1)
    for f in self.stack:
      y = f(x2, train)
      if f.stride == 2:
        x1, x2 = patchify(x1, 2), patchify(x2, 2)
      x1, x2 = x2, y + x1
    return x1, x2

  def decode(self, code: Pair, train: bool) -> Array:
    """The inverse of `encode`, but for the batch statistics in training."""
    x2, y = code
    for f in self.stack[::-1]:
      if f.stride == 2:
        x2 = unpatchify(x2, 2)
      x1 = y - f(x2, train)
      if f.stride == 2:
        x1 = unpatchify(x1, 2)
      x2, y = x1, x2
    return unpatchify(jnp.concatenate([x2, y], -1), 2)


class _Weights(nn.Module):
  """Kernel and bias of a convolution that somebody else runs."""
  features: int
  size: int

  @nn.compact
  def __call__(self, inputs: int) -> tuple[Array, Array]:
    shape = (*[self.size] * 3, inputs, self.features)
    bias = bias_init('torch', self.size ** 3 * inputs)
    return (self.param('kernel', kernel_init('torch'), shape),
            self.param('bias', bias, (self.features,)))


class Cell(nn.Module):
  """ST-LSTM with one convolution for the three gates that read the same input; forget bias 0."""
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, h: Array, c: Array, memory: Array) -> tuple[Array, Array, Array]:
    """All `[B, 3, h, w, features]` -> new h, c and memory, at least float32."""
    def conv(inputs, *names, size=3):
      inputs = jnp.concatenate(inputs, -1)
      kernels, biases = zip(*(
          _Weights(self.features, size, name=n)(inputs.shape[-1]) for n in names))
      inputs, kernel, bias = nn.dtypes.promote_dtype(
          inputs, jnp.concatenate(kernels, -1), jnp.concatenate(biases, -1), dtype=self.dtype)
      y = depth_convolution(inputs, kernel, depth_padding=size // 2) + bias
      return jnp.split(wide(y), len(names), -1)

    i, r, g = conv((x, h, c), 'in_gate', 'remember_gate', 'cell_gate')
    c = nn.sigmoid(r) * c + nn.sigmoid(i) * nn.tanh(g)
    i, r, g = conv((x, memory, c), 'in_gate1', 'remember_gate1', 'cell_gate1')
    memory = nn.sigmoid(r) * memory + nn.sigmoid(i) * nn.tanh(g)
    o, = conv((x, h, c, memory), 'out_gate')
    mixed, = conv((c, memory), 'w1', size=1)
    return nn.sigmoid(o) * nn.tanh(mixed), c, memory


class Predictor(nn.Module):
  """Layers that change one half each, by a convex mixture: reversible, like the encoder."""
  features: int
  layers: int
  dtype: jnp.dtype | None = None

  def initial_carry(self, half: Array) -> Any:
    """([(h, c), ...], memory), zeros like a half of the code."""
    zeros = jnp.zeros_like(half)
    return [(zeros, zeros)] * self.layers, zeros

  @nn.compact
  def __call__(self, code: Pair, carry: Any) -> tuple[Pair, Any]:
    """The code of a triple -> that of the next one, and the state."""
    (x1, x2), (states, memory), new = code, carry, []
    for i, (h, c) in enumerate(states):
      h, c, memory = Cell(self.features, self.dtype, name=f'convlstm_{i}')(x1, h, c, memory)
      new.append((h, c))
      gate = nn.sigmoid(wide(DepthConv(
          self.features, use_bias=True, dtype=self.dtype, name=f'att_{i}')(h)))
      x1, x2 = (1 - gate) * x2 + gate * h, x1
    return (x1, x2), (new, memory)


class CrevNet(nn.Module):
  """A forecaster of triples with its own time loop (kind 'window' of `models.forecaster`).

  The triple that is fed holds the true frames where they are given, else the ones of the triple
  just predicted. Fewer than three input frames are completed by repeating the first.

  Attributes:
    channels: C; the code's halves have 32 C channels (three stages of `blocks`).
    layers: of the predictor.
    blocks: reversible blocks at each resolution; every one but the first halves it.
    any_size: take frames of any size (padded to multiples of 2 ** stages), not only the published
      64 x 64; nothing in the network depends on it.
    warm_up: start at the first triple, so that the state has seen the whole input, as in training.
      False: what upstream's test does, which starts anew at the last triple of the input.
    dtype: compute type of the convolutions; norms, states, gates and couplings at least float32.
  """
  channels: int = 1
  layers: int = 8
  blocks: Sequence[int] = (4, 5, 3)
  any_size: bool = False
  warm_up: bool = True
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'window'

  @property
  def multiple(self) -> int:
    """Frame sides must divide by this."""
    return 2 ** len(self.blocks)

  def setup(self):
    self.encoder = ReversibleEncoder(self.channels, self.blocks, self.dtype)
    self.frame_predictor = Predictor(
        2 * self.channels * 4 ** (len(self.blocks) - 1), self.layers, self.dtype)

  def __call__(
      self, frames: Array, use_true: Array, *, t_in: int, train: bool = False, truth: bool = False,
      remat: bool = False, unroll: int = 1,
  ) -> tuple[Array, Array | None, dict[str, Array]]:
    """Forecasts.

    Args:
      frames: `[B, T, H, W, C]`; those after the input are read where `use_true` `[B, T]` says so.
      t_in: input frames, always read.
      train: batch statistics; the rollout starts at the first triple.
      truth: give the term `overlap`, for which every frame is compared.

    Returns:
      prediction `[B, T - t_in, H, W, C]`; context, the new frames 3 to t_in - 1, or None; terms.
      `overlap` is the mean squared error of the two seen frames of the predicted triples: the
      published loss, a mean over triples, is (mse + 2 overlap) / 3 where every frame is given.

    Raises:
      ValueError: a size other than 64 x 64 without `any_size`; sides that do not divide.
    """
    self._check(frames)
    short = max(0, 3 - t_in)
    if short:
      repeat = lambda x: jnp.concatenate([x[:, :1]] * short + [x], 1)
      frames, use_true, t_in = repeat(frames), repeat(jnp.asarray(use_true)), t_in + short
    first = 0 if train or self.warm_up else t_in - 3
    frames, known = frames[:, first:], (jnp.asarray(use_true) > 0)[:, first:]
    t_in, total = t_in - first, frames.shape[1]
    known = known.at[:, :t_in].set(True)
    triples, known = (
        jnp.stack([x[:, i:total - 2 + i] for i in range(3)], 2) for x in (wide(frames), known))
    steps = total - 3

    def body(module, state, xs):
      carry, own = state
      triple, known = xs
      # `where`, not arithmetic: an unused future frame may hold anything.
      triple = jnp.where(known[..., None, None, None], triple, own)
      code = module.encoder.encode(triple, train)
      code, carry = module.frame_predictor(code, carry)
      own = module.encoder.decode(code, train)
      return (carry, own), own

    h, w = (n // self.multiple for n in frames.shape[2:4])
    half = jnp.zeros_like(
        triples, shape=(frames.shape[0], 3, h, w, self.frame_predictor.features))
    start = (self.frame_predictor.initial_carry(half), jnp.zeros_like(triples[:, 0]))
    if self.is_initializing():
      # One step makes all variables; a scan would only cost compile time.
      _, own = body(self, start, (triples[:, 0], known[:, 0]))
      predicted = jnp.repeat(own[:, None], steps, 1)
    else:
      scan = scan_time(
          body, self, length=steps, in_axes=((1, 1),), out_axes=1, remat=remat, unroll=unroll)
      _, predicted = scan(self, start, (triples[:, :steps], known[:, :steps]))
    new, terms, context = predicted[:, :, 2], {}, None
    if truth:
      target = triples[:, 1:, :2]
      error = jnp.where(jnp.isfinite(target), predicted[:, :, :2] - target, 0)
      terms['overlap'] = jnp.mean(jnp.square(error), (1, 2, 3, 4, 5))
    if t_in > 3:
      context = new[:, :t_in - 3]
    return new[:, t_in - 3:], context, terms

  def _check(self, frames: Array) -> None:
    h, w = frames.shape[2:4]
    if h % self.multiple or w % self.multiple:
      raise ValueError(
          f'CrevNet: frames of {h} x {w} do not divide by {self.multiple} (blocks={self.blocks})')
    if not self.any_size and (h, w) != (PUBLISHED_SIDE,) * 2:
      raise ValueError(
          f'CrevNet: frames of {h} x {w}, published for {PUBLISHED_SIDE} x {PUBLISHED_SIDE} only; '
          'resize them or set backbone any_size=True')
