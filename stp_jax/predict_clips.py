"""Forecasts of a store's windows as PNG frames and GIFs, for frames that are pictures.

    python -m stp_jax.predict --checkpoint=RUN --store=[name:]STORE --split=test --limit=4 --out=DIR

writes `DIR/<store>/<run>/sample<k>/{input,output,ground_truth}<i>.png` and `sample<k>.gif`.
"""

import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from stp_jax import checkpoint, predict_arrays, tasks
from stp_jax.data import clip_store, pipeline
from stp_jax.data import spec as data_spec


def samples(loaded: checkpoint.Loaded, store: clip_store.ClipStore, splits: Sequence[str],
            limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
  """Forecasts of windows that do not overlap, in 0..1 of full scale.

  A clip that ends where the forecast begins gives one without truth.

  Args:
    limit: at most so many windows, evenly spread; 0 = all.

  Yields:
    `input` `[t_in, H, W, C]`, `output` and, where there is one, `ground_truth` `[t_out, H, W, C]`.

  Raises:
    ValueError: a store of other frames, or no window in these splits.
  """
  spec, config = loaded.spec, loaded.config
  task = tasks.build(config, spec)
  if not config.data.domains:
    spec = data_spec.for_stores(spec, [store], task.required_columns, str(loaded.path))
    task = tasks.build(config, spec if task.required_columns else spec.with_columns((), {}))
  checkpoint.check_architecture(
      loaded.path, loaded.variables, jax.eval_shape(task.init, jax.random.key(0)))

  def run(variables, batch):
    inputs = task.inputs(batch, task.t_out)
    frames = jax.numpy.where(inputs['valid'], inputs['frames'], jax.numpy.nan)
    return frames, (task.predict(variables, batch) - task.spec.shift) / task.spec.divisor

  compiled = jax.jit(run)
  if not config.data.domains and not task.required_columns:
    chosen = predict_arrays.checked(store, splits, task.t_in, task.t_out, limit)
    for batch, mine in predict_arrays.batches(
        store, chosen, task.t_in, task.t_out, config.data.eval_batch_size):
      frames, forecast = jax.device_get(compiled(loaded.variables, batch))
      for row, window in enumerate(mine):
        sample = dict(input=frames[row, :task.t_in], output=forecast[row])
        yield sample | (dict(ground_truth=frames[row, task.t_in:]) if window.truth else {})
    return
  found = task.sources([store], splits, task.length)
  for batch in pipeline.eval_batches(found, task.spec, config.data, task.t_in, limit):
    frames, forecast = jax.device_get(compiled(loaded.variables, batch))
    for row in np.flatnonzero(batch['mask']):
      yield dict(input=frames[row, :task.t_in], output=forecast[row],
                 ground_truth=frames[row, task.t_in:])


def write(run, store: str, splits: Sequence[str], out, *, limit: int = 0, raw: bool = False,
          step: int | str | None = None) -> list[pathlib.Path]:
  """Forecasts windows of `[name:]STORE` and writes them; returns the samples' folders."""
  from stp_jax.report import png_tree
  name, colon, path = store.partition(':')
  opened = clip_store.ClipStore(path if colon else store)
  loaded = checkpoint.load(run, raw=raw, step=step)
  found = samples(loaded, opened, splits or loaded.config.data.test_splits, limit)
  return png_tree.write_tree(out, found, dataset=name if colon else opened.path.name,
                             name=pathlib.Path(run).name)
