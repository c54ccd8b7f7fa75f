"""Losses of beam prediction over 64 logits, of soft labels or of beam numbers; in float32 or wider.

Sigmoid focal loss: Lin et al. 2017 (arXiv:1708.02002); cross-entropy as PyTorch has it.
"""

import jax
import jax.numpy as jnp

from stp_jax.typing import Array

LOSSES = ('focal', 'ce')


def _wide(logits: Array) -> Array:
  return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def targets(target: Array, logits: Array) -> Array:
  """Soft labels as they are, beam numbers as one-hot rows."""
  if jnp.issubdtype(target.dtype, jnp.integer):
    return jax.nn.one_hot(target, logits.shape[-1], dtype=logits.dtype)
  return target.astype(logits.dtype)


def focal(logits: Array, target: Array, alpha: float = 0.25, gamma: float = 2.0) -> Array:
  """Sigmoid focal loss, the mean over the beams: `[...]` of logits `[..., 64]`.

  Each beam is a yes or no of its own; a label may lie between 0 and 1.

  Args:
    target: soft labels `[..., 64]` or integer beams `[...]`.
    alpha: weight of 'yes' (1 - alpha: of 'no'). gamma: how much what is already right counts less.
  """
  logits = _wide(logits)
  target = targets(target, logits)
  p = jax.nn.sigmoid(logits)
  entropy = jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))
  miss = p * (1 - target) + (1 - p) * target  # 1 - p_t, without a difference near 0
  weight = alpha * target + (1 - alpha) * (1 - target)
  return (weight * entropy * _power(miss, gamma)).mean(-1)


def _power(x: Array, exponent: float) -> Array:
  # A whole power has a gradient at 0 too.
  return x ** int(exponent) if float(exponent).is_integer() else x ** exponent


def cross_entropy(logits: Array, target: Array) -> Array:
  """-sum t log softmax(z): `[...]`; soft labels are not brought to sum 1, as upstream."""
  logits = _wide(logits)
  return -(targets(target, logits) * jax.nn.log_softmax(logits)).sum(-1)


def loss(name: str, logits: Array, target: Array, **options) -> Array:
  """The loss `name` per example and step, `[...]`; average it over those that have a label.

  Raises:
    ValueError: an unknown name.
  """
  if name not in LOSSES:
    raise ValueError(f'task.loss={name!r}: choose one of {" ".join(LOSSES)}')
  return (focal if name == 'focal' else cross_entropy)(logits, target, **options)
