"""Scores of a forecast run, by TECU, pixel, rain or weather field; `stp_jax.evaluate` calls this.

The sums are masked and added on the host in float64, so the numbers do not depend on the batch size
or on the number of devices. A net that reads drivers is scored twice: as they were known at issue
time, and as measured later.
"""

import copy
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np
from tqdm import tqdm

from stp_jax import checkpoint, cluster, evaluate_fields, sharding, tasks, training_days
from stp_jax.data import clip_store, datasets, driver_modes, pipeline
from stp_jax.data import spec as data_spec
from stp_jax.metrics import accumulate, baselines
from stp_jax.metrics import fields as field_scores
from stp_jax.report import names
from stp_jax.typing import PyTree, Variables

# Windows that the baselines' few numbers are fitted on, spread over the training clips.
_FIT_WINDOWS = 256
# In units; of frames in 0 to 1; and the loss that training lowers.
_VALIDATED = ('rmse', 'mae', 'bias', 'gain', 'psnr', 'ssim', 'loss')


def score(
    task, variables: Variables, fitted: PyTree, stores: Sequence[clip_store.ClipStore],
    splits: Sequence[str], mesh, limit: int = 0, progress: bool = False, training: bool = False,
    fields: evaluate_fields.Fields | None = None, both_modes: bool = False,
) -> dict:
  """Scores of the windows of `splits`, see `metrics.accumulate.Scores.result`.

  Args:
    task, variables: what to score. fitted: baselines' tables, or None for persistence alone.
    limit: at most so many windows, evenly spread; 0 = all. training: with the loss, as `loss`.
    fields: adds the scores of rain maps or weather fields and their baselines.
    both_modes: a net that reads drivers is scored as well with the other future forcings (observed,
      or persist where those are the config's), as `net_<mode>`; `modes` names the mode of each.
  """
  fields = fields or evaluate_fields.Fields(task, baselines=False)
  spec, data = task.spec, task.config.data
  found = task.sources(stores, splits, data.eval_stride)
  batch_sharding, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  compiled = _compiled(task, replicated, training)
  variables, fitted = sharding.replicate((variables, fitted), mesh)
  scores = accumulate.Scores(cadence_hours=spec.cadence_hours, units=spec.units,
                             frames_per_day=task.frames_per_day)
  total = limit or sum(map(len, found))
  other, modes = driver_modes.other(task) if both_modes else '', {}
  if other:
    modes = dict(modes={'net': data.future_forcings, f'net_{other}': other})
    if not driver_modes.complete(found, spec, driver_modes.drivers(task), other, task.t_in):
      modes = dict(modes={'net': data.future_forcings}, modes_lacking=other)
      other = ''
  with tqdm(total=total, desc=f'evaluate {"+".join(splits)}', unit='window',
            disable=not progress or jax.process_index() > 0) as bar:
    for batch in pipeline.eval_batches(
        found, spec, data, task.t_in, limit, mesh.devices.size, other):
      batch['given'] = fields.given(batch, found)
      later = batch.pop('other', None)
      placed = pipeline.to_device(batch, batch_sharding)
      result, mask = jax.device_get(compiled(variables, fitted, placed))
      fields.update(result['fields'], mask)
      forecasts = dict(result['forecasts'])
      forecasts['net'] = forecasts['net'] | result['frames']
      if later is not None:
        # The same program once more: a second one would be compiled for as long as it runs.
        placed |= pipeline.to_device({'forcings': later}, batch_sharding)
        again, _ = jax.device_get(compiled(variables, fitted, placed))
        forecasts[f'net_{other}'] = again['forecasts']['net'] | again['frames']
      scores.update(forecasts, mask, result['strata'])
      bar.update(int(mask.sum()))
  return scores.result() | fields.result() | modes


@functools.lru_cache(maxsize=2)  # a validation every epoch compiles once
def _compiled(task, sharding_, training: bool):
  def evaluate_batch(variables, fitted, batch):
    result = task.evaluate(variables, fitted, batch)
    if training:
      result['frames'] = result['frames'] | {'loss': task.frame_loss(variables, batch)}
    return result, batch['mask']

  return jax.jit(evaluate_batch, out_shardings=sharding_)


