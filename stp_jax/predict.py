"""Forecasts from a checkpoint, in physical units, numpy in and out.

    predictor = Predictor.load('runs/iono_mixer')
    maps = predictor(frames, forcings)

`python -m stp_jax.predict --checkpoint=RUN --store=STORE --issue-time=2012-11-20T00:00 --out=DIR`
writes the forecast as npz, one PNG a frame and a GIF, and where the store knows the places of its
pixels as CF NetCDF (`forecast.nc`); without an issue time, forecasts of windows of `--split` as
frames, see `predict_clips`.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from stp_jax import checkpoint, netcdf, predict_clips, report, tasks
from stp_jax.data import clip_store, georeference, indices, pipeline
from stp_jax.data import spec as data_spec


class Predictor:
  """A loaded checkpoint that forecasts.

  Attributes:
    spec: the data's units, grid and forcing columns (`spec.columns`).
    t_in, t_out: frames given and forecast.
  """

  def __init__(self, loaded: checkpoint.Loaded):
    self._task = tasks.build(loaded.config, loaded.spec)
    checkpoint.check_architecture(
        loaded.path, loaded.variables, jax.eval_shape(self._task.init, jax.random.key(0)))
    # Callers give what the model reads, not all that its training store happened to hold.
    self.spec = loaded.spec.with_columns(self._task.required_columns, {})
    self._task = tasks.build(loaded.config, self.spec)
    self.config, self.step = loaded.config, loaded.step
    self.t_in, self.t_out = self._task.t_in, self._task.t_out
    self._variables = loaded.variables
    self._predict = jax.jit(self._task.predict)

  @classmethod
  def load(cls, run, *, raw: bool = False) -> 'Predictor':
    """Loads a run or converted checkpoint; `raw`: the parameters as trained, not their average."""
    return cls(checkpoint.load(run, raw=raw))

  def __call__(
      self, frames: np.ndarray, forcings: np.ndarray | None = None,
      times: np.ndarray | None = None,
  ) -> np.ndarray:
    """Forecasts.

    Args:
      frames: `[t_in, H, W, C]` or `[B, t_in, H, W, C]`, physical units, NaN = missing. Frames
        without the padding rows of the store's grid are padded.
      forcings: `[t_in or t_in + t_out, F]` or with B in front, physical units, columns
        `spec.columns`. Of future rows (or NaN in them) only calendar values are read from `times`;
        other drivers keep their last finite value. None: `times` must be given, and drivers take
        their training mean.
      times: datetime64 of the t_in input frames, `[t_in]` or `[B, t_in]`; calendar columns are
        computed from it.

    Returns:
      float32 `[t_out, H, W, C]`, or with B in front, physical units.

    Raises:
      ValueError: a shape that does not fit, or neither forcings nor times where they are needed.
    """
    frames = np.asarray(frames, np.float32)
    single = frames.ndim == 4
    if single:
      frames = frames[None]
      forcings = None if forcings is None else np.asarray(forcings)[None]
      times = None if times is None else np.asarray(times)[None]
    frames = self._padded(frames)
    raw = self._raw(frames)
    columns = self._columns(len(frames), forcings, times)
    forecast = self._predict(self._variables, dict(frames=raw, forcings=columns))
    forecast = np.asarray(forecast)[:, :, :self._rows]
    return forecast[0] if single else forecast

  def _padded(self, frames: np.ndarray) -> np.ndarray:
    height, width, channels = self.spec.shape
    self._rows = frames.shape[2] if frames.ndim == 5 else 0
    given = self.spec.grid.get('rows', height)
    if frames.ndim == 5 and frames.shape[2] == given < height:
      frames = np.pad(frames, ((0, 0), (0, 0), (0, height - given), (0, 0), (0, 0)), mode='edge')
    if frames.shape[1:] != (self.t_in, height, width, channels):
      raise ValueError(
          f'frames {frames.shape}: the checkpoint takes [B, {self.t_in}, {height} or {given}, '
          f'{width}, {channels}]')
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
        calendar = _calendar(spec, first + np.arange(total) * step)
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


def _calendar(spec, times: np.ndarray) -> np.ndarray:
  """`[T, F]`: calendar columns at these times, NaN in all other columns."""
  calendar = dict(zip(indices.CALENDAR, indices.calendar(times).T))
  nothing = np.full(len(times), np.nan)
  return np.stack([calendar.get(c, nothing) for c in spec.columns], 1) if spec.columns else (
      np.zeros((len(times), 0)))


def issue(predictor: Predictor, store: clip_store.ClipStore, issue_time: str) -> dict:
  """The forecast issued at a time of the store, as evaluation would make it.

  A run that was trained on observed future drivers gets the newest known ones: there are no others.

  Args:
    issue_time: ISO time of the last input frame, or 'latest'.

  Returns:
    `forecast` `[t_out, H, W]`, `times` `[t_out]`, `input` `[t_in, H, W]`, `truth` `[t_out, H, W]`
    (NaN where the store ends), `latitude`, `longitude`, `units`; `fields` `[t_out, H, W, C]`, NaN
    where no input frame has a value, and `issued`.

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
      parts['forcings'][0, j] = _calendar(spec, t[None])[0]
  mode = predictor.config.data.future_forcings
  forcings = pipeline.honest_columns(parts, spec, mode if mode != 'observed' else 'persist', t_in)
  rows = int(spec.grid.get('rows', spec.shape[0]))
  forecast = predictor(frames[:t_in], forcings[0], times=needed[:t_in])
  # Where nothing was seen, out of a radar's range, a forecast is no more than the net's habit.
  seen = np.isfinite(frames[:t_in, :rows]).any(0)
  return dict(
      fields=np.where(seen, forecast[:, :rows], np.nan), issued=needed[t_in - 1],
      forecast=forecast[:, :rows, :, 0], times=needed[t_in:], input=frames[:t_in, :rows, :, 0],
      truth=frames[t_in:, :rows, :, 0], latitude=spec.grid.get('latitude'),
      longitude=spec.grid.get('longitude'), units=spec.units)


