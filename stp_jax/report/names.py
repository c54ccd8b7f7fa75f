"""What forecasts and scores are called in print, and how a number is written."""

import math
from collections.abc import Mapping, Sequence

FORECASTS = {
    'net': 'net',
    'net_persist': 'net (persist)',
    'net_observed': 'net (observed)',
    'persistence': '24-h persistence',
    'damped_persistence': 'damped persistence',
    'hourly_climatology': 'hourly climatology',
    'scaled_climatology': 'scaled climatology',
    'ar_blend': 'climatology + AR(1) blend',
    'optical_flow': 'optical flow (pysteps)',
    'climatology': 'climatology',
}


def forecast(name: str, frames_per_day: int = 0, t_in: int = 0) -> str:
  """The forecast's name; persistence of less than a day is the last frame's."""
  if name == 'persistence' and t_in and (frames_per_day > t_in or frames_per_day <= 1):
    return 'persistence (last frame)'
  return FORECASTS.get(name, name.replace('_', ' '))


def label(name: str, card: dict, scores: dict) -> str:
  """`forecast` of a card; the net's future-forcings mode too where it was scored under two."""
  modes = scores.get('modes', {})
  if name in modes and len(modes) > 1:
    return f'net ({modes[name]})'
  return forecast(name, scores['frames_per_day'], card.get('t_in', 0))


def is_net(name: str) -> bool:
  """Whether a forecast is the net's, in whatever mode, and no baseline."""
  return name == 'net' or name.startswith('net_')


def ordered(forecasts: dict) -> dict:
  """The net first, then the baselines from the plainest to the best informed."""
  known = [n for n in FORECASTS if n in forecasts]
  return {n: forecasts[n] for n in [*known, *(n for n in forecasts if n not in FORECASTS)]}


def net(scores: dict) -> dict:
  """The net's scores by stratum, or the first forecast's where no net was scored."""
  return next(iter(ordered(scores['forecasts']).values()))


def number(value, digits: int = 2, sign: bool = False) -> str:
  """A number for a table; '-' where there is none."""
  if value is None or math.isnan(float(value)):
    return '-'
  value = float(value)
  if math.isinf(value):
    return 'inf' if value > 0 else '-inf'
  if value and abs(value) < 10**-digits and not sign:
    return f'{value:.1e}'
  return f'{value:+.{digits}f}' if sign else f'{value:.{digits}f}'


def duration(hours: float) -> str:
  """Hours, or minutes where they are fewer than sixty."""
  return f'{hours:g} h' if hours >= 1 else f'{60 * hours:.3g} min'


def clock(card: dict, scores: dict) -> bool:
  """Whether lead times are hours; frames without a clock are counted (`clock`, cadence 0)."""
  return bool(card.get('clock', True) and scores['cadence_hours'])


def primary(scores: dict, card: dict) -> str:
  """'cos_' where the rows have latitudes, so that area counts and not rows; else ''.

  Protocol `upstream` knows no weights: '' then too.
  """
  return '' if card.get('protocol') == 'upstream' else weighted(scores)


def weighted(scores: dict) -> str:
  """'cos_' where rows have latitudes, else ''."""
  scores = net(scores)['all']
  weighted = 'cos_rmse' in scores and scores['cos_rmse'] != scores['rmse']
  return 'cos_' if weighted else ''


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left=(0,)) -> list[str]:
  """A Markdown table that reads well as plain text; columns not in `left` go to the right."""
  widths = [max(len(str(r[i])) for r in (header, *rows)) for i in range(len(header))]
  def line(row):
    cells = (str(c).ljust(w) if i in left else str(c).rjust(w)
             for i, (c, w) in enumerate(zip(row, widths)))
    return '| ' + ' | '.join(cells) + ' |'
  rule = '|'.join(
      '-' * (w + 2) if i in left else '-' * (w + 1) + ':' for i, w in enumerate(widths))
  return [line(header), f'|{rule}|', *map(line, rows), '']


def scored_on_training(found: Mapping, split: str) -> str:
  """What `training_days.TrainingDays.overlap` found, as a sentence for a card and for stderr."""
  what = 'days' if found['first'] else 'clips'
  when = f' ({found["first"]} to {found["last"]})' if found['first'] else ''
  return (f'SCORED ON TRAINING {what.upper()}: {found["windows"]} of {found["of"]} windows of '
          f'split {split}{when} forecast {what} that training clips hold; their scores are no test')
