"""GS2PM (miaomiaoToday/GS2PM): SimVP v2 with a UniFormer in the middle, a prompt and a mask.

Two branches share encoder and decoder. One adds a learned border to the frames and predicts what
follows; the other blots out patches and reconstructs the frames themselves. Nothing masks time.
"""

from typing import Any, ClassVar

import einops
import flax.linen as nn
import flax.struct
import jax.numpy as jnp

from stp_jax.models.forecaster import Forecaster
from stp_jax.models.gs2pm.blocks import Options, Translator
from stp_jax.models.gs2pm.prompt_mask import BorderPrompt, patch_mask
from stp_jax.models.layers.precision import wide
from stp_jax.models.simvp.simvp import Decoder, Encoder
from stp_jax.typing import Array

# Published sizes, by the README's names; its table says 512 and 64 of the large one, but the
# number of parameters it prints is that of 560 and 70.
PRESETS: dict[str, dict[str, int]] = dict(
    small=dict(hid_T=128, N_T=8),
    medium=dict(hid_T=384, N_T=32),
    large=dict(hid_T=560, N_T=70),
    large_readme=dict(hid_T=512, N_T=64),
)


@flax.struct.dataclass
class MaskedOutput:
  """What pretraining compares.

  Attributes:
    prediction: `[B, T_out, H, W, C]`, the frames after the input.
    reconstruction: `[B, T_in, H, W, C]`, the input itself, from what the mask left of it.
    mask: `[H, W]` or `[B, H, W]`, 1 = kept.
  """
  prediction: Array
  reconstruction: Array
  mask: Array


