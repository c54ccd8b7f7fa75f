"""Rebuilding the features of a sensor that is missing from those of the others.

As the fork szy4017/DeepSense6G_TII does it, after SimMMDG (Dong et al. 2023): a head per sensor
splits the features of the first stage of its trunk into what sensors share and what is specific to
one; a translator makes the features of the missing sensor from the shared parts of the others.
Losses: `rebuild_losses`.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stp_jax.models.beam.maps import SENSORS
from stp_jax.models.beam.network import BeamFusion
from stp_jax.models.layers.norms import BatchNorm
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


class Pointwise(nn.Module):
  """A linear layer at every position: PyTorch's convolution of width 1, kernel `[1, in, out]`."""
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[..., in]` -> `[..., out]`."""
    kernel = self.param('kernel', nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'),
                        (1, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    return x @ kernel[0] + bias


class ProjectHead(nn.Module):
  """Two hidden layers with batch norm, then a unit vector at every position.

  Attributes:
    features: of the output; the first half is what sensors share. hidden: 0 = as many as come in.
  """
  features: int = 128
  hidden: int = 0
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[..., C]` -> `[..., features]` of length 1 over the last axis, at least float32."""
    hidden = self.hidden or x.shape[-1]
    for i in (0, 3):
      x = Pointwise(hidden, self.dtype, name=f'head_{i}')(x)
      x = nn.relu(BatchNorm(name=f'head_{i + 1}')(x, train))
    x = wide(Pointwise(self.features, self.dtype, name='head_6')(x))
    # sqrt has no gradient at 0; a vector shorter than 1e-12 is left as it is, as in PyTorch.
    return x * lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), 1e-24))


class FeatureTranslator(nn.Module):
  """The shared parts of the sources, one after the other, to the features of the target.

  Attributes:
    features: of the target. hidden: 0 = as many as come in. dropout: before the last layer.
  """
  features: int
  hidden: int = 0
  dropout: float = 0.5
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[..., C]` -> `[..., features]`; draws from 'dropout' in training."""
    hidden = self.hidden or x.shape[-1]
    for i in (0, 3):
      x = Pointwise(hidden, self.dtype, name=f'enc_net_{i}')(x)
      x = nn.leaky_relu(BatchNorm(name=f'enc_net_{i + 1}')(x, train), 0.01)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return Pointwise(self.features, self.dtype, name='enc_net_7')(x)


class Rebuild(nn.Module):
  """Heads for every sensor, and a translator for every target.

  Attributes:
    sources: sensors that translate. targets: sensors that are rebuilt; no source is a target.
    sensors: all that have a head: sources and targets, and others that only shape the losses.
    features: of a head. width: channels of the first stage, which the translator emits.
  """
  sources: Sequence[str]
  targets: Sequence[str]
  sensors: Sequence[str] = SENSORS
  features: int = 128
  width: int = 64
  dropout: float = 0.5
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, features: Mapping[str, Array], train: bool
               ) -> tuple[dict[str, Array], dict[str, Array]]:
    """First-stage features `{sensor: [B, T, h, w, width]}`, of the sources at least.

    Returns:
      Projections `{sensor: [B, T, h, w, features]}` of every sensor given, rebuilt features
      `{target: [B, T, h, w, width]}`.
    """
    wrong = [s for s in (*self.sources, *self.targets) if s not in self.sensors]
    if wrong or set(self.sources) & set(self.targets) or not self.sources or not self.targets:
      raise ValueError(
          f'rebuild {"+".join(self.targets)!r} from {"+".join(self.sources)!r}: name at least one '
          f'of {" ".join(self.sensors)} each, and none twice')
    projections = {
        s: ProjectHead(self.features, dtype=self.dtype, name=f'{s}_projection')(features[s], train)
        for s in self.sensors if s in features}
    shared = [projections[s][..., :self.features // 2] for s in self.sources]
    shared = jnp.concatenate(shared, -1)
    rebuilt = {
        t: FeatureTranslator(self.width, self.features, self.dropout, self.dtype,
                             name=f'{t}_translator')(shared, train) for t in self.targets}
    return projections, rebuilt


class RebuildingFusion(nn.Module):
  """A beam network that makes up the first-stage features of the sensors it has lost.

  Attributes:
    fusion: the network; its stems and first stages give all features, without a gradient.
    rebuild: heads and translators.
  """
  fusion: BeamFusion
  rebuild: Rebuild

  def __call__(
      self, inputs: Mapping[str, Array], lost: Mapping[str, Array], *, train: bool = False,
      train_fusion: bool = False, use: Array | None = None,
  ) -> tuple[Array, dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Logits with the targets rebuilt, and what the losses need.

    Args:
      inputs: of `BeamFusion`, with every sensor that is there: of the sources at least.
      lost: the same as the network meets it, its targets hidden.
      train: batch statistics and dropout in heads and translators. train_fusion: in the network.
      use: `[B]`, 1 where the rebuilt features replace those of the hidden sensor; None: always.

    Returns:
      Logits, first-stage features, projections and rebuilt features by sensor.
    """
    # The stems are frozen: their statistics are, too.
    features = jax.tree.map(lax.stop_gradient, self.fusion.first_features(inputs))
    projections, rebuilt = self.rebuild(features, train)
    where = None if use is None else dict.fromkeys(rebuilt, use)
    logits = self.fusion(lost, train_fusion, rebuilt=rebuilt, rebuilt_where=where)
    return logits, features, projections, rebuilt
