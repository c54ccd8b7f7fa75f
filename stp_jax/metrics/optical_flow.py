"""The baseline of nowcasting: the last map, carried along the motion of the last ones.

Motion by Lucas and Kanade's optical flow, semi-Lagrangian extrapolation, both of pysteps (Pulkkinen
et al. 2019, doi:10.5194/gmd-12-4185-2019), which is installed by its own name: pip install pysteps.
"""

import warnings
from collections.abc import Callable

import numpy as np

CURE = 'pip install pysteps opencv-python-headless'
_FRAMES = 3  # of the input, that the motion is taken from
_DRY = 0.1  # mm/h: less is no rain to track


def missing() -> str:
  """Why there is no such forecast, in one line; '' where pysteps is installed."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      from pysteps import extrapolation, motion
      extrapolation.get_method('semilagrangian')
      motion.get_method('LK')
      import cv2  # noqa: F401  what LK needs
  except ImportError as error:
    return f'optical flow: not scored, because {error.name or error} is missing; {CURE}'
  return ''


def tracked(frames: np.ndarray, rate: bool) -> np.ndarray:
  """What motion is seen in: rain rates in decibels, as they span orders of magnitude; else as is.

  A missing value takes the lowest value there.
  """
  if rate:
    frames = 10 * np.log10(np.maximum(np.nan_to_num(frames), _DRY))
  low = np.nanmin(frames) if np.isfinite(frames).any() else 0.0
  return np.nan_to_num(frames, nan=low)


def forecast(frames: np.ndarray, t_out: int, rate: bool) -> np.ndarray:
  """One window's forecast.

  Args:
    frames: `[t_in, H, W]`, NaN = missing. t_out: frames to forecast.
    rate: whether values are rain rates or amounts, see `tracked`.

  Returns:
    float32 `[t_out, H, W]`. What comes in over the edge, or from where nothing was known, has the
    lowest value of the last map: no rain. Without motion, or of one frame, the last map.
  """
  from pysteps import extrapolation, motion
  last = np.asarray(frames[-1], np.float64)
  low = float(np.nanmin(last)) if np.isfinite(last).any() else 0.0
  still = np.nan_to_num(last, nan=low)
  if len(frames) < 2 or np.ptp(still) == 0:
    return np.broadcast_to(still, (t_out, *still.shape)).astype(np.float32)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of empty corners, and of numpy's future
    velocity = motion.get_method('LK')(tracked(frames[-_FRAMES:], rate), verbose=False)
    moved = extrapolation.get_method('semilagrangian')(still, velocity, t_out)
  return np.nan_to_num(moved, nan=low).astype(np.float32)


def batch(frames: np.ndarray, t_out: int, rate: bool,
          one: Callable[[np.ndarray, int, bool], np.ndarray] = forecast) -> np.ndarray:
  """`[B, t_in, H, W, C]` -> `[B, t_out, H, W, C]` float32, every channel by itself."""
  return np.stack([np.stack([one(window[..., c], t_out, rate)
                             for c in range(window.shape[-1])], -1) for window in frames])
