"""Pictures of beam runs: predicted against true beams, subsets of modalities, loss curves."""

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from stp_jax.report import style

_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
_DASHES = ('-', '--', '-.', ':')


def all_of(folder: pathlib.Path, card: Mapping, metrics_file) -> list[tuple[pathlib.Path, str]]:
  """Every picture that there is data for, with a caption."""
  made = []
  for split in card['splits']:
    samples = folder / f'samples_{split}.npz'
    if samples.exists() and card['splits'][split]:
      with np.load(samples) as file:
        path = beams(folder / f'beams_{split}.png', card, dict(file))
      made.append((path, f'Predicted and true beams, split {split}'))
    if card['robustness'].get(split):
      made.append((subsets(folder / f'subsets_{split}.png', card, split),
                   f'DBA with every subset of the modalities, split {split}'))
  if metrics_file is not None and pathlib.Path(metrics_file).exists():
    path = losses(folder / 'losses.png', {card['name']: pathlib.Path(metrics_file)})
    if path:
      made.append((path, 'Losses'))
  return made


def beams(path: pathlib.Path, card: Mapping, kept: Mapping[str, np.ndarray]) -> pathlib.Path:
  """The best predicted beam against the true one, a point a sample, by scenario."""
  figure = style.figure(4.6, 4.4)
  axes = figure.subplots()
  best, true = kept['logits'][:, 0].argmax(-1), kept['beam'][:, 0]
  size = kept['logits'].shape[-1]
  axes.plot([1, size], [1, size], color='#bbbbbb', linewidth=0.8)
  for i, scenario in enumerate(np.unique(kept['scenario'])):
    chosen = (kept['scenario'] == scenario) & (true >= 0)
    axes.plot(true[chosen] + 1, best[chosen] + 1, '.', markersize=5, alpha=0.6,
              color=_COLOURS[i % len(_COLOURS)], label=f'scenario {scenario}')
  axes.set_xlabel('true beam')
  axes.set_ylabel('predicted beam')
  axes.set_title(f'{card["name"]}, step {card["step"]}', fontsize=10)
  axes.legend(frameon=False, fontsize=8)
  style.tidy(axes)
  figure.savefig(path)
  return path


def subsets(path: pathlib.Path, card: Mapping, split: str) -> pathlib.Path:
  """DBA by what is left, zeros and noise for the rest; a line for the positions-only head."""
  scores, names = card['robustness'][split], card['modalities']
  rows: dict[str, dict[str, float]] = {}
  for label, values in scores.items():
    lost, _, fill = label.removeprefix('without ').partition(', ')
    left = [n for n in names if label == 'all modalities' or n not in lost.split('+')]
    rows.setdefault('+'.join(left), {})[fill or 'zeros'] = values['all']['dba']
  rows = dict(sorted(rows.items(), key=lambda r: r[1].get('zeros', 0)))
  figure = style.figure(6.4, 0.8 + 0.28 * len(rows))
  axes = figure.subplots()
  place = np.arange(len(rows))
  for offset, fill, colour in ((0.2, 'zeros', _COLOURS[0]), (-0.2, 'noise', _COLOURS[4])):
    values = [row.get(fill, np.nan) for row in rows.values()]
    axes.barh(place + offset, values, 0.38, color=colour, label=f'{fill} for the rest')
  base = card['splits'][split].get('positions only')
  if base:
    axes.axvline(base['all']['dba'], color='#D55E00', linestyle='--', label='positions only')
  axes.set_yticks(place, list(rows), fontsize=8)
  axes.set_xlabel('DBA')
  axes.legend(frameon=False, fontsize=8)
  style.tidy(axes)
  figure.savefig(path)
  return path


def _series(metrics_file: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  found: dict[str, list[tuple[int, float]]] = {}
  for line in metrics_file.read_text().splitlines():
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      continue  # the half line of a run that was killed
    for key, value in row.items():
      if (key == 'loss' or key.startswith(('term/', 'validation'))) and isinstance(
          value, int | float):
        found.setdefault(key, []).append((row['step'], value))
  return {k: tuple(np.array(v, float).T) for k, v in found.items()}


def losses(path: pathlib.Path, runs: Mapping[str, pathlib.Path]) -> pathlib.Path | None:
  """Curves of every loss term of several runs, a panel a term; None without any step.

  Args:
    runs: label -> metrics.jsonl.
  """
  series = {label: _series(file) for label, file in runs.items()}
  terms = sorted({k for s in series.values() for k in s if 'validation' not in k},
                 key=lambda k: (k != 'loss', k))
  if any('validation/dba' in s for s in series.values()):
    terms.append('validation/dba')
  if not terms:
    return None
  figure = style.figure(3.6 * len(terms), 3.4)
  panels = figure.subplots(1, len(terms), squeeze=False)[0]
  for axes, term in zip(panels, terms):
    for i, (label, found) in enumerate(series.items()):
      if term in found:
        steps, values = found[term]
        width = max(1, len(values) // 20)
        smooth = np.convolve(values, np.ones(width) / width, 'valid')
        axes.plot(steps[width - 1:], smooth, label=label, linewidth=1.5,
                  color=_COLOURS[i % len(_COLOURS)], linestyle=_DASHES[i // len(_COLOURS) % 4])
    axes.set_title(term.removeprefix('term/'), fontsize=10)
    axes.set_xlabel('step')
    style.tidy(axes)
  if len(runs) > 1:
    handles = {k: v for a in panels for v, k in zip(*a.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc='outside lower center',
                  ncols=min(3, len(runs)), frameon=False, fontsize=9)
  figure.savefig(path)
  return path


def overlay(workdirs: Sequence[pathlib.Path], out: pathlib.Path) -> pathlib.Path:
  """Loss curves of several runs in one picture, `losses.png` in the folder `out`.

  Raises:
    ValueError: a run without metrics.
  """
  runs = {}
  for run in workdirs:
    file = pathlib.Path(run) / 'metrics.jsonl'
    if not file.exists():
      raise ValueError(f'{file}: not there; name the --workdir of runs that were trained here')
    runs[pathlib.Path(run).name] = file
  out.mkdir(parents=True, exist_ok=True)
  path = losses(out / 'losses.png', runs)
  if path is None:
    raise ValueError(f'{next(iter(runs.values()))}: holds no losses')
  return path
