"""Honest skill: `python -m stp_jax.skill --checkpoint=RUN [--store=S] [--split=test] [--out=DIR]`.

RMSE, MAE, bias and correlation of the net and of every baseline by lead time, latitude band, local
time, quiet and storm (Kp, ap, Dst, storm phases) and solar activity, plain and weighted with the
cosine of the latitude, with bootstrap intervals by day. "Better" is said only where the interval of
the difference says so. A baseline that is not always there is compared over the frames where it is.

  --checkpoint=A,B,C    an ensemble of runs (seeds); --members=M: drop path left on. CRPS and
                        spread against error are then in the card
  --c1pg=S --c2pg=S     stores of CODE's forecasts (`prepare ionex --product predicted1`): C1PG is
                        compared over leads up to 24 h, C2PG over the second day, where the data
                        that it was made of end no later than a frame after the issue time
  --iri                 IRI's monthly mean (PyIRI) at the F10.7 known at issue time
"""

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from stp_jax import (
    checkpoint,
    ensemble,
    evaluate_forecast,
    predict,
    skill_sums,
    tasks,
    training_days,
)
from stp_jax.data import clip_store, datasets, driver_modes, georeference, pipeline
from stp_jax.data import spec as data_spec
from stp_jax.data.clip_writer import write_json
from stp_jax.metrics import baselines, skill
from stp_jax.report import names as words

FEWEST = 30  # windows: with fewer of them the config's stride gives way to every start
_DRIVERS = ('kp', 'ap', 'dst', 'f107')


class _Series:
  """Maps of stores by time.

  Args:
    stores: the stores. spec: of the run's maps; None: the stores are the run's own.

  Raises:
    StoreError: a store on another grid or in other units than the spec's, or without times.
  """

  def __init__(self, stores: Sequence[clip_store.ClipStore],
               spec: data_spec.DataSpec | None = None):
    self._place = {}
    for store in stores:
      if spec is not None:
        self._check(spec, store)
      for i, clip in enumerate(store.clips):
        for k, t in enumerate(clip.times(store.cadence_hours)):
          self._place.setdefault(t, (store, i, k))

  @staticmethod
  def _check(spec: data_spec.DataSpec, store: clip_store.ClipStore) -> None:
    stream, grid = store.streams['frames'], store.meta['grid']
    if stream.shape[:2] != spec.shape[:2] or stream.units != spec.units or (
        not georeference.same_places(spec.grid, grid)):
      sides = lambda shape: 'x'.join(map(str, shape[:2]))
      raise clip_store.StoreError(
          f'{store.path}: maps of {sides(stream.shape)}, {georeference.places(grid)}, in '
          f'{stream.units}; they are compared with {sides(spec.shape)}, '
          f'{georeference.places(spec.grid)}, in {spec.units}: prepare both of one region')
    if any(clip.time is None for clip in store.clips):
      raise clip_store.StoreError(f'{store.path}: its frames carry no times, by which they are '
                                  'compared; prepare it from files with times')

  def maps(self, times: np.ndarray, shape) -> np.ndarray:
    """`[T, H, W]`, NaN where there is no map."""
    result = np.full((len(times), *shape), np.nan, np.float32)
    for row, t in zip(result, times):
      if t in self._place:
        store, clip, k = self._place[t]
        row[:] = store.physical(store.frames(clip, k, 1))[0, ..., 0]
    return result


@functools.cache
def _cube() -> dict[int, np.ndarray]:
  from stp_jax.data import embedded_iri
  return embedded_iri.cube(range(1, 13))[0]


def _turned(maps: np.ndarray, hours: np.ndarray) -> np.ndarray:
  """Maps `[T, H, W]` once around the Earth, moved west by the sun's way in `hours` `[T]`."""
  width = maps.shape[2]
  place = (np.arange(width) + np.asarray(hours)[:, None] * (width / 24)) % width
  low = np.floor(place).astype(int)
  share = (place - low).astype(np.float32)[:, None]
  take = lambda columns: np.take_along_axis(maps, (columns % width)[:, None], 2)
  return take(low) * (1 - share) + take(low + 1) * share


