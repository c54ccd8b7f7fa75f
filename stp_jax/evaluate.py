"""Scores of a checkpoint: `python -m stp_jax.evaluate --checkpoint=RUN [--store=S] [--split=S]`.

Every forecast is scored beside its baselines, in physical units. The sums are masked and added on
the host in float64, so the numbers do not depend on the batch size or on the number of devices.
A net that reads drivers is scored twice: as they were known at issue time, and as measured later.
"""

import argparse
import functools
import importlib
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from stp_jax import checkpoint, cluster, evaluate_fields, sharding, tasks
from stp_jax.data import clip_store, datasets, driver_modes, pipeline
from stp_jax.data import spec as data_spec
from stp_jax.metrics import accumulate, baselines
from stp_jax.metrics import fields as field_scores
from stp_jax.typing import PyTree, Variables

# Tasks whose scores are no forecast's: a module here with `evaluate` and `validate` of its own.
_OTHERS = {'domains': 'evaluate_domains', 'beam': 'evaluate_beam', 'rebuild': 'evaluate_beam',
           'custom': 'evaluate_task'}
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
  data, name = task.config.data, _kind(task.config)
  if name in _OTHERS:
    return _module(name).validate(task, state, stores, mesh)
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


def _kind(config) -> str:
  """The task, or 'domains' where frames of several stores or a masked network are scored."""
  domains = config.task.name == 'masked' or config.data.domains
  return 'domains' if domains else tasks.kind(config.task.name)


def _module(kind: str):
  return importlib.import_module(f'stp_jax.{_OTHERS[kind]}')


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


