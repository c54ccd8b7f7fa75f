"""Frames as GS2PM's tables score them, on 0..255; to compare with those, never the default.

What differs from `video`: its MSE is a mean over channels and rows but a sum over columns, so it
grows with the width; SSIM looks at the first channel only (data range 1). Nothing is clipped.
"""

import jax.numpy as jnp

from stp_jax.metrics import video
from stp_jax.typing import Array


def per_example(prediction: Array, truth: Array, valid: Array | None = None) -> dict[str, Array]:
  """`mse`, `psnr` (dB) and, where frames are no smaller than its window, `ssim`; `[B, T]` each.

  Args:
    prediction, truth: `[B, T, H, W, C]`, 0..1.
    valid: as in `video`: upstream knows no mask, its mse is then the width times the masked mean.
  """
  result = dict(mse=255.0**2 * prediction.shape[-2] * video.mse(prediction, truth, valid),
                psnr=video.psnr(prediction, truth, valid))
  if min(prediction.shape[-3:-1]) >= video.WINDOW:
    first = None if valid is None else jnp.broadcast_to(valid, prediction.shape)[..., :1]
    result['ssim'] = video.ssim(prediction[..., :1], truth[..., :1], first, data_range=1.0)
  return result


def weighted_squared_error(prediction: Array, truth: Array, *, scale: float = 70.0) -> Array:
  """Mean over everything of squared errors weighted by rain: a loss upstream wrote and never used.

  The weight is 1, and 5, 10, 50 where scale * truth is in [30, 40), [40, 50), [50, 70] dBZ.
  """
  dbz = scale * truth
  weight = jnp.select(
      [(dbz >= 30) & (dbz < 40), (dbz >= 40) & (dbz < 50), (dbz >= 50) & (dbz <= 70)],
      [5.0, 10.0, 50.0], 1.0)
  return jnp.mean(weight * jnp.square(prediction - truth))
