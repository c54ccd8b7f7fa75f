"""How frames and forcings become the input of a network.

`mix` is the Channel Mixer Layer (Channel_Mixer_Layer, aff515b): a parameter-free permutation that
lays the C0 channels of a pixel out as an s x s tile, s = sqrt(C0), so that a convolution sees
values of different channels side by side. The image goes in once more, unmixed, in front. Nothing
is un-mixed at the output: the networks emit image channels only.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.patches import patchify, unpatchify
from stp_jax.typing import Array

KINDS = ('none', 'concatenate', 'mix')


def mix(patched: Array, channels_per_pixel: int) -> Array:
  """Permutes each frame; values, time and examples are untouched.

  A frame is read in (row, column, channel) order, cut into blocks of q s s values with
  s = int(sqrt(C0)) and q = w // s, every block `[q, s, s]` becomes `[s, q, s]`, and the result is
  read as channel-first `[D, h, w]`. Where w does not divide by s the floor division makes the tiles
  wrap around rows: the published models with 16 channels on 18 x 18 patches were trained so.

  Args:
    patched: `[..., h, w, D]`, D = P P C0; numpy or JAX.

  Returns:
    `[..., h, w, D]`.

  Raises:
    ValueError: the frame does not divide into blocks.
  """
  *batch, h, w, d = patched.shape
  s = math.isqrt(channels_per_pixel)
  q = w // s
  if q == 0 or h * w * d % (q * s * s):
    raise ValueError(
        f'mix: {h} x {w} x {d} values do not divide into blocks of {q} x {s} x {s}; '
        f'pad the frames to a multiple of {s} patches')
  blocks = patched.reshape(*batch, -1, q, s, s).swapaxes(-3, -2)
  # [D, h, w] -> channels last.
  return (jnp if isinstance(patched, jnp.ndarray) else np).moveaxis(
      blocks.reshape(*batch, d, h, w), -3, -1)


def unmix(mixed: Array, channels_per_pixel: int) -> Array:
  """The inverse of `mix`. Upstream never needs it; people who look at mixed planes do."""
  batch, s = mixed.shape[:-3], math.isqrt(channels_per_pixel)
  q = mixed.shape[-2] // s
  xp = jnp if isinstance(mixed, jnp.ndarray) else np
  blocks = xp.moveaxis(mixed, -1, -3).reshape(*batch, -1, s, q, s).swapaxes(-3, -2)
  return blocks.reshape(mixed.shape)


def permutation(width: int, channels_per_pixel: int, patch: int = 1) -> np.ndarray:
  """The mixer as an index of flat frames, int32 `[w w D]`: `mixed.flat = patched.flat[index]`.

  `mixed` is channel-first `[D, w, w]`, `patched` channels last `[w, w, D]`, D = P P C0; `width` is
  w, in patches. Its inverse is `numpy.argsort` of it (`inverse_permutation`).
  """
  depth = patch * patch * channels_per_pixel
  index = np.arange(width * width * depth, dtype=np.int32).reshape(width, width, depth)
  return np.moveaxis(mix(index, channels_per_pixel), -1, 0).reshape(-1)


def inverse_permutation(width: int, channels_per_pixel: int, patch: int = 1) -> np.ndarray:
  """int32 `[w w D]`: `patched.flat = mixed.flat[index]`."""
  forward = permutation(width, channels_per_pixel, patch)
  inverse = np.empty_like(forward)
  inverse[forward] = np.arange(forward.size, dtype=np.int32)
  return inverse


@dataclasses.dataclass(frozen=True)
class Fusion:
  """Fuses patched frames with patched forcings of the same times.

  Attributes:
    kind: none (forcings are not used) | concatenate | mix.
    channels: C, image channels of a pixel.
    forcings: A, forcing planes of a pixel; 0 where there are none.
    mode: 'strict' wants C + A to be a perfect square; 'upstream' runs any count with
      s = int(sqrt(C + A)), as upstream's 5-channel configuration does (tiles then straddle pixels).
  """
  kind: str = 'none'
  channels: int = 1
  forcings: int = 0
  patch: int = 1
  mode: str = 'strict'

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'fusion {self.kind!r}: one of {" ".join(KINDS)}')
    if self.mode not in ('strict', 'upstream'):
      raise ValueError(f'mix {self.mode!r}: strict or upstream')
    total = self.per_pixel
    if self.kind == 'mix' and self.mode == 'strict' and math.isqrt(total) ** 2 != total:
      raise ValueError(
          f'fusion mix: {self.channels} image + {self.forcings} forcing channels = {total}, not a '
          "perfect square (1, 4, 9, 16 ...); change the forcings, or mix='upstream'")

  @property
  def per_pixel(self) -> int:
    """Channels of a pixel before fusion, C0."""
    return self.channels + (0 if self.kind == 'none' else self.forcings)

  @property
  def features(self) -> int:
    """Channels of the network's input."""
    mixed = self.channels if self.kind == 'mix' else 0
    return self.patch ** 2 * (self.per_pixel + mixed)

  def padded(self, height: int, width: int, multiple: int = 1) -> tuple[int, int]:
    """The least frame size >= (H, W) that this fusion takes, in multiples of patch x multiple."""
    unit = self.patch * multiple
    h, w = (-(-n // unit) * unit for n in (height, width))
    if self.kind != 'mix':
      return h, w
    side, s = max(h, w), math.isqrt(self.per_pixel)

    def divides(side):
      n = side // self.patch
      return n >= s and n * n * self.patch ** 2 * self.per_pixel % (n // s * s * s) == 0

    while not divides(side):
      side += unit
    return side, side

  def __call__(self, image: Array, forcings: Array | None) -> Array:
    """Patched image `[..., h, w, P P C]`, forcings `[..., h, w, P P A]` -> `[..., h, w, features]`.

    Channels of a pixel stay together: (a P + b) C0 + c with the image first, as upstream orders
    them. Mixed input is the image's channels, then the mixed ones.

    Raises:
      ValueError: frames that are not square, or do not divide, under 'mix'.
    """
    if self.kind == 'none':
      return image
    joined = image
    if self.forcings:
      if forcings is None:
        raise ValueError(f'fusion {self.kind} expects {self.forcings} forcing planes, got none')
      cells = [x.reshape(*x.shape[:-1], self.patch ** 2, -1) for x in (image, forcings)]
      joined = jnp.concatenate([c.astype(image.dtype) for c in cells], -1)
      joined = joined.reshape(*image.shape[:-1], -1)
    if self.kind == 'concatenate':
      return joined
    h, w = image.shape[-3:-1]
    if h != w:
      raise ValueError(f'fusion mix needs square frames, got {h} x {w} patches; pad them')
    return jnp.concatenate([image, mix(joined, self.per_pixel)], -1)


__all__ = [
    'KINDS', 'Fusion', 'inverse_permutation', 'mix', 'patchify', 'permutation', 'unmix',
    'unpatchify']
