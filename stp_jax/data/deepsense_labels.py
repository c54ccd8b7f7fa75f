"""The small streams of a store of beams: windows, labels, positions, power; and its data card."""

import collections
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from stp_jax.data import deepsense_csv, deepsense_gps, deepsense_split
from stp_jax.data.clip_store import Forcing, StoreError
from stp_jax.data.deepsense_csv import BEAMS, Row

COLUMNS = (
    Forcing('scenario', '1', True), Forcing('frame', 'number in the file name', True),
    Forcing('row', "the CSV's index, -1: no sample ends here", True),
    Forcing('in_train', 'copies in the training set (upstream split)', True),
    Forcing('in_validation', 'copies in the validation set (upstream split)', True))


class Labels:
  """The small streams of a clip: what belongs to the samples that end in it."""

  def __init__(self, length: int, steps: int):
    self.length, self.steps = length, steps
    self._fixes: dict[str, np.ndarray] = {}
    self.counts = dict(rows_without_power=0, rows_whose_beam_is_not_the_strongest=0)

  def _fix(self, row: Row, path: str) -> tuple[float, float]:
    full = pathlib.Path(os.path.normpath(os.path.join(row.root, path)))
    if full not in self._fixes:
      self._fixes[full] = deepsense_gps.read_fix(full)
    return self._fixes[full]

  def _power(self, row: Row) -> np.ndarray:
    values = np.full((self.steps, BEAMS), np.nan, np.float32)
    for k, path in enumerate(row.power):
      full = pathlib.Path(os.path.normpath(os.path.join(row.root, path)))
      if full.exists():
        try:
          values[k] = [float(word) for word in full.read_text().split()]
        except ValueError:
          raise StoreError(f'{full}: expected {BEAMS} numbers, the power of every beam; copy it '
                           'again or remove it') from None
    unknown = np.isnan(values).any(1)
    self.counts['rows_without_power'] += bool(unknown.any())
    # No error: several beams may be as good, and measured tables hold such rows.
    self.counts['rows_whose_beam_is_not_the_strongest'] += any(
        not u and v.argmax() != b for u, v, b in zip(unknown, values, row.beams))
    return values

  def __call__(self, clip: deepsense_split.Clip) -> dict[str, np.ndarray]:
    n = len(clip.frames)
    streams = dict(
        window=np.full((n, 1, 1, self.length), -1, np.int16),
        beam=np.full((n, 1, 1, self.steps), -1, np.int16),
        gps=np.full((n, 1, 2, 2), np.nan, np.float32),
        power=np.full((n, 1, self.steps, BEAMS), np.nan, np.float32))
    place = {f: i for i, f in enumerate(clip.frames)}
    for i, row in clip.samples.items():
      streams['window'][i] = [i - place[f] for f in deepsense_split.frames_of(row)]
      if row.beams:
        streams['beam'][i] = row.beams
      points = np.array([self._fix(row, p) for p in (row.station, *row.fixes)])
      metres = deepsense_gps.utm(points)
      streams['gps'][i] = metres[1:] - metres[:1]
      streams['power'][i] = self._power(row)
    return streams


def columns(clip, files, copies) -> np.ndarray:
  values = np.zeros((len(clip.frames), len(COLUMNS)), np.float32)
  for i, frame in enumerate(clip.frames):
    row = clip.samples.get(i)
    number = deepsense_csv.frame_number(frame[1])[1]
    sides = copies.get(row, (clip.split == 'train', clip.split == 'validation')) if row else (0, 0)
    values[i] = (files[frame].scenario, i if number is None else number,
                 -1 if row is None else row.index, *sides)
  return values


def card(plan: deepsense_split.Plan, length: int, counts: Mapping[str, int]) -> dict:
  """The data card, for `cards.text`; a 'window' of it is a sample."""
  splits, scenarios, beams = {}, collections.Counter(), collections.Counter()
  for clip in plan.clips:
    row = splits.setdefault(clip.split, dict(clips=0, frames=0, windows=0))
    row['clips'] += 1
    row['frames'] += len(clip.frames)
    row['windows'] += len(clip.samples)
    scenarios.update(f'scenario{r.scenario}' for r in clip.samples.values())
    beams.update(b + 1 for r in clip.samples.values() for b in r.beams)
  facts = dict(plan.counts, **counts)
  facts['samples'] = ', '.join(f'{k} {v}' for k, v in sorted(scenarios.items()))
  facts['beams that occur'] = len(beams)
  if beams:
    facts['most frequent beam'] = '{} ({} times)'.format(*beams.most_common(1)[0])
  return dict(
      name='deepsense', clips=len(plan.clips), frames=sum(len(c.frames) for c in plan.clips),
      window=length, splits=splits, clips_too_short=sum(not c.samples for c in plan.clips),
      facts=facts)
