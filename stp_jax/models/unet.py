"""U-Net over time (Ronneberger et al. 2015, arXiv:1505.04597), as GS2PM compares with it.

The input's frames are the channels of one image, whose output channels are the next frames. Image
channels are separate examples. Submodules carry upstream's names (github.com/miaomiaoToday/GS2PM).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import BatchNorm
from stp_jax.models.layers.pooling import halve
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array


class TwoConvs(nn.Module):
  """Twice convolution, batch norm, ReLU; the first convolution may double the size.

  Submodules are numbered as items of one list: 0 and 3 convolve, 1 and 4 normalise.
  """
  features: int
  up: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[N, h, w, in]` -> `[N, h, w, features]`, or `[N, 2 h, 2 w, features]`."""
    if self.up:
      x = ConvTranspose2D(self.features, 2, 2, 0, 0, dtype=self.dtype, name='conv_0')(x)
    else:
      x = Conv2D(self.features, use_bias=False, dtype=self.dtype, name='conv_0')(x)
    x = nn.relu(BatchNorm(name='norm_1')(x, train))
    x = Conv2D(self.features, use_bias=False, dtype=self.dtype, name='conv_3')(x)
    return nn.relu(BatchNorm(name='norm_4')(x, train))


class UNet(nn.Module):
  """A forecaster in passes with its own time loop (kind 'window' of `models.forecaster`).

  A pass reads as many frames as the input has; the next one reads the newest frames, its own
  included. Nothing of a frame after the input is read. The network ends with a batch norm and a
  ReLU, as upstream: a forecast is never negative, so frames should not be either.

  Attributes:
    channels: C of a frame; they share all weights.
    features: channels at full resolution and after each halving.
    outputs: frames that a pass emits; 0: as many as it reads. It fixes the width of the last
      stage, as the length of the input does that of the first; a shorter forecast is cropped.
    dtype: compute type of the convolutions.
  """
  channels: int = 1
  features: Sequence[int] = (16, 32, 64, 128)
  outputs: int = 0
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'window'

  @property
  def multiple(self) -> int:
    """Frame sides must divide by this."""
    return 2 ** (len(self.features) - 1)

  def __call__(
      self, frames: Array, use_true: Array, *, t_in: int, train: bool = False, truth: bool = False,
      remat: bool = False, unroll: int = 1,
  ) -> tuple[Array, Array | None, dict[str, Array]]:
    """Forecasts.

    Args:
      frames: `[B, T, H, W, C]`; only the first `t_in` are read.
      train: by the batch's statistics, which are updated once a pass.

    Returns:
      prediction `[B, T - t_in, H, W, C]`, at least float32; None; no terms.

    Raises:
      ValueError: sides that do not divide by `multiple`.
    """
    del use_true, truth
    h, w = frames.shape[2:4]
    if h % self.multiple or w % self.multiple:
      raise ValueError(
          f'UNet: frames of {h} x {w} do not divide by {self.multiple} (features='
          f'{tuple(self.features)}); pad them')
    ahead, emitted = frames.shape[1] - t_in, self.outputs or t_in
    passes, read = -(-ahead // emitted), wide(frames[:, :t_in])

    def body(module: Any, read: Array, _: Any) -> tuple[Array, Array]:
      new = wide(module.one_pass(read, train))
      return jnp.concatenate([read, new], 1)[:, -t_in:], new

    if passes <= 1 or self.is_initializing():
      if remat and not self.is_initializing():
        body = nn.remat(body, prevent_cse=False)
      new = jnp.concatenate([body(self, read, None)[1]] * max(passes, 1), 1)
    else:
      scan = scan_time(
          body, self, length=passes, in_axes=(nn.broadcast,), out_axes=1, remat=remat,
          unroll=unroll)
      new = scan(self, read, None)[1]
      new = new.reshape(new.shape[0], passes * emitted, *new.shape[3:])
    return new[:, :ahead], None, {}

  @nn.compact
  def one_pass(self, frames: Array, train: bool) -> Array:
    """`[B, t, H, W, C]` -> the next frames `[B, outputs or t, H, W, C]`."""
    b, t, h, w, c = frames.shape
    stage = lambda features, name, up=False: TwoConvs(features, up, self.dtype, name=name)
    x = jnp.transpose(frames, (0, 4, 2, 3, 1)).reshape(b * c, h, w, t)
    x = stage(self.features[0], 'embed')(x, train)
    skips = []
    for i, features in enumerate(self.features[1:]):
      skips.append(x)
      x = stage(features, f'enc_{i}')(halve(x, (1, 2)), train)
    for i, (features, skip) in enumerate(zip(self.features[-2::-1], skips[::-1])):
      x = stage(features, f'us_{i}', up=True)(x, train) + skip
      x = stage(features, f'dec_{i}')(x, train)
    x = stage(self.outputs or t, 'out')(x, train)
    return jnp.transpose(x.reshape(b, c, h, w, -1), (0, 4, 2, 3, 1))
