"""Forecasts of a store's windows as PNG frames and GIFs, for frames that are pictures.

    python -m stp_jax.predict --checkpoint=RUN --store=[name:]STORE --split=test --limit=4 --out=DIR

writes `DIR/<store>/<run>/sample<k>/{input,output,ground_truth}<i>.png` and `sample<k>.gif`; of a
store with a clock and a georeference also `DIR/<store>/<run>/sample<k>.nc`, see `netcdf`.
"""

import pathlib
import sys
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from stp_jax import checkpoint, netcdf, predict_arrays, tasks
from stp_jax.data import clip_store, georeference, pipeline
from stp_jax.data import spec as data_spec


def samples(loaded: checkpoint.Loaded, store: clip_store.ClipStore, splits: Sequence[str],
            limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
  """Forecasts of windows that do not overlap, in 0..1 of full scale.

  A clip that ends where the forecast begins gives one without truth. Padding rows and columns of
  the store's grid are cut off.

  Args:
    limit: at most so many windows, evenly spread; 0 = all.

  Yields:
    `input` `[t_in, H, W, C]`, `output` and, where there is one, `ground_truth` `[t_out, H, W, C]`;
    `times` datetime64 `[t_in + t_out]`, or None.

  Raises:
    ValueError: a store of other frames, or no window in these splits.
  """
  spec, config = loaded.spec, loaded.config
  task = tasks.build(config, spec)
  if not config.data.domains:
    spec = data_spec.for_stores(spec, [store], task.required_columns, str(loaded.path))
    task = tasks.build(config, spec if task.required_columns else spec.with_columns((), {}))
  loaded.check(task)

  def run(variables, batch):
    inputs = task.inputs(batch, task.t_out)
    frames = jax.numpy.where(inputs['valid'], inputs['frames'], jax.numpy.nan)
    return frames, (task.predict(variables, batch) - task.spec.shift) / task.spec.divisor

  compiled = jax.jit(run)
  rows, columns = task.spec.grid_shape
  if not config.data.domains and not task.required_columns:
    chosen = predict_arrays.checked(store, splits, task.t_in, task.t_out, limit)
    for batch, mine in predict_arrays.batches(
        store, chosen, task.t_in, task.t_out, config.data.eval_batch_size):
      frames, forecast = (x[:, :, :rows, :columns] for x in jax.device_get(
          compiled(loaded.variables, batch)))
      for row, window in enumerate(mine):
        times = store.clips[window.clip].times(
            store.cadence_hours, window.start, task.length)
        sample = dict(input=frames[row, :task.t_in], output=forecast[row], times=times)
        yield sample | (dict(ground_truth=frames[row, task.t_in:]) if window.truth else {})
    return
  found = task.sources([store], splits, task.length)
  for batch in pipeline.eval_batches(found, task.spec, config.data, task.t_in, limit):
    frames, forecast = (x[:, :, :rows, :columns] for x in jax.device_get(
        compiled(loaded.variables, batch)))
    for row in np.flatnonzero(batch['mask']):
      source, number = batch['window'][row].tolist() if 'window' in batch else (0, 0)
      times = getattr(found[source], 'times', lambda _: None)(number)
      yield dict(input=frames[row, :task.t_in], output=forecast[row], times=times,
                 ground_truth=frames[row, task.t_in:])


def _written(found: Iterator[dict], loaded: checkpoint.Loaded, store: clip_store.ClipStore,
             folder: pathlib.Path) -> Iterator[dict]:
  """Passes samples on as pictures of 1 or 3 channels; writes each as NetCDF where that is known."""
  spec, grid = loaded.spec, store.meta['grid']
  wanted = georeference.is_placed(grid) and not loaded.config.data.domains
  if wanted and (note := netcdf.missing()):
    print(note, file=sys.stderr)
    wanted = False
  card = dict(name=loaded.config.name, step=loaded.step, licence=store.meta['licence'],
              data=[dict(name=store.name, description=store.meta['description'])])
  for k, sample in enumerate(found, 1):
    times = sample.pop('times')
    if wanted and times is not None:
      folder.mkdir(parents=True, exist_ok=True)
      given = sample['input']
      fields = np.where(np.isfinite(given).any(0), sample['output'] * spec.divisor + spec.shift,
                        np.nan)
      netcdf.write(folder / f'sample{k}.nc', fields, times[len(given):], times[len(given) - 1],
                   grid, units=spec.units, cadence_hours=store.cadence_hours,
                   **netcdf.words(card))
    yield sample if sample['output'].shape[-1] in (1, 3) else {
        part: frames[..., :1] for part, frames in sample.items()}


def write(run, store: str, splits: Sequence[str], out, *, limit: int = 0, raw: bool = False,
          step: int | str | None = None) -> list[pathlib.Path]:
  """Forecasts windows of `[name:]STORE` and writes them; returns the samples' folders."""
  from stp_jax.report import png_tree
  name, colon, path = store.partition(':')
  opened = clip_store.ClipStore(path if colon else store)
  loaded = checkpoint.load(run, raw=raw, step=step)
  found = samples(loaded, opened, splits or loaded.config.data.test_splits, limit)
  dataset, run = name if colon else opened.path.name, pathlib.Path(run).name
  found = _written(found, loaded, opened, pathlib.Path(out, dataset, run))
  return png_tree.write_tree(out, found, dataset=dataset, name=run)
