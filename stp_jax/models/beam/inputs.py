"""What reaches the trunks: normalised images, and modalities that are taken as lost."""

from collections.abc import Sequence

import jax.numpy as jnp

from stp_jax.models.beam.maps import SENSORS
from stp_jax.typing import Array

MODALITIES = (*SENSORS, 'gps')
Missing = Sequence[str] | Array
# ImageNet's, of red, green, blue in 0..1.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize_image(image: Array, dtype: jnp.dtype | None = None) -> Array:
  """Pixels 0..255, integers or floats, by ImageNet's mean and deviation, in at least float32."""
  kind = jnp.promote_types(image.dtype, jnp.float32)
  scale, mean = (jnp.asarray(v, kind) for v in (_STD, _MEAN))
  y = (jnp.asarray(image, kind) / 255 - mean) / scale
  return y if dtype is None else y.astype(dtype)


def is_missing(name: str, missing: Missing) -> Array | bool:
  """Whether a modality is lost: known when traced, or `[]` or `[B]`."""
  if isinstance(missing, (tuple, list)):
    unknown = [m for m in missing if m not in MODALITIES]
    if unknown:
      raise ValueError(f'missing={"+".join(missing)}: choose some of {" ".join(MODALITIES)}')
    return name in missing
  return jnp.asarray(missing)[..., MODALITIES.index(name)]


def per_example(flag: Array | bool, x: Array) -> Array:
  """`[]` or `[B]` in the rank of `x`."""
  flag = jnp.asarray(flag)
  return flag.reshape(*flag.shape, *(1,) * (x.ndim - 1)) if flag.ndim else flag
