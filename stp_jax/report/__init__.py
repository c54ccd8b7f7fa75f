"""The report of a run: a folder with the score card, pictures and an index.

`write` is what evaluation calls; `python -m stp_jax.report --workdir RUN` makes it again.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from stp_jax.report import score_card

EXTRA = "no pictures: matplotlib or Pillow is missing; pip install 'stp_jax[plots]'"
_ARRAYS = ('input', 'truth', 'forecast', 'times', 'latitude', 'longitude', 'units')


def write(
    folder, scores: Mapping, example: Mapping | None = None, metrics=None, *, say=print,
) -> list[pathlib.Path]:
  """Writes the whole report; earlier files of the same names are replaced.

  Args:
    folder: made if it is not there.
    scores: the card, see `score_card.markdown`.
    example: one window for the maps: `truth`, `forecast` `[T_out, H, W]`, `input` `[T_in, H, W]`
      in physical units (NaN where missing), `times` datetime64 `[T]` or `[T_out]` or None,
      `latitude` `[H]`, `longitude` `[W]` (or None), `units`. Kept as example.npz.
    metrics: the run's metrics.jsonl, or None.
    say: told in one line when the pictures are left out.

  Returns:
    The files written, `README.md` last: it shows all others.

  Raises:
    ValueError: truth and forecast of different shapes.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  if example is not None and np.shape(example['truth']) != np.shape(example['forecast']):
    raise ValueError(
        f'example: truth {np.shape(example["truth"])}, forecast {np.shape(example["forecast"])}')
  paths = score_card.write(folder, scores)
  if example is not None:
    kept = {k: example[k] for k in _ARRAYS if example.get(k) is not None}
    paths.append(folder / 'example.npz')
    np.savez_compressed(paths[-1], **kept)
  lines = [f'# Report: {scores.get("name", "run")}', '']
  try:
    pictures = _pictures(folder, scores, example, metrics)
  except ImportError as error:
    if (error.name or '').split('.')[0] not in ('matplotlib', 'PIL'):
      raise
    say(EXTRA)
    pictures, note = [], [f'*{EXTRA}*', '']
  else:
    note = []
  text = (folder / 'score_card.md').read_text().split('\n', 1)[1].lstrip('\n')
  lines += [*note, text]
  for path, caption in pictures:
    lines += [f'## {caption}', '', f'![{caption}]({path.name})', '']
  files = ', '.join(f'[{p.name}]({p.name})' for p in paths)
  lines += ['', f'Files: {files}', '']
  readme = folder / 'README.md'
  readme.write_text('\n'.join(lines))
  return [*paths, *(path for path, _ in pictures), readme]


def _pictures(folder, scores, example, metrics) -> list[tuple[pathlib.Path, str]]:
  from stp_jax.report import plots
  made = [
      (plots.rmse_by_lead(folder / f'rmse_by_lead_{split}.png', scores, split),
       f'RMSE by lead time, split {split}') for split in scores['splits']]
  if any('events' in found for found in scores['splits'].values()):
    from stp_jax.report import event_plots
    for split in scores['splits']:
      made += [
          (event_plots.by_lead(folder / f'events_by_lead_{split}.png', scores, split),
           f'CSI, POD, FAR and FSS by lead time, split {split}'),
          (event_plots.by_threshold(folder / f'events_by_threshold_{split}.png', scores, split),
           f'CSI, POD, FAR and FSS by threshold, split {split}')]
  if example is not None:
    made += [
        (plots.maps(folder / 'maps.png', scores, example), 'Truth, forecast and error'),
        (plots.animation(folder / 'forecast.gif', scores, example), 'The forecast, frame by frame')]
  if metrics is not None and pathlib.Path(metrics).exists():
    curves = plots.training(folder / 'training.png', pathlib.Path(metrics))
    if curves:
      made.append((curves, 'Training'))
  return made


def load_example(folder) -> dict | None:
  """The window that `write` kept, or None."""
  path = pathlib.Path(folder) / 'example.npz'
  if not path.exists():
    return None
  with np.load(path) as file:
    return {k: str(file[k]) if k == 'units' else file[k] for k in file.files}
