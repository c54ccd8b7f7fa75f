"""The report of a beam or rebuild run: tables, pictures, and the challenge's submission files."""

import csv
import json
import math
import pathlib
from collections.abc import Mapping

import numpy as np

from stp_jax import files, report
from stp_jax.report.names import table

METRICS = ('dba', 'top1', 'top2', 'top3', 'top5')
_HEADS = ('DBA', 'top 1', 'top 2', 'top 3', 'top 5')
BASELINES = ('positions only', 'most frequent beams', 'chance')
_FILLS = {'zeros': 'zeros', 'noise': 'noise'}


def _cell(metric: str, value: float | None) -> str:
  if value is None or not math.isfinite(value):
    return '-'
  return f'{value:.4f}' if metric == 'dba' else f'{100 * value:.1f} %'


def markdown(card: Mapping) -> str:
  """The card as text; DBA between 0 and 1, accuracies in percent, both: more is better."""
  lines = [f'# Score card: {card["name"]}', '']
  facts = [
      f'{card["task"]} run, {card["model"]}, {card["parameters"]:,} parameters, '
      f'step {card["step"]}',
      f'modalities {" ".join(card["modalities"])}; {card["t_in"]} frames seen, '
      f'{card["t_out"]} beam(s) predicted',
      'trained on ' + ' - '.join(filter(None, card['trained_on'].values()))]
  facts += ['scored on {name}: {description}'.format(**d) for d in card['data']]
  if card['missing_train']:
    facts.append(f'in training {"+".join(card["missing_train"])} lost with probability '
                 f'{card["missing_rate"]:g} each')
  lines += [f'* {fact}' for fact in facts] + ['']
  for split, scores in card['splits'].items():
    if not scores:
      lines += [f'## {split}: no labels, the submission file alone', '']
      continue
    count = next(iter(scores.values()))['all']['samples']
    lines += [f'## {split}: {count} samples', '', 'DBA: mean distance-based accuracy of the best '
              'one, two and three beams; overall = every sample alike.', '']
    lines += table(['', *_HEADS], [
        [name, *(_cell(m, rows['all'].get(m)) for m in METRICS)] for name, rows in scores.items()])
    keys = sorted({k for rows in scores.values() for k in rows} - {'all'}, key=float)
    lines += table(
        ['DBA', *(f'scenario {k}' for k in keys), 'overall'],
        [[name, *(_cell('dba', rows.get(k, {}).get('dba')) for k in (*keys, 'all'))]
         for name, rows in scores.items()])
    lines += _rebuilt(card, scores)
    lines += _subsets(card, split)
  return '\n'.join(lines)


def recovered(full: float, without: float, rebuilt: float) -> float | None:
  """The share of what a lost sensor costs that rebuilding brings back; None where it costs none."""
  return (rebuilt - without) / (full - without) if full - without > 1e-9 else None


def _rebuilt(card: Mapping, scores: Mapping) -> list[str]:
  if 'rebuild' not in card:
    return []
  lost = '+'.join(t for t in card['modalities'] if t in card['rebuild']['targets'])
  dba = lambda name: scores[name]['all']['dba'] if name in scores else None
  rows, whole = [], dba('all modalities, before')
  for fill in _FILLS.values():
    before = dba(f'without {lost}, {fill}, before')
    without, made = dba(f'without {lost}, {fill}'), dba(f'without {lost}, {fill}, rebuilt')
    # What the loss costs the run before is the whole cost: the rest of the network has adapted
    # itself to the loss while the rebuilding was learnt.
    share = recovered(dba('all modalities'), without, made) if before is None else (
        recovered(whole, before, made))
    values = (fill, whole, before, without, made, dba('all modalities'))
    rows.append([*(v if isinstance(v, str) else _cell('dba', v) for v in values),
                 '-' if share is None else f'{100 * share:.0f} %'])
  return [f'### {lost} rebuilt from {"+".join(card["rebuild"]["sources"])}', '',
          'DBA; «before»: of the run that this one started from, whose loss is what is recovered.',
          '', *table([f'{lost} replaced by', f'before, {lost} there', 'before, lost',
                       'lost, not rebuilt', 'lost, rebuilt', f'{lost} there', 'recovered'], rows)]


