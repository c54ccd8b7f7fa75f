"""Several runs on one window: truth, every forecast and its error, as a picture and a film.

    python -m stp_jax.report --compare runs/a runs/b --index=125 --leads=1,19,28,44,48

The figure of the Channel Mixer Layer's paper: errors on one scale of -10 to 10 TECU over coasts.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from stp_jax import checkpoint, evaluate, tasks
from stp_jax.data import datasets, pipeline
from stp_jax.data import spec as data_spec
from stp_jax.report import names as words
from stp_jax.report import score_card


@dataclasses.dataclass(frozen=True)
class Forecast:
  """What one run says about the window.

  Attributes:
    name: of the run. mode: its future forcings, '' where only the image is fed. step: of the
    checkpoint. values: `[T_out, H, W]`.
  """
  name: str
  mode: str
  step: int
  values: np.ndarray

  @property
  def title(self) -> str:
    return self.name + (f' ({self.mode})' if self.mode else '')


@dataclasses.dataclass(frozen=True)
class Window:
  """One window of the data and the forecasts of all runs; `[T_out, H, W]`, NaN = missing.

  Attributes:
    split, index: which window. truth. times: datetime64 `[T_out]` or None. latitude, longitude:
    degrees or None. units, cadence_hours. data: of the stores, as in a score card.
  """
  split: str
  index: int
  truth: np.ndarray
  times: np.ndarray | None
  latitude: Sequence[float] | None
  longitude: Sequence[float] | None
  units: str
  cadence_hours: float
  data: list[dict]
  forecasts: tuple[Forecast, ...] = ()


def _labels(runs: Sequence[pathlib.Path]) -> list[str]:
  """The shortest ends of the paths that tell the runs apart."""
  for parts in range(1, 1 + max(len(r.parts) for r in runs)):
    labels = ['/'.join(r.parts[-parts:]) for r in runs]
    if len(set(labels)) == len(labels):
      break
  return labels


def _load(run: pathlib.Path, step: str) -> checkpoint.Loaded:
  """The named checkpoint; by default the best where one is kept, as after training, else the last.

  Raises:
    ValueError: a run whose forecasts are no maps of one store.
  """
  loaded = checkpoint.load(run, step=step)
  if loaded.config.validation.metric and not step:
    try:
      loaded = checkpoint.load(run, step='best')
    except checkpoint.CheckpointError:
      pass  # stopped before its first validation
  if evaluate.kind(loaded.config) != 'forecast':
    raise ValueError(f'{run}: --compare draws forecasts of frames of one store; this run is of the '
                     f'task {loaded.config.task.name}' + (
                         ' over domains' if loaded.config.data.domains else ''))
  return loaded


def _same(runs: Sequence[pathlib.Path], what: Sequence[str], cure: str) -> None:
  if len(set(what)) > 1:
    raise ValueError('; '.join(f'{r}: {w}' for r, w in zip(runs, what)) + f'; {cure}')


def chosen_leads(text: str, t_out: int, runs: Sequence[pathlib.Path]) -> list[int]:
  """Leads as indices, from '1,19,28' (1 is the first frame ahead); '' = up to five, even.

  Raises:
    ValueError: no whole number from 1 on, or one beyond the runs' horizon.
  """
  if not text:
    return sorted({round(x) for x in np.linspace(0, t_out - 1, min(5, t_out))})
  try:
    leads = [int(word) for word in text.replace('+', ',').split(',') if word]
  except ValueError:
    leads = []
  if not leads or min(leads) < 1:
    raise ValueError(f'--leads={text}: whole numbers from 1 on, joined by commas')
  beyond = [lead for lead in leads if lead > t_out]
  if beyond:
    raise ValueError(f'--leads={",".join(map(str, beyond))}: beyond the {t_out} frames that '
                     f'{" ".join(map(str, runs))} forecast')
  return [lead - 1 for lead in dict.fromkeys(leads)]


def _picked(found: Sequence[pipeline.WindowSource], index: int, split: str):
  total = sum(map(len, found))
  if not 0 <= index < total:
    raise ValueError(f'--index={index}: split {split} has {total} windows, 0 to {total - 1}')
  for source in found:
    if index < len(source):
      return source.only(index)
    index -= len(source)
  raise AssertionError


def window(
    runs: Sequence[str | pathlib.Path], *, index: int = 0, leads: str = '',
    store: Sequence[str] = (), split: str = '', step: str = '', future_forcings: str = '',
) -> tuple[Window, list[int]]:
  """Forecasts one window with every run.

  Args:
    runs: workdirs or converted checkpoints. index: of the window in the split, every start counted.
    leads: see `chosen_leads`. store: clip stores; default: those of the runs, which must be the
      same. split: default the first test split that the stores have.
    step: of the checkpoints; '' = the best where one is kept. future_forcings: overrides the mode.

  Returns:
    The window, and the leads as indices.

  Raises:
    ValueError: runs of different horizons or stores, no such window or lead; one line.
  """
  runs = [pathlib.Path(r) for r in runs]
  loaded = [_load(r, step) for r in runs]
  horizons = [(c.config.data.t_in, c.config.data.t_out) for c in loaded]
  _same(runs, [f'{t_in} frames in, {t_out} out' for t_in, t_out in horizons],
        'compare runs of one horizon')
  shown = chosen_leads(leads, horizons[0][1], runs)
  places = [tuple(store) or tuple(c.config.data.eval_stores) for c in loaded]
  opened = [datasets.open_stores(c.config, p) for c, p in zip(loaded, places)]
  _same(runs, [' '.join(str(s.path) for s in stores) for stores in opened],
        'name the store with --store')
  stores = opened[0]
  split = split or next((s for s in loaded[0].config.data.test_splits
                         if any(s in t.splits for t in stores)), 'test')
  result, forecasts = None, []
  for run, label, each in zip(runs, _labels(runs), loaded):
    if future_forcings:
      each.config.data.future_forcings = future_forcings
    task = tasks.build(each.config, each.spec)
    each.check(task)
    spec = data_spec.for_stores(each.spec, stores, task.required_columns, str(run))
    task = tasks.build(each.config, spec)
    source = _picked(task.sources(stores, [split], 1), index, split)
    each.config.data.eval_batch_size = 1
    batch = next(pipeline.eval_batches([source], spec, each.config.data, task.t_in))
    values = jax.jit(task.predict)(
        each.variables, {k: batch[k] for k in ('frames', 'forcings')})
    rows, columns = spec.grid_shape
    if result is None:
      times = source.times(0)
      result = Window(
          split, index,
          source.store.physical(batch['frames'][0])[task.t_in:, :rows, :columns, 0],
          None if times is None else times[task.t_in:], spec.grid.get('latitude'),
          spec.grid.get('longitude'), spec.units, spec.cadence_hours,
          [dict(name=s.name, description=s.meta['description']) for s in stores])
    mode = score_card.forcings_mode(dict(
        channels=task.channels, future_forcings=each.config.data.future_forcings))
    forecasts.append(Forecast(
        label, mode, each.step, np.asarray(values)[0, :, :rows, :columns, 0]))
  return dataclasses.replace(result, forecasts=tuple(forecasts)), shown


def errors(found: Window, forecast: Forecast) -> dict[str, np.ndarray | float]:
  """RMSE `[T_out]`, and RMSE and MAE over all leads, of the cells that are there, each the same."""
  error = (forecast.values - found.truth).astype(np.float64)
  there = np.isfinite(error)
  error = np.where(there, error, 0)
  count = there.sum((1, 2))
  with np.errstate(invalid='ignore', divide='ignore'):
    return dict(by_lead=np.sqrt((error ** 2).sum((1, 2)) / count),
                rmse=np.sqrt((error ** 2).sum() / count.sum()),
                mae=np.abs(error).sum() / count.sum())


def table(found: Window, leads: Sequence[int]) -> str:
  """The errors as Markdown."""
  rows = []
  for forecast in found.forecasts:
    e = errors(found, forecast)
    rows.append([forecast.name, forecast.step, forecast.mode or 'none fed',
                 *(words.number(e['by_lead'][lead]) for lead in leads), words.number(e['rmse']),
                 words.number(e['mae'])])
  units = '' if found.units == '1' else f' [{found.units}]'
  header = ['run', 'step', 'future forcings',
            *(f'RMSE lead {n + 1}' + units * (i == 0) for i, n in enumerate(leads)), 'all leads',
            'MAE']
  return '\n'.join(score_card.table(header, rows, left=(0, 2)))


def compare(
    runs: Sequence[str | pathlib.Path], out: str | pathlib.Path, *, magnetic_equator: bool = False,
    terminator: bool = False, **chosen,
) -> str:
  """Draws runs beside the truth; writes `compare.png`, `compare.gif` and `compare.npz` (arrays).

  Args:
    runs, chosen: see `window`. out: folder, made if it is not there; its files of these names are
      replaced when all are made.
    magnetic_equator, terminator: lines to draw as well, on maps of the whole Earth.

  Returns:
    The errors as a table, and the files.

  Raises:
    ValueError: see `window`; or a line that the grid has no place for.
    ImportError: without the extra `plots`.
  """
  from stp_jax.report import compare_plots
  found, leads = window(runs, **chosen)
  out = pathlib.Path(out)
  lines = compare_plots.Lines(found, magnetic_equator, terminator)
  out.mkdir(parents=True, exist_ok=True)
  paths = [out / f'compare.{ending}' for ending in ('png', 'gif', 'npz')]
  made = [path.with_name(f'{path.stem}.tmp{path.suffix}') for path in paths]
  try:
    compare_plots.figure(made[0], found, leads, lines)
    compare_plots.film(made[1], found, lines)
    kept = dict(truth=found.truth, forecasts=np.stack([f.values for f in found.forecasts]),
                runs=np.array([f.name for f in found.forecasts]), leads=np.array(leads) + 1,
                times=found.times, latitude=found.latitude, longitude=found.longitude)
    np.savez_compressed(made[2], **{k: v for k, v in kept.items() if v is not None})
    for temporary, path in zip(made, paths):
      temporary.replace(path)
  finally:
    for temporary in made:
      temporary.unlink(missing_ok=True)
  return '\n'.join([table(found, leads), *map(str, paths)])
