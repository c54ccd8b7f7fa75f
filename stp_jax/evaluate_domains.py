"""Scores of runs by domain: `python -m stp_jax.evaluate --checkpoint=RUN[,RUN ...]`.

Every run is scored on the same frames beside persistence (the last input frame), in model units
(0 to 1), per domain and lead: MSE, MAE, PSNR, SSIM, LPIPS where its weights are given, and of the
event value >= `threshold` the probability of detection, false alarm ratio, critical success index
and Heidke skill. Of several runs it also says which weights differ between them.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from stp_jax import checkpoint, sharding, tasks
from stp_jax.data import clip_store, datasets, domains, pipeline
from stp_jax.metrics import accumulate, gs2pm, nowcast, video
from stp_jax.report import domains as report
from stp_jax.typing import Variables

# 10 of 70 dBZ: what the radar sets' tables call rain.
THRESHOLD, TOP = 10 / 70, 1.0


def score(
    task, variables: Variables, stores: Mapping[str, clip_store.ClipStore], splits: Sequence[str],
    mesh, *, limit: int = 0, lpips=None, progress: bool = False,
) -> dict[str, dict]:
  """Scores of a run, domain by domain.

  Args:
    stores: name -> store. limit: windows per domain, evenly spread; 0 = all.
    lpips: `(prediction, truth, valid) -> {name: [B, T]}`, or None.

  Returns:
    {domain: {windows, leads, net: scores, persistence: scores}}; `scores`: name -> mean over leads,
    and under `by_lead` name -> list.
  """
  batch_sharding, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  def evaluate_batch(variables, batch):
    inputs = task.inputs(batch, task.t_out)
    truth, valid = inputs['frames'][:, task.t_in:], inputs['valid'][:, task.t_in:]
    last = inputs['frames'][:, task.t_in - 1:task.t_in]
    net = (task.predict(variables, batch) - task.spec.shift) / task.spec.divisor
    forecasts = dict(net=net,
                     persistence=np.ones((1, task.t_out, 1, 1, 1), np.float32) * last)
    found = {k: _statistics(f, truth, valid, lpips) for k, f in forecasts.items()}
    return found, batch['mask']

  compiled = jax.jit(evaluate_batch, out_shardings=replicated)
  variables = sharding.replicate(variables, mesh)
  data, result = task.config.data, {}
  for name, store in stores.items():
    found = task.sources([store], splits, data.eval_stride)
    sums = accumulate.Scores(cadence_hours=0)
    count = sum(map(len, found))
    with tqdm(total=min(limit or count, count), desc=f'evaluate {name}', unit='window',
              disable=not progress or jax.process_index() > 0) as bar:
      for batch in pipeline.eval_batches(
          found, task.spec, data, task.t_in, limit, mesh.devices.size):
        # The mask of all processes, as the statistics are.
        values, mask = jax.device_get(
            compiled(variables, pipeline.to_device(batch, batch_sharding)))
        sums.update(values, mask)
        bar.update(int(mask.sum()))
    total = sums.result()
    result[name] = dict(windows=total['windows'], leads=total['leads'], **{
        k: _ratios(total['forecasts'][k]['all']) for k in ('net', 'persistence')})
  return result


def _statistics(prediction, truth, valid, lpips) -> dict:
  found = dict(
      mse=video.mse(prediction, truth, valid), mae=video.mae(prediction, truth, valid),
      psnr=video.psnr(prediction, truth, valid))
  if min(truth.shape[2:4]) >= video.WINDOW:
    found['ssim'] = video.ssim(prediction, truth, valid, data_range=1.0)
  if lpips is not None:
    found |= lpips(prediction, truth, valid)
  found |= nowcast.counts(prediction, truth, valid, low=THRESHOLD, high=TOP)
  found |= {f'upstream_{k}': v for k, v in gs2pm.per_example(prediction, truth, valid).items()}
  return found


def _ratios(scores: Mapping[str, Any]) -> dict:
  """The means of a forecast, its counts turned into ratios."""
  def turned(group):
    counted = {k: np.array(group[k], float) for k in nowcast.COUNTS}
    plain = {k: v for k, v in group.items() if k not in (*nowcast.COUNTS, 'by_lead', 'by_day')}
    ratios = {k: np.where(np.isnan(v), None, v).tolist()
              for k, v in nowcast.scores(counted).items()}
    return plain | ratios

  return dict(turned(scores), by_lead=turned(scores['by_lead']))


def changed(one: Variables, other: Variables) -> dict[str, Any]:
  """Which weights of two runs differ, bit by bit; `comparable` False: other architectures."""
  flat = [{jax.tree_util.keystr(p, simple=True, separator='/'): np.asarray(x)
           for p, x in jax.tree_util.tree_leaves_with_path(dict(v))} for v in (one, other)]
  shapes = [{k: v.shape for k, v in f.items()} for f in flat]
  if shapes[0] != shapes[1]:
    return dict(comparable=False)
  differing = [k for k, v in flat[0].items() if v.tobytes() != flat[1][k].tobytes()]
  return dict(comparable=True, arrays=len(flat[0]), differing=differing)


def evaluate(
    loaded: checkpoint.Loaded | Sequence[checkpoint.Loaded], *, store: Sequence[str] = (),
    split: Sequence[str] = (), limit: int = 0, out, lpips: str = '',
) -> dict:
  """Scores runs side by side and writes the report.

  Args:
    loaded: the runs. store: `name:STORE` or stores; default: those of the first run.
    split: default the test splits. limit: windows per domain, 0 = all. out: report folder.
    lpips: weights that `stp_jax.convert lpips` wrote, or '' for none.

  Returns:
    The score card as written to scores.json.

  Raises:
    ValueError: runs that do not forecast the same frames, or a split that is in no store.
  """
  runs = list(loaded) if isinstance(loaded, (list, tuple)) else [loaded]
  first, mesh = runs[0], sharding.make_mesh()
  shape = lambda r: (r.spec.shape, r.config.data.t_in, r.config.data.t_out)
  for run in runs[1:]:
    if shape(run) != shape(first):
      raise ValueError(f'{run.path}: frames and lengths {shape(run)} differ from {shape(first)} of '
                       f'{first.path}; compare runs on the same frames')
  stores = _stores(first.config, store)
  splits = tuple(split) or first.config.data.test_splits
  for name, one in stores.items():
    if not set(splits) & set(one.splits):
      raise ValueError(f'{one.path}: domain {name} has no split {"+".join(splits)}; '
                       f'choose --split from {" ".join(one.splits)}')
  distance = None
  if lpips:
    from stp_jax.metrics import lpips as module
    weights = module.load(lpips)
    distance = lambda *frames: {
        'lpips': module.lpips(weights, *frames),
        'upstream_lpips': module.lpips(weights, *frames, protocol='upstream')}
  card = dict(splits=list(splits), threshold=THRESHOLD, t_in=first.config.data.t_in,
              t_out=first.config.data.t_out, shape=list(first.spec.shape), runs=[])
  pictures = {}
  for run in runs:
    task = tasks.build(run.config, run.spec)
    run.check(task)
    scores = score(task, run.variables, stores, splits, mesh, lpips=distance, progress=True,
                   limit=limit or first.config.data.test_windows)
    card['runs'].append(dict(
        run=pathlib.Path(run.path).name, model=run.config.model.name, step=run.step,
        stage=run.config.task.stage, init_from=pathlib.Path(run.config.init_from).name,
        parameters=sum(x.size for x in jax.tree.leaves(run.variables['params'])),
        domains=scores))
    for name, one in stores.items():
      window = example(task, run.variables, one, splits)
      pictures.setdefault(name, dict(window, forecasts={}))
      pictures[name]['forecasts'][pathlib.Path(run.path).name] = window['forecast']
  card['changed'] = {pathlib.Path(r.path).name: changed(first.variables, r.variables)
                     for r in runs[1:]}
  if jax.process_index() == 0:
    report.write(pathlib.Path(out), card, pictures)
  return card


def example(task, variables: Variables, store, splits: Sequence[str]) -> dict[str, np.ndarray]:
  """The window in the middle: `input` `[t_in, H, W, C]`, `truth`, `forecast` `[t_out, H, W, C]`."""
  found = task.sources([store], splits, task.config.data.eval_stride)
  source = found[0].only(len(found[0]) // 2)
  batch = next(pipeline.eval_batches([source], task.spec, task.config.data, task.t_in))
  batch = {k: v[:1] for k, v in batch.items()}

  def run(variables, batch):
    return task.inputs(batch, task.t_out)['frames'][0], task.predict(variables, batch)[0]

  frames, forecast = jax.device_get(jax.jit(run)(variables, batch))
  return dict(input=frames[:task.t_in], truth=frames[task.t_in:],
              forecast=(forecast - task.spec.shift) / task.spec.divisor)


def validate(task, state, stores, mesh) -> dict[str, float]:
  """Validation scores during training, by domain; {} without such a split."""
  data = task.config.data
  named = domains.named(data, stores)
  there = {k: s for k, s in named.items()
           if len(s.windows(data.validation_splits, task.length))}
  found = score(task, state.variables(), there, data.validation_splits, mesh,
                limit=data.validation_windows)
  return {f'validation/{k}/{m}': v['net'][m] for k, v in found.items() for m in ('mse', 'ssim')
          if v['net'].get(m) is not None}


def _stores(config, given: Sequence[str]) -> dict[str, clip_store.ClipStore]:
  """Name -> store: `given`, or those of the config."""
  if not given:
    return domains.named(config.data, datasets.open_stores(config))
  result = {}
  for item in given:
    name, colon, path = item.partition(':')
    result[name if colon else pathlib.Path(item).name] = clip_store.ClipStore(path or item)
  return result