class Siamese(nn.Module):
  """What GS2PM and its predecessor share.

  Attributes:
    channels: channels of a prediction.
    hid_S, hid_T: channels of the encoder, of the translator.
    N_S, N_T: stages of encoder and decoder (an odd one is one too many), blocks of the translator.
    mlp_ratio, drop, heads: of the translator.
    drop_path, drop_path_floor: stochastic depth of the last block, and where the linear rise of the
      others starts. Upstream starts at 0.01 though its drop_path is 0: drop_path_floor=0.01.
    spatio_kernel_enc, spatio_kernel_dec: odd kernel sizes.
    initializer: of all kernels; upstream draws by xavier (or orthogonal), biases start at zero.
    zero_readout: start by predicting zero (for residual forecasts).
    freeze_statistics: batch norms keep to their running statistics, in training too.
    remat: none | full | dots: what a backward pass through the middle blocks computes again.
    dtype: compute type; norms, softmax and the residual stream stay at least float32.
  """
  channels: int = 3
  hid_S: int = 64
  hid_T: int = 128
  N_S: int = 4
  N_T: int = 8
  mlp_ratio: float = 8.0
  drop: float = 0.0
  heads: int = 8
  drop_path: float = 0.0
  drop_path_floor: float = 0.0
  spatio_kernel_enc: int = 3
  spatio_kernel_dec: int = 3
  initializer: str = 'xavier'
  zero_readout: bool = False
  freeze_statistics: bool = False
  remat: str = 'none'
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'chunks'

  @property
  def multiple(self) -> int:
    """Frame sides are padded to multiples of this."""
    return 2 ** (self.N_S // 2)

  def _encoder(self) -> Encoder:
    if self.N_S < 2:
      raise ValueError(f'GS2PM: N_S must be at least 2, got {self.N_S}')
    return Encoder(
        self.hid_S, self.N_S // 2 * 2, self.spatio_kernel_enc, self.initializer, self.dtype)

  def _decoder(self) -> Decoder:
    return Decoder(
        self.channels, self.hid_S, self.N_S // 2 * 2, self.spatio_kernel_dec, self.zero_readout,
        self.initializer, self.initializer, self.dtype)

  def _translator(self, attention: str = 'heads', **fields: Any) -> Translator:
    options = Options(
        self.mlp_ratio, self.drop, self.heads, attention, self.initializer, self.freeze_statistics,
        self.dtype)
    return Translator(
        self.hid_T, self.N_T, options, self.drop_path, self.drop_path_floor, remat=self.remat,
        **fields)

  def _padded(self, x: Array) -> Array:
    """`[B, T, H, W, C]`, at least float32, sides repeated at the far edges up to `multiple`."""
    h, w = (-n % self.multiple for n in x.shape[2:4])
    x = wide(x)
    return jnp.pad(x, ((0, 0), (0, 0), (0, h), (0, w), (0, 0)), mode='edge') if h or w else x


def join_time(latent: Array, batch: int) -> Array:
  """`[B T, h, w, C]` -> `[B, h, w, T C]`: channel t C + c is feature c of frame t."""
  return einops.rearrange(latent, '(b t) h w c -> b h w (t c)', b=batch)


def split_time(z: Array, frames: int) -> Array:
  """The inverse of `join_time`; frames: T."""
  return einops.rearrange(z, 'b h w (t c) -> (b t) h w c', t=frames)


class GS2PM(Siamese):
  """A chunk network (`models.rollout`): `[B, T, H, W, in]` -> T frames `[B, T, H, W, channels]`.

  Attributes:
    prompt_size: width of the learned border, see `prompt_mask.BorderPrompt`.
    mask_patch: side of the patches that are blotted out; None = an eighth of the shorter side, at
      least 1 (16 of 128).
    mask_ratio: the share of patches that is kept.
    mask_per_sample: every example has its own mask; upstream draws one for the batch.
    translate: which branch the translator is in: prediction (GS2PM, upstream's MS2Pv3) or
      reconstruction (MS2Pv2; then nothing mixes the frames of a prediction).
  """
  prompt_size: int | None = None
  mask_patch: int | None = None
  mask_ratio: float = 0.6
  mask_per_sample: bool = False
  translate: str = 'prediction'

  def setup(self):
    if self.translate not in ('prediction', 'reconstruction'):
      raise ValueError(f'GS2PM: translate {self.translate!r}: prediction or reconstruction')
    self.enc, self.dec = self._encoder(), self._decoder()
    self.translator = self._translator()
    self.prompt = BorderPrompt(self.prompt_size)

  def __call__(self, x: Array, train: bool = False) -> tuple[Array, dict[str, Array]]:
    """Returns T frames and no terms; any H and W run. ValueError: sizes that cannot be built."""
    padded = self._padded(x)
    y = self._decode(x, self.prompt(padded), self.translate == 'prediction', train)
    if self.is_initializing() and self.translate != 'prediction':
      self._decode(x, padded, True, train)  # makes the translator's variables
    return y, {}

  def reconstruct(self, x: Array, mask: Array | None = None, train: bool = False
                  ) -> tuple[Array, Array]:
    """The frames themselves, from what a mask leaves of them.

    Args:
      x: `[B, T, H, W, C]`.
      mask: `[H, W]` or `[B, H, W]`, nonzero = kept; None draws it from the generator 'mask'.

    Returns:
      `[B, T, H, W, channels]`; the mask.

    Raises:
      ValueError: neither a mask nor a generator, or a mask of another shape.
    """
    height, width = x.shape[2:4]
    if mask is None:
      if not self.has_rng('mask'):
        raise ValueError("GS2PM: a reconstruction needs a mask, or rngs={'mask': key} to draw one")
      patch = max(1, min(height, width) // 8) if self.mask_patch is None else self.mask_patch
      mask = patch_mask(
          self.make_rng('mask'), height, width, patch=patch, ratio=self.mask_ratio,
          samples=x.shape[0] if self.mask_per_sample else None)
    if mask.shape not in ((height, width), (x.shape[0], height, width)):
      raise ValueError(
          f'GS2PM: mask {mask.shape} for frames {x.shape}; give [H, W] or [B, H, W]')
    kept = jnp.asarray(mask)[..., None] > 0
    kept = kept[:, None] if mask.ndim == 3 else kept
    # Zeros stand for what is missing; `where`, so that it may hold anything.
    hidden = self._padded(jnp.where(kept, x, 0))
    return self._decode(x, hidden, self.translate == 'reconstruction', train), mask

  def both(self, x: Array, mask: Array | None = None, train: bool = False) -> MaskedOutput:
    """Prediction and reconstruction; arguments as of `reconstruct`."""
    prediction, _ = self(x, train)
    return MaskedOutput(prediction, *self.reconstruct(x, mask, train))

  def _decode(self, x: Array, frames: Array, translate: bool, train: bool) -> Array:
    """Frames through encoder, translator (if asked) and decoder, cropped to the size of `x`."""
    b, t, h, w, _ = x.shape
    latent, skip = self.enc(frames.reshape(b * t, *frames.shape[2:]))
    if translate:
      latent = split_time(self.translator(join_time(latent, b), train), t)
    y = self.dec(latent, skip)
    return y.reshape(b, t, *y.shape[1:])[:, :, :h, :w]


def masked_forecast(
    forecaster: Forecaster, frames: Array, mask: Array | None = None, train: bool = False,
) -> MaskedOutput:
  """Both branches of a Forecaster around GS2PM, the prediction in chunks where T_out > T_in.

      forecaster.apply(variables, frames, mask, train, method=masked_forecast,
                       rngs={'mask': key, 'dropout': key}, mutable=['batch_stats'])

  Args:
    frames: `[B, T_in or T_in + T_out, H, W, C]`; only the input is read.
    mask: see `GS2PM.reconstruct`.

  Raises:
    ValueError: a forecaster that patches, fuses or corrects: a mask is one of plain frames.
  """
  if forecaster.fusion.patch > 1 or forecaster.fusion.kind != 'none' or forecaster.anchor != 'none':
    raise ValueError('GS2PM: masked pretraining takes plain frames: set patch=1, fusion=none and '
                     'anchor=none')
  prediction = forecaster(frames, train=train).prediction
  given = wide(frames[:, :forecaster.t_in])
  return MaskedOutput(prediction, *forecaster.backbone.reconstruct(given, mask, train))
