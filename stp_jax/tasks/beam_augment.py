"""Random changes of training examples, on the device, each example its own, all its frames alike.

Upstream wrote changed copies of some files to disk; here every example is changed anew. Strengths
stand in `config.task.beam`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from stp_jax.data import deepsense_features
from stp_jax.data.deepsense_sensors import COUNTS
from stp_jax.typing import Array, Batch


def augment(inputs: Mapping[str, Array], rng: jax.Array, options: Mapping) -> dict[str, Array]:
  """Other colours, fewer points, noisier maps.

  Args:
    inputs: of `physical`.
    options: `color` (strength 0..1), `lidar_drop` (share of the points that are lost),
      `radar_noise` (relative), see `configs/common.py`.
  """
  color_rng, lidar_rng, radar_rng = jax.random.split(rng, 3)
  found = dict(inputs)
  if options['color'] and 'image' in found:
    found['image'] = _recolor(found['image'].astype(jnp.float32), color_rng, options['color'])
  if options['lidar_drop'] and 'lidar' in found:
    # Points of a cell are lost one by one; a cell counts five at most.
    x, keep = jnp.round(found['lidar'] * COUNTS), 1 - options['lidar_drop']
    draws = jax.random.uniform(lidar_rng, (COUNTS, *x.shape)) < keep
    found['lidar'] = sum(draws[i] & (x > i) for i in range(COUNTS)) / COUNTS
  if options['radar_noise'] and 'radar' in found:
    x, top = found['radar'], options['radar_noise']
    x = x * (1 + jax.random.uniform(radar_rng, x.shape, minval=top / 4, maxval=top))
    least, most = (f(x, (2, 3), keepdims=True) for f in (jnp.min, jnp.max))
    found['radar'] = (x - least) / jnp.maximum(most - least, 1e-9)
  return found


def flip(batch: Batch, rng: jax.Array, rate: float, beams: int = 64) -> Batch:
  """Mirror images of raw examples drawn with probability `rate`, their beams too.

  Args:
    batch: of `data.beam_windows`; the mirror is `deepsense_features.mirror`.
  """
  size = len(batch['beam'])
  turn = jax.random.uniform(rng, (size,)) < rate
  # It takes all modalities; a run may have fewer.
  absent = {n: jnp.zeros((size, 1, 1, 1, c)) for n, c in dict(image=3, lidar=1, radar=2).items()}
  mirrored = deepsense_features.mirror(
      {**absent, 'gps': jnp.zeros((size, 2, 2)), **batch}, beams=beams)
  pick = lambda new, old: jnp.where(turn.reshape(-1, *[1] * (old.ndim - 1)), new, old)
  return {k: pick(mirrored[k], v) for k, v in batch.items()}


def _recolor(image: Array, rng: jax.Array, strength: float) -> Array:
  """Brightness, contrast, saturation and gamma, each by a factor of exp(U(-strength, strength))."""
  shape = (image.shape[0], *[1] * (image.ndim - 1))
  bright, contrast, saturation, gamma = (
      jnp.exp(jax.random.uniform(k, shape, minval=-strength, maxval=strength))
      for k in jax.random.split(rng, 4))
  x = jnp.power(jnp.clip(image / 255, 0, 1), gamma) * bright
  mean = jnp.mean(x, tuple(range(1, x.ndim)), keepdims=True)
  x = (x - mean) * contrast + mean
  grey = jnp.mean(x, -1, keepdims=True)
  return jnp.clip((x - grey) * saturation + grey, 0, 1) * 255
