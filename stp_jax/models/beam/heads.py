"""From the fused vector to the logits of the beams, now or over the next steps."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.layers.conv import bias_init, kernel_init
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


def linear(features: int, inputs: int, name: str, dtype: jnp.dtype | None = None) -> nn.Dense:
  """A linear layer that starts as torch's does: weights and bias U(+-1 / sqrt(inputs))."""
  return nn.Dense(features, kernel_init=kernel_init('torch'), bias_init=bias_init('torch', inputs),
                  dtype=dtype, name=name)


class GRUCell(nn.Module):
  """Torch's gated recurrent unit: gates reset, update, new stand side by side; float32."""

  @nn.compact
  def __call__(self, h: Array, x: Array) -> Array:
    """State and input `[B, D]` -> the next state."""
    size = h.shape[-1]
    # Torch draws all four by the size of the state.
    draw = bias_init('torch', size)
    side = lambda v, end: (
        v @ wide(self.param(f'weight_{end}', draw, (v.shape[-1], 3 * size)))
        + wide(self.param(f'bias_{end}', draw, (3 * size,))))
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (
        jnp.split(part, 3, -1) for part in (side(x, 'ih'), side(h, 'hh')))
    reset, update = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    new = jnp.tanh(n_x + reset * n_h)
    return (1 - update) * new + update * h


class _Step(nn.Module):
  """One of the coming steps: the logits change by what the state says."""

  @nn.compact
  def __call__(self, carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
    h, x = carry
    h = GRUCell(name='decoder')(h, x)
    x = x + linear(x.shape[-1], h.shape[-1], 'output')(h)
    return (h, x), x


class Head(nn.Module):
  """A perceptron; with `steps` its result starts a recurrent unit that makes one logit set a step.

  Attributes:
    hidden: widths of its two hidden layers. beams: logits.
    steps: 0: the beam now; K: the beams of K steps, each the previous logits and a change.
  """
  hidden: tuple[int, int] = (256, 128)
  beams: int = 64
  steps: int = 0
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, fused: Array) -> Array:
    """`[B, C]` -> `[B, beams]` or `[B, steps, beams]`, at least float32, before any softmax."""
    x = fused
    for i, width in enumerate((*self.hidden, self.beams)):
      # Torch's list counts the activations in between.
      x = linear(width, x.shape[-1], f'join_{2 * i}', self.dtype)(x if i == 0 else nn.relu(x))
    x = wide(x)
    if not self.steps:
      return x
    step = nn.scan(_Step, variable_broadcast='params', split_rngs={'params': False},
                   length=self.steps, out_axes=1)
    return step(name='decode')((x, jnp.zeros_like(x)), None)[1]
