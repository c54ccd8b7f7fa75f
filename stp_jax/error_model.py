"""How wrong a run's forecasts are, by latitude, local time and lead: the RMS maps of a forecast.

Fitted once on the validation windows of the run (forecasts that no weight was trained on) and kept
beside its checkpoints in `<run>/errors.npz` (of one step, and of its parameters as trained or
averaged); of a run whose data are not at hand, on those windows
of the store that were over at issue time.
"""

import copy
import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from tqdm import tqdm

from stp_jax import files
from stp_jax.data import clip_store, datasets, pipeline
from stp_jax.data import spec as data_spec

SLOTS = 12  # of local time, 2 h each
WINDOWS = 96  # at most so many, spread evenly
# A cell counts as much as it was seen: with this many pixels it stands half on its own, half on the
# product of its lead's and its place's mean.
_TRUST = 100
FEWEST = 4  # windows


@dataclasses.dataclass(frozen=True)
class ErrorModel:
  """Root mean square errors.

  Attributes:
    rms: float32 `[T, H, SLOTS]`, in the data's units; T leads, H rows of the grid.
    windows: how many forecasts it was learnt from. source: which.
  """
  rms: np.ndarray
  windows: int
  source: str

  def maps(self, times: np.ndarray, longitude: Sequence[float] | None, width: int) -> np.ndarray:
    """float32 `[T, H, W]` for a forecast of `times` `[T]`."""
    slots = local_slots(times, longitude, width)
    return np.stack([r[:, s] for r, s in zip(self.rms, slots)])


def local_slots(times: np.ndarray, longitude: Sequence[float] | None, width: int) -> np.ndarray:
  """int `[T, W]`: which slot of local solar time a column is in; 0 without longitudes."""
  times = np.asarray(times, 'datetime64[m]')
  if longitude is None:
    return np.zeros((len(times), width), int)
  hour = (times - times.astype('datetime64[D]')).astype(float) / 60
  local = (hour[:, None] + np.asarray(longitude, float)[None] / 15) % 24
  return np.floor(local * SLOTS / 24).astype(int) % SLOTS


def smooth(squares: np.ndarray, count: np.ndarray) -> np.ndarray:
  """RMS `[T, H, SLOTS]` from sums of squared errors and pixel counts of that shape."""
  total = squares.sum() / max(count.sum(), 1)
  ratio = lambda axes: squares.sum(axes) / np.maximum(count.sum(axes), 1)
  lead, row = ratio((1, 2)), ratio((0, 2))
  place = (squares.sum(0) + _TRUST * row[:, None]) / (count.sum(0) + _TRUST)
  prior = lead[:, None, None] * place / max(total, 1e-12)
  return np.sqrt((squares + _TRUST * prior) / (count + _TRUST)).astype(np.float32)


def fit(predictor, sources: Sequence[pipeline.WindowSource], spec: data_spec.DataSpec, source: str,
        limit: int = WINDOWS, progress: bool = True) -> ErrorModel:
  """Forecasts the windows of `sources` and adds up squared errors; memory stays flat.

  Args:
    predictor: a `predict.Predictor`. sources: windows with times, of t_in + t_out frames.
    spec: of their stores, see `data.spec.for_stores`. source: what to call them.
  """
  t_in, t_out = predictor.t_in, predictor.t_out
  rows, width = spec.grid_shape
  longitude = spec.grid.get('longitude')
  squares, count = np.zeros((2, t_out, rows, SLOTS))
  data = copy.deepcopy(predictor.config.data)
  if data.future_forcings in ('observed', 'forecast'):  # see `issued.issue`
    data.future_forcings = 'persist'
  predict = jax.jit(predictor.task_for(spec).predict)
  every = [(i, j) for i, s in enumerate(sources) for j in range(len(s))]
  total = min(limit, len(every))
  picked = [every[k] for k in np.linspace(0, len(every) - 1, total).round().astype(int)]
  for i, j in tqdm(picked, 'errors', unit='window', disable=not progress):
    one = sources[i].only(j)
    batch = next(pipeline.eval_batches([one], spec, dict_of(data, 1), t_in))
    forecast = np.asarray(predict(predictor.variables, {
        k: batch[k] for k in ('frames', 'forcings')}))[0, :, :rows, :width, 0]
    truth = one.store.physical(batch['frames'][0, t_in:, :rows, :width])[..., 0]
    there = np.isfinite(truth)
    error = np.where(there, forecast - truth, 0).astype(np.float64)
    hot = np.eye(SLOTS)[local_slots(one.times(0)[t_in:], longitude, width)]
    squares += np.einsum('thw,tws->ths', error**2, hot)
    count += np.einsum('thw,tws->ths', there.astype(float), hot)
  return ErrorModel(smooth(squares, count), total, source)


def dict_of(data, batch: int):
  """The data config with batches of this size."""
  data = copy.deepcopy(data)
  data.eval_batch_size = batch
  return data


def of_run(predictor, run, *, progress: bool = True) -> ErrorModel | None:
  """The model kept in `<run>/errors.npz`, fitted on the validation windows where it is not there.

  None where the run's data, their clock or a validation window are not at hand.
  """
  path = pathlib.Path(run) / 'errors.npz'
  if path.exists():
    with np.load(path) as kept:
      # Files of before `raw` was kept may be of either.
      if int(kept['step']) == predictor.step and 'raw' in kept and (
          bool(kept['raw']) == predictor.raw):
        return ErrorModel(kept['rms'], int(kept['windows']), str(kept['source']))
  config = predictor.config
  try:
    made = pathlib.Path(config.data.cache).glob(f'{config.data.dataset or "-"}*/meta.json')
    if not config.data.stores and not any(made):  # a forecast is no occasion to make ten years
      return None
    stores = datasets.open_stores(config)
    spec = data_spec.for_stores(predictor.spec, stores, predictor.spec.columns, str(run))
    found = predictor.task_for(spec).sources(
        stores, config.data.validation_splits)  # every start; `fit` spreads what it takes
  except ValueError:
    return None
  found = [s for s in found if s.times(0) is not None]
  if sum(map(len, found)) < FEWEST:
    return None
  model = fit(predictor, found, spec, f'validation windows of {spec.name}', progress=progress)
  with files.whole(path) as partial, partial.open('wb') as file:
    np.savez_compressed(file, rms=model.rms, windows=model.windows, source=model.source,
                        step=predictor.step, raw=predictor.raw)
  return model


def of_past(predictor, store: clip_store.ClipStore, issue_time: np.datetime64, *,
            progress: bool = True) -> ErrorModel | None:
  """Fitted on windows of `store` whose last frame was there at `issue_time`; None: too few.

  They may have been trained on: then the RMS maps are too small, and `source` says so.
  """
  spec = data_spec.for_stores(predictor.spec, [store], predictor.spec.columns, str(store.path))
  length = predictor.t_in + predictor.t_out
  windows = store.windows(store.splits, length)
  times = [clip.times(store.cadence_hours) for clip in store.clips]
  over = [times[clip] is not None and times[clip][start + length - 1] <= issue_time
          for clip, start in windows.tolist()]
  if sum(over) < FEWEST:
    return None
  source = pipeline.WindowSource(store, windows[np.array(over)], length, spec)
  return fit(predictor, [source], spec, f'windows of {store.name} that were over at issue time, '
             'which may have been trained on', progress=progress)
