"""TAU, the temporal attention unit (Tan et al. 2023, arXiv:2206.12126), and its regularisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.layers.conv import kernel_init
from stp_jax.models.layers.precision import wide
from stp_jax.models.simvp.translators.metaformer import GatedBlock, large_kernel
from stp_jax.typing import Array


class Gate(nn.Module):
  """Static attention f (large kernel), dynamic attention s (squeeze and excite): s * f * x."""
  initializer: str = 'torch'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]
    # Upstream's reduction: 16 hidden features for wide layers, a quarter of the channels below 64.
    hidden = max(channels // max(channels // 16, 4), 1)
    dense = lambda features, name: nn.Dense(
        features, use_bias=False, kernel_init=kernel_init('torch'), dtype=self.dtype, name=name)
    s = jnp.mean(wide(x), (1, 2)).astype(x.dtype)
    s = nn.sigmoid(dense(channels, 'fc_2')(nn.relu(dense(hidden, 'fc_0')(s))))
    return s[:, None, None] * large_kernel(x, channels, self.initializer, self.dtype) * x


class TAUBlock(GatedBlock):
  """A MetaFormer block with the TAU gate, whose convolutions keep torch's initialisation."""
  gate: type[nn.Module] | None = Gate
  attention_init: str = 'torch'


def differential_divergence(
    prediction: Array, target: Array, temperature: float = 0.1, epsilon: float = 1e-12,
) -> Array:
  """TAU's regularisation: how differently prediction and truth change from frame to frame.

  The changes of a frame become a distribution over its pixels (softmax of change / temperature);
  P of the prediction and Q of the target are compared by P log(P / (Q + e) + e), averaged over
  pixels and frames. Its published weight is 0.1.

  Args:
    prediction, target: `[B, T, H, W, C]`, normalised.

  Returns:
    at least float32 `[B]`; zero for T <= 2, as upstream.
  """
  if prediction.shape[1] <= 2:
    return jnp.zeros(prediction.shape[:1], wide(prediction[:0]).dtype)

  def distribution(frames):
    gaps = jnp.diff(wide(frames), axis=1)
    return jax.nn.softmax(gaps.reshape(*gaps.shape[:2], -1) / temperature, -1)

  p, q = distribution(prediction), distribution(target)
  return jnp.mean(p * jnp.log(p / (q + epsilon) + epsilon), (1, 2))
