"""Fusion of the sensors by gated bidirectional Mambas: MambaFusion's FFM."""

from collections.abc import Mapping

import flax.linen as nn

from stp_jax.models.beam import maps as feature_maps
from stp_jax.models.beam.gpt import Fusion
from stp_jax.models.layers.mamba import BiMambaBlock
from stp_jax.typing import Array


class MambaFusion(Fusion):
  """Fusion by `n_layer` bidirectional blocks, after the sensors have swapped channels.

  Attributes:
    channel_swap: exchange two thirds of the channels among the sensors first.
    align, residual, norm, initializer, method: of the block, see `BiMambaBlock`. Upstream's dies
      out within a few blocks (align='upstream', residual=False, initializer='trunc_normal'): at the
      start nothing gets through a fusion and hardly a parameter in it has a gradient.
    d_state, d_conv, expand: of its Mambas.
  """
  channel_swap: bool = True
  align: str = 'aligned'
  residual: bool = True
  norm: str = 'joint'
  initializer: str = 'torch'
  method: str = 'auto'
  d_state: int = 16
  d_conv: int = 4
  expand: int = 2

  def block(self) -> nn.Module:
    return BiMambaBlock(
        align=self.align, residual=self.residual, norm=self.norm, d_state=self.d_state,
        d_conv=self.d_conv, expand=self.expand, initializer=self.initializer, method=self.method,
        dtype=self.dtype, name='mambablocks')

  def mix(self, maps: Mapping[str, Array]) -> Mapping[str, Array]:
    return feature_maps.swap_channels(maps) if self.channel_swap else maps
