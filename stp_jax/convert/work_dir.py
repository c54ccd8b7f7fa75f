"""A whole OpenSTL experiment: converted, forecast again from its saved inputs, scored twice.

    work_dirs/<name>/  model_param.json  checkpoint.pth | checkpoints/{best.ckpt,latest.pth}
                       saved/{inputs,preds,trues}.npy  [N, T, C, H, W] as the network has them
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from stp_jax import checkpoint, tasks
from stp_jax.convert import runs
from stp_jax.convert.rules import ConversionError
from stp_jax.metrics import tec, video

# The best weights, which made the saved predictions, before the last ones.
_CHECKPOINTS = ('checkpoint.pth', 'checkpoints/best.ckpt', 'checkpoints/latest.pth',
                'checkpoints/last.ckpt', 'latest.pth')
_BATCH = 8  # windows; results do not depend on it
_TOLERANCE = 1e-4  # of the largest value, at least of 1: float32 through some ten steps
_DIFFERS = dict(
    mim='upstream carries a memory from batch to batch',
    dmvfn='upstream draws its routing anew each time')


def find_checkpoint(folder: str | pathlib.Path) -> pathlib.Path:
  """The best weights of an experiment. ConversionError: none of the files it would have."""
  for name in _CHECKPOINTS:
    if (pathlib.Path(folder) / name).is_file():
      return pathlib.Path(folder) / name
  raise ConversionError(f'{folder}: no experiment: has none of {" ".join(_CHECKPOINTS)}')


def _saved(folder: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of `saved/`, memory-mapped. ConversionError: a damaged one."""
  found = {}
  for name in ('inputs', 'preds', 'trues'):
    path = pathlib.Path(folder) / 'saved' / f'{name}.npy'
    if path.is_file():
      try:
        found[name] = np.load(path, mmap_mode='r', allow_pickle=False)
      except (ValueError, EOFError, OSError) as error:
        raise ConversionError(f'{path}: no array: {error}') from error
      if found[name].ndim != 5:
        raise ConversionError(f'{path}: {found[name].shape}, expected [N, T, C, H, W]')
  if len({len(a) for a in found.values()}) > 1:
    raise ConversionError(f'{folder}/saved: arrays of different lengths: '
                          f'{" ".join(f"{k} {len(v)}" for k, v in found.items())}')
  return found


def _last(array: np.ndarray) -> np.ndarray:
  return np.moveaxis(np.asarray(array, np.float32), 2, -1)


def _forecasts(run: str, inputs: np.ndarray, chosen: np.ndarray) -> Iterator[np.ndarray]:
  """Forecasts `[n, T, H, W, C]` of the chosen windows, in model units, batch by batch.

  Raises:
    ConversionError: inputs that the model cannot be run on; says what they lack.
  """
  loaded = checkpoint.load(run)
  task = tasks.build(loaded.config, loaded.spec)
  model, image, total = task.model(), loaded.spec.shape[2], task.length
  steps, channels = inputs.shape[1:3]
  wanted = image + (len(task.channels) - 1)
  if channels != wanted or steps < task.t_in:
    raise ConversionError(f'inputs are {steps} frames of {channels} channels, the model reads '
                          f'{task.t_in} of {wanted}')
  # A network that makes its forecast in one piece reads no forcings of later frames.
  alone = model.backbone.kind == 'chunks' and task.t_out <= task.t_in
  if wanted > image and steps < total and not alone:
    raise ConversionError(f'inputs end after {steps} of {total} frames, and the model reads '
                          'forcings of the later ones too')

  @jax.jit
  def predict(variables, frames, planes):
    return model.apply(variables, frames, planes, train=False).prediction

  for first in range(0, len(chosen), _BATCH):
    rows = chosen[first:first + _BATCH]
    padded = np.resize(rows, _BATCH)  # one shape, one compilation
    batch = _last(inputs[padded])[:, :total]
    planes = None
    if wanted > image:
      planes = np.zeros((_BATCH, total, *batch.shape[2:4], wanted - image), np.float32)
      planes[:, :batch.shape[1]] = batch[..., image:]
    forecast = predict(loaded.variables, batch[:, :task.t_in, ..., :image], planes)
    yield np.asarray(forecast)[:len(rows)]


def reproduce(run: str, saved: Mapping[str, np.ndarray], limit: int = 256) -> dict[str, Any]:
  """Largest difference between our forecasts and the saved ones, in model units.

  Args:
    limit: so many windows at most, evenly spread; 0 = all.

  Returns:
    `difference`, `largest` (of the saved values), `windows`, `of`.
  """
  inputs, preds = saved['inputs'], saved['preds']
  count = min(limit, len(preds)) if limit else len(preds)
  chosen = np.unique(np.linspace(0, len(preds) - 1, count).round().astype(int))
  difference, largest, done = 0.0, 0.0, 0
  for forecast in _forecasts(run, inputs, chosen):
    rows = chosen[done:done + len(forecast)]
    theirs = _last(preds[rows])
    if forecast.shape != theirs.shape:
      raise ConversionError(f'preds are {theirs.shape[1:]}, the model makes {forecast.shape[1:]}')
    # A difference that is not a number must not pass as a small one.
    difference = float(np.maximum(difference, np.abs(forecast - theirs).max()))
    largest = max(largest, float(np.abs(theirs).max()))
    done += len(forecast)
  return dict(difference=difference, largest=largest, windows=len(chosen), of=len(preds))


