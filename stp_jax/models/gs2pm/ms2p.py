"""The first MS2P of miaomiaoToday/GS2PM: a query of frames attends to what was seen."""

import jax.numpy as jnp

from stp_jax.models.gs2pm.blocks import QueryBlock
from stp_jax.models.gs2pm.network import Siamese, join_time, split_time
from stp_jax.typing import Array


class MS2P(Siamese):
  """A chunk network: `[B, T, H, W, in]` -> T frames `[B, T, H, W, channels]`.

  Two encoders; the blocks of one path read the seen frames (the 'prompt'), those of the other read
  the query and attend to them. Neither border nor mask.

  Attributes:
    attention: heads | upstream: how the results of its heads are put together, see
      `blocks.CrossAttention`. Published weights were trained with upstream's, which also mixes the
      examples of a batch: a forecast then depends on what else is in the batch.
  """
  attention: str = 'heads'

  def setup(self):
    self.enc_target, self.enc_prompt = self._encoder(), self._encoder()
    self.hid_prompt = self._translator(whole=False)
    self.hid_target = self._translator(self.attention, middle=QueryBlock)
    self.dec = self._decoder()

  def __call__(self, x: Array, train: bool = False, query: Array | None = None
               ) -> tuple[Array, dict[str, Array]]:
    """Returns T frames and no terms.

    Args:
      query: `[B, T, H, W, in]`; None = zeros, all that upstream's trainer ever passes.
    """
    b, t, h, w, _ = x.shape
    flat = lambda frames: frames.reshape(b * t, *frames.shape[2:])
    seen = self._padded(x)
    asked = jnp.zeros_like(seen) if query is None else self._padded(query)
    latent, skip = self.enc_target(flat(asked))
    memory = self.hid_prompt(join_time(self.enc_prompt(flat(seen))[0], b), train)
    memory = memory.reshape(b, -1, memory.shape[-1])
    z = self.hid_target(join_time(latent, b), train, memory)
    y = self.dec(split_time(z, t), skip)
    return y.reshape(b, t, *y.shape[1:])[:, :, :h, :w], {}
