"""Speed and memory of beam networks: `python -m stp_jax.benchmark --config=configs/beam_fusion.py`.

The columns of Table II of szy4017/DeepSense6G_TII's README (memory, hours, frames per second):
`infer_fps` counts samples, each of T frames, as there; `epoch_hours` is for `samples` of them,
those of the config's stores, or `PUBLISHED` where none are named.
"""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import optimizers, sharding, tasks, train
from stp_jax.convert import beam
from stp_jax.data import datasets
from stp_jax.measure import multiply_adds, peak_mib, program_mib, seconds_per_call, temporary_mib

PUBLISHED = 14300  # training samples of upstream's default split
SIZE = 256  # pixels of a sensor's side there


def task_of(config, size: int = 0) -> tuple[Any, int]:
  """The task, and how many training samples its stores have; nothing is read but headers.

  Args:
    size: pixels of a sensor's side where no store is named; 0 = as the config's scenes have.
  """
  if config.data.stores:
    stores = datasets.open_stores(config)
    task = tasks.build(config, tasks.find(config.task.name).data_spec(config, stores))
    return task, sum(map(len, task.sources(stores, config.data.train_splits)))
  scenes = config.data.dataset_options if config.data.dataset else {}
  size = size or scenes.get('size', SIZE)
  spec = beam.data_spec((size, size), config.data.t_in, config.data.t_out)
  return tasks.build(config, spec), PUBLISHED


def row(config, rounds: int = 3, batch: int = 0) -> dict[str, Any]:
  """Measures one config's training step and its inference; see the module.

  Args:
    rounds: calls of each, of which the median counts. batch: default the config's.
  """
  task, samples = task_of(config)
  size = batch or config.data.batch_size
  rng = np.random.default_rng(0)
  shapes = task.batch_shapes(size)
  top = lambda name: task.network.beams if name == 'beam' else 200
  example = {k: jnp.asarray(rng.integers(0, top(k), x.shape).astype(x.dtype))
             for k, x in shapes.items()}
  tx, schedule = optimizers.make(config.optimizer, 1000, 100, task.label)
  mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
  state = jax.jit(train.make_init(task, tx, config.optimizer.ema_decay > 0, 0))()
  step = jax.jit(train.make_train_step(task, tx, schedule, config.optimizer.ema_decay, mesh),
                 static_argnums=2, donate_argnums=0)
  everything = jnp.ones(len(task.modalities))
  predict = lambda variables, batch: task.predict(variables, batch, everything)
  one = {k: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for k, x in example.items()}
  macs = multiply_adds(predict, jax.eval_shape(lambda: state.variables()), one)
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  variables = jax.tree.map(jnp.copy, state.variables())  # the training step takes its own
  start = time.perf_counter()
  infer = jax.jit(predict).lower(variables, example).compile()
  middle = time.perf_counter()
  training = step.lower(state, example, task.stage(0)).compile()
  end = time.perf_counter()
  kept = [state]

  def once():
    kept[0], metrics = training(kept[0], example)
    return metrics

  infer_s, train_s = (statistics.median(seconds_per_call({'x': f}, rounds)['x'])
                      for f in (lambda: infer(variables, example), once))
  return dict(
      model=f'{config.model.name} {config.task.name}', batch=size, t_in=task.t_in,
      t_out=task.t_out, shape=list(task.spec.shape), parameters=parameters,
      gmacs=float(f'{macs / 1e9:.4g}'), compile_infer_s=round(middle - start, 2),
      compile_train_s=round(end - middle, 2), infer_fps=round(size / infer_s, 2),
      train_samples_per_s=round(size / train_s, 2), samples=samples,
      epoch_hours=float(f'{samples / size * train_s / 3600:.3g}'),
      infer_mib=program_mib(infer), train_mib=program_mib(training),
      train_temporary_mib=temporary_mib(training), process_peak_mib=round(peak_mib(), 1))
