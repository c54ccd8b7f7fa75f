"""Sums of errors of maps in physical units (TECU), per example and frame, ready to be added up."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from stp_jax.typing import Array

STORM_KP10 = 50  # Kp x 10: a frame with Kp >= 5 is a storm frame (NOAA's G1)


def row_weights(latitude: Sequence[float] | None, height: int) -> np.ndarray:
  """float32 `[H]`: cosine of the latitude, 0 for padding rows (those beyond `latitude`).

  A pole has a tiny positive weight, as 0 marks padding. None (no grid): ones.

  Raises:
    ValueError: more latitudes than rows.
  """
  if latitude is None:
    return np.ones(height, np.float32)
  if len(latitude) > height:
    raise ValueError(f'{len(latitude)} latitudes for frames of {height} rows')
  cosine = np.maximum(np.cos(np.deg2rad(np.asarray(latitude, float))), 1e-6)
  return np.concatenate([cosine, np.zeros(height - len(cosine))]).astype(np.float32)


def per_example(
    prediction: Array, truth: Array, valid: Array | None, latitude_weights: Array,
) -> dict[str, Array]:
  """Weighted error sums of every frame.

  Args:
    prediction, truth: `[B, T, H, W, C]`, TECU; NaN is allowed where `valid` is False.
    valid: bool, broadcastable to them, False where the truth is missing; None: all are there.
    latitude_weights: `[H]` from `row_weights`; rows of weight 0 never count.

  Returns:
    float32 `[B, T]` each: `weight` (pixels), `sse` (TECU²), `sae`, `se` (TECU; prediction minus
    truth), and the same with cosine-of-latitude weights as `cos_weight`, `cos_sse`, ...
  """
  cosine = jnp.asarray(latitude_weights)[:, None, None]
  counts = jnp.broadcast_to(cosine > 0, truth.shape)
  if valid is not None:
    counts = counts & valid
  error = jnp.where(counts, prediction - truth, 0)
  terms = {'weight': counts, 'sse': jnp.square(error), 'sae': jnp.abs(error), 'se': error}
  axes = (-3, -2, -1)
  sums = {k: jnp.sum(v, axes, dtype=jnp.float32) for k, v in terms.items()}
  return sums | {
      f'cos_{k}': jnp.sum(v * cosine, axes, dtype=jnp.float32) for k, v in terms.items()}


def strata(kp10: np.ndarray) -> dict[str, np.ndarray]:
  """`{'quiet', 'storm'}` bool `[B, T]` from Kp x 10 of the target frames; NaN is in neither."""
  kp10 = np.asarray(kp10)
  return {'quiet': kp10 < STORM_KP10, 'storm': kp10 >= STORM_KP10}
