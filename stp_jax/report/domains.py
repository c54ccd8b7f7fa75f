"""The report of runs over domains: a table per domain, curves by lead, forecasts as pictures."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from stp_jax.data.clip_writer import write_json
from stp_jax.report import EXTRA
from stp_jax.report.names import table

# Title, key, digits; which direction is better.
_COLUMNS = (
    ('MSE x 1e3 ↓', 'mse', 3), ('MAE x 1e3 ↓', 'mae', 2), ('PSNR [dB] ↑', 'psnr', 2),
    ('SSIM ↑', 'ssim', 4), ('LPIPS ↓', 'lpips', 4), ('POD ↑', 'pod', 3), ('FAR ↓', 'far', 3),
    ('CSI ↑', 'csi', 3), ('HSS ↑', 'hss', 3))
_SCALED = ('mse', 'mae')
_COLOURS = ('black', '#0072B2', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')


def _cell(scores: Mapping, key: str, digits: int) -> str:
  value = scores.get(key)
  if value is None:
    return '-'
  return f'{value * (1e3 if key in _SCALED else 1):.{digits}f}'


def _label(run: Mapping) -> str:
  return f'{run["run"]} ({run["stage"]})' if run['stage'] else run['run']


def _rows(card: Mapping, domain: str) -> list[tuple[str, Mapping]]:
  rows = [(_label(r), r['domains'][domain]['net']) for r in card['runs']]
  return [*rows, ('persistence', card['runs'][0]['domains'][domain]['persistence'])]


def markdown(card: Mapping) -> str:
  """The score card as Markdown."""
  domains = list(card['runs'][0]['domains'])
  lines = [
      f'# {" and ".join(_label(r) for r in card["runs"])} by domain', '',
      f'- frames: {"x".join(map(str, card["shape"]))}, {card["t_in"]} given, {card["t_out"]} '
      f'forecast; values 0 to 1 of each domain\'s full scale; split {"+".join(card["splits"])}',
      f'- an event is a value of at least {card["threshold"]:.3f}', '']
  lines += ['## Runs', '', *table(
      ['run', 'model', 'stage', 'step', 'parameters', 'started from'],
      [[r['run'], r['model'], r['stage'] or '-', r['step'], f'{r["parameters"]:,}',
        r['init_from'] or '-'] for r in card['runs']], left=(0, 1, 2, 5))]
  best = []
  for domain in domains:
    mse = {name: s['mse'] for name, s in _rows(card, domain)}
    last = mse['persistence']
    best.append([domain, card['runs'][0]['domains'][domain]['windows'], *(
        f'{v * 1e3:.3f} ({100 * (1 - v / last):+.1f} %)' if last else f'{v * 1e3:.3f}'
        for v in mse.values())])
  lines += ['## MSE x 1e3 (and gain on persistence)', '', *table(
      ['domain', 'windows', *(name for name, _ in _rows(card, domains[0]))], best)]
  for domain in domains:
    rows = _rows(card, domain)
    shown = [c for c in _COLUMNS if any(s.get(c[1]) is not None for _, s in rows)]
    lines += [f'## {domain}', '', *table(
        ['forecast', *(title for title, _, _ in shown)],
        [[name, *(_cell(s, key, digits) for _, key, digits in shown)] for name, s in rows])]
  for name, found in card.get('changed', {}).items():
    first = card['runs'][0]['run']
    if not found['comparable']:
      text = f'{name} is of another architecture than {first}.'
    elif not found['differing']:
      text = f'{name}: all {found["arrays"]} arrays are bit-identical to those of {first}.'
    else:
      listed = found['differing'][:8]
      more = len(found['differing']) - len(listed)
      text = (f'{name}: {len(found["differing"])} of {found["arrays"]} arrays differ from {first}, '
              f'every other one is bit-identical: {", ".join(listed)}'
              + (f' and {more} more.' if more else '.'))
    lines += [f'- {text}', '']
  return '\n'.join(lines) + '\n'


def write(folder, card: Mapping, pictures: Mapping[str, Mapping]) -> list[pathlib.Path]:
  """Writes `score_card.md`, `scores.json`, and with matplotlib curves and examples; README last.

  Args:
    card: of `evaluate_domains.evaluate`.
    pictures: domain -> `input` `[t_in, H, W, C]`, `truth` `[t_out, H, W, C]`, `forecasts` by run.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  text = markdown(card)
  (folder / 'score_card.md').write_text(text)
  write_json(folder / 'scores.json', card)
  made, note = [], ''
  try:
    for domain, window in pictures.items():
      made.append((curves(folder / f'leads_{domain}.png', card, domain), f'{domain}: by lead'))
      made.append((strip(folder / f'example_{domain}.png', domain, window),
                   f'{domain}: a forecast'))
  except ImportError as error:
    if (error.name or '').split('.')[0] not in ('matplotlib', 'PIL'):
      raise
    note = f'*{EXTRA}*\n\n'
  shown = [f'## {caption}\n\n![{caption}]({path.name})\n' for path, caption in made]
  readme = folder / 'README.md'
  readme.write_text(note + text + '\n' + '\n'.join(shown))
  return [folder / 'score_card.md', folder / 'scores.json', *(p for p, _ in made), readme]