def validate(task, state, stores, mesh) -> dict[str, float]:
  """Validation scores during training, on at most `validation_windows`; {} without such a split."""
  data = task.config.data
  if not any(len(s.windows(data.validation_splits, task.length)) for s in stores):
    return {}
  result = score(task, state.variables(), None, stores, data.validation_splits, mesh,
                 data.validation_windows, training=True)
  net = result['forecasts']['net']['all']
  found = {f'validation/{k}': net[k] for k in _VALIDATED if k in net}
  if 'events' in result:
    means = result['events']['forecasts']['net']['mean']
    found |= {f'validation/{k}': means[k][0] for k in ('csi', 'fss') if means[k][0] is not None}
  return found


def fit_baselines(task, stores: Sequence[clip_store.ClipStore]
                  ) -> dict[str, np.ndarray] | None:
  """The baselines' tables from the training clips, or None for frames without a clock."""
  data, spec = task.config.data, task.spec
  if not task.has_clock:
    return None
  tables = task.fit_climatology(stores, data.train_splits)
  found = task.sources(stores, data.train_splits, data.stride)
  prepare = jax.jit(task.baseline_batch)
  batches = (prepare({k: b[k] for k in ('frames', 'forcings', 'mask')})
             for b in pipeline.eval_batches(found, spec, data, task.t_in, _FIT_WINDOWS))
  return baselines.fit(
      batches, tables, t_in=task.t_in, t_out=task.t_out, row_weights=spec.row_weights)


def baselines_of(run, task, config) -> dict[str, np.ndarray] | None:
  """The baselines fitted on a run's training clips, once: `<run>/baselines.npz`.

  None where the training stores are not at hand (a converted checkpoint) or carry no clock:
  persistence alone is then the baseline.
  """
  try:
    return cluster.made_once(pathlib.Path(run) / 'baselines.npz',
                           lambda: fit_baselines(task, datasets.open_stores(config)))
  except ValueError as error:
    print(f'baselines: only persistence, because {error}', file=sys.stderr)
    return None


def as_trained(loaded: checkpoint.Loaded):
  """The config of a run that a command has since changed: what its baselines are fitted with.

  They are kept beside the run, so they must not depend on which command came first.
  """
  info = checkpoint.read_info(pathlib.Path(loaded.path) / 'checkpoints' / str(loaded.step))
  config = copy.deepcopy(loaded.config)
  config.data.future_forcings = info['config']['data']['future_forcings']
  return config


def trained_baselines(loaded: checkpoint.Loaded) -> dict[str, np.ndarray] | None:
  """`baselines_of` with the config and the columns of the training, whatever is scored now."""
  config = as_trained(loaded)
  return baselines_of(loaded.path, tasks.build(config, loaded.spec), config)


def card(
    loaded: checkpoint.Loaded, task, scores: dict[str, dict],
    stores: Sequence[clip_store.ClipStore],
) -> dict:
  """Everything a score card prints: where the numbers come from, and the numbers."""
  spec, config = loaded.spec, loaded.config
  return dict(
      name=config.name, words=config.words, step=loaded.step, model=config.model.name,
      fusion=config.model.fusion, anchor=config.model.anchor,
      translator=config.model.backbone.get('translator', ''),
      # What a frame shows, its store does not say, but for electron content.
      channels=[spec.channels[0] if spec.units == 'TECU' else 'image', *spec.channels[1:]],
      t_in=task.t_in, t_out=task.t_out, units=spec.units, cadence_hours=spec.cadence_hours,
      future_forcings=config.data.future_forcings, filled=list(spec.filled),
      protocol=config.protocol,
      chosen_on=list(config.data.validation_splits) if config.validation.metric else [],
      trained_on=dict(name=spec.name, description=spec.description),
      data=[dict(name=s.name, description=s.meta['description'], licence=s.meta['licence'],
                 path=s.path.name) for s in stores],
      divisor=spec.divisor, shape=list(spec.shape),
      clock=task.has_clock or all(s.clips[0].time is not None for s in stores),
      parameters=sum(x.size for x in jax.tree.leaves(loaded.variables['params'])),
      splits=scores)


