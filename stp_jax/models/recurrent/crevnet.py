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
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.reversible import Pair, ReversibleEncoder
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array

PUBLISHED_SIDE = 64


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
