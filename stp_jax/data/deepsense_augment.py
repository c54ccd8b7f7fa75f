"""DeepSense6G_TII's augmentations: seven of the camera, two of the lidar, one of the radar.

Pure functions of arrays and explicit amounts; `camera`, `points` and `radar_map` draw the amounts
from (seed, index) alone. Each of T frames of a sample should get the same kind, as upstream's
prepared copies do.
"""

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.typing import Array

CAMERA = ('brightness', 'contrast', 'gamma', 'hue', 'saturation', 'sharpness', 'blur')
# Limits of the factor, of the turn of the hue (1 = all around), of the blur's sigma in pixels.
LIMITS = dict(brightness=(0.5, 3.0), contrast=(0.5, 4.0), gamma=(0.5, 3.0), hue=(-0.5, 0.5),
              saturation=(0.0, 4.0), sharpness=(0.0, 10.0), blur=(3.0, 5.0))
BLUR = (9, 7)  # kernel's width and height
_GREY = (0.2989, 0.587, 0.114)
POINTS = ('thin', 'jitter')


def _grey(image: Array) -> Array:
  return (image * jnp.asarray(_GREY, image.dtype)).sum(-1, keepdims=True)


def _blend(image: Array, other: Array, factor: Array) -> Array:
  return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def _smooth(image: Array, columns: Array, rows: Array) -> Array:
  """Separable correlation with edges mirrored, `[..., H, W, C]`."""
  for axis, kernel in ((-2, columns), (-3, rows)):
    reach, size = len(kernel) // 2, image.shape[axis]
    widths = [(0, 0)] * image.ndim
    widths[axis] = (reach, reach)
    padded = jnp.pad(image, widths, mode='reflect')
    image = sum(k * jax.lax.slice_in_dim(padded, i, i + size, axis=axis % image.ndim)
                for i, k in enumerate(kernel))
  return image


def _gauss(size: int, sigma: Array) -> Array:
  bell = jnp.exp(-0.5 * ((jnp.arange(size) - size // 2) / sigma) ** 2)
  return bell / bell.sum()


def _turn_hue(image: Array, turn: Array) -> Array:
  """Hue moved around the circle of HSV, value and saturation as they were."""
  top, low = image.max(-1), image.min(-1)
  chroma = top - low
  safe = jnp.where(chroma > 0, chroma, 1)
  r, g, b = jnp.moveaxis(image, -1, 0)
  hue = jnp.where(top == r, (g - b) / safe % 6,
                  jnp.where(top == g, (b - r) / safe + 2, (r - g) / safe + 4))
  hue = (hue / 6 + turn) % 1
  k = (jnp.asarray([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6
  return top[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def adjust(image: Array, kind: str, amount: Array) -> Array:
  """One camera augmentation.

  Args:
    image: 0..255, integers or floats, `[..., H, W, 3]`. kind: of CAMERA. amount: see LIMITS.

  Returns:
    float32, 0..255.

  Raises:
    ValueError: another kind.
  """
  x = jnp.asarray(image, jnp.float32) / 255
  if kind == 'brightness':
    x = jnp.clip(x * amount, 0, 1)
  elif kind == 'contrast':
    x = _blend(x, _grey(x).mean((-3, -2, -1), keepdims=True), amount)
  elif kind == 'gamma':
    x = x ** amount
  elif kind == 'hue':
    x = _turn_hue(x, amount)
  elif kind == 'saturation':
    x = _blend(x, _grey(x), amount)
  elif kind == 'sharpness':
    ones = jnp.ones(3)
    soft = (_smooth(x, ones, ones) + 4 * x) / 13
    inner = jnp.zeros(x.shape[-3:-1], bool).at[1:-1, 1:-1].set(True)[..., None]
    x = _blend(x, jnp.where(inner, soft, x), amount)
  elif kind == 'blur':
    x = _smooth(x, _gauss(BLUR[0], amount), _gauss(BLUR[1], amount))
  else:
    raise ValueError(f'camera augmentation {kind!r}: choose one of {" ".join(CAMERA)}')
  return 255 * x


def camera(image: Array, kind: str, seed: int, index: int) -> Array:
  """`adjust` by an amount that (seed, index) and the kind alone decide."""
  if kind not in CAMERA:
    return adjust(image, kind, 1.0)
  rng = np.random.default_rng((seed, index, CAMERA.index(kind)))
  return adjust(image, kind, rng.uniform(*LIMITS[kind]))


def points(cloud: np.ndarray, kind: str, seed: int, index: int) -> np.ndarray:
  """A lidar cloud `[N, 3]` with 90 % of its points, or each coordinate moved by up to 0.4 m.

  Raises:
    ValueError: another kind than 'thin' or 'jitter'.
  """
  if kind not in POINTS:
    raise ValueError(f'lidar augmentation {kind!r}: choose one of {" ".join(POINTS)}')
  rng = np.random.default_rng((seed, index, 100 + POINTS.index(kind)))
  if kind == 'thin':
    kept = rng.permutation(len(cloud))[:round(0.9 * len(cloud))]
    return cloud[np.sort(kept)]
  return cloud + rng.uniform(-0.4, 0.4, cloud.shape)


def radar_map(values: np.ndarray, seed: int, index: int) -> np.ndarray:
  """A radar map with every cell raised by 2.5 to 10 % of itself, again from 0 to 1."""
  rng = np.random.default_rng((seed, index, 200))
  values = values * (1 + rng.uniform(0.025, 0.1, values.shape))
  low, high = values.min(), values.max()
  return (values - low) / (high - low) if high > low else np.zeros_like(values)
