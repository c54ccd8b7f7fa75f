"""Scores of frames, each per example and frame: `[B, T, H, W, C]` in, `[B, T]` out, float32.

`valid` (bool, broadcastable to the frames) leaves pixels out of every sum; None: all are there.
`upstream` is the protocol of the published tables, built on the same functions: to compare with
them, never the default. It follows OpenSTL's metric function as the Channel Mixer authors ran it:
mse and mae are sums over a frame's pixels (so they grow with its size); the prediction is clipped
to 0..1 for ssim, psnr and snr but the truth is not; ssim runs with data range 2 on frames in 0..1,
which raises it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.typing import Array

_AXES = (-3, -2, -1)
WINDOW = 7  # pixels, of ssim
# By omission: scikit-image 0.19 takes floats to lie in -1..1.
UPSTREAM_SSIM_RANGE = 2.0
UPSTREAM = ('mse', 'mae', 'rmse', 'ssim', 'psnr', 'snr')


def _masked(value: Array, valid: Array | None) -> Array:
  # `where` before any sum: a missing value may be NaN, and NaN * 0 is NaN.
  return value if valid is None else jnp.where(valid, value, 0)


def _count(value: Array, valid: Array | None) -> Array:
  if valid is None:
    return jnp.full(value.shape[:-3], np.prod(value.shape[-3:]), jnp.float32)
  return jnp.sum(jnp.broadcast_to(valid, value.shape), _AXES, dtype=jnp.float32)


def _mean(value: Array, valid: Array | None) -> Array:
  return jnp.sum(_masked(value, valid), _AXES) / _count(value, valid)


def squared_error_sum(prediction: Array, truth: Array, valid: Array | None = None) -> Array:
  """Sum of squared errors over the pixels and channels of a frame, (units of the frame)²."""
  return jnp.sum(_masked(jnp.square(prediction - truth), valid), _AXES)


def absolute_error_sum(prediction: Array, truth: Array, valid: Array | None = None) -> Array:
  """Sum of absolute errors over the pixels and channels of a frame, units of the frame."""
  return jnp.sum(_masked(jnp.abs(prediction - truth), valid), _AXES)


def mse(prediction: Array, truth: Array, valid: Array | None = None) -> Array:
  """Mean squared error per frame; NaN for a frame without a valid pixel."""
  return _mean(jnp.square(prediction - truth), valid)


def mae(prediction: Array, truth: Array, valid: Array | None = None) -> Array:
  """Mean absolute error per frame; NaN for a frame without a valid pixel."""
  return _mean(jnp.abs(prediction - truth), valid)


def rmse(prediction: Array, truth: Array, valid: Array | None = None) -> Array:
  """Root mean square error per frame. Over many frames, take the root of the mean `mse` instead."""
  return jnp.sqrt(mse(prediction, truth, valid))


def psnr(
    prediction: Array, truth: Array, valid: Array | None = None, *, data_range: float = 1.0,
) -> Array:
  """Peak signal-to-noise ratio per frame, dB: 10 log10(data_range² / mse); inf where identical."""
  return 10 * jnp.log10(data_range**2 / mse(prediction, truth, valid))


def snr(prediction: Array, truth: Array, valid: Array | None = None) -> Array:
  """Signal-to-noise ratio per frame, dB: 10 log10(mean truth² / mse); inf where identical."""
  return 10 * jnp.log10(_mean(jnp.square(truth), valid) / mse(prediction, truth, valid))


def _window_mean(value: Array, window: int) -> Array:
  """Mean over every whole neighbourhood: `[..., H - window + 1, W - window + 1, C]`."""
  for axis in (value.ndim - 3, value.ndim - 2):
    size = value.shape[axis] - window + 1
    # Seven shifted slices: a cumulative sum would lose the digits that a variance needs.
    value = sum(
        jax.lax.slice_in_dim(value, i, i + size, axis=axis) for i in range(window)) / window
  return value


def ssim(
    prediction: Array, truth: Array, valid: Array | None = None, *, data_range: float,
    window: int = WINDOW,
) -> Array:
  """Structural similarity per frame (Wang et al. 2004, doi:10.1109/TIP.2003.819861), mean over C.

  Uniform 7x7 window, sample covariance (N / (N - 1)), the mean over positions whose window lies
  inside the frame: scikit-image's `structural_similarity` with the same `data_range`.

  Args:
    data_range: largest minus smallest possible value: 1.0 for frames in 0..1. The published tables
      used 2.0 by omission, which raises every score; that value must be asked for.
    valid: windows that touch an invalid pixel are left out of the mean.

  Returns:
    float32 `[B, T]`; NaN for a frame without a whole valid window.

  Raises:
    ValueError: a frame smaller than the window.
  """
  height, width = prediction.shape[-3:-1]
  if min(height, width) < window:
    raise ValueError(
        f'ssim: frames of {height}x{width} are smaller than its {window}x{window} window')
  whole = None
  if valid is not None:
    valid = jnp.broadcast_to(valid, prediction.shape)
    whole = _window_mean(valid.astype(jnp.float32), window) > 1 - 0.5 / window**2
  # Covariances do not change when a constant is taken off; near the mean they keep their digits.
  shift = _mean(truth, valid)[..., None, None, None]
  shift = jnp.where(jnp.isfinite(shift), shift, 0)
  x, y = _masked(prediction - shift, valid), _masked(truth - shift, valid)
  mean_x, mean_y = _window_mean(x, window), _window_mean(y, window)
  scale = window**2 / (window**2 - 1)
  var_x = scale * (_window_mean(x * x, window) - mean_x**2)
  var_y = scale * (_window_mean(y * y, window) - mean_y**2)
  cov = scale * (_window_mean(x * y, window) - mean_x * mean_y)
  mean_x, mean_y = mean_x + shift, mean_y + shift
  c1, c2 = (0.01 * data_range)**2, (0.03 * data_range)**2
  value = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / (
      (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
  return _mean(value, whole)


def per_example(
    prediction: Array, truth: Array, valid: Array | None = None, present: Array | None = None,
) -> dict[str, Array]:
  """Every video score of normalised frames (0..1), each `[B, T]`, for `accumulate.Scores`.

  `ssim`, `psnr`, `snr` follow the standard protocol over the pixels of `valid`. `mse_sum`,
  `mae_sum`, `upstream_ssim`, `upstream_psnr`, `upstream_snr` follow `upstream` over `present`
  (upstream knows no mask and counts padding rows too; only values that are NaN must be left out).
  Frames smaller than the window of ssim have none.
  """
  clipped = jnp.clip(prediction, 0, 1)
  scores = {
      'psnr': psnr(prediction, truth, valid), 'snr': snr(prediction, truth, valid),
      'mse_sum': squared_error_sum(prediction, truth, present),
      'mae_sum': absolute_error_sum(prediction, truth, present),
      'upstream_psnr': psnr(clipped, truth, present), 'upstream_snr': snr(clipped, truth, present)}
  if min(prediction.shape[-3:-1]) >= WINDOW:
    scores['ssim'] = ssim(prediction, truth, valid, data_range=1.0)
    scores['upstream_ssim'] = ssim(clipped, truth, present, data_range=UPSTREAM_SSIM_RANGE)
  return scores


def upstream(
    pred: np.ndarray, true: np.ndarray, mean=0, std=1, *, metrics: Sequence[str] = UPSTREAM,
    clip_range: Sequence[float] = (0, 1), spatial_norm: bool = False,
    channel_names: Sequence[str] | None = None, layout: str = 'NTCHW', tecu: float = 200.0,
) -> dict[str, float | list[float]]:
  """All numbers of the upstream protocol over a set of predictions.

    upstream(pred, true)                               mse mae rmse ssim psnr snr, and the extras
    upstream(pred, true, spatial_norm=True)            mse mae rmse divided by C*H*W
    upstream(pred, true, .1, 2.5, spatial_norm=True)   both brought to x * 2.5 + 0.1 first
    upstream(pred, true, spatial_norm=True, channel_names=('a', 'b'))
                                                       mse_a mse_b and their mean as mse, ...

  Args:
    pred, true: `[N, T, C, H, W]` float32 as upstream has them (`layout='NTHWC'` for ours).
    mean, std: x * std + mean is applied to both first; scalars or arrays that broadcast.
    metrics: which of UPSTREAM; 'ssim', 'psnr', 'snr' are means over all N*T frames.
    clip_range: of the prediction, before ssim, psnr and snr.
    spatial_norm: divide the pixel sums of mse, mae by C*H*W (rmse: the root of that mse).
    channel_names: the channels in equal groups of these names (spatial_norm only, as upstream):
      a value per group as `mse_<name>`, and their plain mean.
    tecu: TECU per unit; the extras below are always there.

  Returns:
    Python floats by name; besides `metrics`: `mae_tecu`, `rmse_tecu`; lists over T
    `mae_tecu_per_frame`, `rmse_tecu_per_frame`, `mse_per_frame_sum`; and, with 'ssim',
    `per_frame_upstream_ssim`: the SSIM of each frame of the first example.

  Raises:
    ValueError: shapes that differ, channels that do not divide into the groups, an unknown metric.
  """
  if np.shape(pred) != np.shape(true) or np.ndim(pred) != 5:
    raise ValueError(
        f'upstream: pred {np.shape(pred)}, true {np.shape(true)}; both must be [N,T,C,H,W]')
  if unknown := set(metrics) - set(UPSTREAM):
    raise ValueError(f'upstream: unknown metrics {sorted(unknown)}; it has {UPSTREAM}')
  pred, true = (
      np.asarray(x, np.float32) * np.float32(std) + np.float32(mean) for x in (pred, true))
  if layout == 'NTCHW':
    pred, true = np.moveaxis(pred, 2, -1), np.moveaxis(true, 2, -1)
  channels = pred.shape[-1]
  squared, absolute = _errors(pred, true, spatial_norm)
  result = {}
  groups = channel_names if channel_names and spatial_norm else ()
  if groups and channels % len(groups):
    raise ValueError(f'upstream: {channels} channels in {len(groups)} groups {tuple(groups)}')
  for i, name in enumerate(groups):
    size = channels // len(groups)
    part = _errors(*(x[..., i * size:(i + 1) * size] for x in (pred, true)), True)
    result |= {f'mse_{name}': part[0].mean(), f'mae_{name}': part[1].mean(),
               f'rmse_{name}': np.sqrt(part[0].mean())}
  for key, value in (
      ('mse', squared.mean()), ('mae', absolute.mean()), ('rmse', np.sqrt(squared.mean()))):
    # The mean of the groups' roots is not the root of their mean: upstream's rmse is the former.
    result[key] = np.mean([result[f'{key}_{name}'] for name in groups]) if groups else value
  result = {k: v for k, v in result.items() if k.split('_')[0] in metrics}

  clipped = np.clip(pred, *clip_range)
  if 'ssim' in metrics:
    frames = np.asarray(ssim(clipped, true, data_range=UPSTREAM_SSIM_RANGE), np.float64)
    result |= {'ssim': frames.mean(), 'per_frame_upstream_ssim': frames[0].tolist()}
  if 'psnr' in metrics:
    result['psnr'] = np.asarray(psnr(clipped, true), np.float64).mean()
  if 'snr' in metrics:
    result['snr'] = np.asarray(snr(clipped, true), np.float64).mean()

  squared, absolute = _errors(pred, true, False)
  pixels = np.prod(pred.shape[-3:])
  by_frame = squared.mean(0) / pixels
  result |= {
      'mae_tecu': tecu * absolute.mean() / pixels,
      'rmse_tecu': tecu * np.sqrt(by_frame.mean()),
      'mae_tecu_per_frame': (tecu * absolute.mean(0) / pixels).tolist(),
      'rmse_tecu_per_frame': (tecu * np.sqrt(by_frame)).tolist(),
      'mse_per_frame_sum': squared.mean(0).tolist(),
  }
  return {k: v if isinstance(v, list) else float(v) for k, v in result.items()}


def _errors(
    pred: np.ndarray, true: np.ndarray, spatial_norm: bool,
) -> tuple[np.ndarray, np.ndarray]:
  """float64 `[N, T]`: squared and absolute errors summed over a frame, or divided by its size."""
  size = np.prod(pred.shape[-3:]) if spatial_norm else 1
  return tuple(
      np.asarray(f(pred, true), np.float64) / size
      for f in (squared_error_sum, absolute_error_sum))
