"""GS2PM's translator: UniFormer blocks on time-and-channels, the equal ones in one scan."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.mlp import Mlp, dense
from stp_jax.models.layers.norms import LayerNorm
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.uniformer import add_position, global_block, local_block
from stp_jax.models.simvp.translators.metaformer import drop_path_rates
from stp_jax.typing import Array

GAMMA = 1e-6  # of the layer scales, at first
REMAT = dict(
    none=None, full=None, dots=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)


@dataclasses.dataclass(frozen=True)
class Options:
  """What all blocks of a translator share.

  Attributes:
    mlp_ratio, drop: of the MLPs; `drop` also of the attention.
    heads: of every attention.
    attention: of QueryBlock to its memory: heads | upstream, see `CrossAttention`.
    initializer: of all kernels, see `layers.conv.kernel_init`.
    freeze_statistics: batch norms keep to their running statistics, in training too.
    dtype: compute type.
  """
  mlp_ratio: float = 8.0
  drop: float = 0.0
  heads: int = 8
  attention: str = 'heads'
  initializer: str = 'xavier'
  freeze_statistics: bool = False
  dtype: jnp.dtype | None = None


class _Block(nn.Module):
  options: Options

  def _branch(self, y: Array, rate: Array | None) -> Array:
    """Stochastic depth: of whole examples, scaled by 1 / keep; None = off.

    The rate is an array, as that of a scanned stack is another in every layer.
    """
    y = wide(y)
    if rate is None:
      return y
    shape = (y.shape[0], *(1,) * (y.ndim - 1))
    kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, shape)
    return jnp.where(kept, y / (1 - rate).astype(y.dtype), 0)

  def _common(self, train: bool) -> dict:
    o = self.options
    return dict(mlp_ratio=o.mlp_ratio, drop=o.drop, train=train, initializer=o.initializer,
                dtype=o.dtype)

  def _gammas(self, channels: int, suffix: str = '') -> tuple[Array, Array]:
    start = nn.initializers.constant(GAMMA)
    return tuple(self.param(f'gamma_{i}{suffix}', start, (channels,)) for i in (1, 2))


class ConvBlock(_Block):
  """Positions, 5 x 5 depthwise mixing, MLP; normalised over the batch."""

  @nn.compact
  def __call__(self, x: Array, rate: Array | None, train: bool) -> Array:
    """`[B, h, w, C]` -> the same, at least float32; rate: `[]`, of stochastic depth, or None."""
    return local_block(
        x, lambda y: self._branch(y, rate),
        batch_statistics=train and not self.options.freeze_statistics, **self._common(train))


class AttentionBlock(_Block):
  """Positions, attention among all pixels, MLP; with layer scales."""

  @nn.compact
  def __call__(self, x: Array, rate: Array | None, train: bool, memory: None = None) -> Array:
    """As ConvBlock; ValueError: C does not divide by the heads."""
    x = add_position(x, self.options.initializer, self.options.dtype)
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    return global_block(
        tokens, self._gammas(x.shape[-1]), lambda y: self._branch(y, rate),
        heads=self.options.heads, **self._common(train)).reshape(x.shape)


class CrossAttention(nn.Module):
  """Queries from one sequence, keys and values from another; softmax at least in float32.

  Attributes:
    layout: heads = every token gets the results of its own heads. upstream = the results are cut
      anew from their order (head, example, token), so that tokens get those of others, and of
      other examples of the batch: what the published code computes.
  """
  heads: int
  layout: str = 'heads'
  drop: float = 0.0
  initializer: str = 'xavier'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, memory: Array, train: bool) -> Array:
    """`[B, N, C]`, `[B, M, C]` -> `[B, N, C]`. ValueError: an unknown layout."""
    if self.layout not in ('heads', 'upstream'):
      raise ValueError(f'MS2P: attention {self.layout!r}: heads or upstream')
    channels, size = x.shape[-1], x.shape[-1] // self.heads
    layer = lambda y, name: dense(channels, name, self.initializer, self.dtype)(y)
    drop = lambda y: nn.Dropout(self.drop)(y, deterministic=not train)
    q, k, v = (layer(y, name).reshape(*y.shape[:-1], self.heads, size)
               for y, name in ((x, 'wq'), (memory, 'wk'), (memory, 'wv')))
    weights = jax.nn.softmax(wide(jnp.einsum('bqhd,bkhd->bhqk', q * size ** -0.5, k)), -1)
    y = jnp.einsum('bhqk,bkhd->bqhd', drop(weights.astype(v.dtype)), v)
    if self.layout == 'upstream':
      y = jnp.moveaxis(y, 2, 0)
    return drop(layer(y.reshape(x.shape), 'proj'))


class QueryBlock(_Block):
  """An attention block of its own (`*_pre`), then attention to a memory; the first MS2P's."""

  @nn.compact
  def __call__(self, x: Array, rate: Array | None, train: bool, memory: Array) -> Array:
    """As ConvBlock; memory: `[B, M, C]`."""
    o, channels = self.options, x.shape[-1]
    branch = lambda y: self._branch(y, rate)
    x = add_position(x, o.initializer, o.dtype)
    tokens = global_block(
        x.reshape(x.shape[0], -1, channels), self._gammas(channels, '_pre'), branch,
        heads=o.heads, suffix='_pre', **self._common(train))
    gammas, norm = self._gammas(channels), LayerNorm(name='norm1')  # one norm for both
    y = CrossAttention(o.heads, o.attention, o.drop, o.initializer, o.dtype, name='attn')(
        norm(tokens), norm(memory), train)
    tokens = tokens + branch(gammas[0] * y)
    y = Mlp(int(channels * o.mlp_ratio), o.drop, initializer=o.initializer, dtype=o.dtype,
            name='mlp')(LayerNorm(name='norm2')(tokens), train)
    return (tokens + branch(gammas[1] * y)).reshape(x.shape)