def score(preds: np.ndarray, trues: np.ndarray, spec) -> dict[str, dict[str, float]]:
  """Scores of saved predictions `[N, T, C, H, W]` in model units, a few windows at a time.

  Returns:
    `upstream`: what its own metrics say (see `metrics.video`). `standard`: means over pixels, ssim
    with the range 1; with a grid in TECU also errors weighted by the cosine of the latitude.
  """
  small = min(preds.shape[-2:]) < video.WINDOW
  metrics = tuple(m for m in video.UPSTREAM if not (small and m == 'ssim'))
  spatial = spec.name.startswith('weather')  # where upstream divides by the number of pixels
  sums: dict[str, dict[str, float]] = dict(upstream={}, standard={}, maps={})

  def add(group, name, value, weight=1.0):
    sums[group][name] = sums[group].get(name, 0.0) + float(value) * weight

  for first in range(0, len(preds), _BATCH):
    pred, true = (np.asarray(x[first:first + _BATCH], np.float32) for x in (preds, trues))
    share = len(pred) / len(preds)
    found = video.upstream(pred, true, metrics=metrics, spatial_norm=spatial, tecu=spec.divisor)
    for name, value in found.items():
      if isinstance(value, float):
        # Roots are taken at the end: the root of a mean is not a mean of roots.
        add('upstream', name, value ** 2 if name.startswith('rmse') else value, share)
    pred, true = _last(pred), _last(true)
    mean = lambda x: float(np.mean(np.asarray(x, np.float64)))
    add('standard', 'mse', mean(np.square(pred - true)), share)
    add('standard', 'mae', mean(np.abs(pred - true)), share)
    for name, value in video.per_example(pred, true).items():
      if name in ('ssim', 'psnr'):
        add('standard', name, mean(value), share)
    if spec.units == 'TECU':
      for name, value in tec.per_example(
          pred * spec.divisor, true * spec.divisor, None, spec.row_weights).items():
        add('maps', name, np.asarray(value, np.float64).sum())
  root = lambda name, value: value ** 0.5 if name.startswith('rmse') else value
  standard = sums['standard'] | {'rmse': sums['standard']['mse'] ** 0.5}
  if maps := sums['maps']:
    standard |= dict(cos_rmse_tecu=(maps['cos_sse'] / maps['cos_weight']) ** 0.5,
                     cos_mae_tecu=maps['cos_sae'] / maps['cos_weight'])
  tecu = spec.units == 'TECU'
  return dict(
      upstream={k: root(k, v) for k, v in sums['upstream'].items() if tecu or 'tecu' not in k},
      standard=standard)


def _line(scores: Mapping[str, float]) -> str:
  return ', '.join(f'{k} {v:.5g}' for k, v in scores.items())


def _verdict(found: Mapping[str, Any], model: str) -> str:
  windows = f'{found["windows"]} of {found["of"]} windows, values up to {found["largest"]:.3g}'
  if found['difference'] <= _TOLERANCE * max(1.0, found['largest']):
    return f'your predictions reproduced to {found["difference"]:.1g} ({windows})'
  why = f'; {_DIFFERS[model]}' if model in _DIFFERS else ''
  return (f'your predictions NOT reproduced: they differ by up to {found["difference"]:.3g} '
          f'({windows}){why}')


def convert(folder: str, out: str, *, limit: int = 256, say: Callable[[str], None], **options
            ) -> str:
  """Converts an experiment's best weights to the run `out` and checks them on what it saved.

  Args:
    limit: windows to forecast again; 0 = all. say, options: see `runs.to_ours`.

  Returns:
    A summary in lines; the numbers are also in `<out>/rescored.json`.

  Raises:
    CheckpointError, ConversionError: one line; nothing is written then.
  """
  source, saved = find_checkpoint(folder), _saved(folder)
  frames = saved.get('preds', saved.get('inputs'))
  overrides = dict(options.pop('overrides', None) or {})
  if frames is not None:
    options['frame'] = options.get('frame') or tuple(frames.shape[-2:])
  if 'preds' in saved:
    overrides.setdefault('data.t_out', str(saved['preds'].shape[1]))
  lines = [runs.to_ours(str(source), out, say=say, overrides=overrides, **options)]
  loaded, result = checkpoint.load(out), dict(source=str(source))
  if {'inputs', 'preds'} <= saved.keys():
    try:
      result['reproduced'] = found = reproduce(out, saved, limit)
      lines.append(_verdict(found, loaded.config.model.name))
    except ConversionError as error:
      lines.append(f'not forecast again: {error}')
  elif 'preds' in saved:
    lines.append('no saved/inputs.npy: the saved predictions are scored, not forecast again')
  if {'preds', 'trues'} <= saved.keys():
    if saved['preds'].shape != saved['trues'].shape:
      lines.append(f'not scored: preds {saved["preds"].shape}, trues {saved["trues"].shape}')
    else:
      result['scores'] = scores = score(saved['preds'], saved['trues'], loaded.spec)
      lines += [f'their score, protocol upstream: {_line(scores["upstream"])}',
                f'their score, protocol standard: {_line(scores["standard"])}']
  else:
    lines.append('no saved/preds.npy and trues.npy: nothing to score')
  (pathlib.Path(out) / 'rescored.json').write_text(json.dumps(result, indent=1) + '\n')
  return '\n'.join(lines)