def _iri(spec, times: np.ndarray, f107: float) -> np.ndarray:
  """IRI's maps at `times` on the store's grid, padding rows included.

  Between the hours of its cube linear in the frame of the sun: most of a map follows local time.
  """
  from stp_jax.data import embedded_iri, embedded_physics
  grid = spec.grid
  if not (np.array_equal(grid.get('latitude', ()), embedded_iri.LATITUDE)
          and np.array_equal(grid.get('longitude', ()), embedded_iri.LONGITUDE)):
    raise ValueError('--iri: the maps are on another grid than 71 x 72 of the analysis centres')
  times = np.asarray(times, 'datetime64[m]')
  step = np.timedelta64(round(60 * float(embedded_iri.HOURS[1])), 'm')
  past = (times - times.astype('datetime64[D]')) % step
  at = lambda t: embedded_physics.climatology(_cube(), t, np.full(len(t), f107))
  maps = at(times - past)
  between = past > np.timedelta64(0, 'm')
  if between.any():
    hours = past[between] / np.timedelta64(60, 'm')
    share = (past[between] / step).astype(np.float32)[:, None, None]
    after = at((times - past + step)[between])
    maps[between] = (1 - share) * _turned(maps[between], hours) + share * _turned(
        after, hours - float(embedded_iri.HOURS[1]))
  return np.pad(maps, ((0, 0), (0, spec.shape[0] - maps.shape[1]), (0, 0)), mode='edge')


def _known(product: int, times: np.ndarray, issued: np.ndarray, cadence: float) -> np.ndarray:
  """bool, which of CODE's forecasts of `times` could be had at `issued`, give or take a frame.

  Args:
    product: 1 for C1PG, made of data to the end of the day before; 2 for C2PG, of the day before
      that. times, issued: datetime64, of shapes that go together.
  """
  data_end = times.astype('datetime64[D]') - np.timedelta64(product - 1, 'D')
  return data_end <= issued + np.timedelta64(round(cadence * 60), 'm')


def _forecasts(predictors, members: int, task, fitted):
  """A compiled `batch -> {name: [B, T_out, H, W]}` and the members `[M, B, T_out, H, W]`."""
  variables = [p.variables for p in predictors]
  base = [p.task_for(task.spec) for p in predictors]

  def run(variables, fitted, batch, key):
    if members:
      stack = [ensemble.sample(t, v, batch, jax.random.fold_in(key, m))[..., 0]
               for t, v in zip(base, variables) for m in range(members)]
    else:
      stack = [t.predict(v, batch)[..., 0] for t, v in zip(base, variables)]
    stack = jnp.stack(stack)
    inputs = task.inputs(batch, task.t_out)
    others = baselines.apply(
        fitted, inputs['physical'], inputs['calendar'], inputs['driver'], t_in=task.t_in,
        t_out=task.t_out, valid=inputs['valid'], row_weights=task.spec.row_weights,
        frames_per_day=task.frames_per_day)
    truth, valid = (inputs[k][:, task.t_in:, ..., 0] for k in ('physical', 'valid'))
    return {k: v[..., 0] for k, v in others.items()}, stack, truth, valid

  compiled = jax.jit(run)
  return lambda batch, key: compiled(variables, fitted, batch, key)


def _batches(
    found, spec, data, t_in, limit, other) -> Iterator[tuple[dict, np.ndarray, np.ndarray]]:
  """Evaluation batches, their windows' times `[B, T]`, and which rows count."""
  for batch in pipeline.eval_batches(found, spec, data, t_in, limit, other=other):
    times = np.stack([found[i].times(j) for i, j in batch['window'].tolist()])
    yield batch, times, batch['mask'] > 0


