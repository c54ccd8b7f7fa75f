"""Several forecasts of one thing: runs with other seeds, or one run with drop path left on.

Monte-Carlo drop path follows Y. Gal and Z. Ghahramani, Dropout as a Bayesian approximation (ICML
2016): the branches that training drops at random are dropped in the forecast too. Batch statistics
stay those of the run.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

from stp_jax.models.layers.norms import BatchNorm
from stp_jax.typing import Array, Variables


def _settled(next_function, args, kwargs, context):
  """Batch normalisation as in evaluation, whatever the rest of the network does."""
  if isinstance(context.module, BatchNorm) and context.method_name == '__call__':
    return next_function(args[0], False)
  return next_function(*args, **kwargs)


def sample(task, variables: Variables, batch: Mapping[str, Array], rng: jax.Array) -> Array:
  """One forecast `[B, T_out, H, W, C]` in physical units with drop path and dropout on."""
  with nn.intercept_methods(_settled):
    output, _ = task.apply(variables, task.inputs(batch, task.t_out), task.t_out, train=True,
                           rng=rng)
  return output.prediction.astype(np.float32) * task.spec.divisor + task.spec.shift


def crps(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """The fair continuous ranked probability score, in the units of the data.

  C. Ferro, Fair scores for ensemble forecasts, Q. J. R. Meteorol. Soc. 140 (2014): unbiased for
  any number of members; of one member it is the absolute error.

  Args:
    members: `[M, ...]`. truth: `[...]`, NaN where unknown.

  Returns:
    `[...]`, NaN where truth is.
  """
  count = len(members)
  score = np.abs(members - truth).mean(0)
  if count == 1:
    return score
  ordered = np.sort(members, 0)
  # The mean of |x_i - x_j| over i != j, from the order alone.
  weight = (2 * np.arange(1, count + 1) - count - 1).reshape(-1, *[1] * truth.ndim)
  return score - (weight * ordered).sum(0) / (count * (count - 1))


def summary(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and spread (standard deviation with n - 1) over the first axis.

  Raises:
    ValueError: one member, or members that are all the same.
  """
  if len(members) < 2:
    raise ValueError('an ensemble needs at least two members')
  spread = members.std(0, ddof=1)
  if not np.nanmax(spread) > 0:
    raise ValueError(
        'every member is the same: the network has no drop path to leave on; name several '
        'checkpoints (other seeds), or train with --config.model.backbone.drop_path=0.1')
  return members.mean(0), spread
