"""The skill card as Markdown and as a picture; numbers come from `stp_jax.skill`."""

import pathlib
from collections.abc import Mapping

import numpy as np

from stp_jax.metrics import skill
from stp_jax.report import names as words
from stp_jax.report import score_card

_LABELS = {
    'net': 'net', 'net_observed': 'net (future drivers observed)',
    'net_persist': 'net (future drivers persist)',
    'persistence': 'persistence', 'damped_persistence': 'damped persistence',
    'hourly_climatology': 'hourly climatology', 'scaled_climatology': 'month-hour climatology',
    'ar_blend': 'climatology + AR(1)', 'recurrence_27d': '27-day recurrence', 'c1pg': 'CODE C1PG',
    'c2pg': 'CODE C2PG', 'iri': 'IRI'}


def _number(value, form='.2f') -> str:
  return '-' if value is None or not np.isfinite(value) else format(value, form)


def _interval(value) -> str:
  return '-' if value is None else f'{value[0]:.2f} to {value[1]:.2f}'


def markdown(card: Mapping) -> str:
  """The card as text: scores over all leads, by group, and what is better than what."""
  units = card['units']
  simulated = any('simulated' in f'{d["name"]} {d["description"]}'.lower() for d in card['data'])
  split = '+'.join(card['splits'])
  lines = [f'# Skill: {card["name"]}', '']
  if card.get('scored_on_training'):
    lines += [f'**{words.scored_on_training(card["scored_on_training"], split)}.**', '']
  lines += [
      f'- data: {"SIMULATED: " if simulated else ""}'
      + '; '.join(f'{d["name"]} ({d["description"]})' for d in card['data']),
      f'- split {split}: {card["windows"]} windows, {card["t_in"]} frames in, '
      f'{card["t_out"]} out, one every {card["cadence_hours"]:g} h',
      f'- runs: {" ".join(card["runs"])}, step {card["step"]}'
      + (f', {card["members"]} samples of each' if card['members'] else ''),
      f'- future forcings: {card["future_forcings"]}',
      '- persistence: ' + (
          'the same hour of the last day seen' if card['t_in'] * card['cadence_hours'] >= 24 else
          'the last frame seen, as less than a day is read'),
      f'- intervals: 95 %, from {1000} resamples of whole days; "better" only where the interval '
      f'of the difference excludes 0, with at least {skill.FEWEST_DAYS} days; of fewer it is rough',
      '']
  rows = []
  for name, groups in card['forecasts'].items():
    e = groups['all']
    star = '*' if name in card['partial'] else ''
    rows.append([_LABELS.get(name, name) + star, e['days'], _number(e['cos_rmse']),
                 _interval(e['cos_rmse_interval']), _number(e['cos_mae']),
                 _number(e['cos_bias'], '+.2f'), _number(e['cos_correlation'], '.3f'),
                 _number(e['rmse']), _number(e['mae']), _number(e['bias'], '+.2f')])
  lines += [f'All leads, {units}; cosine-of-latitude weights, then without weights:', '']
  lines += score_card.table(
      ['forecast', 'days', 'RMSE', '95 %', 'MAE', 'bias', 'corr.', 'RMSE plain', 'MAE plain',
       'bias plain'], rows)
  if card['partial']:
    lines += ['\\* not there for every frame: the comparison below is over the frames where it is, '
              'the net on the same ones.', '']
  for name, found in card.get('counted', {}).items():
    end = 'the day before' if name == 'c1pg' else 'the day before that'
    hours = (f', at leads of {min(found["leads"]):g} to {max(found["leads"]):g} h'
             if found['leads'] else '')
    lines += [f'{_LABELS[name]} is made of data to the end of {end}. It counts only where these '
              'end no later than a frame after the issue time: in '
              f'{found["windows"]} of {found["of"]} windows, {found["frames"]} of '
              f'{found["of_frames"]} frames{hours}.', '']
  lines += ['## Is the net better?', '',
            'Difference of cosine-weighted RMSE, baseline minus net (positive: the net is better).',
            '']
  rows = []
  for name, groups in card['compared'].items():
    for group, found in groups.items():
      if group == 'all' or group.startswith('day '):
        rows.append([_LABELS.get(name, name), group, _number(found.get('rmse')),
                     _number(found.get('net_rmse')), _number(found['difference'], '+.2f'),
                     _interval(found['interval']), found['verdict']])
  lines += score_card.table(
      ['baseline', 'frames', 'its RMSE', "the net's, same frames", 'difference', '95 %',
       'the net is'], rows, left=(0, 1, 6))
  lines += ['## By group', '', f'Cosine-weighted RMSE [{units}]; the verdict is against '
            'persistence.'
            + (' \\*: over its own frames, not to be held against the net\'s of the same row.'
               if card['partial'] else ''), '']
  names = [n for n in card['forecasts'] if n in (
      'net', 'net_observed', 'net_persist', 'persistence', 'ar_blend', 'recurrence_27d', 'c1pg',
      'c2pg', 'iri')]
  rows = []
  for group, entry in card['forecasts']['net'].items():
    if group.startswith('lead'):
      continue
    verdict = card['compared'].get('persistence', {}).get(group, {}).get('verdict', '-')
    rows.append([group, entry['days'], *(
        _number(card['forecasts'][n].get(group, {}).get('cos_rmse')) for n in names), verdict])
  titles = [_LABELS[n] + ('*' if n in card['partial'] else '') for n in names]
  lines += score_card.table(['group', 'days', *titles, 'the net is'], rows,
                            left=(0, len(names) + 2))
  if card['ensemble']:
    e = card['ensemble']
    lines += [f'## Ensemble of {e["members"]}', '',
              f'CRPS {e["crps"]:.2f} {units} (mean absolute error of the mean '
              f'{e["mean_absolute_error"]:.2f}); spread {e["spread"]:.2f} against RMSE '
              f'{e["rmse"]:.2f}: ' + (
                  'the ensemble is too sure' if e['spread'] < 0.9 * e['rmse'] else
                  'the ensemble is not sure enough' if e['spread'] > 1.1 * e['rmse'] else
                  'spread and error agree within 10 %') + '.', '']
    lines += score_card.table(['spread', 'RMSE', 'pixels'], [
        [_number(b['spread']), _number(b['rmse']), b['pixels']] for b in e['by_spread']])
  return '\n'.join(lines)


