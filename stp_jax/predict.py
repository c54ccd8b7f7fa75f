"""Forecasts from a checkpoint, in physical units, numpy in and out.

    predictor = Predictor.load('runs/iono_mixer')
    maps = predictor(frames, forcings)

`python -m stp_jax.predict --checkpoint=RUN --store=STORE --issue-time=2012-11-20T00:00 --out=DIR`
writes the forecast as IONEX (TEC and RMS maps), as CF NetCDF where the store knows the places of
its pixels, npz, one PNG a frame and a GIF; without an issue time, forecasts of windows of `--split`
as frames, see `predict_clips`, or with `--format=npy` as arrays, see `predict_arrays`. Several
checkpoints, joined by commas, or `--members=M` (drop path left on) make an ensemble, whose mean is
forecast. `--nightly` fetches, prepares, forecasts, and scores earlier forecasts, see `nightly`.
"""

import argparse
import sys
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from stp_jax import (
    checkpoint,
    ensemble,
    forecast_files,
    nightly,
    predict_arrays,
    predict_clips,
    tasks,
)
from stp_jax.data import clip_store, datasets
from stp_jax.data import spec as data_spec
from stp_jax.issued import calendar_columns, issue, together, with_rms
from stp_jax.tasks.base import Task


class Predictor:
  """A loaded checkpoint that forecasts.

  Attributes:
    spec: the data's units, grid and forcing columns (`spec.columns`).
    t_in, t_out: frames given and forecast. step, raw: of the checkpoint; raw: its parameters are
      those as trained, not their average.
  """

  def __init__(self, loaded: checkpoint.Loaded, *, raw: bool = False):
    self.raw = raw
    self._task = tasks.build(loaded.config, loaded.spec)
    loaded.check(self._task)
    # Callers give what the model reads, not all that its training store happened to hold.
    self.spec = loaded.spec.with_columns(self._task.required_columns, {})
    self._task = tasks.build(loaded.config, self.spec)
    self.config, self.step = loaded.config, loaded.step
    self.t_in, self.t_out = self._task.t_in, self._task.t_out
    self.variables = loaded.variables
    self._predict = jax.jit(self._task.predict)
    self._sample = jax.jit(lambda *a: ensemble.sample(self._task, *a))

  @classmethod
  def load(cls, run, *, raw: bool = False, step: int | str | None = None) -> 'Predictor':
    """Loads a run or converted checkpoint.

    Args:
      raw: the parameters as trained, not their average. step: a number, 'best', or the newest.
    """
    return cls(checkpoint.load(run, raw=raw, step=step), raw=raw)

  def task_for(self, spec: data_spec.DataSpec) -> Task:
    """The run's task on data of this spec, as evaluation builds it."""
    return tasks.build(self.config, spec)

  def __call__(
      self, frames: np.ndarray, forcings: np.ndarray | None = None,
      times: np.ndarray | None = None, *, member: int | None = None,
  ) -> np.ndarray:
    """Forecasts.

    Args:
      frames: `[t_in, H, W, C]` or `[B, t_in, H, W, C]`, physical units, NaN = missing. Frames
        without the padding rows or columns of the store's grid are padded.
      forcings: `[t_in or t_in + t_out, F]` or with B in front, physical units, columns
        `spec.columns`. Of future rows (or NaN in them) only calendar values are read from `times`;
        other drivers keep their last finite value. None: `times` must be given, and drivers take
        their training mean.
      times: datetime64 of the t_in input frames, `[t_in]` or `[B, t_in]`; calendar columns are
        computed from it.
      member: a number: one sample with drop path on, the same for the same number; None: the
        forecast.

    Returns:
      float32 `[t_out, H, W, C]`, or with B in front, physical units; H and W of the frames given.

    Raises:
      ValueError: a shape that does not fit, or neither forcings nor times where they are needed.
    """
    frames = np.asarray(frames, np.float32)
    single = frames.ndim == 4
    if single:
      frames = frames[None]
      forcings = None if forcings is None else np.asarray(forcings)[None]
      times = None if times is None else np.asarray(times)[None]
    height, width = frames.shape[2:4] if frames.ndim == 5 else (0, 0)
    frames = self._padded(frames)
    raw = self._raw(frames)
    columns = self._columns(len(frames), forcings, times)
    batch = dict(frames=raw, forcings=columns)
    if member is None:
      forecast = self._predict(self.variables, batch)
    else:
      rng = jax.random.fold_in(jax.random.key(self.config.seed), member)
      forecast = self._sample(self.variables, batch, rng)
    forecast = np.asarray(forecast)[:, :, :height, :width]
    return forecast[0] if single else forecast

  def _padded(self, frames: np.ndarray) -> np.ndarray:
    height, width, channels = self.spec.shape
    sides = dict(zip((2, 3), zip((height, width), self.spec.grid_shape)))
    for axis, (stored, own) in sides.items():
      if frames.ndim == 5 and frames.shape[axis] == own < stored:
        pads = [(0, 0)] * 5
        pads[axis] = 0, stored - own
        frames = np.pad(frames, pads, mode='edge')
    if frames.shape[1:] != (self.t_in, height, width, channels):
      either = ', '.join(
          f'{stored}' if stored == own else f'{stored} or {own}' for stored, own in sides.values())
      raise ValueError(f'frames {frames.shape}: the checkpoint takes [B, {self.t_in}, {either}, '
                       f'{channels}]')
    return frames

  def _raw(self, frames: np.ndarray) -> np.ndarray:
    """Back to the stored type: the network sees what it saw in training."""
    spec = self.spec
    value = (frames - spec.offset) / spec.scale
    if np.issubdtype(np.dtype(spec.dtype), np.integer):
      limits = np.iinfo(spec.dtype)
      value = np.clip(np.round(value), limits.min, limits.max)
      missing = limits.max if spec.missing is None else spec.missing
      value = np.where(np.isnan(frames), missing, value)
    return value.astype(spec.dtype)

  def _columns(self, batch: int, forcings, times) -> np.ndarray:
    spec, total = self.spec, self.t_in + self.t_out
    if not spec.columns:
      return np.zeros((batch, total, 0), np.float32)
    values = np.full((batch, total, len(spec.columns)), np.nan, np.float32)
    if forcings is not None:
      forcings = np.asarray(forcings, np.float32)
      if forcings.ndim != 3 or forcings.shape[1] not in (self.t_in, total) or (
          forcings.shape[2] != len(spec.columns)):
        raise ValueError(
            f'forcings {forcings.shape}: expected [B, {self.t_in} or {total}, '
            f'{len(spec.columns)}]; the columns are {" ".join(spec.columns)}')
      values[:, :forcings.shape[1]] = forcings
    if times is not None:
      step = np.timedelta64(round(spec.cadence_hours * 60), 'm')
      for row, first in zip(values, np.asarray(times, 'datetime64[m]')[:, 0]):
        calendar = calendar_columns(spec, first + np.arange(total) * step)
        row[:] = np.where(np.isnan(calendar), row, calendar)
    for i, (name, ahead) in enumerate(zip(spec.columns, spec.known_ahead)):
      column = values[..., i]
      if ahead and name not in spec.filled and np.isnan(column).any():
        raise ValueError(f'{name} is not known for every frame: give times, or forcings '
                         f'[{total}, {len(spec.columns)}] with the future calendar')
      if forcings is None and not ahead:
        column[:] = spec.training_mean[i]
      for t in range(1, total):  # host side: the newest value known is kept
        column[:, t] = np.where(np.isnan(column[:, t]), column[:, t - 1], column[:, t])
      column[np.isnan(column)] = 0.0 if name in spec.filled else spec.training_mean[i]
    return values


