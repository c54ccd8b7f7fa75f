"""What GS2PM does to frames before it encodes them: a learned border, and missing patches."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.typing import Array


class BorderPrompt(nn.Module):
  """A learned picture frame that is added to every frame of every example (a visual prompt).

  Parameters `pad_up`, `pad_down` `[1, p, W, C]` and `pad_left`, `pad_right` `[1, H - 2 p, p, C]`,
  drawn from N(0, 1); they fix H, W and C.

  Attributes:
    size: p, pixels; None = a quarter of the shorter side (32 of 128), 0 = no prompt.
  """
  size: int | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[..., H, W, C]` -> the same. ValueError: borders that meet."""
    height, width, channels = x.shape[-3:]
    p = min(height, width) // 4 if self.size is None else self.size
    if p < 0 or 2 * p > min(height, width):
      raise ValueError(f'GS2PM: prompt_size {p} does not fit into frames of {height} x {width}')
    if p == 0:
      return x
    normal = nn.initializers.normal(1.0)
    up, down = (
        self.param(name, normal, (1, p, width, channels)) for name in ('pad_up', 'pad_down'))
    left, right = (
        self.param(name, normal, (1, height - 2 * p, p, channels))
        for name in ('pad_left', 'pad_right'))
    inside = jnp.zeros((1, height - 2 * p, width - 2 * p, channels), up.dtype)
    rows = jnp.concatenate([left, inside, right], 2)
    return x + jnp.concatenate([up, rows, down], 1)


def patch_mask(
    key: jax.Array, height: int, width: int, *, patch: int, ratio: float,
    samples: int | None = None,
) -> Array:
  """Which pixels stay: random whole patches, float32 ones and zeros.

  Args:
    patch: side in pixels; patches at the far edges are cut where it does not divide H and W.
    ratio: the share of patches that is KEPT, rounded up; upstream's `mask_ratio` means this too.
    samples: None = one mask `[H, W]`; a number: so many independent ones `[samples, H, W]`.

  Raises:
    ValueError: a ratio outside 0..1, a patch below 1.
  """
  if not 0 <= ratio <= 1 or patch < 1:
    raise ValueError(f'GS2PM: mask_ratio {ratio} (0 to 1), mask_patch {patch} (at least 1)')
  rows, columns = -(-height // patch), -(-width // patch)
  kept = math.ceil(ratio * rows * columns)

  def draw(key):
    tokens = jax.random.permutation(key, rows * columns) < kept
    pixels = jnp.repeat(jnp.repeat(tokens.reshape(rows, columns), patch, 0), patch, 1)
    return pixels[:height, :width].astype(jnp.float32)

  return draw(key) if samples is None else jax.vmap(draw)(jax.random.split(key, samples))
