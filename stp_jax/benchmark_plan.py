"""What fits where: `python -m stp_jax.benchmark --plan [--config=FILE:WORDS] [--devices=1,8,64]`.

Bytes of a training step on one device, for every published configuration, without allocating any
of it: parameters and optimizer's state by abstract evaluation and the sharding rule (`fsdp` over
all devices), the rest by XLA's memory analysis of the step compiled for so many pretended devices.
The batch is the configuration's, or the next multiple of the devices.

`--plan=state` leaves the compiling out: seconds. XLA's numbers are those of the platform that
compiles: on a CPU they are a guide to an accelerator's, not a promise.
"""

import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from tqdm import tqdm

from stp_jax import benchmark_beam, benchmark_table, optimizers, sharding, tasks, train
from stp_jax import config as configs

MIB = 2 ** 20


def published() -> dict[str, str]:
  """Label -> config file and words of every configuration with `scale=paper`.

  The Channel Mixer Layer's table, GS2PM's sizes, every video model on Moving MNIST, beam prediction
  with and without rebuilding, and the default models of the other files.
  """
  tables = {k: v for table in benchmark_table.TABLES.values() for k, v in table.items()}
  folder = pathlib.Path(benchmark_table.__file__).parents[1] / 'configs'
  video = configs.module(folder / 'video.py')
  tables |= {f'video {m}': f'{folder}/video.py:model={m},scale=paper'
             for m in dict.fromkeys((*video.MODELS, *video.encoders.PRESETS))}
  beams = {'mambafusion': 'model=mambafusion', 'mambafusion 20to5': 'window=20to5',
           'transfuser': 'model=transfuser', 'rebuild': 'stage=rebuild,init_from=RUN'}
  tables |= {f'beam {n}': f'{folder}/beam_fusion.py:{words},scale=paper'
             for n, words in beams.items()}
  return tables | {n: f'{folder}/{n}.py:scale=paper' for n in ('nowcast', 'weather', 'course')}


def _task_of(config) -> Any:
  """The config's task on shapes of its data, or of what was published where it names none."""
  if tasks.kind(config.task.name) in ('beam', 'rebuild'):
    return benchmark_beam.task_of(config, benchmark_beam.SIZE)[0]
  return benchmark_table.task_of(config)


def row(label: str, path: str, devices: int, compiled: bool) -> dict[str, Any]:
  """Bytes per device of one configuration; needs `devices` devices to exist in this process.

  Returns:
    config, devices, batch, parameters, params_mib, optimizer_mib, state_mib, batch_mib and, where
    compiled, arguments_mib, temporary_mib, peak_mib; all per device.
  """
  config = configs.load(path)
  task = _task_of(config)
  size = -(-config.data.batch_size // devices) * devices
  mesh = sharding.make_mesh(1, devices, devices=jax.devices()[:devices])
  tx, schedule = optimizers.make(config.optimizer, 1000, 100, task.label)
  shapes = jax.eval_shape(train.make_init(task, tx, config.optimizer.ema_decay > 0, 0))
  where = sharding.state_shardings(mesh, shapes)
  held = lambda name: sharding.bytes_per_device(
      getattr(shapes, name), getattr(where, name)) / MIB
  batch = task.batch_shapes(size)
  result = dict(
      config=label, devices=devices, batch=size,
      parameters=sum(x.size for x in jax.tree.leaves(shapes.params)),
      params_mib=round(held('params'), 2), optimizer_mib=round(held('opt_state'), 2),
      state_mib=round(sharding.bytes_per_device(shapes, where) / MIB, 2),
      batch_mib=round(sum(math.prod(x.shape) * x.dtype.itemsize for x in batch.values())
                      / devices / MIB, 3))
  if not compiled:
    return result
  if config.model.anchor == 'climatology':
    raise ValueError(f'{path}: anchor=climatology reads tables of the data; --plan reads none')
  split = sharding.batch_sharding(mesh)
  step = jax.jit(
      train.make_train_step(task, tx, schedule, config.optimizer.ema_decay, mesh,
                            config.optimizer.accumulate),
      static_argnums=2, in_shardings=(where, split),
      out_shardings=(where, sharding.replicated(mesh)), donate_argnums=0)
  memory = step.lower(shapes, batch, task.stage(0)).compile().memory_analysis()
  peak = (memory.argument_size_in_bytes + memory.temp_size_in_bytes
          + memory.output_size_in_bytes - memory.alias_size_in_bytes)
  return result | dict(
      arguments_mib=round(memory.argument_size_in_bytes / MIB, 1),
      temporary_mib=round(memory.temp_size_in_bytes / MIB, 1), peak_mib=round(peak / MIB, 1))


def _elsewhere(jobs: Sequence[tuple[str, str]], devices: int, compiled: bool
               ) -> Iterable[dict[str, Any]]:
  """Rows from a process of its own, which pretends to have so many CPU devices."""
  flags = f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'
  code = ('import json, sys\nfrom stp_jax import benchmark_plan\n'
          'for label, path in json.loads(sys.argv[1]):\n'
          '  try:\n    row = benchmark_plan.row('
          'label, path, int(sys.argv[2]), sys.argv[3] == "1")\n'
          '  except (ValueError, TypeError, AttributeError, RuntimeError) as error:\n'
          '    row = dict(config=label, error=(str(error).splitlines() or [""])[0])\n'
          '  print(json.dumps(row), flush=True)\n')
  with subprocess.Popen(
      [sys.executable, '-c', code, json.dumps(jobs), str(devices), str(int(compiled))],
      stdout=subprocess.PIPE, text=True,
      env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}) as process:
    try:
      for line in process.stdout:
        yield json.loads(line)
    finally:
      process.kill()
  if process.returncode not in (0, -9):
    raise ValueError(f'--plan on {devices} devices: its process ended with {process.returncode}')


def run(named: Sequence[str], devices: Sequence[int], compiled: bool, as_json: bool
        ) -> dict[str, Any]:
  """Prints a table or JSON, and returns it.

  Raises:
    ValueError: some configuration failed; at the end, when all others are printed.
  """
  jobs = [(n, n) for n in named] or list(published().items())
  found, failed, names = [], [], []
  with tqdm(total=len(jobs) * len(devices), desc='plan', unit='config') as bar:
    for count in devices:
      for row_ in _elsewhere(jobs, count, compiled):
        bar.update()
        if 'error' in row_:
          failed.append(f'{row_["config"]}: {row_["error"]}')
          bar.write(f'failed: {failed[-1]}', file=sys.stderr)
          continue
        found.append(row_)
        if as_json:
          continue
        if not names:
          names = [n for n in row_ if n != 'config']
          bar.write('| config | ' + ' | '.join(n.replace('_', ' ') for n in names) + ' |')
          bar.write('|---|' + '--:|' * len(names))
        # At once: a whole table takes hours, and what is known when it is stopped is kept.
        bar.write(f'| {row_["config"]} | ' + ' | '.join(f'{row_[n]:,}' for n in names) + ' |')
  found.sort(key=lambda r: [label for label, _ in jobs].index(r['config']))
  result = dict(jax=jax.__version__, plan=found)
  if as_json:
    print(json.dumps(result))
  if failed:
    raise ValueError(f'--plan: {len(failed)} of {len(jobs) * len(devices)} rows failed, the first '
                     f'is {failed[0]}')
  return result