def write(out, result: dict, card: dict) -> None:
  """`forecast.npz`, pictures and, of a georeferenced store, `forecast.nc`: all or none.

  Pictures, with matplotlib: `maps/lead_<hours>h.png` and `forecast.gif`.

  Args:
    out: the folder; files of an earlier forecast there are replaced.
    result: of `issue`. card: what the titles say, see `report.forecast_maps`.
  """
  out = pathlib.Path(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  result = dict(result)
  fields, issued = result.pop('fields', None), result.pop('issued', None)
  with tempfile.TemporaryDirectory(dir=out.parent) as folder:
    folder = pathlib.Path(folder)
    np.savez_compressed(folder / 'forecast.npz', **{
        k: v for k, v in result.items() if v is not None})
    if fields is not None and georeference.is_placed(card.get('grid', {})):
      if note := netcdf.missing():
        print(note, file=sys.stderr)
      else:
        netcdf.write(folder / 'forecast.nc', fields, result['times'], issued, card['grid'],
                     units=result['units'], cadence_hours=card['cadence_hours'],
                     **netcdf.words(card))
    try:
      from stp_jax.report import forecast_maps
      shown = result if fields is None else dict(result, forecast=fields[..., 0])
      forecast_maps.write(folder, card, shown)
    except ImportError as error:
      if (error.name or '').split('.')[0] not in ('matplotlib', 'PIL'):
        raise
      print(report.EXTRA, file=sys.stderr)
    out.mkdir(exist_ok=True)
    for path in folder.iterdir():
      target = out / path.name
      if target.is_dir():
        shutil.rmtree(target)
      path.replace(target)


def arguments() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.predict', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--checkpoint', required=True, help='workdir of a run or converted checkpoint')
  add('--store', required=True, help='clip store that holds the input frames')
  add('--issue-time', default='', help="ISO time of the last input frame, or 'latest'")
  add('--split', default='', help="without an issue time: windows of these splits, joined by '+'")
  add('--limit', type=int, default=8, help='so many windows, evenly spread; 0 = all')
  add('--out', required=True, help='folder to write')
  add('--raw', action='store_true', help='parameters as trained instead of their average')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Writes one forecast; a bad input is one line on stderr and exit code 1."""
  flags.FLAGS.mark_as_parsed()
  args = arguments().parse_args(argv)
  try:
    if not args.issue_time:
      folders = predict_clips.write(
          args.checkpoint, args.store, [s for s in args.split.split('+') if s], args.out,
          limit=args.limit, raw=args.raw)
      print(f'{args.out}: {len(folders)} samples, {folders[0]} to {folders[-1].name}')
      return 0
    predictor = Predictor.load(args.checkpoint, raw=args.raw)
    store = clip_store.ClipStore(args.store)
    result = issue(predictor, store, args.issue_time)
    write(args.out, result, dict(
        name=predictor.config.name, step=predictor.step, cadence_hours=store.cadence_hours,
        grid=store.meta['grid'], licence=store.meta['licence'],
        data=[dict(name=store.name, description=store.meta['description'])]))
  except (ValueError, OSError) as error:
    print(f'predict: {error}', file=sys.stderr)
    return 1
  print(f'{args.out}: {len(result["times"])} maps, {result["times"][0]} to {result["times"][-1]}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
