"""A forecast issued at a time of a store: its inputs, its ensemble, its RMS maps."""

import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp_jax import ensemble, error_model
from stp_jax.data import clip_store, indices, pipeline
from stp_jax.data import spec as data_spec

if TYPE_CHECKING:
  from stp_jax.predict import Predictor


def calendar_columns(spec, times: np.ndarray) -> np.ndarray:
  """`[T, F]`: calendar columns at these times, NaN in all other columns."""
  calendar = dict(zip(indices.CALENDAR, indices.calendar(times).T))
  nothing = np.full(len(times), np.nan)
  found = [calendar.get(c, nothing) for c in spec.columns]
  return np.stack(found, 1) if found else np.zeros((len(times), 0))


def issue(predictor: 'Predictor', store: clip_store.ClipStore, issue_time: str, *,
          member: int | None = None) -> dict:
  """The forecast issued at a time of the store, as evaluation would make it.

  A run that was trained on observed future drivers gets the newest known ones: there are no others.
  So does one with `forecast` wherever the store holds no prediction; that is said on stderr.

  Args:
    issue_time: ISO time of the last input frame, or 'latest'.
    member: see `Predictor`.

  Returns:
    `forecast` `[t_out, H, W]`, `times` `[t_out]`, `input` `[t_in, H, W]`, `truth` `[t_out, H, W]`
    (NaN where the store ends), `issue_time` (ISO), `latitude`, `longitude`, `units`; `fields`
    `[t_out, H, W, C]`, NaN where no input frame has a value.

  Raises:
    ValueError: no such time in the store, or fewer than t_in frames before it; says what is there.
  """
  spec, t_in, t_out = predictor.spec, predictor.t_in, predictor.t_out
  clips = [(i, c, c.times(store.cadence_hours)) for i, c in enumerate(store.clips) if c.time]
  if not clips:
    raise ValueError(f'{store.path}: its frames carry no times; --issue-time needs them')
  if issue_time == 'latest':
    wanted = max(t[-1] for _, _, t in clips)
  else:
    wanted = np.datetime64(issue_time, 'm')
  # Clips are cut where splits change; a forecast may cross that line.
  where = {t: (i, k) for i, _, ts in clips for k, t in enumerate(ts)}
  step = np.timedelta64(round(store.cadence_hours * 60), 'm')
  needed = wanted + (np.arange(t_in + t_out) - t_in + 1) * step
  lacking = [t for t in needed[:t_in] if t not in where]
  if lacking:
    raise ValueError(
        f'{store.path}: no frame at {lacking[0]}, one of the {t_in} before issue time {wanted}; '
        f'it holds {min(where)} to {max(where)}')
  data_spec.for_stores(spec, [store], spec.columns, 'the checkpoint')
  frames = np.full((t_in + t_out, *spec.shape), np.nan, np.float32)
  names = [f.name for f in store.forcings]
  parts = {p: np.zeros((1, t_in + t_out, len(spec.columns)), np.float32)
           for p in pipeline.PARTS}
  for j, t in enumerate(needed):
    if t in where:
      clip, k = where[t]
      frames[j] = store.physical(store.frames(clip, k, 1))[0]
      row = store.clips[clip].start + k
      for part, values in parts.items():
        for f, name in enumerate(spec.columns):
          values[0, j, f] = 0 if name in spec.filled else store.column(part)[row, names.index(name)]
    else:
      for values in parts.values():  # behind the end of the store only the calendar is known
        values[0, j] = np.nan
      parts['forcings'][0, j] = calendar_columns(spec, t[None])[0]
  mode = predictor.config.data.future_forcings
  if mode == 'forecast':
    parts['forcings_forecast'] = _predictions(parts, spec, t_in)
  forcings = pipeline.honest_columns(parts, spec, mode if mode != 'observed' else 'persist', t_in)
  grid = store.meta['grid']
  rows, width = int(grid.get('rows', spec.shape[0])), int(grid.get('columns', spec.shape[1]))
  forecast = predictor(frames[:t_in], forcings[0], times=needed[:t_in], member=member)
  # Where nothing was seen, out of a radar's range, a forecast is no more than the net's habit.
  seen = np.isfinite(frames[:t_in, :rows, :width]).any(0)
  return dict(
      fields=np.where(seen, forecast[:, :rows, :width], np.nan),
      forecast=forecast[:, :rows, :width, 0], times=needed[t_in:],
      input=frames[:t_in, :rows, :width, 0], truth=frames[t_in:, :rows, :width, 0],
      issue_time=str(wanted), latitude=grid.get('latitude'), longitude=grid.get('longitude'),
      units=spec.units)


