"""Scores of beam and rebuild runs; `stp_jax.evaluate` calls this.

Every sample is scored with all modalities, with the configured ones lost, and (on some samples)
with every subset of them; a rebuild run also with and without rebuilding, zeros and noise standing
in for what is lost, and so is the run that it started from, as long as that is there. Beside it: a
head that knows only the positions, the most frequent beams, and chance. Sums are float64 on the
host, so the numbers depend on no batch size and no device count.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from stp_jax import checkpoint, cluster, sharding, tasks
from stp_jax.data import beam_windows, datasets, pipeline
from stp_jax.metrics import beam as metrics
from stp_jax.metrics import beam_baselines
from stp_jax.tasks.beam_settings import Setting, settings

_CHANCE_DRAWS = 64
_LABELS = ('mask', 'beam', 'scenario', 'row')


class Sums:
  """Scores added up by name."""

  def __init__(self):
    self._scores: dict[str, metrics.BeamScores] = {}

  def add(self, name: str, logits: np.ndarray, beam: np.ndarray, scenario: np.ndarray,
          mask: np.ndarray | None = None) -> None:
    """Logits `[N, K, beams]`, beams `[N, K]` (-1 = unknown), scenario and mask `[N]`."""
    values = metrics.per_example(logits, beam)
    self._scores.setdefault(name, metrics.BeamScores()).update(values, scenario, mask)

  def result(self) -> dict[str, dict[str, dict[str, float]]]:
    """{name: {'all' or scenario: {metric: mean, 'samples': count}}}; {} without any label."""
    found = {}
    for name, scores in self._scores.items():
      try:
        values = scores.result()
      except ValueError:  # no sample with a label: a submission set
        continue
      found[name] = {'all': values['overall'],
                     **{str(k): v for k, v in values['scenarios'].items()}}
    return found


class Scorer:
  """Compiled evaluation of a task: one program per fill, and one with rebuilding.

  Args:
    before: variables of the run that rebuilding started from, in the shape of `variables`.
  """

  def __init__(self, task, variables, mesh, before=None):
    self.task, self.mesh = task, mesh
    self.replicated = sharding.replicated(mesh)
    self.variables = {False: sharding.replicate(variables, mesh)}
    if before is not None:
      self.variables[True] = sharding.replicate(before, mesh)
    self._compiled: dict[tuple, Any] = {}
    self._gather = jax.jit(lambda tree: tree, out_shardings=self.replicated)

  def whole(self, batch) -> dict[str, np.ndarray]:
    """Labels and masks of the whole batch, also where this process read a part of it."""
    return jax.device_get(self._gather({k: batch[k] for k in _LABELS}))

  def logits(self, setting: Setting, batch) -> np.ndarray:
    """`[B, K, beams]` on the host."""
    key = setting.fill, setting.rebuilt
    if key not in self._compiled:
      more = dict(rebuilt=True) if setting.rebuilt else {}

      def run(variables, batch, there, fill=setting.fill, more=more):
        return self.task.predict(variables, batch, there, fill, jax.random.key(0), **more)
      self._compiled[key] = jax.jit(run, out_shardings=self.replicated)
    there = np.array([n in setting.there for n in self.task.modalities], np.float32)
    inputs = {k: v for k, v in batch.items() if k in (*self.task.modalities, 'scenario', 'index')}
    return np.asarray(jax.device_get(self._compiled[key](
        self.variables[setting.before], inputs, there)))


def _chosen(found: Sequence[beam_windows.BeamSource], limit: int) -> list[beam_windows.BeamSource]:
  """At most `limit` samples of all sources, spread evenly; 0 = all."""
  sizes = [len(s) for s in found]
  if not limit or limit >= sum(sizes):
    return list(found)
  wanted = np.linspace(0, sum(sizes) - 1, limit).round().astype(int)
  first = np.cumsum([0, *sizes])
  parts = [s.only(wanted[(wanted >= a) & (wanted < b)] - a)
           for s, a, b in zip(found, first, first[1:])]
  return [p for p in parts if len(p)]


def score(scorer: Scorer, found, chosen: Sequence[Setting], sums: Sums, *, progress: bool = False,
          keep: bool = False, say: str = '') -> dict[str, np.ndarray]:
  """Adds the scores of all samples of `found` in every setting.

  Returns:
    With `keep`, of the first setting: logits `[N, K, beams]`, beams, scenario, row.
  """
  task, kept = scorer.task, []
  batch_sharding = sharding.batch_sharding(scorer.mesh)
  with tqdm(total=sum(map(len, found)), desc=say or 'evaluate', unit='sample',
            disable=not progress or jax.process_index() > 0) as bar:
    for batch in pipeline.eval_batches(
        found, task.spec, task.config.data, task.t_in, 0, scorer.mesh.devices.size):
      device = pipeline.to_device(batch, batch_sharding)
      batch = scorer.whole(device)
      for i, setting in enumerate(chosen):
        logits = scorer.logits(setting, device)
        sums.add(setting.label(task.modalities), logits, batch['beam'], batch['scenario'],
                 batch['mask'])
        if keep and not i:
          there = batch['mask'] > 0
          kept.append({k: v[there] for k, v in dict(
              logits=logits, beam=batch['beam'], scenario=batch['scenario'],
              row=batch['row']).items()})
      bar.update(int(batch['mask'].sum()))
  return {k: np.concatenate([part[k] for part in kept]) for k in kept[0]} if kept else {}


def validate(task, state, stores, mesh) -> dict[str, float]:
  """Scores on the validation split during training; {} without one."""
  data = task.config.data
  if not any(len(beam_windows.samples(s, data.validation_splits)) for s in stores):
    return {}
  found = _chosen(task.sources(stores, data.validation_splits), data.validation_windows)
  sums = Sums()
  chosen = settings(task)[0]
  score(Scorer(task, state.variables(), mesh), found, chosen, sums)
  names = [f'/{s.label(task.modalities)}'.replace(', ', '_').replace(' ', '_') if i else ''
           for i, s in enumerate(chosen)]
  result = sums.result()
  return {f'validation{name}/{k}': result[s.label(task.modalities)]['all'][k]
          for name, s in zip(names, chosen) for k in ('dba', 'top1')}


def _before(config) -> dict | None:
  """The network that a rebuild run started from, placed as in that run; None where it is gone."""
  try:
    start = checkpoint.load(config.init_from)
  except checkpoint.CheckpointError as error:
    print(f'no scores of the run that this one started from: {error}', file=sys.stderr)
    return None
  if start.config.task.name != 'beam':
    return None
  return {k: {'fusion': v} for k, v in start.variables.items()}


def baselines_of(run, task, config) -> dict[str, np.ndarray] | None:
  """The baselines fitted on a run's training samples, once: `<run>/beam_baselines.npz`."""
  def fitted():
    stores = datasets.open_stores(config)
    beam_windows.check_streams(stores[0].streams, ('gps',), str(stores[0].path))
    return beam_baselines.fit(task.sources(stores, config.data.train_splits), task.network.beams)

  try:
    return cluster.made_once(pathlib.Path(run) / 'beam_baselines.npz', fitted)
  except ValueError as error:
    print(f'baselines: only chance, because {error}', file=sys.stderr)
    return None