def forecast(runs: Sequence[str], store: clip_store.ClipStore, issue_time: str, out, *,
             raw: bool = False, step: int | str | None = None, members: int = 0,
             rms: str = 'validation') -> dict:
  """Makes one forecast and writes its files into `out`; returns the result."""
  predictors = [Predictor.load(r, raw=raw, step=step) for r in runs if r]
  result = together(predictors, store, issue_time, members=members)
  result = with_rms(result, predictors[0], runs[0], store, rms)
  names = list(dict.fromkeys(p.config.name for p in predictors))
  forecast_files.write(out, result, dict(
      name='+'.join(names), step=predictors[0].step, cadence_hours=store.cadence_hours,
      grid=store.meta['grid'], licence=store.meta['licence'],
      data=[dict(name=store.name, description=store.meta['description'])]))
  return result


def arguments() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.predict', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--checkpoint', required=True,
      help='workdir of a run or converted checkpoint; several, joined by commas: an ensemble')
  add('--store', default='', help="clip store of the input frames; default: the run's own")
  add('--step', default='', help='of the checkpoint: a number, best, or latest (default)')
  add('--issue-time', default='', help="ISO time of the last input frame, or 'latest'")
  add('--split', default='', help="without an issue time: windows of these splits, joined by '+'")
  add('--limit', type=int, help='so many windows, evenly spread; 0 = all; default 8, of npy all')
  add('--format', default='png', choices=['png', 'npy'],
      help='without an issue time: a folder of frames and a GIF a window, or one array a split')
  add('--out', required=True, help='folder to write')
  add('--raw', action='store_true', help='parameters as trained instead of their average')
  add('--members', type=int, default=0, help='samples of each run with drop path left on')
  add('--rms', default='validation', choices=('validation', 'ensemble', 'none'),
      help="RMS maps: the run's errors by latitude, local time and lead, or the spread")
  nightly.add_arguments(parser.add_argument_group('--nightly'))
  return parser


