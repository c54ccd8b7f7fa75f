"""SimVP as first published (Gao et al. 2022, arXiv:2206.05099), the cut that GS2PM compares with.

`simvp.SimVP` is the later form. Here the activation is a leaky ReLU, the decoder doubles sizes with
transposed convolutions, the full-resolution features of the input are put beside the decoder's
before the last stage and not added to them, and the translator is the inception U of
`translators.incepu`. No parity case was measured for it: a restatement in PyTorch stands in the
test, names and sizes are upstream's (github.com/miaomiaoToday/GS2PM).
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import GroupNorm
from stp_jax.models.layers.transposed import ConvTranspose2D
from stp_jax.models.simvp.translators.incepu import IncepU
from stp_jax.typing import Array


class BasicConv(nn.Module):
  """A convolution (of stride 2: `down`; transposed: `up`), GroupNorm(2), leaky ReLU of 0.2."""
  features: int
  down: bool = False
  up: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.up:
      conv = ConvTranspose2D(self.features, dtype=self.dtype, name='conv')
    else:
      conv = Conv2D(self.features, stride=2 if self.down else 1, dtype=self.dtype, name='conv')
    return nn.leaky_relu(GroupNorm(2, name='norm')(conv(x)), 0.2)


class ConvSC(nn.Module):
  """One stage: keeps the size, halves it (`down`) or doubles it (`up`)."""
  features: int
  down: bool = False
  up: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return BasicConv(self.features, self.down, self.up, self.dtype, name='conv')(x)


class Encoder(nn.Module):
  """N_S stages, every second one halves the frame."""
  features: int
  stages: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """`[N, H, W, in]` -> latent `[N, h, w, features]`, skip `[N, H, W, features]`."""
    skip = None
    for i in range(self.stages):
      x = ConvSC(self.features, down=i % 2 == 1, dtype=self.dtype, name=f'enc_{i}')(x)
      skip = x if i == 0 else skip
    return x, skip


class Decoder(nn.Module):
  """The encoder's mirror image; the skip stands beside the features before the last stage."""
  channels: int
  features: int
  stages: int
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, skip: Array) -> Array:
    """Latent `[N, h, w, features]`, skip `[N, H, W, features]` -> `[N, H, W, channels]`."""
    for i in range(self.stages):
      if i == self.stages - 1:
        x = jnp.concatenate([x, skip], -1)
      x = ConvSC(self.features, up=i % 2 == 0, dtype=self.dtype, name=f'dec_{i}')(x)
    return Conv2D(
        self.channels, 1, initializer='zeros' if self.zero_readout else 'torch', dtype=self.dtype,
        name='readout')(x)


class SimVPV1(nn.Module):
  """A chunk network (`models.rollout`): `[B, T, H, W, in]` -> T frames `[B, T, H, W, channels]`.

  Attributes:
    channels: channels of a prediction.
    hid_S, hid_T: channels of the encoder, of the translator.
    N_S, N_T: stages of encoder and decoder (even), blocks on each side of the translator.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type; norms stay at least float32.
  """
  channels: int = 1
  hid_S: int = 64
  hid_T: int = 256
  N_S: int = 4
  N_T: int = 8
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'chunks'

  @property
  def multiple(self) -> int:
    """Frame sides must divide by this."""
    return 2 ** (self.N_S // 2)

  @nn.compact
  def __call__(self, x: Array, train: bool = False) -> tuple[Array, dict[str, Array]]:
    """Returns T frames and no terms.

    Raises:
      ValueError: an odd N_S, sizes that the stages cannot halve, channels not in groups.
    """
    if self.N_S % 2 or self.N_S < 2:
      raise ValueError(f'SimVPV1: N_S must be even and at least 2, got {self.N_S}')
    b, t, h, w, _ = x.shape
    if h % self.multiple or w % self.multiple:
      raise ValueError(
          f'SimVPV1: frames of {h} x {w} do not divide by {self.multiple} (N_S={self.N_S}); pad '
          'them')
    latent, skip = Encoder(self.hid_S, self.N_S, self.dtype, name='enc')(
        x.reshape(b * t, h, w, -1))
    h, w = latent.shape[1:3]
    # Time joins the channels, frame by frame: channel = time * hid_S + feature.
    z = latent.reshape(b, t, h, w, -1).transpose(0, 2, 3, 1, 4).reshape(b, h, w, -1)
    z = IncepU(self.hid_T, self.N_T, dtype=self.dtype, name='hid')(z, train)
    z = z.reshape(b, h, w, t, -1).transpose(0, 3, 1, 2, 4).reshape(latent.shape)
    y = Decoder(
        self.channels, self.hid_S, self.N_S, self.zero_readout, self.dtype, name='dec')(z, skip)
    return y.reshape(b, t, *y.shape[1:]), {}
