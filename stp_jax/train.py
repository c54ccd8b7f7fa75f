"""The training loop, read from top to bottom. It knows a task, and nothing of what the task does.

Where a run starts, in order: the newest checkpoint in its own workdir; the weights in
`config.init_from`; random weights.
"""

import collections
import contextlib
import functools
import json
import pathlib
import sys

import jax
import ml_collections
import numpy as np
from absl import logging
from clu import parameter_overview

from stp_jax import (
    checkpoint,
    checkpoint_health,
    cluster,
    evaluate,
    files,
    hooks,
    monitor,
    optimizers,
    sharding,
    tasks,
    trouble,
    writers,
)
from stp_jax.data import datasets, pipeline, train_batches, window
from stp_jax.state import TrainState
from stp_jax.train_step import initial_weights, make_init, make_train_step

NonFiniteError = trouble.NonFiniteError


class Preempted(SystemExit):
  """The run was asked to stop, saved, and wants to be requeued."""


def train(config: ml_collections.ConfigDict, workdir) -> TrainState:
  """Trains `config` in `workdir`, continuing what is there.

  Returns:
    The final state.

  Raises:
    NonFiniteError: too many steps without a finite loss; names step, samples and module.
    CheckpointError: every checkpoint is damaged, or none can be written.
    OSError: another process trains in this workdir.
    Preempted: SIGTERM or a preemption notice came; everything is saved.
  """
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  chief = jax.process_index() == 0
  # Two runs in one folder would each take the other's unfinished checkpoint for a dead one's.
  with files.only_one(workdir / '.lock') if chief else contextlib.nullcontext():
    return _train(config, workdir, chief)