def draw(path: pathlib.Path, card: Mapping) -> pathlib.Path:
  """RMSE by lead, and the differences to every baseline with their intervals."""
  from stp_jax.report import style
  figure = style.figure(11, 5.2)
  left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
  for name, groups in card['forecasts'].items():
    points = [(float(g.split()[1]), e['cos_rmse']) for g, e in groups.items()
              if g.startswith('lead')]
    if points:
      x, y = zip(*sorted(points))
      star = '*' if name in card['partial'] else ''
      left.plot(x, y, label=_LABELS.get(name, name) + star, **{
          'linewidth': 1.4, **style.LINES.get(name, {})})
  left.set_xlabel('lead time [h]' + ('   (*: over its own frames)' if card['partial'] else ''))
  left.set_ylabel(f'RMSE [{card["units"]}], cosine-of-latitude weights')
  left.set_ylim(bottom=0)
  # Below: among curves at every height there is no room.
  figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=8, ncol=5,
                loc='outside lower center')
  style.tidy(left)
  names = [n for n, g in card['compared'].items() if g.get('all', {}).get('difference') is not None]
  for i, name in enumerate(names):
    found = card['compared'][name]['all']
    colour = dict(better='#009E73', worse='#D55E00').get(found['verdict'], '#999999')
    if found['interval']:
      right.plot(found['interval'], [i, i], color=colour, linewidth=3)
    right.plot(found['difference'], i, marker='o', color=colour)
  right.axvline(0, color='black', linewidth=0.8)
  right.set_yticks(range(len(names)), [_LABELS.get(n, n) for n in names], fontsize=9)
  right.invert_yaxis()
  right.set_xlabel(f'RMSE of the baseline minus that of the net [{card["units"]}]')
  right.set_title('green: the net is better; red: worse; grey: not shown', fontsize=9)
  style.tidy(right)
  figure.suptitle(f'{card["name"]}, split {"+".join(card["splits"])}, {card["windows"]} windows',
                  fontsize=11)
  figure.savefig(path)
  return path
