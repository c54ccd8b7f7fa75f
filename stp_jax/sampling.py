"""Scheduled sampling: when a recurrent model is fed the true frame instead of its own.

Bengio et al. 2015 (standard) and the reverse schedule of PredRNN.V2 (Wang et al. 2022), with the
published constants as defaults. Both are pure functions of the step and of the given draws, so
nothing has to be stored in a checkpoint.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stp_jax.typing import Array

DEFAULTS = dict(name='off', start=1.0, stop_step=50000, rate=2e-5,
                step_1=25000, step_2=50000, alpha=5000.0)
KINDS = ('standard', 'reverse', 'off')


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
  unknown = [k for k in config if k not in DEFAULTS]
  if unknown:
    raise ValueError(f'sampling: unknown field {", ".join(unknown)}; known: {" ".join(DEFAULTS)}')
  c = DEFAULTS | dict(config)
  if c['name'] not in KINDS:
    raise ValueError(f'sampling.name={c["name"]}: choose one of {" ".join(KINDS)}')
  return c


def probabilities(config: Mapping[str, Any], step: Array | int) -> tuple[Array, Array]:
  """The chance of being shown the true frame.

  * `off`: always inside the input, never after it.
  * `standard`: always inside the input; after it `start` falls by `rate` per step (once before the
    first draw) and is 0 from `stop_step` on. It is not clipped: where rate * stop_step > start it
    passes below zero, which no draw is.
  * `reverse`: inside the input 0.5 to `step_1`, then 1 - 0.5 exp(-(step - step_1) / alpha), 1 from
    `step_2` on; after it 0.5, a straight line to 0 at `step_2`, 0.

  Args:
    config: the fields of `DEFAULTS`; an absent one takes its default.
    step: updates done before this one.

  Returns:
    (within the input, after it), float scalars.

  Raises:
    ValueError: an unknown field or kind.
  """
  c = _fields(config)
  k = jnp.asarray(step).astype(jnp.result_type(float))
  if c['name'] == 'standard':
    forecast = jnp.where(k < c['stop_step'], c['start'] - (k + 1) * c['rate'], 0.0)
    return jnp.ones_like(k), forecast
  if c['name'] == 'reverse':
    after = jnp.maximum(k - c['step_1'], 0)  # exp of a large positive number would overflow
    span = max(c['step_2'] - c['step_1'], 1)
    early, late = k < c['step_1'], k >= c['step_2']
    context = jnp.where(early, 0.5, 1 - 0.5 * jnp.exp(-after / c['alpha']))
    forecast = jnp.where(early, 0.5, 0.5 - 0.5 * after / span)
    return jnp.where(late, 1.0, context), jnp.where(late, 0.0, forecast)
  return jnp.ones_like(k), jnp.zeros_like(k)


def mask(config: Mapping[str, Any], step: Array | int, draws: Array, batch: int,
         t_in: int, t_out: int) -> Array:
  """Where a training window is fed the true frame.

  Args:
    config: the fields of `DEFAULTS`.
    step: updates done before this one.
    draws: a PRNG key, or uniforms in [0, 1) `[B, T - 2]`: the t_in - 1 of input frames 1, 2, ...,
      then the t_out - 1 of the frames after the input (`standard` reads only these).
    batch: B.
    t_in: frames given.
    t_out: frames forecast.

  Returns:
    bool `[B, T]`, T = t_in + t_out; frame 0 is always true, the last one, which nothing is fed,
    never.

  Raises:
    ValueError: an unknown kind, or uniforms of another shape.
  """
  context, forecast = probabilities(config, step)
  count = t_in + t_out - 2
  if jnp.issubdtype(draws.dtype, jnp.floating):
    if draws.shape != (batch, count):
      raise ValueError(f'sampling: uniforms {draws.shape}, expected {(batch, count)}')
    uniforms = draws
  else:
    uniforms = jax.random.uniform(draws, (batch, count))
  chance = jnp.concatenate([jnp.full((t_in - 1,), context), jnp.full((t_out - 1,), forecast)])
  first, last = jnp.ones((batch, 1), bool), jnp.zeros((batch, 1), bool)
  return jnp.concatenate([first, uniforms < chance, last], axis=1)
