"""One training step: loss, gradient, update; and the state that the first step starts from."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from stp_jax import checkpoint, optimizers, parts, sharding
from stp_jax.state import TrainState
from stp_jax.typing import Batch, PyTree


def make_init(task, tx: optax.GradientTransformation, ema: bool, seed: int
              ) -> Callable[[], TrainState]:
  """A function that makes the state of step 0; traces, so shapes cost nothing."""

  def init() -> TrainState:
    rng, init_rng = jax.random.split(jax.random.key(seed))
    variables = dict(task.init(init_rng))
    params = variables.pop('params')
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero, params=params, model_state=variables,
        ema=jax.tree.map(jnp.copy, params) if ema else None, opt_state=tx.init(params), rng=rng,
        skipped=zero)

  return init


def make_train_step(task, tx: optax.GradientTransformation, schedule, ema_decay: float, mesh,
                    accumulate: int = 1,
                    ) -> Callable[[TrainState, Batch, int], tuple[TrainState, dict]]:
  """`train_step(state, batch, stage) -> (state, metrics)`; the stage is static.

  Args:
    accumulate: the batch is computed in so many equal parts, one after the other: the memory of one
      part. Loss and gradient are the parts' means; batch statistics are those of a part.
  """

  def train_step(state: TrainState, batch: Batch, stage: int) -> tuple[TrainState, dict]:
    rng = jax.random.fold_in(state.rng, state.step)

    def loss_fn(params: PyTree, model_state: PyTree, batch: Batch, rng: jax.Array):
      # No gradient of a frozen parameter is computed, clipped or counted in the norm.
      params = jax.tree.map(lambda p, label: jax.lax.stop_gradient(p) if label == 'frozen' else p,
                            params, optimizers.labels(task.label, params))
      if mesh.shape['fsdp'] > 1:
        # Gathered once here; otherwise every time step of a scan would gather them again.
        whole = lambda p: jax.lax.with_sharding_constraint(p, sharding.replicated(mesh))
        params = jax.tree_util.tree_map_with_path(
            lambda path, p: whole(p) if task.gathered(
                jax.tree_util.keystr(path, simple=True, separator='/')) else p, params)
      with sharding.training_on(mesh):
        return task.loss({'params': params, **model_state}, batch,
                         rng=rng, step=state.step, stage=stage)

    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
      (loss, (metrics, updated)), grads = grad_fn(state.params, state.model_state, batch, rng)
    else:
      loss, metrics, updated, grads = parts.gradient(
          grad_fn, state.params, state.model_state, batch, rng, accumulate, mesh)
    norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
      ema = optax.incremental_update(params, ema, 1 - ema_decay)
      # What is frozen is its own average, to the bit.
      ema = jax.tree.map(lambda e, p, label: p if label == 'frozen' else e, ema, params,
                         optimizers.labels(task.label, params))
    after = state.replace(
        params=params, opt_state=opt_state, ema=ema, model_state={**state.model_state, **updated})
    # One poisoned batch must not end a run of days: the state stays, the step is counted.
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
    after = after.replace(step=state.step + 1, skipped=state.skipped + ~finite)
    taken = state.step - state.skipped
    return after, dict(loss=loss, grad_norm=norm, skipped=after.skipped, **metrics,
                       **schedule(taken, state.opt_state))

  return train_step


def initial_weights(task, state: TrainState, source: str, keep_constants: bool) -> TrainState:
  """`state` with the weights and statistics of another run, where it holds this task's model.

  Args:
    source: the other run's workdir. keep_constants: its data's constants (climatologies) too, not
      those of this run's data.

  Raises:
    CheckpointError: another architecture; the differing keys are listed.
  """
  loaded = checkpoint.load(source)
  variables, part = task.adopt(loaded.config, loaded.variables)
  if part:  # the rest of the model starts as initialised
    whole = dict(state.model_state, params=state.params)
    variables = {k: {**whole[k], part: v} for k, v in variables.items() if part in whole.get(k, {})}
    variables = whole | variables
  skipped = () if keep_constants else ('constants',)
  mine = {k: v for k, v in state.model_state.items() if k not in skipped}
  theirs = {k: variables[k] for k in variables if k not in ('params', *skipped)}
  checkpoint.check_architecture(
      source, dict(theirs, params=variables['params']), dict(mine, params=state.params))
  place = lambda new, old: jax.device_put(new, old.sharding)
  params = jax.tree.map(place, variables['params'], state.params)
  return state.replace(
      params=params, ema=None if state.ema is None else jax.tree.map(jnp.copy, params),
      model_state={**state.model_state, **jax.tree.map(place, theirs, mine)})