def _score_baselines(sums: Sums, fitted, found, beams: int) -> None:
  """The baselines on the same samples."""
  rows = [s.position(i) for s in found for i in range(len(s))] if 'gps' in found[0].store.streams \
      else []
  if not rows:
    return
  scenario, beam = (np.stack([r[k] for r in rows]) for k in ('scenario', 'beam'))
  ranked = {}
  if fitted is not None:
    features, _, _ = beam_baselines.position_features(found)
    ranked = {k: v[None] for k, v in beam_baselines.logits(fitted, features, scenario).items()}
  ranked['chance'] = beam_baselines.random_logits(len(beam), beams, _CHANCE_DRAWS)
  for name, draws in ranked.items():
    for logits in draws:  # a head for one beam stands for all steps
      sums.add(name, np.repeat(logits[:, None], beam.shape[1], 1), beam, scenario)


def evaluate(loaded: checkpoint.Loaded, *, store: Sequence[str] = (), split: Sequence[str] = (),
             limit: int = 0, out: pathlib.Path) -> dict:
  """Scores a run and writes `out`: score_card.md, score_card.json, README.md, pictures, CSV.

  Args:
    loaded: the checkpoint. store: clip stores, default the config's. split: default the test
      splits. limit: samples per split, spread evenly; 0 = all.

  Returns:
    What score_card.json holds.

  Raises:
    ValueError: one line: a store without a modality, an unknown split, another architecture.
  """
  from stp_jax.report import beam as report

  config, run = loaded.config, loaded.path
  config.task.beam.imagenet = {}  # the weights are in the checkpoint
  task = tasks.build(config, loaded.spec)
  loaded.check(task)
  stores = datasets.open_stores(config, tuple(store) or tuple(config.data.eval_stores))
  beam_windows.for_stores(loaded.spec, stores, str(run))
  splits = datasets.chosen_splits(config, stores, split)
  fitted = baselines_of(run, task, config)
  before = _before(config) if config.task.name == 'rebuild' else None
  scorer = Scorer(task, loaded.variables, sharding.make_mesh(), before)
  main, subsets = settings(task, before is not None)
  scores, robustness, kept = {}, {}, {}
  for name in splits:
    found = _chosen(task.sources(stores, [name]), limit)
    sums = Sums()
    kept[name] = score(scorer, found, main, sums, progress=True, keep=True, say=f'evaluate {name}')
    _score_baselines(sums, fitted, found, task.network.beams)
    scores[name] = sums.result()
    if subsets and scores[name]:
      some = Sums()
      score(scorer, _chosen(found, task.options.robustness), subsets, some, progress=True,
            say=f'every subset, {name}')
      robustness[name] = some.result()
  card = dict(
      name=config.name, words=config.words, step=loaded.step, task=config.task.name,
      model=config.model.name, modalities=list(task.modalities), t_in=task.t_in, t_out=task.t_out,
      trained_on=dict(name=loaded.spec.name, description=loaded.spec.description),
      missing_train=list(task.options.missing_train), missing_rate=task.options.missing_rate,
      data=[dict(name=s.name, description=s.meta['description'], licence=s.meta['licence'],
                 path=s.path.name) for s in stores],
      parameters=sum(x.size for x in jax.tree.leaves(loaded.variables['params'])),
      splits=scores, robustness=robustness)
  if config.task.name == 'rebuild':
    card['rebuild'] = dict(sources=list(task.sources_of), targets=list(task.targets_of))
  if jax.process_index() == 0:
    report.write(out, card, kept, metrics_file=run / 'metrics.jsonl')
  return card