def _predictions(parts: dict[str, np.ndarray], spec, t_in: int) -> np.ndarray:
  """The drivers' predictions `[1, T, F]`; where there are none, the newest values known."""
  forecast, delay = parts['forcings_forecast'].copy(), parts['forcings_delay']
  hours = np.arange(forecast.shape[1])[:, None] * spec.cadence_hours
  # A frame behind the end of the store has no delay: not (NaN <= x).
  unknown = ~(hours + delay <= (t_in - 1) * spec.cadence_hours) & ~np.array(spec.known_ahead, bool)
  lacking = np.isnan(forecast) & unknown & (np.arange(forecast.shape[1]) >= t_in)[:, None]
  if lacking.any():
    names = ' '.join(n for n, bad in zip(spec.columns, lacking.any((0, 1))) if bad)
    print(f'predict: no prediction of {names} for {int(lacking.any((0, 2)).sum())} of the '
          f'{forecast.shape[1] - t_in} frames ahead: the newest value known is kept, as with '
          'future=persist', file=sys.stderr)
  newest = np.broadcast_to(parts['forcings_known'][:, t_in - 1:t_in], forecast.shape)
  return np.where(lacking, newest, forecast)


def together(predictors: Sequence['Predictor'], store: clip_store.ClipStore, issue_time: str, *,
             members: int = 0) -> dict:
  """`issue` of one run, or the mean of an ensemble.

  Args:
    predictors: runs on the same data, the same lengths. members: samples of each with drop path
      on; 0: the forecasts themselves.

  Returns:
    As `issue`; of an ensemble `forecast` is the mean, `members` `[M, t_out, H, W]` and `spread`
    `[t_out, H, W]` stand beside it.

  Raises:
    ValueError: also runs of other lengths, and members that do not differ.
  """
  first = predictors[0]
  for other in predictors[1:]:
    if (other.t_in, other.t_out) != (first.t_in, first.t_out):
      raise ValueError(f'{other.config.name}: {other.t_in} + {other.t_out} frames, the first '
                       f'checkpoint has {first.t_in} + {first.t_out}')
  results = [issue(p, store, issue_time, member=m)
             for p in predictors for m in (range(members) if members else [None])]
  if len(results) == 1 and not members:
    return results[0]
  stacked = np.stack([r['forecast'] for r in results])
  mean, spread = ensemble.summary(stacked)
  return results[0] | dict(forecast=mean, members=stacked, spread=spread)


def with_rms(result: dict, predictor: 'Predictor', run, store: clip_store.ClipStore, kind: str
             ) -> dict:
  """The result with `rms` `[t_out, H, W]` and `rms_source`, where they can be had.

  Args:
    kind: 'validation' (errors by latitude, local time and lead, of the run's validation windows or,
      without its data, of the store's past; of an ensemble those of `run`), 'ensemble' (its
      spread) or 'none'.
  """
  if kind == 'ensemble':
    if 'spread' not in result:
      raise ValueError('--rms=ensemble: name several checkpoints, or --members=M')
    return result | dict(rms=result['spread'], rms_source='spread of the ensemble')
  if kind == 'none':
    return result
  model = error_model.of_run(predictor, run) or error_model.of_past(
      predictor, store, np.datetime64(result['issue_time'], 'm'))
  # The members of an ensemble have errors of their own.
  whose = f', errors of {pathlib.Path(run).name} alone' if 'members' in result else ''
  shape = result['forecast'].shape
  if model is None or model.rms.shape[:2] != shape[:2]:
    print('predict: no RMS maps: neither validation windows of the run nor enough forecasts of '
          f'{store.path} that were over at issue time', file=sys.stderr)
    return result
  return result | dict(
      rms=model.maps(result['times'], result['longitude'], shape[2]),
      rms_source=f'{model.windows} {model.source}{whose}')
