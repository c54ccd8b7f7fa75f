"""SimVP (Gao et al. 2022, arXiv:2206.05099; v2 2211.12509): encoder, translator, decoder.

Frames are encoded one by one, the translator mixes time and channels of the whole chunk, and the
decoder reads each frame's latent with the full-resolution features of the same input frame.
Submodules carry OpenSTL's names; the head emits image channels only, as in the Channel Mixer Layer.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.conv import Conv2D
from stp_jax.models.layers.norms import GroupNorm
from stp_jax.models.layers.patches import pixel_shuffle
from stp_jax.models.simvp import translators
from stp_jax.models.simvp.translators.tau import differential_divergence
from stp_jax.typing import Array


class BasicConv(nn.Module):
  """Convolution (followed by a pixel shuffle when it upsamples), GroupNorm(2), SiLU."""
  features: int
  kernel_size: int
  stride: int = 1
  up: bool = False
  initializer: str = 'trunc_normal'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = lambda features, name: Conv2D(
        features, self.kernel_size, self.stride, initializer=self.initializer, dtype=self.dtype,
        name=name)
    if self.up:
      x = pixel_shuffle(conv(4 * self.features, 'conv_0')(x))
    else:
      x = conv(self.features, 'conv')(x)
    return nn.silu(GroupNorm(2, name='norm')(x))


class ConvSC(nn.Module):
  """One stage: keeps the size, halves it (`down`) or doubles it (`up`)."""
  features: int
  kernel_size: int = 3
  down: bool = False
  up: bool = False
  initializer: str = 'trunc_normal'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return BasicConv(
        self.features, self.kernel_size, 2 if self.down else 1, self.up, self.initializer,
        self.dtype, name='conv')(x)


class Encoder(nn.Module):
  """N_S stages, every second one halves the frame."""
  features: int
  stages: int
  kernel_size: int
  initializer: str = 'trunc_normal'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """`[N, H, W, in]` -> latent `[N, h, w, features]`, skip `[N, H, W, features]`."""
    skip = None
    for i in range(self.stages):
      x = ConvSC(
          self.features, self.kernel_size, down=i % 2 == 1, initializer=self.initializer,
          dtype=self.dtype, name=f'enc_{i}')(x)
      skip = x if i == 0 else skip
    return x, skip


class Decoder(nn.Module):
  """The encoder's mirror image; the skip joins before the last stage."""
  channels: int
  features: int
  stages: int
  kernel_size: int
  zero_readout: bool = False
  initializer: str = 'trunc_normal'
  readout_init: str = 'torch'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, skip: Array) -> Array:
    """Latent `[N, h, w, features]`, skip `[N, H, W, features]` -> `[N, H, W, channels]`."""
    for i in range(self.stages):
      if i == self.stages - 1:
        x = x + skip
      x = ConvSC(
          self.features, self.kernel_size, up=(self.stages - 1 - i) % 2 == 1,
          initializer=self.initializer, dtype=self.dtype, name=f'dec_{i}')(x)
    return Conv2D(
        self.channels, 1, initializer='zeros' if self.zero_readout else self.readout_init,
        dtype=self.dtype, name='readout')(x)


class SimVP(nn.Module):
  """A chunk network (`models.rollout`): `[B, T, H, W, in]` -> T frames `[B, T, H, W, channels]`.

  Attributes:
    channels: channels of a prediction.
    translator: see `simvp.translators`: gsta (SimVP v2), tau, incepu (SimVP v1), swin, ...
    hid_S, hid_T: channels of the encoder, of the translator.
    N_S, N_T: stages of encoder and decoder (even), blocks of the translator.
    mlp_ratio, drop: of the translator's MLPs.
    drop_path: stochastic depth of the last block; the rates of the others grow towards it from
      `drop_path_floor`. Upstream starts at 0.01 even where drop_path is 0, so that its 'no drop
      path' models do drop: drop_path_floor=0.01 trains like that.
    layer_scale_init: None = the translator's own.
    window_size, shift_mask: of swin; see `translators.swin.SwinBlock`. Published checkpoints were
      trained with shift_mask='upstream'.
    spatio_kernel_enc, spatio_kernel_dec: odd kernel sizes.
    zero_readout: start by predicting zero (for residual forecasts).
    dtype: compute type; norms stay at least float32.
  """
  channels: int = 1
  translator: str = 'gsta'
  hid_S: int = 64
  hid_T: int = 512
  N_S: int = 4
  N_T: int = 8
  mlp_ratio: float = 8.0
  drop: float = 0.0
  drop_path: float = 0.0
  drop_path_floor: float = 0.0
  layer_scale_init: float | None = None
  window_size: int | None = None
  shift_mask: str | None = None
  spatio_kernel_enc: int = 3
  spatio_kernel_dec: int = 3
  zero_readout: bool = False
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'chunks'

  @property
  def multiple(self) -> int:
    """Frame sides must divide by this."""
    return 2 ** (self.N_S // 2)

  @property
  def _options(self) -> dict[str, Any]:
    """What only some translators read, where it is set."""
    options = {k: getattr(self, k) for k in ('layer_scale_init', 'window_size', 'shift_mask')}
    return {k: v for k, v in options.items() if v is not None}

  @nn.compact
  def __call__(self, x: Array, train: bool = False) -> tuple[Array, dict[str, Array]]:
    """Returns T frames and no terms.

    Raises:
      ValueError: sizes that the stages cannot halve; what a translator cannot be built with.
    """
    if self.N_S % 2 or self.N_S < 2:
      raise ValueError(f'SimVP: N_S must be even and at least 2, got {self.N_S}')
    b, t, h, w, _ = x.shape
    if h % self.multiple or w % self.multiple:
      raise ValueError(
          f'SimVP: frames of {h} x {w} do not divide by {self.multiple} (N_S={self.N_S}); pad them')
    x = x.reshape(b * t, h, w, -1)
    latent, skip = Encoder(
        self.hid_S, self.N_S, self.spatio_kernel_enc, dtype=self.dtype, name='enc')(x)
    h, w = latent.shape[1:3]
    # Time joins the channels, frame by frame: channel = time * hid_S + feature.
    z = latent.reshape(b, t, h, w, -1).transpose(0, 2, 3, 1, 4).reshape(b, h, w, -1)
    z = translators.build(
        self.translator, hidden=self.hid_T, depth=self.N_T, mlp_ratio=self.mlp_ratio,
        drop=self.drop, drop_path=self.drop_path, drop_path_floor=self.drop_path_floor,
        options=self._options, dtype=self.dtype, name='hid')(z, train)
    z = z.reshape(b, h, w, t, -1).transpose(0, 3, 1, 2, 4).reshape(latent.shape)
    y = Decoder(
        self.channels, self.hid_S, self.N_S, self.spatio_kernel_dec, self.zero_readout,
        dtype=self.dtype, name='dec')(z, skip)
    return y.reshape(b, t, *y.shape[1:]), {}

  def target_terms(self, prediction: Array, target: Array) -> dict[str, Array]:
    """Auxiliary losses `[B]` of `[B, T, H, W, C]`: TAU's `diff_div`, published weight 0.1."""
    if self.translator.lower() != 'tau':
      return {}
    return dict(diff_div=differential_divergence(prediction, target))
