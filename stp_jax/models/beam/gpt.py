"""Fusion of the sensors by self-attention: TransFuser's GPT.

Prakash et al. 2021, arXiv:2104.09224, as the TII entry to the DeepSense6G challenge has it.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.beam import maps as feature_maps
from stp_jax.models.layers.mlp import dense
from stp_jax.models.layers.norms import LayerNorm
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


class CrossAttention(nn.Module):
  """All tokens attend to all; separate layers for key, query and value."""
  heads: int = 4
  drop: float = 0.1
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, N, C]` -> the same. ValueError: C does not divide by the heads."""
    b, n, c = x.shape
    if c % self.heads:
      raise ValueError(f'attention: {c} channels do not divide by n_head={self.heads}')
    layer = lambda name: dense(c, name, dtype=self.dtype)
    key, query, value = (
        layer(name)(x).reshape(b, n, self.heads, -1) for name in ('key', 'query', 'value'))
    query = query * (c // self.heads) ** -0.5
    weights = jax.nn.softmax(wide(jnp.einsum('bqhd,bkhd->bhqk', query, key)), -1)
    weights = nn.Dropout(self.drop)(weights.astype(value.dtype), deterministic=not train)
    y = jnp.einsum('bhqk,bkhd->bqhd', weights, value).reshape(b, n, c)
    return nn.Dropout(self.drop)(layer('proj')(y), deterministic=not train)


class GPTBlock(nn.Module):
  """Attention and a perceptron with ReLU, norms before both, residuals around both."""
  heads: int = 4
  expand: int = 4
  drop: float = 0.1
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, N, C]` -> the same."""
    layer = lambda features, name: dense(features, name, dtype=self.dtype)
    attention = CrossAttention(self.heads, self.drop, self.dtype, name='attn')
    x = x + attention(LayerNorm(name='ln1')(x), train)
    y = nn.relu(layer(self.expand * x.shape[-1], 'mlp_0')(LayerNorm(name='ln2')(x)))
    return x + nn.Dropout(self.drop)(layer(x.shape[-1], 'mlp_2')(y), deterministic=not train)


def stack(block: nn.Module, x: Array, count: int, train: bool, remat: bool) -> Array:
  """Runs `count` blocks with parameters of their own, stacked on axis 0: one is compiled."""
  def body(module, y):
    return module(y, train), None

  body = nn.remat(body, prevent_cse=False) if remat else body
  scan = nn.scan(body, variable_axes={'params': 0},
                 split_rngs={'params': True, 'dropout': True}, length=count)
  return scan(block, x)[0]


class Fusion(nn.Module):
  """What both kinds of fusion share: positions before the blocks, a norm after them.

  Attributes:
    n_layer: blocks. drop: dropout after the positions are added (and in the blocks).
    remat: recompute each block in the backward pass.
    dtype: compute type; norms, softmax and scans are float32.
  """
  n_layer: int = 8
  drop: float = 0.1
  remat: bool = False
  dtype: jnp.dtype | None = None

  def block(self) -> nn.Module:
    """The module of one block, `(x [B, N, C], train) -> [B, N, C]`."""
    raise NotImplementedError

  def mix(self, maps: Mapping[str, Array]) -> Mapping[str, Array]:
    """What happens to the maps before they become tokens."""
    return maps

  @nn.compact
  def __call__(self, maps: Mapping[str, Array], gps: Array, train: bool
               ) -> tuple[dict[str, Array], Array]:
    """Maps `[B, T, v, h, C]` by sensor and fixes `[B, 2, C]` -> the same, having seen each other.

    The position embedding fixes T, v and h at initialisation.
    """
    shape = maps[feature_maps.SENSORS[0]].shape
    x = feature_maps.to_tokens(self.mix(maps), gps)
    x, positions = nn.dtypes.promote_dtype(
        x, self.param('pos_emb', nn.initializers.zeros, (1, *x.shape[1:])), dtype=self.dtype)
    x = nn.Dropout(self.drop)(x + positions, deterministic=not train)
    x = stack(self.block(), x, self.n_layer, train, self.remat)
    return feature_maps.from_tokens(LayerNorm(name='ln_f')(x), shape)


class GPTFusion(Fusion):
  """Fusion by `n_layer` attention blocks."""
  heads: int = 4
  expand: int = 4

  def block(self) -> nn.Module:
    return GPTBlock(self.heads, self.expand, self.drop, self.dtype, name='blocks')
