"""What a run says when steps are not finite: which step, which samples, which module."""

import contextlib
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from stp_jax import sharding
from stp_jax.data import train_batches
from stp_jax.state import TrainState
from stp_jax.typing import Batch


class NonFiniteError(RuntimeError):
  """More steps without a finite loss and gradient than `max_skipped` allows."""


class Skipped:
  """The steps that were skipped, from the running count in the metrics."""

  def __init__(self):
    self.count, self.steps = None, []

  def see(self, rows: Sequence[tuple[int, dict[str, float]]], before: int = 0) -> None:
    """Reads metrics of finished steps; `before`: the count that the run began with."""
    for step, values in rows:
      last = before if self.count is None else self.count
      if values['skipped'] > last:
        self.steps.append(step)
      self.count = values['skipped']


def _finite(tree) -> bool:
  leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
  # Flax traces a loop's body once for its constants, before the loop runs with values.
  return all(isinstance(x, jax.core.Tracer) or bool(jnp.isfinite(x).all()) for x in leaves)


def first_bad_module(task, state: TrainState, batch: Batch, step: int, stage: int) -> str:
  """The first module, in the order of computation, whose output is not finite.

  Modules run one by one, uncompiled: seconds to minutes; what is recomputed in the backward pass (a
  loop over time) is traced, and named as a whole. Where the forward pass is finite, the first
  parameter whose gradient is not.

  Args:
    batch: the whole global batch, on the host. step: the step (from 0) that used it.
  """
  rng = jax.random.fold_in(state.rng, step)
  variables = {'params': state.params, **state.model_state}
  arguments = dict(rng=rng, step=jnp.asarray(step, jnp.int32), stage=stage)
  for name, leaf in jax.tree_util.tree_leaves_with_path(state.params):
    if not bool(jnp.isfinite(leaf).all()):
      return (jax.tree_util.keystr(name, simple=True, separator='/') + ' (the parameter itself is '
              'not finite)')
  found: list[str] = []

  def intercept(call, args, kwargs, context):
    result = call(*args, **kwargs)
    # Outputs are checked as they come, inner modules before those around them.
    if not found and _finite((args, kwargs)) and not _finite(result):
      found.append('/'.join(context.module.path) or type(context.module).__name__)
    return result

  try:
    with jax.disable_jit(), nn.intercept_methods(intercept):
      task.loss(variables, batch, **arguments)
  except Exception as error:  # a model that does not run uncompiled must not hide the step
    problem = f'{type(error).__name__}'
  else:
    problem = ''
  if found:
    return found[0]

  @jax.jit
  def finite(params):
    grads = jax.grad(lambda p: task.loss({'params': p, **state.model_state}, batch,
                                         **arguments)[0])(params)
    return jax.tree.map(lambda g: jnp.isfinite(g).all(), grads)

  for path, ok in jax.tree_util.tree_leaves_with_path(finite(state.params)):
    if not ok:
      return jax.tree_util.keystr(path, simple=True, separator='/') + ' (its gradient)'
  more = f'; the module could not be looked for: {problem}' if problem else ''
  return f'the batch or its loss (every output and gradient is finite now{more})'


def _on_one_device(state: TrainState) -> TrainState:
  """The whole state on the first device of this process, wherever its parts are."""
  if jax.process_count() == 1:
    return jax.device_put(state, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
  mesh = jax.tree.leaves(state)[0].sharding.mesh
  whole = jax.jit(lambda s: s, out_shardings=sharding.replicated(mesh))(state)
  return jax.tree.map(lambda x: x.addressable_data(0), whole)


def report(task, state: TrainState, found, config, skipped: Skipped,
           *, done: int, position: int, batches: Callable) -> NonFiniteError:
  """The error of a run that skipped too much: step, samples, module.

  Args:
    state: the run's, wherever it lives; all processes call this.
    found: sources of the training samples.
    done, position: steps and samples taken so far. batches: makes an iterator over whole batches.
  """
  step = skipped.steps[-1] if skipped.steps else done
  position -= (done + 1 - step) * config.data.batch_size  # of the first sample of that step
  ids = train_batches.sample_ids(found, config.data, config.seed, position)
  names = [train_batches.sample_name(found[i], j) for i, j in ids]
  shown = ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')
  # Every process searches for itself: one that waited would be taken for a dead one, one that ended
  # would take the others with it.
  with contextlib.closing(batches()) as iterator:
    iterator.seek(position)
    batch = next(iterator)
  module = first_bad_module(task, _on_one_device(state), batch, step - 1, task.stage(step - 1))
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('trouble')
  listed = ' '.join(map(str, skipped.steps[-5:] or [step]))
  return NonFiniteError(
      f'step {step}: {int(skipped.count)} steps were not finite, more than max_skipped='
      f'{config.max_skipped} (the last: {listed}); samples of step {step}: {shown}; first bad '
      f'module: {module}')