def _train(config: ml_collections.ConfigDict, workdir: pathlib.Path, chief: bool) -> TrainState:
  say = functools.partial(print, file=sys.stderr, flush=True) if chief else lambda _: None

  # Data, and what the model must know of it.
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
  stores = datasets.open_stores(config)
  config = window.fitted(config, stores)
  spec = tasks.find(config.task.name).data_spec(config, stores)
  task = tasks.build(config, spec)
  task.check_splits(stores)
  found = task.sources(stores, config.data.train_splits, config.data.stride)
  windows = sum(map(len, found))
  if config.data.batch_size % mesh.devices.size:
    raise ValueError(f'data.batch_size={config.data.batch_size} does not divide over the '
                     f'{mesh.devices.size} devices of the mesh; choose a multiple')
  if config.data.batch_size > windows:
    logging.warning('batch_size %d exceeds the %d training windows: a batch repeats some',
                    config.data.batch_size, windows)
  accumulate = config.optimizer.accumulate
  if accumulate < 1 or config.data.batch_size % (accumulate * mesh.devices.size):
    raise ValueError(f'optimizer.accumulate={accumulate}: data.batch_size='
                     f'{config.data.batch_size} does not divide into so many parts over '
                     f'{mesh.devices.size} devices')
  batch_sharding = sharding.batch_sharding(mesh)
  batches_on = functools.partial(
      train_batches.train_iterator, found, spec, config.data, config.data.t_in, config.seed)
  iterator = batches_on(batch_sharding)

  # Shapes, then shardings, then values: nothing is built on one device and moved.
  per_epoch = config.optimizer.steps_per_epoch or max(1, windows // config.data.batch_size)
  steps = config.epochs * per_epoch or config.steps
  tx, schedule = optimizers.make(config.optimizer, steps, per_epoch, task.label)
  init = make_init(task, tx, config.optimizer.ema_decay > 0, config.seed)
  shapes = jax.eval_shape(init)
  shardings = sharding.state_shardings(mesh, shapes)
  step_fn = jax.jit(
      make_train_step(task, tx, schedule, config.optimizer.ema_decay, mesh, accumulate),
      static_argnums=2, in_shardings=(shardings, batch_sharding),
      out_shardings=(shardings, sharding.replicated(mesh)), donate_argnums=0)

  first, damaged = checkpoint_health.choose(workdir, repair=True)
  for line in damaged:
    say(f'{workdir}: {line}')
  if first == -1:
    raise checkpoint.CheckpointError(
        f'{workdir}: every checkpoint is damaged; see {workdir / "damaged"}; start again with '
        'another --workdir')
  watch = monitor.Monitor(config, per_epoch)
  with (checkpoint_health.Sealer(workdir, chief) as sealer,
        checkpoint_health.closing(checkpoint.manager(
            workdir, config.keep_checkpoints, best=lambda: watch.best_step)) as checkpoints,
        cluster.StopRequest() as stop, hooks.Watchdog(config.watchdog_minutes) as watchdog,
        contextlib.closing(iterator)):
    if first is not None:
      state = checkpoint.restore(
          checkpoints, first, shapes, shardings, iterator, config.data.batch_size)
      watch.restore(checkpoint.watched(checkpoints, first))
      say(f'{workdir}: continuing from step {first}')
    else:
      first = 0
      state = jax.jit(init, out_shardings=shardings)()
      tables = task.constants(stores, config.data.train_splits)
      if tables:
        state = state.replace(model_state=dict(state.model_state, constants=jax.device_put(
            tables, shardings.model_state['constants'])))
      if config.init_from:
        state = initial_weights(task, state, config.init_from, config.keep_constants)
      watch.check(task, state, stores, mesh)
    if chief:
      files.write_text(
          workdir / 'parameters.txt',
          parameter_overview.get_parameter_overview(state.params, include_stats=False) + '\n')
      count = parameter_overview.count_parameters(state.params)
      held = sharding.bytes_per_device(shapes, shardings) / 2 ** 20
      say(f'{workdir}: {count:,} parameters on {mesh.devices.size} device(s), {held:,.1f} MiB of '
          f'state on each, {windows} windows')
      if better := sharding.better_fsdp(mesh, shapes):
        say(f'{workdir}: mesh.fsdp={mesh.shape["fsdp"]} does not divide every array; '
            f'mesh.fsdp={better[0]} would hold {better[1] / 2 ** 20:,.1f} MiB')
      files.write_text(workdir / 'config.json',
                       json.dumps(config.to_dict(), indent=1, default=str) + '\n')

    frames = config.data.batch_size * task.length
    def due(step: int, every: int) -> bool:
      return (every and step % every == 0) or step == steps

    progress = hooks.Progress(first, steps, frames, chief)
    pending, skipped, before = collections.deque(), trouble.Skipped(), int(state.skipped)
    stage = None
    with writers.Writer(workdir, first, chief) as writer:
      for step in range(first, first if watch.stopped else steps):
        batch = pipeline.to_device(next(iterator), batch_sharding)
        if stage != task.stage(step):  # this step compiles
          progress.pause(step + 1)
          stage = task.stage(step)
          warm = step + 1
        with jax.transfer_guard('disallow'):
          state, metrics = step_fn(state, batch, stage)
        if step + 1 == warm:
          jax.block_until_ready(metrics)
          progress.pause(step + 1)
        pending.append((step + 1, metrics))
        done = step + 1
        watchdog.alive()
        wanted = stop.wanted(done)
        validating = watch.due(done, steps)
        if (due(done, config.log_every) or due(done, config.checkpoint_every) or wanted
            or validating):
          values = _drain(pending, writer, skipped, before)
          if due(done, config.log_every):
            progress.report(done, values)
          if values['skipped'] > config.max_skipped:
            raise trouble.report(
                task, state, found, config, skipped, done=done, position=iterator.position,
                batches=batches_on)
        # Evaluate, save, and only then let the iterator move: what is saved belongs together.
        if validating:
          scores = evaluate.validate(task, state, stores, mesh)
          writer.write(done, scores)
          writer.flush()
          state = watch.update(done, scores, state)
          progress.validated(done, scores)
          watchdog.alive()
        if due(done, config.checkpoint_every) or wanted or watch.saves(done):
          checkpoint.save(checkpoints, state, iterator, config, spec, step=done, force=True,
                          watched=watch.state())
          sealer.expect()
        if wanted:  # after the last step too: the evaluation would not end in time
          with checkpoint_health.naming_failures(checkpoints.directory, done):
            checkpoints.wait_until_finished()
          logging.warning('stopped at step %d, saved; run the same command to continue', done)
          raise Preempted(cluster.REQUEUE)
        if watch.stopped:
          break
    if watch.stopped:
      say(f'{workdir}: {watch.ended()}')
    elif first >= steps:
      say(f'{workdir}: complete at step {first}')
  return state


def _drain(pending: collections.deque, writer: writers.Writer, skipped: trouble.Skipped,
           before: int) -> dict[str, float]:
  """Fetches and writes the metrics of finished steps; returns the newest, losses averaged."""
  rows = [(step, jax.tree.map(float, jax.device_get(metrics))) for step, metrics in pending]
  pending.clear()
  skipped.see(rows, before)
  for step, values in rows:
    writer.write(step, values)
  writer.flush()
  newest = rows[-1][1]
  finite = [values['loss'] for _, values in rows if np.isfinite(values['loss'])]
  return dict(loss=float(np.mean(finite)) if finite else float('nan'),
              grad_norm=newest['grad_norm'], learning_rate=newest['learning_rate'],
              skipped=newest['skipped'])
