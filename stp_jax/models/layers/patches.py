"""Pixels to channels and back."""

import einops

from stp_jax.typing import Array


def patchify(frames: Array, patch: int) -> Array:
  """`[..., H, W, C]` -> `[..., h, w, P P C]`; pixel (a, b) of a patch: channels (a P + b) C + c.

  Raises:
    ValueError: H or W does not divide by the patch.
  """
  h, w = frames.shape[-3:-1]
  if h % patch or w % patch:
    raise ValueError(f'frames of {h} x {w} do not divide into patches of {patch} x {patch}')
  return einops.rearrange(frames, '... (h a) (w b) c -> ... h w (a b c)', a=patch, b=patch)


def unpatchify(patched: Array, patch: int) -> Array:
  """The inverse of `patchify`: `[..., h, w, P * P * C]` -> `[..., H, W, C]`."""
  return einops.rearrange(patched, '... h w (a b c) -> ... (h a) (w b) c', a=patch, b=patch)


def pixel_shuffle(x: Array, factor: int = 2) -> Array:
  """torch's PixelShuffle: `[..., h, w, C f f]` -> `[..., h f, w f, C]`.

  Output channel o at offset (r, s) comes from input channel (o f + r) f + s.
  """
  return einops.rearrange(x, '... h w (c r s) -> ... (h r) (w s) c', r=factor, s=factor)
