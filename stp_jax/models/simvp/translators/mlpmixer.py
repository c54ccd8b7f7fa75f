"""MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601); its parameters fix the frame size."""

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.layers.mlp import Mlp
from stp_jax.models.layers.norms import LayerNorm
from stp_jax.models.simvp.translators.metaformer import Block
from stp_jax.typing import Array


class MLPMixerBlock(Block):
  """An MLP across the pixels of each channel, then one across the channels of each pixel."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """`[B, h, w, C]` -> the same. ValueError: another h * w than at initialisation."""
    b, h, w, channels = x.shape
    if self.has_variable('params', 'mlp_tokens'):
      fixed = self.get_variable('params', 'mlp_tokens')['fc1']['kernel'].shape[0]
      if fixed != h * w:
        raise ValueError(
            f'SimVP mlpmixer: its parameters are for {fixed} pixels, the latent has {h} x {w}; '
            'feed frames of the size it was initialised with')
    tokens = x.reshape(b, h * w, channels)
    y = jnp.swapaxes(LayerNorm(1e-6, name='norm1')(tokens), 1, 2)
    # Upstream's token MLP is as wide as half the channels, whatever mlp_ratio and the frame size.
    y = Mlp(int(0.5 * channels), self.drop, dtype=self.dtype, name='mlp_tokens')(y, train)
    tokens = tokens + self.branch(jnp.swapaxes(y, 1, 2), train)
    y = Mlp(int(channels * self.mlp_ratio), self.drop, dtype=self.dtype, name='mlp_channels')(
        LayerNorm(1e-6, name='norm2')(tokens), train)
    return (tokens + self.branch(y, train)).reshape(x.shape)