def measure(
    runs: Sequence[str], *, store: Sequence[str] = (), split: Sequence[str] = (), limit: int = 0,
    members: int = 0, c1pg: str = '', c2pg: str = '', iri: bool = False, raw: bool = False,
    future_forcings: str = '', batch_size: int = 0, stride: int = 0, progress: bool = True,
) -> dict:
  """The skill card of a run or an ensemble, see the module.

  Args:
    runs, store, split, limit, members, c1pg, c2pg, iri: see the module. stride: frames between
      issue times; 0: the config's, or 1 where that leaves fewer than FEWEST windows.

  Returns:
    Plain JSON: `forecasts` {name: {group: {days, frames' pixels, plain and `cos_` scores,
    intervals}}}, `compared` {baseline: {group: see `metrics.skill.compare`}}, `ensemble` or None.

  Raises:
    ValueError: frames without a clock, no window, stores that do not fit.
  """
  loaded = [checkpoint.load(r, raw=raw) for r in runs]
  predictors = [predict.Predictor(each, raw=raw) for each in loaded]
  first = predictors[0]
  config = first.config
  if future_forcings:
    config.data.future_forcings = future_forcings
  if batch_size:
    config.data.eval_batch_size = batch_size
  stores = datasets.open_stores(config, tuple(store) or tuple(config.data.eval_stores))
  spec = data_spec.for_stores(first.spec, stores, first.spec.columns, runs[0])
  task = tasks.build(config, spec)
  if not task.has_clock or any(c.time is None for s in stores for c in s.clips):
    raise ValueError(f'{stores[0].path}: its frames carry no times; skill by day needs them')
  splits = tuple(split) or tuple(
      s for s in config.data.test_splits if any(s in t.splits for t in stores))
  fitted = evaluate_forecast.trained_baselines(loaded[0])
  found = task.sources(stores, splits, stride or config.data.eval_stride)
  if not stride and sum(map(len, found)) < FEWEST:
    found = task.sources(stores, splits)
  overlap = training_days.TrainingDays([p.config for p in predictors], stores).overlap(
      found, task.t_in, task.length, limit)
  if overlap:
    print(f'skill: {words.scored_on_training(overlap, "+".join(splits))}', file=sys.stderr)
  forecast = _forecasts(predictors, members, task, fitted)
  t_in, cadence, shape = task.t_in, spec.cadence_hours, spec.shape[:2]
  width = int(spec.grid.get('columns', shape[1]))  # padding columns are no part of the Earth
  table = skill.Table()
  groups = skill_sums.Groups(table, spec)
  past = _Series(stores)
  code = {name: _Series([clip_store.ClipStore(path)], spec)
          for name, path in (('c1pg', c1pg), ('c2pg', c2pg)) if path}
  counted = {name: np.zeros(task.t_out, int) for name in code}  # windows of each lead
  seen = dict.fromkeys(code, 0)  # windows
  together = skill_sums.Together(t_out=task.t_out)
  names = [c for c in _DRIVERS if c in spec.columns and c not in spec.filled]
  every = sum(map(len, found))
  total = min(limit or every, every)
  leads = np.arange(1, task.t_out + 1) * cadence
  other, fed = driver_modes.other(task), driver_modes.drivers(task)
  if other and not driver_modes.complete(found, spec, fed, other, t_in):
    other = ''
  with tqdm(total=total, desc='skill', unit='window', disable=not progress) as bar:
    for batch, times, counts in _batches(found, spec, config.data, t_in, limit, other):
      others, stack, truth, valid = forecast(
          {k: batch[k] for k in ('frames', 'forcings')}, jax.random.key(config.seed))
      valid = np.array(valid) & counts[:, None, None, None]
      valid[..., width:] = False
      ahead = times[:, t_in:]
      observed = {c: batch['observed'][..., spec.columns.index(c)] for c in names}
      groups.begin(truth, ahead, skill.frame_groups(observed, cadence, t_in))
      others = dict(others)
      if other:  # the same net, shown the future drivers in the other way
        _, again, _, _ = forecast(dict(frames=batch['frames'], forcings=batch['other']),
                                  jax.random.key(config.seed))
        others[f'net_{other}'] = again.mean(0)
      recurrence = np.stack([past.maps(t - np.timedelta64(27, 'D'), shape) for t in ahead])
      others['recurrence_27d'] = recurrence
      for name, series in code.items():
        day = int(name[1])
        inside = (leads > 24 * (day - 1)) & (leads <= 24 * day) & _known(
            day, ahead, times[:, t_in - 1:t_in], cadence)
        values = np.stack([series.maps(t, shape) for t in ahead])
        others[name] = np.where(inside[..., None, None], values, np.nan)
        there = (valid & np.isfinite(others[name])).any((2, 3))
        counted[name] += there.sum(0)
        seen[name] += int(there.any(1).sum())
      if iri:
        column = spec.columns.index('f107') if 'f107' in names else None
        if column is None:
          raise ValueError('--iri: the store has no f107; prepare it with --indices')
        others['iri'] = np.stack([_iri(spec, t, float(f)) for t, f in zip(
            ahead, batch['forcings'][:, t_in - 1, column])])
      net = stack.mean(0)
      groups.add('net', net, valid)
      for name, values in others.items():
        there = valid & np.isfinite(np.asarray(values))
        if (there != valid).any():
          together.partial.add(name)
        groups.add(name, values, there)
        groups.add(f'net|{name}', net, there, by_lead=False)
      if len(stack) > 1:
        together.add(np.asarray(stack), np.asarray(truth), valid, spec.row_weights)
      bar.update(int(counts.sum()))
  made = {n: dict(windows=seen[n], of=total, frames=int(c.sum()), of_frames=total * task.t_out,
                  leads=leads[c > 0].tolist()) for n, c in counted.items()}
  return dict(
      _card(first, spec, config, splits, stores, runs, table, together, members, total),
      counted=made, scored_on_training=overlap)