class End(nn.Module):
  """The first or last block: convolutions, then 1 x 1 to `features` where that is another width."""
  features: int
  options: Options

  @nn.compact
  def __call__(self, x: Array, rate: Array | None, train: bool) -> Array:
    """`[B, h, w, C]` -> `[B, h, w, features]`, at least float32."""
    x = ConvBlock(self.options, name='block')(x, rate, train)
    if x.shape[-1] == self.features:
      return x
    return wide(Conv2D(self.features, 1, initializer=self.options.initializer,
                       dtype=self.options.dtype, name='reduction')(x))


class Translator(nn.Module):
  """`depth` blocks from T * hid_S to `hidden` channels and back.

  The first is an `End`; so is the last, unless all widths are equal: then it is one more of the
  middle. Those are a single scan over parameters with a leading axis of layers.

  Attributes:
    drop_path, drop_path_floor: stochastic depth of the last block, and where the linear rise of the
      others starts.
    whole: False leaves the last block out.
    middle: AttentionBlock or QueryBlock.
    remat: none | full | dots: what the backward pass computes again (dots: keep the products).
  """
  hidden: int
  depth: int
  options: Options
  drop_path: float = 0.0
  drop_path_floor: float = 0.0
  whole: bool = True
  middle: type[_Block] = AttentionBlock
  remat: str = 'none'

  @nn.compact
  def __call__(self, z: Array, train: bool, memory: Array | None = None) -> Array:
    """`[B, h, w, C]` -> the same, or `[B, h, w, hidden]` if not whole; memory: of QueryBlock.

    Raises:
      ValueError: fewer than two blocks, rates out of range, an unknown remat.
    """
    channels = z.shape[-1]
    if self.depth < 2:
      raise ValueError(f'GS2PM: N_T must be at least 2, got {self.depth}')
    rates = np.asarray(
        drop_path_rates(self.drop_path, self.drop_path_floor, self.depth), np.float32)
    if not (0 <= rates.min() and rates.max() < 1):
      raise ValueError(f'GS2PM: drop_path {rates.min()} to {rates.max()}; choose 0 <= rate < 1')
    dropping = train and rates.any()
    rate_of = lambda rate: jnp.asarray(rate) if dropping else None
    ends = channels != self.hidden or not self.whole
    count = self.depth - (2 if ends else 1)
    z = End(self.hidden, self.options, name='enc_0')(z, rate_of(rates[0]), train)
    if count:
      z = self._stack(z, rates[1:count + 1], dropping, train, memory)
    if ends and self.whole:
      z = End(channels, self.options, name=f'enc_{self.depth - 1}')(z, rate_of(rates[-1]), train)
    return z

  def _stack(self, z, rates, dropping, train, memory) -> Array:
    if self.remat not in REMAT:
      raise ValueError(f'GS2PM: remat {self.remat!r}: one of {" ".join(REMAT)}')

    def body(block, z, rate, memory):
      return block(z, rate if dropping else None, train, memory), None

    if self.remat != 'none':
      body = nn.remat(body, prevent_cse=False, policy=REMAT[self.remat])
    scan = nn.scan(
        body, variable_axes={'params': 0}, split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast), length=len(rates))
    return scan(self.middle(self.options, name='stack'), z, rates, memory)[0]
