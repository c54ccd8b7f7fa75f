"""What rain maps and weather fields are scored by beside errors: events, anomaly correlation.

`config.task.scores` chooses: `nowcast` (CSI, POD, FAR, HSS, bias, FSS at thresholds; optical flow
as a baseline), `weather` (RMSE and ACC of every variable, weighted by the cosine of latitude;
climatology as a baseline), `none`, or `auto`: by the units and the grid of the store.

Baselines that are no function of a jitted step are made here, on the host, window by window.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stp_jax import cluster
from stp_jax.data import clip_store, datasets, mean_fields
from stp_jax.metrics import events, optical_flow, weather
from stp_jax.metrics.fields import kind_of, settings_of, variables_of
from stp_jax.metrics.sums import Sums


class Fields:
  """Baselines made on the host, and the sums of one split.

  Args:
    task: a forecast task. tables: of `mean_fields.fit`, or None for no climatology.
    baselines: whether the host's baselines are made: not in evaluations during training.
  """

  def __init__(self, task, tables: Mapping[str, np.ndarray] | None = None,
               baselines: bool = True):
    self._task, self._tables, self._sums = task, tables, Sums()
    self.kind = kind_of(task.config, task.spec)
    self.notes: list[str] = []
    self._flow = self._climatology = False
    if self.kind == 'nowcast' and baselines:
      absent = optical_flow.missing()
      self._flow = not absent
      self.notes += [absent] if absent else []
    if self.kind == 'weather' and baselines:
      self._climatology = tables is not None
      if not self._climatology:
        self.notes.append('climatology and ACC: not scored, because the training stores are not '
                          'at hand, or have no clock')

  def given(self, batch: Mapping[str, np.ndarray], found: Sequence[Any]) -> dict[str, np.ndarray]:
    """`{baseline: [B, t_out, H, W, C]}` in physical units for a batch of `found`'s windows."""
    task, spec = self._task, self._task.spec
    result = {}
    if self._flow:
      raw = batch['frames'][:, :task.t_in]
      frames = raw.astype(np.float32) * np.float32(spec.scale) + np.float32(spec.offset)
      if spec.missing is not None:
        frames = np.where(raw == spec.missing, np.nan, frames)
      settings = settings_of(task.config, spec)
      made = optical_flow.batch(
          frames * settings.factor, task.t_out, rate=settings.units == 'mm/h')
      result['optical_flow'] = (made / settings.factor).astype(np.float32)
    if self._climatology:
      result['climatology'] = np.stack([
          mean_fields.at(self._tables, found[i].times(j)[task.t_in:])
          for i, j in batch['window'].tolist()])
    return result

  def update(self, extra: Mapping[str, Mapping[str, np.ndarray]], mask: np.ndarray) -> None:
    """Adds a batch's `statistics`."""
    self._sums.update(extra, mask)

  def result(self) -> dict:
    """`events` or `weather` as in their modules, and `notes`; {} for other data."""
    if not self._sums.totals:
      return {}
    found = (dict(events=events.result(self._sums, settings_of(self._task.config, self._task.spec)))
             if self.kind == 'nowcast' else
             dict(weather=weather.result(self._sums, variables_of(self._task.spec))))
    return found | dict(notes=self.notes)


def wettest(found, spec) -> tuple[int, int]:
  """(source, window) of the highest mean of up to 64 windows: a dry one shows nothing."""
  where = [(i, j) for i, s in enumerate(found) for j in range(len(s))]
  picked = [where[k] for k in np.unique(np.linspace(0, len(where) - 1, 64).round().astype(int))]

  def level(place):
    raw = found[place[0]][place[1]]['frames']
    values = raw if spec.missing is None else raw[raw != spec.missing]
    return float(np.nanmean(values)) * spec.scale if values.size else -np.inf

  return max(picked, key=level)


def climatology_of(run, task, config) -> dict[str, np.ndarray] | None:
  """The training clips' mean fields, made once: `<run>/climatology.npz`; None if not possible."""
  if kind_of(config, task.spec) != 'weather':
    return None
  try:
    return cluster.made_once(pathlib.Path(run) / 'climatology.npz', lambda: mean_fields.fit(
        datasets.open_stores(config), config.data.train_splits, progress=True))
  except clip_store.StoreError as error:
    print(f'climatology: none, because {error}', file=sys.stderr)
    return None