def example(task, variables: Variables, stores, splits: Sequence[str], predict: Callable
            ) -> dict[str, np.ndarray]:
  """One window's input, truth and forecast in physical units, for pictures: the most active one.

  `predict`: the task's, compiled.
  """
  spec, data = task.spec, task.config.data
  found = task.sources(stores, splits, data.eval_stride)
  rain = field_scores.kind_of(task.config, spec) == 'nowcast' and spec.shape[2] == 1
  # The storm column decides where there is one; otherwise the window in the middle.
  best, window = -np.inf, (0, len(found[0]) // 2)
  if 'kp' in spec.columns:
    column = spec.columns.index('kp')
    for i, source in enumerate(found):
      for j in range(0, len(source), task.t_out):
        level = np.nanmean(source[j]['columns'][task.t_in:, column])
        if level > best:
          best, window = level, (i, j)
  elif rain:
    window = evaluate_fields.wettest(found, spec)
  source = found[window[0]].only(window[1])
  batch = next(pipeline.eval_batches([source], spec, data, task.t_in))
  forecast = predict(variables, {k: batch[k] for k in ('frames', 'forcings')})
  rows, columns = spec.grid_shape
  # Red, green and blue of a picture; of anything else the first channel.
  colour = spec.shape[2] == 3 and spec.units == 'of full scale' and 'latitude' not in spec.grid
  shown = slice(None) if colour else 0
  physical = source.store.physical(batch['frames'][0])[:, :rows, :columns, shown]
  forecast, units = np.asarray(forecast)[0, :, :rows, :columns, shown], spec.units
  if rain:  # as a rate, and only where a radar sees
    settings = field_scores.settings_of(task.config, spec)
    physical, units = physical * settings.factor, settings.units
    forecast = np.where(np.isfinite(physical).any(0), forecast * settings.factor, np.nan)
  return dict(
      input=physical[:task.t_in], truth=physical[task.t_in:], forecast=forecast,
      times=source.times(0), latitude=spec.grid.get('latitude'),
      longitude=spec.grid.get('longitude'), units=units)


def evaluate(loaded: checkpoint.Loaded, *, store: Sequence[str] = (), split: Sequence[str] = (),
             limit: int = 0, out) -> dict:
  """Scores a run and writes its report; arguments and result as those of `stp_jax.evaluate`.

  Raises:
    ValueError: several runs, or a split that is in no store.
  """
  if isinstance(loaded, list):
    raise ValueError(f'{loaded[0].path}: only runs over domains are compared; name one checkpoint')
  run, config = loaded.path, loaded.config
  task = tasks.build(config, loaded.spec)
  loaded.check(task)
  fitted = trained_baselines(loaded)
  stores = datasets.open_stores(config, tuple(store) or tuple(config.data.eval_stores))
  spec = data_spec.for_stores(loaded.spec, stores, task.required_columns, str(run))
  task = tasks.build(config, spec)
  mesh = sharding.make_mesh()
  splits = datasets.chosen_splits(config, stores, split)
  tables = evaluate_fields.climatology_of(run, task, config)
  scores = {s: score(task, loaded.variables, fitted, stores, [s], mesh, limit, progress=True,
                     fields=evaluate_fields.Fields(task, tables), both_modes=True) for s in splits}
  result = card(loaded, task, scores, stores)
  days = training_days.TrainingDays([config], stores)
  overlap = {s: days.overlap(task.sources(stores, [s], config.data.eval_stride), task.t_in,
                             task.length, limit) for s in splits}
  result['scored_on_training'] = {s: o for s, o in overlap.items() if o}
  if jax.process_index() == 0:
    from stp_jax import report
    for name, found in result['scored_on_training'].items():
      print(f'evaluate: {names.scored_on_training(found, name)}', file=sys.stderr)
    predict = jax.jit(task.predict)
    shown = example(task, loaded.variables, stores, splits[:1], predict)
    if spec.units == 'TECU':
      from stp_jax import evaluate_costs
      result |= evaluate_costs.costs(task, loaded.variables, stores, splits[:1], predict)
    report.write(out, result, example=shown,
                 metrics=pathlib.Path(run) / 'metrics.jsonl')
  return result