def _own_store(run, step: str) -> str:
  """The one store of a run's config, with its name where it is a domain."""
  config = checkpoint.load(run, step=step).config
  stores = datasets.open_stores(config)
  if len(stores) > 1:
    raise ValueError(f'{run}: has several stores; choose with --store from '
                     f'{" ".join(str(s.path) for s in stores)}')
  return ':'.join([*config.data.domains, str(stores[0].path)])


def main(argv: Sequence[str] | None = None) -> int:
  """Writes one forecast; a bad input is one line on stderr and exit code 1."""
  flags.FLAGS.mark_as_parsed()
  args = arguments().parse_args(argv)
  try:
    if args.nightly:
      return nightly.run(args)
    if not args.store:
      args.store = _own_store(args.checkpoint.split(',')[0], args.step)
    if args.format == 'npy' and not args.issue_time:
      loaded = checkpoint.load(args.checkpoint, raw=args.raw, step=args.step)
      splits = [s for s in args.split.split('+') if s] or loaded.config.data.test_splits
      for path in predict_arrays.write(loaded, clip_store.ClipStore(args.store), splits, args.out,
                                       limit=args.limit or 0):
        array = np.load(path, mmap_mode='r')
        print(f'{path}: {array.dtype}{list(array.shape)}, step {loaded.step}')
      return 0
    if not args.issue_time:
      folders = predict_clips.write(
          args.checkpoint, args.store, [s for s in args.split.split('+') if s], args.out,
          limit=8 if args.limit is None else args.limit, raw=args.raw, step=args.step)
      print(f'{args.out}: {len(folders)} samples, {folders[0]} to {folders[-1].name}')
      return 0
    store = clip_store.ClipStore(args.store)
    result = forecast(args.checkpoint.split(','), store, args.issue_time, args.out, raw=args.raw,
                      step=args.step, members=args.members, rms=args.rms)
  except (ValueError, OSError) as error:
    print(f'predict: {error}', file=sys.stderr)
    return 1
  print(f'{args.out}: {len(result["times"])} maps, {result["times"][0]} to {result["times"][-1]}')
  return 0


__all__ = ['Predictor', 'forecast', 'issue', 'main', 'together', 'with_rms']


if __name__ == '__main__':
  sys.exit(main())
