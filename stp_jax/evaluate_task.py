"""Scores of a task of one's own, by its `validate`; `stp_jax.evaluate` calls this.

The means over all windows of a split, summed in float64 on the host, so that they depend neither on
the batch size nor on the number of devices.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np
from tqdm import tqdm

from stp_jax import checkpoint, files, sharding, tasks
from stp_jax.data import datasets, pipeline
from stp_jax.data import spec as data_spec
from stp_jax.typing import Variables


@functools.lru_cache(maxsize=2)
def _compiled(task, sharding_):
  return jax.jit(lambda variables, batch: (task.validate(variables, batch), batch['mask']),
                 out_shardings=sharding_)


def score(task, variables: Variables, stores, splits: Sequence[str], mesh, limit: int = 0,
          progress: bool = False) -> dict[str, float]:
  """`{score: mean over the windows of splits}`, and `windows`; a NaN is left out of its mean."""
  found = task.sources(stores, splits, task.config.data.eval_stride)
  compiled = _compiled(task, sharding.replicated(mesh))
  variables = jax.device_put(variables, sharding.replicated(mesh))
  sums: dict[str, np.ndarray] = {}
  windows = 0
  total = min(limit or sys.maxsize, sum(map(len, found)))
  with tqdm(total=total, desc=f'evaluate {"+".join(splits)}', unit='window',
            disable=not progress) as bar:
    for batch in pipeline.eval_batches(found, task.spec, task.config.data, task.t_in, limit,
                                       mesh.devices.size):
      values, mask = jax.device_get(
          compiled(variables, pipeline.to_device(batch, sharding.batch_sharding(mesh))))
      for name, value in values.items():
        if value.shape != mask.shape:
          raise ValueError(f'{type(task).__name__}.validate: {name} is {list(value.shape)}; one '
                           f'number a window, [{len(mask)}]')
        counts = (mask > 0) & ~np.isnan(value)
        pair = np.array([np.where(counts, value, 0).sum(dtype=np.float64), counts.sum()])
        sums[name] = sums.get(name, 0) + pair
      windows += int(mask.sum())
      bar.update(int(mask.sum()))
  means = {k: float(s / n) if n else float('nan') for k, (s, n) in sums.items()}
  return dict(means, windows=windows)


def validate(task, state, stores, mesh) -> dict[str, float]:
  """Scores of the validation splits during training; {} without such a split."""
  data = task.config.data
  if not any(c.split in data.validation_splits for s in stores for c in s.clips):
    return {}
  values = score(task, state.variables(), stores, data.validation_splits, mesh,
                 data.validation_windows)
  return {f'validation/{k}': v for k, v in values.items() if k != 'windows'}


def evaluate(loaded: checkpoint.Loaded, *, store: Sequence[str] = (), split: Sequence[str] = (),
             limit: int = 0, out) -> dict:
  """Scores a run and writes scores.json and score_card.md.

  Raises:
    ValueError: several runs, or a split that is in no store.
  """
  if isinstance(loaded, list):
    raise ValueError(f'{loaded[0].path}: runs of an own task are scored one by one')
  config = loaded.config
  stores = datasets.open_stores(config, tuple(store) or tuple(config.data.eval_stores))
  task = tasks.build(config, loaded.spec)
  loaded.check(task)
  task = tasks.build(config, data_spec.for_stores(
      loaded.spec, stores, task.required_columns, str(loaded.path)))
  splits = datasets.chosen_splits(config, stores, split)
  mesh = sharding.make_mesh()
  card = dict(name=config.name, task=config.task.name, step=loaded.step, splits={
      s: score(task, loaded.variables, stores, [s], mesh, limit, progress=True) for s in splits})
  if jax.process_index() == 0:
    _write(pathlib.Path(out), card)
  return card


def _write(out: pathlib.Path, card: dict) -> None:
  out.mkdir(parents=True, exist_ok=True)
  lines = [f'# {card["name"]}: {card["task"]}, step {card["step"]}', '']
  for name, values in card['splits'].items():
    lines += [f'split {name}, {values["windows"]} windows', '', '| score | mean |', '|---|---|']
    lines += [f'| {k} | {v:.6g} |' for k, v in values.items() if k != 'windows'] + ['']
  for name, text in (('scores.json', json.dumps(card, indent=1) + '\n'),
                     ('score_card.md', '\n'.join(lines))):
    files.write_text(out / name, text)
