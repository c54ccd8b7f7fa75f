"""Feature maps and tokens: pooling to anchors, back to a map, and the order of the tokens."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

# The order of their tokens; the GPS fixes come last.
SENSORS = ('image', 'lidar', 'radar')


def _bins(size: int, count: int) -> np.ndarray:
  """`[count, size]`: bin i averages pixels floor(i size / count) to ceil((i + 1) size / count)."""
  i = np.arange(count)[:, None]
  pixel = np.arange(size)
  inside = (pixel >= i * size // count) & (pixel < -(-(i + 1) * size // count))
  return inside / inside.sum(1, keepdims=True)


def adaptive_average(x: Array, anchors: tuple[int, int]) -> Array:
  """Averages to a fixed size as torch's adaptive pooling does: bins may overlap by a pixel.

  Args:
    x: `[B, H, W, C]`, any H and W (a map smaller than the anchors is spread over them).

  Returns:
    `[B, *anchors, C]`, sums in at least float32.
  """
  (b, h, w, c), (rows, columns) = x.shape, anchors
  if (h, w) == anchors:
    return x
  y = wide(x)
  if h % rows == 0 and w % columns == 0:
    y = jnp.mean(y.reshape(b, rows, h // rows, columns, w // columns, c), (2, 4))
  else:
    weights = [jnp.asarray(_bins(*pair), y.dtype) for pair in ((h, rows), (w, columns))]
    y = jnp.einsum('ih,jw,bhwc->bijc', *weights, y, precision='highest')
  return y.astype(x.dtype)


def upsample(x: Array, size: tuple[int, int]) -> Array:
  """Bilinear, half-pixel centres (torch's align_corners=False): `[B, h, w, C]`, h, w to `size`."""
  if x.shape[1:3] == tuple(size):
    return x
  return jax.image.resize(
      x, (x.shape[0], *size, x.shape[-1]), 'bilinear', antialias=False)


def to_tokens(maps: Mapping[str, Array], gps: Array) -> Array:
  """Sensor by sensor, then time, row, column, then the fixes.

  Args:
    maps: `[B, T, v, h, C]` of each sensor. gps: `[B, 2, C]`.

  Returns:
    `[B, 3 T v h + 2, C]`.
  """
  b, c = gps.shape[0], gps.shape[-1]
  return jnp.concatenate([*(maps[s].reshape(b, -1, c) for s in SENSORS), gps], 1)


def from_tokens(tokens: Array, shape: tuple[int, ...]) -> tuple[dict[str, Array], Array]:
  """The inverse of `to_tokens`; `shape` is that of one sensor's maps."""
  count = int(np.prod(shape[1:-1]))
  parts = {s: tokens[:, i * count:(i + 1) * count].reshape(shape) for i, s in enumerate(SENSORS)}
  return parts, tokens[:, len(SENSORS) * count:]


def swap_channels(maps: Mapping[str, Array]) -> dict[str, Array]:
  """Mixes the sensors before they become tokens: each keeps one third of its channels in place.

  Image and radar exchange their last third through lidar's middle one; nothing undoes it later.
  """
  image, lidar, radar = (maps[s] for s in SENSORS)
  third = image.shape[-1] // 3
  mix = lambda a, b, c: jnp.concatenate(
      [a[..., :third], b[..., third:2 * third], c[..., 2 * third:]], -1)
  return dict(image=mix(image, lidar, radar), lidar=mix(lidar, radar, image),
              radar=mix(radar, image, lidar))
