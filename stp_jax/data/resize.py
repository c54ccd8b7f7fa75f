"""Frames to another size on the host, as stored integers: Pillow's bilinear filter.

The filter widens when it shrinks, so that every pixel counts (antialiased); that is what the
published image loaders do, to the bit for 8-bit frames. Needs Pillow (extra `data`).
"""

import numpy as np

from stp_jax.data.clip_store import StoreError


def pillow():
  """The module PIL.Image; a missing Pillow is one line with the cure."""
  try:
    import PIL.Image
  except ImportError as error:
    raise StoreError('reading and resizing images needs Pillow: pip install "stp_jax[data]"'
                     ) from error
  return PIL.Image


def size_of(text: str | int | tuple | None, option: str = 'size') -> tuple[int, int] | None:
  """'64', '64x96' (HEIGHTxWIDTH) or a pair as (H, W); None, '' and 0 as None.

  Raises:
    ValueError: names the option.
  """
  if not text:
    return None
  height, _, width = ('x'.join(map(str, text)) if isinstance(text, tuple | list) else str(text)
                      ).lower().partition('x')
  try:
    sides = int(height), int(width or height)
  except ValueError:
    sides = (0, 0)
  if min(sides) < 1:
    raise ValueError(f'{option}={text}: a side or HEIGHTxWIDTH, in pixels')
  return sides


def _channel(plane: np.ndarray, size: tuple[int, int], missing: float | None) -> np.ndarray:
  image = pillow()
  resized = lambda a: np.asarray(
      image.fromarray(a).resize(size[::-1], image.Resampling.BILINEAR))
  if plane.dtype == np.uint8 and missing is None:
    return resized(plane)
  value = plane.astype(np.float32)
  whole = plane.dtype.kind in 'iu'
  if missing is None and not whole:
    missing = np.nan
  if missing is None:
    mean = resized(value)
  else:
    # A mean over the valid pixels under the filter; missing where they are the smaller half.
    valid = plane != missing if whole else np.isfinite(plane)
    if valid.all():
      mean = resized(value)
      return np.rint(mean).astype(plane.dtype) if whole else mean
    weight = resized(valid.astype(np.float32))
    mean = resized(np.where(valid, value, 0)) / np.maximum(weight, 1e-6)
    mean = np.where(weight < 0.5, missing, mean)
  return np.rint(mean).astype(plane.dtype) if whole else mean


def frames(raw: np.ndarray, size: tuple[int, int], missing: float | None = None) -> np.ndarray:
  """Resizes stored frames.

  Args:
    raw: `[T, H, W, C]` integers, or float32 with NaN for missing. size: (H', W').
    missing: the code of a missing value.

  Returns:
    `[T, H', W', C]` of the same type; `raw` itself where it has that size.
  """
  if raw.shape[1:3] == tuple(size):
    return raw
  result = np.empty((len(raw), *size, raw.shape[3]), raw.dtype)
  for t, c in np.ndindex(len(raw), raw.shape[3]):
    result[t, ..., c] = _channel(np.ascontiguousarray(raw[t, ..., c]), size, missing)
  return result


def block_mean(raw: np.ndarray, block: int, missing: float | None = None) -> np.ndarray:
  """Means of block x block pixels, float64; NaN where fewer than half of them are valid.

  Args:
    raw: `[H, W]`; rows and columns beyond the last whole block are cut off.
  """
  height, width = (n // block * block for n in raw.shape)
  tiles = raw[:height, :width].reshape(height // block, block, width // block, block)
  valid = np.ones(tiles.shape, bool) if missing is None else tiles != missing
  count = valid.sum((1, 3))
  total = np.where(valid, tiles, 0).sum((1, 3), dtype=np.float64)
  return np.where(2 * count >= block * block, total / np.maximum(count, 1), np.nan)