def example(task, variables: Variables, stores, splits: Sequence[str], predict=None
            ) -> dict[str, np.ndarray]:
  """One window's input, truth and forecast in physical units, for pictures: the most active one.

  `predict`: the task's, compiled, where the caller has it.
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
  predict = predict or jax.jit(task.predict)
  forecast = predict(variables, {k: batch[k] for k in ('frames', 'forcings')})
  rows = int(spec.grid.get('rows', spec.shape[0]))
  # Red, green and blue of a picture; of anything else the first channel.
  colour = spec.shape[2] == 3 and spec.units == 'of full scale' and 'latitude' not in spec.grid
  shown = slice(None) if colour else 0
  physical = source.store.physical(batch['frames'][0])[:, :rows, :, shown]
  forecast, units = np.asarray(forecast)[0, :, :rows, :, shown], spec.units
  if rain:  # as a rate, and only where a radar sees
    settings = field_scores.settings_of(task.config, spec)
    physical, units = physical * settings.factor, settings.units
    forecast = np.where(np.isfinite(physical).any(0), forecast * settings.factor, np.nan)
  return dict(
      input=physical[:task.t_in], truth=physical[task.t_in:], forecast=forecast,
      times=source.times(0), latitude=spec.grid.get('latitude'),
      longitude=spec.grid.get('longitude'), units=units)


def evaluate(
    run, *, store: Sequence[str] = (), split: Sequence[str] = (), raw: bool = False,
    future_forcings: str = '', limit: int = 0, out=None, batch_size: int = 0, lpips: str = '',
    step: int | str | None = None, protocol: str = '',
) -> dict:
  """Scores a run or converted checkpoint and writes its report.

  Args:
    run: workdir, or over domains several. store: clip stores, default those of the config.
    split: default the test splits. raw: parameters as trained, not their average.
    future_forcings: overrides the config's mode. limit: windows per split, 0 = all.
    out: report folder, default `<run>/report`. lpips: its weights, for runs over domains.
    step: of the checkpoint: a number, 'best', or the newest.
    protocol: 'standard' or 'upstream' instead of the config's: whose scores head the card; upstream
      sets future_forcings to 'observed' where that is not given.

  Returns:
    The score card as written to scores.json.
  """
  runs = [run] if isinstance(run, (str, pathlib.Path)) else list(run)
  loaded, *others = (checkpoint.load(r, raw=raw, step=step) for r in runs)
  run, config = runs[0], loaded.config
  config.protocol = protocol or config.protocol
  if config.protocol not in ('standard', 'upstream'):
    raise ValueError(f'protocol={config.protocol!r}: choose standard or upstream')
  future_forcings = future_forcings or ('observed' if protocol == 'upstream' else '')
  if future_forcings:
    config.data.future_forcings = future_forcings
  if batch_size:
    config.data.eval_batch_size = batch_size
  out = pathlib.Path(out or pathlib.Path(run) / 'report')
  if _kind(config) in _OTHERS:
    more = dict(lpips=lpips) if lpips else {}
    return _module(_kind(config)).evaluate(
        [loaded, *others] if others else loaded, store=store, split=split, limit=limit, out=out,
        **more)
  if others:
    raise ValueError(f'{run}: only runs over domains are compared; name one checkpoint')
  task = tasks.build(config, loaded.spec)
  expected = jax.eval_shape(task.init, jax.random.key(0))
  checkpoint.check_architecture(run, loaded.variables, expected)
  fitted = baselines_of(run, task, config)
  stores = datasets.open_stores(config, tuple(store) or tuple(config.data.eval_stores))
  spec = data_spec.for_stores(loaded.spec, stores, task.required_columns, str(run))
  task = tasks.build(config, spec)
  mesh = sharding.make_mesh()
  splits = tuple(split) or tuple(
      s for s in config.data.test_splits if any(s in t.splits for t in stores))
  if not splits:
    raise ValueError(
        f'{" ".join(str(s.path) for s in stores)}: none of the test splits '
        f'{" ".join(config.data.test_splits)}; choose --split from {" ".join(stores[0].splits)}')
  tables = evaluate_fields.climatology_of(run, task, config)
  scores = {s: score(task, loaded.variables, fitted, stores, [s], mesh, limit, progress=True,
                     fields=evaluate_fields.Fields(task, tables), both_modes=True) for s in splits}
  result = card(loaded, task, scores, stores)
  if jax.process_index() == 0:
    from stp_jax import report
    predict = jax.jit(task.predict)
    shown = example(task, loaded.variables, stores, splits[:1], predict)
    if spec.units == 'TECU':
      from stp_jax import evaluate_costs
      result |= evaluate_costs.costs(task, loaded.variables, stores, splits[:1], predict)
    report.write(out, result, example=shown,
                 metrics=pathlib.Path(run) / 'metrics.jsonl')
  return result


def arguments() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.evaluate', description=__doc__)
  add = parser.add_argument
  add('--checkpoint', required=True,
      help='workdir of a run or converted checkpoint; over domains several, joined by commas')
  add('--store', default='',
      help='clip stores (domains: name:STORE), joined by a comma; default: those of the config')
  add('--split', default='', help="splits, joined by '+'; default: the config's test splits")
  add('--raw', action='store_true', help='parameters as trained instead of their average')
  add('--step', default='', help='of the checkpoint: a number, best, or latest (default)')
  add('--future-forcings', default='', help='persist | observed | forecast | none')
  add('--protocol', default='', choices=['', 'standard', 'upstream'],
      help="whose scores head the card; upstream: unweighted, every pixel, observed drivers")
  add('--limit', type=int, default=0, help='windows per split, evenly spread; 0 = all')
  add('--batch-size', type=int, default=0, help='windows in a batch; scores do not depend on it')
  add('--lpips', default='', help='weights written by stp_jax.convert lpips, for domains')
  add('--out', default=None, help='report folder; default <checkpoint>/report')
  add('--cluster', default='auto', choices=cluster.KINDS, help='how several processes join')
  add('--coordinator', default=None, help='host:port of process 0; SLURM and pods need no flag')
  add('--processes', type=int, default=None, help='number of processes, with --coordinator')
  add('--process', type=int, default=None, help='index of this one, with --coordinator')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the score card; a bad input is one line on stderr and exit code 1."""
  flags.FLAGS.mark_as_parsed()
  args = arguments().parse_args(argv)
  runs = args.checkpoint.split(',')
  out = pathlib.Path(args.out or pathlib.Path(runs[-1]) / 'report')
  try:
    cluster.join(args.coordinator, args.processes, args.process, args.cluster)
    evaluate(
        runs, store=[s for s in args.store.split(',') if s],
        split=[s for s in args.split.split('+') if s], raw=args.raw,
        future_forcings=args.future_forcings, limit=args.limit, out=out,
        batch_size=args.batch_size, lpips=args.lpips, step=args.step, protocol=args.protocol)
  except (ValueError, OSError) as error:
    print(f'evaluate: {error}', file=sys.stderr)
    return 1
  if jax.process_index() == 0:
    print((out / 'score_card.md').read_text())
  return 0


if __name__ == '__main__':
  sys.exit(main())
