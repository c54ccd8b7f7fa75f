"""Normalisations with torch's conventions; statistics in float32, result in the input's type."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from stp_jax.models.layers import across
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


def _mean(x: Array) -> Array:
  """Mean over all axes but the last, one by one: short sums, so that float32 loses few digits.

  An invertible network (CrevNet) makes a rounding error of one pass fifty times larger in the next.
  """
  for axis in range(x.ndim - 2, -1, -1):
    x = jnp.mean(x, axis)
  return x


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but channels, as torch defines it.

  Unlike Flax's, the running variance keeps the unbiased estimate (n / (n - 1)) and `momentum` is
  the weight of the new value. Parameters `scale`, `bias`; `batch_stats` `mean`, `var`. The batch is
  the global one: on several devices the statistics are shared, like torch's SyncBatchNorm.
  """
  momentum: float = 0.1
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[..., C]` -> the same; with `train` by the batch's statistics, which update the running."""
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
    y = wide(x)
    if train:
      count = x.size // x.shape[-1] * across.count()
      mean = across.mean(_mean(y))
      var = across.mean(_mean(jnp.square(y - mean)))
      if self.is_mutable_collection('batch_stats') and not self.is_initializing():
        m = self.momentum
        unbiased = var * (count / max(count - 1, 1))
        new_mean = (1 - m) * running_mean.value + m * mean
        new_var = (1 - m) * running_var.value + m * unbiased
        running_mean.value = new_mean.astype(running_mean.value.dtype)
        running_var.value = new_var.astype(running_var.value.dtype)
    else:
      mean, var = running_mean.value, running_var.value
    gain = lax.rsqrt(var + self.epsilon) * scale
    return (y * gain + (bias - mean * gain)).astype(x.dtype)


class GroupNorm(nn.Module):
  """Group normalisation over (H, W) and the channels of a group; parameters `scale`, `bias`.

  Only per-channel sums are taken of the image; statistics, scale and shift are then folded into one
  multiplication and addition, which is half the time of the reshaped form.
  """
  groups: int
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[..., H, W, C]` -> the same."""
    channels = x.shape[-1]
    if channels % self.groups:
      raise ValueError(f'{self.name}: {channels} channels do not divide by {self.groups} groups')
    scale = self.param('scale', nn.initializers.ones, (channels,))
    bias = self.param('bias', nn.initializers.zeros, (channels,))
    y = wide(x)
    by_group = (*x.shape[:-3], self.groups, channels // self.groups)

    def group_mean(values):  # [..., C] per-channel means -> [..., C], those of the group
      means = jnp.mean(values.reshape(by_group), -1, keepdims=True)
      return jnp.broadcast_to(means, by_group).reshape(values.shape)

    mean = group_mean(jnp.mean(y, (-3, -2)))
    # E[x^2] - mean^2 may come out below zero where a group is constant.
    var = jnp.maximum(group_mean(jnp.mean(jnp.square(y), (-3, -2))) - jnp.square(mean), 0)
    gain = lax.rsqrt(var + self.epsilon) * scale
    shift = bias - mean * gain
    return (y * gain[..., None, None, :] + shift[..., None, None, :]).astype(x.dtype)


class LayerNorm(nn.Module):
  """Layer normalisation over the channels, biased variance; parameters `scale`, `bias` `[C]`."""
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[..., C]` -> the same."""
    scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
    y = wide(x)
    y = y - jnp.mean(y, -1, keepdims=True)
    var = jnp.mean(jnp.square(y), -1, keepdims=True)
    return (y * lax.rsqrt(var + self.epsilon) * scale + bias).astype(x.dtype)


def standardize(x: Array, rank: int = 3, epsilon: float = 1e-5) -> Array:
  """Zero mean and unit variance over the last `rank` axes together, at least float32.

  A layer norm without parameters, over (H, W, C) or, with rank 4, (depth, H, W, C).
  """
  y, axes = wide(x), tuple(range(-rank, 0))
  y = y - jnp.mean(y, axes, keepdims=True)
  return y * lax.rsqrt(jnp.mean(jnp.square(y), axes, keepdims=True) + epsilon)


class VolumeLayerNorm(nn.Module):
  """Layer normalisation over the whole (H, W, C); `scale` and `bias` are `[H, W, C]` too.

  The parameters fix the frame size at initialisation. `rank`: 4 normalises (depth, H, W, C).
  """
  epsilon: float = 1e-5
  rank: int = 3

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[..., H, W, C]` -> the same."""
    shape = x.shape[-self.rank:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    return (standardize(x, self.rank, self.epsilon) * scale + bias).astype(x.dtype)


class DropPath(nn.Module):
  """Stochastic depth: drops a residual branch of whole examples, scales the others by 1 / keep."""
  rate: float

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, ...]` -> the same; draws from the 'dropout' generator."""
    if not train or self.rate == 0:
      return x
    return nn.Dropout(self.rate, broadcast_dims=tuple(range(1, x.ndim)))(x, deterministic=False)
