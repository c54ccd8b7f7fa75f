"""Memory against time of a training step: `python -m stp_jax.benchmark --remat=FILE:WORDS`.

The step of a config whose backbone takes `remat` (GS2PM), under each policy, alternating in one
process: what the compiled step holds beside state and batch, and its time relative to `none`.
"""

import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import benchmark_table, optimizers, sharding, train
from stp_jax import config as configs
from stp_jax.measure import seconds_per_call, temporary_mib
from stp_jax.models.gs2pm.blocks import REMAT


def run(path: str, *, rounds: int, as_json: bool) -> dict[str, Any]:
  """Measures, prints a table or JSON, and returns it.

  Raises:
    ValueError: a config whose backbone has no `remat`.
  """
  steps, states, rows = {}, {}, {}
  for policy in REMAT:
    config = configs.load(path)
    if 'remat' not in config.model.backbone:
      raise ValueError(f'--remat={path}: the backbone {config.model.name} has no field remat')
    config.model.backbone.remat = policy
    task = benchmark_table.task_of(config)
    tx, schedule = optimizers.make(config.optimizer, 100, 10, task.label)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    step = train.make_train_step(task, tx, schedule, config.optimizer.ema_decay, mesh)
    lead = config.data.batch_size, task.length
    batch = dict(
        frames=np.zeros((*lead, *task.spec.shape), task.spec.dtype),
        forcings=np.zeros((*lead, len(task.spec.columns)), np.float32))
    states[policy] = jax.jit(train.make_init(task, tx, config.optimizer.ema_decay > 0, 0))()
    start = time.perf_counter()
    compiled = jax.jit(step, static_argnums=2, donate_argnums=0).lower(
        states[policy], batch, task.stage(0)).compile()
    rows[policy] = dict(compile_s=round(time.perf_counter() - start, 1),
                        temporary_mib=temporary_mib(compiled))

    batch = jax.tree.map(jnp.asarray, batch)

    def call(policy=policy, compiled=compiled, batch=batch):
      states[policy], metrics = compiled(states[policy], batch)
      return metrics['loss']

    steps[policy] = call
  seconds = seconds_per_call(steps, rounds)
  for policy, row in rows.items():
    ratios = [a / b for a, b in zip(seconds[policy], seconds['none'])]
    row |= dict(time=round(statistics.median(ratios), 3),
                memory=round(row['temporary_mib'] / rows['none']['temporary_mib'], 3),
                step_s=round(statistics.median(seconds[policy]), 3))
  result = dict(config=path, remat=rows)
  if as_json:
    print(json.dumps(result))
    return result
  print('| remat | temporary MiB | memory / none | time / none | step s | compile s |')
  print('|---|--:|--:|--:|--:|--:|')
  for policy, r in rows.items():
    print(f'| {policy} | {r["temporary_mib"]:,.1f} | {r["memory"]} | {r["time"]} | {r["step_s"]} | '
          f'{r["compile_s"]} |')
  return result