def _card(first, spec, config, splits, stores, runs, table, together, members, windows) -> dict:
  names = list(dict.fromkeys(f for f, _ in table._rows if '|' not in f))
  forecasts, compared = {}, {}
  for name in names:
    forecasts[name] = {}
    for group in table.groups(name):
      days = table.days(name, group)
      total = days.sum(0)
      entry = dict(days=len(days), pixels=int(total[0]))
      for kind in ('', 'cos_'):
        entry |= {kind + k: float(v) for k, v in skill.scores(total, kind).items()}
        entry[f'{kind}rmse_interval'] = None if group.startswith('lead') else skill.interval(
            days, kind)
      forecasts[name][group] = entry
    if name != 'net':
      compared[name] = {}
      for g in table.groups(f'net|{name}'):
        pair = [table.days(f, g) for f in (f'net|{name}', name)]
        net, other = (float(skill.scores(d.sum(0), 'cos_')['rmse']) if len(d) else None
                      for d in pair)
        compared[name][g] = skill.compare(*pair, 'cos_') | dict(net_rmse=net, rmse=other)
  return dict(
      name=config.name, runs=[pathlib.Path(r).name for r in runs], step=first.step,
      members=members, splits=list(splits), windows=windows, units=spec.units,
      cadence_hours=spec.cadence_hours, future_forcings=config.data.future_forcings,
      t_in=first.t_in, t_out=first.t_out,
      data=[dict(name=s.name, description=s.meta['description']) for s in stores],
      partial=sorted(together.partial & set(names)), forecasts=forecasts,
      compared=compared, ensemble=together.result(spec.cadence_hours))


def arguments() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.skill', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--checkpoint', required=True, help='run, or several joined by commas: an ensemble')
  add('--store', default='', help="clip stores, joined by commas; default: the config's")
  add('--split', default='', help="splits, joined by '+'; default: the config's test splits")
  add('--members', type=int, default=0, help='samples of each run with drop path left on')
  add('--c1pg', default='', help="store of CODE's forecasts one day ahead")
  add('--c2pg', default='', help='the same, two days ahead')
  add('--iri', action='store_true', help='compare with IRI (PyIRI)')
  add('--limit', type=int, default=0, help='at most so many windows, evenly spread; 0 = all')
  add('--stride', type=int, default=0, help="frames between issue times; default: the config's "
      f'eval_stride, or 1 where that leaves fewer than {FEWEST} windows')
  add('--batch-size', type=int, default=0, help='windows in a batch; scores do not depend on it')
  add('--future-forcings', default='', help='persist | observed | forecast | none')
  add('--raw', action='store_true', help='parameters as trained instead of their average')
  add('--out', default='', help='folder of the card; default <first checkpoint>/skill')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the skill card; a bad input is one line on stderr and exit code 1."""
  flags.FLAGS.mark_as_parsed()
  args = arguments().parse_args(argv)
  runs = [r for r in args.checkpoint.split(',') if r]
  out = pathlib.Path(args.out or pathlib.Path(runs[0]) / 'skill')
  try:
    card = measure(
        runs, store=[s for s in args.store.split(',') if s],
        split=[s for s in args.split.split('+') if s], limit=args.limit, members=args.members,
        stride=args.stride, c1pg=args.c1pg, c2pg=args.c2pg, iri=args.iri, raw=args.raw,
        future_forcings=args.future_forcings, batch_size=args.batch_size)
    from stp_jax.report import skill_card
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / 'skill.json', json.loads(json.dumps(card)))
    text = skill_card.markdown(card)
    (out / 'skill.md').write_text(text)
    try:
      skill_card.draw(out / 'skill.png', card)
    except ImportError as error:
      if (error.name or '').split('.')[0] != 'matplotlib':
        raise
  except (ValueError, OSError) as error:
    print(f'skill: {error}', file=sys.stderr)
    return 1
  print(text)
  return 0


if __name__ == '__main__':
  sys.exit(main())
