"""Losses that shape the heads and the translator of `models.beam.rebuild`.

Facts of szy4017/DeepSense6G_TII. Positions of a sample are its `T h w` vectors; the sums over pairs
of sensors are means.
"""

import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


def contrast(a: Array, b: Array, temperature: float = 0.1, mask: Array | None = None) -> Array:
  """NT-Xent (Chen et al. 2020) of the samples of a batch as two sensors see them.

  Args:
    a, b: `[B, T, h, w, C]`; a sample is its sum over h and w, all frames, to length 1.
    temperature: of the cosines. mask: `[B]`, 0 = not a sample (padding).

  Returns:
    `[]`: mean over the 2B views of -log(softmax of its own partner among the other 2B - 1); 0 for
    a single sample, which has no others.
  """
  views = jnp.concatenate([wide(a), wide(b)]).sum((-3, -2))
  views = views.reshape(len(views), -1)
  norm = jnp.maximum(jnp.sum(jnp.square(views), -1, keepdims=True), 1e-16)
  views = views * jax.lax.rsqrt(norm)
  count = len(views)
  likeness = jnp.matmul(views, views.T, precision='highest') / temperature
  own = jnp.eye(count, dtype=bool)
  partner = jnp.roll(own, count // 2, axis=1)
  weight = jnp.ones(count, likeness.dtype) if mask is None else jnp.tile(wide(mask), 2)
  hidden = own | (weight == 0)[None, :]
  cost = jax.nn.logsumexp(jnp.where(hidden, -jnp.inf, likeness), -1) - jnp.sum(
      jnp.where(partner, likeness, 0), -1)
  return jnp.sum(jnp.where(weight > 0, cost, 0) * weight) / jnp.maximum(jnp.sum(weight), 1)


def distance(a: Array, b: Array, kind: str = 'mean') -> Array:
  """Minus how far the specific parts of two sensors are apart: minimising it parts them.

  Args:
    a, b: `[B, T, h, w, C]`.
    kind: 'mean': the mean length of the difference of two vectors (0 to 2), whatever the batch;
      'norm': the length of the whole tensor's difference, which grows with the root of batch and
      size (upstream); 'mse': the mean square (upstream's earlier script).

  Raises:
    ValueError: another kind.
  """
  gap = wide(a) - wide(b)
  if kind == 'mse':
    return -jnp.mean(jnp.square(gap))
  squares = jnp.sum(jnp.square(gap), -1) if kind == 'mean' else jnp.sum(jnp.square(gap))
  # Equal vectors: the root's slope is infinite, the gradient of PyTorch's norm there is 0.
  lengths = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
  if kind not in ('mean', 'norm'):
    raise ValueError(f'task.rebuild.distance={kind!r}: mean, norm or mse')
  return -jnp.mean(lengths)


def pairwise(loss, views: Mapping[str, Array], **options) -> Array:
  """Mean of `loss(a, b)` over all pairs of sensors; 0 for a single sensor."""
  pairs = list(itertools.combinations(views.values(), 2))
  return sum((loss(a, b, **options) for a, b in pairs), jnp.zeros(())) / max(1, len(pairs))


def translation(rebuilt: Mapping[str, Array], truth: Mapping[str, Array]) -> Array:
  """Mean square error of the rebuilt features, mean over the targets."""
  errors = [jnp.mean(jnp.square(wide(v) - wide(truth[k]))) for k, v in rebuilt.items()]
  return sum(errors) / len(errors)