def curves(path: pathlib.Path, card: Mapping, domain: str) -> pathlib.Path:
  """POD, FAR, CSI and SSIM against the lead, a line a run; PSNR where a frame has no event."""
  from stp_jax.report import style
  rows = _rows(card, domain)
  keys = [k for k in ('pod', 'far', 'csi', 'ssim', 'psnr', 'mse')
          if any(v is not None for _, s in rows for v in s['by_lead'].get(k, ()))][:4]
  figure = style.figure(8.5, 6.2)
  titles = {key: title.split(' x')[0] for title, key, _ in _COLUMNS}
  for axes, key in zip(figure.subplots(2, 2, squeeze=False).flat, keys):
    for i, (name, scores) in enumerate(rows):
      values = [np.nan if v is None else v for v in scores['by_lead'].get(key, ())]
      look = (dict(color='#D55E00', linestyle='--') if name == 'persistence' else
              dict(color=_COLOURS[i % len(_COLOURS)]))
      axes.plot(range(1, len(values) + 1), values, marker='o', markersize=3, label=name, **look)
    axes.set_title(titles[key], fontsize=10)
    axes.set_xlabel('lead [frames]')
    axes.set_xticks(range(1, card['t_out'] + 1, max(1, card['t_out'] // 8)))
    style.tidy(axes)
  handles, labels = axes.get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False, fontsize=9)
  windows = card['runs'][0]['domains'][domain]['windows']
  figure.suptitle(f'{domain} · {windows} windows of {"+".join(card["splits"])}', fontsize=11)
  figure.savefig(path)
  return path


def strip(path: pathlib.Path, domain: str, window: Mapping) -> pathlib.Path:
  """Input, truth and every run's forecast, a row each, at most six frames across."""
  from stp_jax.report import style
  rows = {'input': window['input'], 'truth': window['truth'], **window['forecasts']}
  columns = min(6, max(map(len, rows.values())))
  figure = style.figure(1.5 * columns + 1.2, 1.5 * len(rows) + 0.5)
  grid = figure.subplots(len(rows), columns, squeeze=False)
  grey = window['truth'].shape[-1] == 1
  top = float(max(np.nanmax(window['truth']), np.nanmax(window['input']), 1e-6))
  for line, (name, frames) in zip(grid, rows.items()):
    chosen = np.unique(np.linspace(0, len(frames) - 1, columns).round().astype(int))
    for axes in line:
      axes.axis('off')
    for axes, t in zip(line, chosen):
      image = frames[t, ..., 0] / top if grey else frames[t]
      axes.imshow(np.clip(image, 0, 1), cmap='viridis' if grey else None, vmin=0, vmax=1,
                  interpolation='nearest')
      axes.set_title(f'{"input" if name == "input" else "lead"} {t + 1}', fontsize=7, pad=2)
    line[0].text(-0.08, 0.5, name, transform=line[0].transAxes, rotation=90, va='center',
                 ha='right', fontsize=8)
  figure.suptitle(f'{domain}: the window in the middle of the split', fontsize=10)
  figure.savefig(path)
  return path


__all__: Sequence[str] = ('curves', 'markdown', 'strip', 'write')