def _subsets(card: Mapping, split: str) -> list[str]:
  scores = card['robustness'].get(split)
  if not scores:
    return []
  names = card['modalities']
  found: dict[tuple, dict[str, float]] = {}
  for label, rows in scores.items():
    lost, _, fill = label.removeprefix('without ').partition(', ')
    lost = () if label == 'all modalities' else tuple(lost.split('+'))
    found.setdefault(lost, {})[fill] = rows['all']['dba']
  count = next(iter(scores.values()))['all']['samples']
  value = lambda row, fill: _cell('dba', row.get(fill, row.get('')))
  return [f'### Every subset of the modalities, {count} samples', '', *table(
      [*names, 'DBA, zeros for the rest', 'noise for the rest'],
      [[*('' if n in lost else 'x' for n in names), *(value(row, f) for f in _FILLS.values())]
       for lost, row in found.items()])]


def submission(folder: pathlib.Path, kept: Mapping[str, np.ndarray]) -> list[pathlib.Path]:
  """The challenge's two files: the three best beams from 1 on, and the best one's probability.

  Args:
    kept: `logits` `[N, K, beams]` (the first beam is submitted), `row` `[N]` of the CSV.
  """
  folder.mkdir(parents=True, exist_ok=True)
  order = np.argsort(kept['row'], kind='stable')
  logits, rows = kept['logits'][order, 0].astype(np.float64), kept['row'][order]
  best = np.argsort(-logits, axis=1, kind='stable')[:, :3] + 1
  odds = np.exp(logits - logits.max(1, keepdims=True))
  sure = odds.max(1) / odds.sum(1)
  return [
      _csv(folder / 'beam_pred.csv', ['index', 'top-1 beam', 'top-2 beam', 'top-3 beam'],
           [[int(r), *b] for r, b in zip(rows, best.tolist())]),
      _csv(folder / 'beam_pred_confidence_seq.csv', ['index', 'confidence'],
           [[int(r), f'{p:.6f}'] for r, p in zip(rows, sure)])]


def _csv(path: pathlib.Path, head: list, rows: list[list]) -> pathlib.Path:
  with files.whole(path) as partial, partial.open('w', newline='') as file:
    csv.writer(file).writerows([head, *rows])
  return path


def write(folder, card: Mapping, kept: Mapping[str, Mapping[str, np.ndarray]] | None = None,
          metrics_file=None, *, say=print) -> list[pathlib.Path]:
  """Writes the whole report; earlier files of the same names are replaced.

  Args:
    folder: made if it is not there. card: see `stp_jax.evaluate_beam`.
    kept: by split: `logits`, `beam`, `scenario`, `row` of every sample; kept as samples-*.npz.
    metrics_file: the run's metrics.jsonl, or None. say: told when the pictures are left out.

  Returns:
    The files, `README.md` last.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  text = markdown(card)
  paths = [folder / 'score_card.md', folder / 'score_card.json']
  for path, content in zip(paths, (text, json.dumps(card, indent=1))):
    files.write_text(path, content + '\n')
  for split, values in (kept or {}).items():
    if values:
      paths += submission(folder / f'submission_{split}', values)
      paths.append(folder / f'samples_{split}.npz')
      np.savez_compressed(paths[-1], **values)
  note, pictures = [], []
  try:
    from stp_jax.report import beam_plots
    pictures = beam_plots.all_of(folder, card, metrics_file)
  except ImportError as error:
    if (error.name or '').split('.')[0] not in ('matplotlib', 'PIL'):
      raise
    say(report.EXTRA)
    note = [f'*{report.EXTRA}*', '']
  lines = [f'# Report: {card["name"]}', '', *note, text.split('\n', 1)[1].lstrip('\n')]
  for path, caption in pictures:
    lines += [f'## {caption}', '', f'![{caption}]({path.name})', '']
  names = [p.relative_to(folder).as_posix() for p in paths]
  lines += ['', 'Files: ' + ', '.join(f'[{n}]({n})' for n in names), '']
  (folder / 'README.md').write_text('\n'.join(lines))
  return [*paths, *(p for p, _ in pictures), folder / 'README.md']


def again(run: pathlib.Path, out=None) -> list[pathlib.Path]:
  """Writes the report of `run` again, from the card and the samples that it kept.

  Raises:
    ValueError: the card is another report's.
  """
  source = pathlib.Path(run) / 'report'
  card = json.loads((source / 'score_card.json').read_text())
  if card.get('task') not in ('beam', 'rebuild'):
    raise ValueError(f'{source}/score_card.json: not of a beam run; run python -m stp_jax.evaluate')
  kept = {}
  for split in card['splits']:
    if (source / f'samples_{split}.npz').exists():
      with np.load(source / f'samples_{split}.npz') as file:
        kept[split] = dict(file)
  return write(out or source, card, kept, pathlib.Path(run) / 'metrics.jsonl')
