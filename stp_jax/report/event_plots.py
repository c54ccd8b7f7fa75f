"""Pictures of event scores: by lead time, and by threshold. Needs the extra `plots`."""

import pathlib
from collections.abc import Mapping

import numpy as np

from stp_jax.report import fields, names, style

_SHOWN = ('csi', 'pod', 'far', 'fss')


def _axis(card: Mapping, scores: Mapping) -> tuple[np.ndarray, str]:
  if not names.clock(card, scores):
    return np.arange(1, scores['leads'] + 1), 'lead [frames]'
  hours = np.asarray(scores['lead_hours'], float)
  return (60 * hours, 'lead time [min]') if scores['cadence_hours'] < 1 else (
      hours, 'lead time [h]')


def _numbers(values) -> np.ndarray:
  return np.array([np.nan if v is None else float(v) for v in values])


def _legend(figure, axes) -> None:
  handles, labels = axes.get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False, fontsize=9)


def by_lead(path: pathlib.Path, card: Mapping, split: str) -> pathlib.Path:
  """CSI, POD, FAR and FSS against lead time, a row a score, a column a threshold (at most four).

  CSI, POD and FAR pixel by pixel; FSS of the widest neighbourhood.
  """
  from stp_jax.report.plots import title
  scores = card['splits'][split]
  events = scores['events']
  x, label = _axis(card, scores)
  count = len(events['thresholds'])
  columns = sorted({round(i) for i in np.linspace(0, count - 1, min(4, count))})
  figure = style.figure(2.9 * len(columns) + 0.6, 8.4)
  grid = figure.subplots(len(_SHOWN), len(columns), squeeze=False, sharex=True, sharey='row')
  for row, key in zip(grid, _SHOWN):
    scale = len(events['scales']) - 1 if key == 'fss' else 0
    side = events['scales'][scale]
    for axes, k in zip(row, columns):
      for name, found in names.ordered(events['forecasts']).items():
        values = _numbers(t[scale][k] for t in found['by_lead'][key])
        axes.plot(x, values, marker='o' if len(x) < 13 else None, markersize=3.5,
                  label=names.forecast(name, 1, card.get('t_in', 0)),
                  **{'linewidth': 1.5, **style.LINES.get(name, {})})
      if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        axes.text(0.5, 0.5, 'no such event', transform=axes.transAxes, ha='center', va='center',
                  color='#777777', fontsize=9)
      axes.set_ylim(-0.03, 1.03)
      style.tidy(axes)
    row[0].set_ylabel(fields.TITLES[key] + (f'\n{side} x {side} pixels' if side > 1 else ''))
  for axes, k in zip(grid[0], columns):
    share = events['observed'][k]
    axes.set_title(f'≥ {events["thresholds"][k]:g} {events["units"]}'
                   + ('' if share is None else f'\n{100 * share:.2g} % of pixels'), fontsize=10)
  for axes in grid[-1]:
    axes.set_xlabel(label)
  _legend(figure, grid[0, 0])
  figure.suptitle(title(card, f'split {split}'), fontsize=11)
  figure.savefig(path)
  return path


def by_threshold(path: pathlib.Path, card: Mapping, split: str) -> pathlib.Path:
  """CSI, POD, FAR, FSS of all leads against the threshold, a row a score, a column a scale."""
  from stp_jax.report.plots import title
  events = card['splits'][split]['events']
  figure = style.figure(3.1 * len(events['scales']) + 0.6, 8.4)
  grid = figure.subplots(len(_SHOWN), len(events['scales']), squeeze=False, sharex=True,
                         sharey='row')
  x = np.arange(len(events['thresholds']))
  for row, key in zip(grid, _SHOWN):
    for i, (axes, side) in enumerate(zip(row, events['scales'])):
      for name, found in names.ordered(events['forecasts']).items():
        axes.plot(x, _numbers(found[key][i]), marker='o', markersize=4,
                  label=names.forecast(name, 1, card.get('t_in', 0)),
                  **{'linewidth': 1.5, **style.LINES.get(name, {})})
      axes.set_xticks(x, [f'{t:g}' for t in events['thresholds']])
      axes.set_ylim(-0.03, 1.03)
      style.tidy(axes)
      if key == _SHOWN[0]:
        axes.set_title('pixel by pixel' if side == 1 else f'{side} x {side} pixels', fontsize=10)
    row[0].set_ylabel(fields.TITLES[key])
  for axes in grid[-1]:
    axes.set_xlabel(f'threshold [{events["units"]}]')
  _legend(figure, grid[0, 0])
  figure.suptitle(title(card, f'split {split}'), fontsize=11)
  figure.savefig(path)
  return path
