"""What a forecast costs, for the score card: multiply-additions, and forecasts a second here."""

import time
from collections.abc import Callable, Sequence

import jax

from stp_jax.data import pipeline
from stp_jax.typing import Variables

_CALLS, _SECONDS = 3, 20.0  # at most so many timed calls, and none begins after so long


def costs(task, variables: Variables, stores, splits: Sequence[str], predict: Callable) -> dict:
  """Sizes and speed of a run.

  Args:
    task: a forecast task. variables: of its model. stores, splits: where a window comes from.
    predict: `jax.jit(task.predict)`.

  Returns:
    Of models of the published table `parameters_upstream`, with upstream's tensors that nothing
    reads, and `gmacs` [1e9] as upstream counts them (fvcore, one example: recurrent networks over
    all frames, SimVP and TAU one chunk of t_in frames).
    `forecasts_per_second` of whole windows, the fastest of a few calls on a batch of
    `speed_batch` windows; `speed_device`.
  """
  from stp_jax import benchmark_table  # reads the converters, which few evaluations need
  result = {}
  name = task.config.model.name
  if name in benchmark_table.MODELS:
    live = sum(x.size for x in jax.tree.leaves(variables['params']))
    result['parameters_upstream'] = live + benchmark_table.unused_count(
        name, variables, task.spec.shape[:2])
    result['gmacs'] = float(f'{benchmark_table.multiplications(task)[0] / 1e9:.5g}')
  source = task.sources(stores, splits, task.config.data.eval_stride)[0].only(0)
  batch = next(pipeline.eval_batches([source], task.spec, task.config.data, task.t_in))
  batch = jax.device_put({k: batch[k] for k in ('frames', 'forcings')})
  jax.block_until_ready(predict(variables, batch))  # compiles, unless it was called before
  times, begin = [], time.perf_counter()
  while len(times) < _CALLS and time.perf_counter() - begin < _SECONDS:
    start = time.perf_counter()
    jax.block_until_ready(predict(variables, batch))
    times.append(time.perf_counter() - start)
  size = len(batch['frames'])
  return result | dict(
      forecasts_per_second=float(f'{size / min(times):.4g}'), speed_batch=size,
      speed_device=f'{jax.default_backend()}, {jax.devices()[0].device_kind}')
