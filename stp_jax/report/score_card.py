"""The score card: which numbers, of what, in which units, against which baselines."""

import math
import pathlib
from collections.abc import Mapping

from stp_jax import files
from stp_jax.data.clip_writer import write_json
from stp_jax.report import fields, names
from stp_jax.report.names import table

FORCINGS = {
    'persist': 'unknown drivers keep their last value available at issue time',
    'observed': 'FUTURE DRIVERS OBSERVED: values measured after issue time were used',
    'forecast': "the driver file's own predictions",
    'none': 'training means',
}


def _says_simulated(data: Mapping) -> bool:
  text = f'{data.get("name")} {data.get("description")}'
  return bool(data.get('simulated')) or 'simulated' in text.lower()


def is_simulated(card: Mapping) -> bool:
  """Whether any store that was scored says that its frames are simulated."""
  return any(map(_says_simulated, card.get('data', ())))


def forcings_mode(card: Mapping) -> str:
  """The future-forcings mode, or '' where nothing but the image is fed."""
  alone = len(card.get('channels', (0, 0))) == 1 or card.get('fusion') == 'none'
  return '' if alone else card.get('future_forcings', '')


def _facts(card: Mapping) -> list[str]:
  mode, trained = forcings_mode(card), card.get('trained_on') or {}
  cadence = card.get('cadence_hours')
  channels = card.get('channels', ())
  data = '; '.join(
      f'{d.get("name")} ({d["description"]})' if d.get('description') else str(d.get('name'))
      for d in card.get('data', ()))
  rows = [
      ('model', ' '.join(filter(None, (
          card.get('model', ''), f'fusion={card["fusion"]}' if card.get('fusion') else '',
          f'anchor={card["anchor"]}' if card.get('anchor') else '')))),
      ('checkpoint step', card.get('step', '-')),
      ('parameters', f'{card["parameters"]:,}' if 'parameters' in card else '-'),
      ('data', ('SIMULATED: ' if is_simulated(card) else '') + (data or '-')),
      ('trained on', ('SIMULATED: ' if _says_simulated(trained) else '')
       + trained.get('name', '-')),
      ('input, forecast', f'{card.get("t_in", "-")} frames, {card.get("t_out", "-")} frames'
       + (f', one every {names.duration(cadence)}' if cadence and card.get('clock', True)
          else '')),
      ('channels', f'{len(channels)}: {" ".join(channels)}' if channels else '-'),
      ('future forcings', f'{mode}: {FORCINGS.get(mode, "")}' if mode else
       'none are fed, only the image'),
  ]
  if card.get('filled'):
    rows.append(('drivers not in the data, filled', ' '.join(card['filled'])))
  return [*(f'- {name}: {value}' for name, value in rows), '']


def _columns(card: Mapping, scores: Mapping) -> tuple[list[str], str, list[int]]:
  """Column titles, and which entries of `by_day` or `by_lead` they show."""
  leads, size = scores['leads'], scores['frames_per_day']
  if names.clock(card, scores) and 1 < size < leads <= 10 * size:
    days = range(math.ceil(leads / size))
    return [f'day {i + 1}' for i in days], 'by_day', list(days)
  shown = sorted({0, (leads - 1) // 2, leads - 1})
  return [f'frame {i + 1}' for i in shown], 'by_lead', shown


def _main(card: Mapping, scores: Mapping, kind: str, stratum: str = 'all') -> list[str]:
  titles, part, shown = _columns(card, scores)
  units = scores['units']
  rows = []
  for name, strata in names.ordered(scores['forecasts']).items():
    s = strata[stratum]
    rows.append([
        names.forecast(name, scores['frames_per_day'], card.get('t_in', 0)),
        *(names.number(s[part][f'{kind}rmse'][i]) for i in shown), names.number(s[f'{kind}rmse']),
        names.number(s.get(f'{kind}gain'), 1, sign=True), names.number(s[f'{kind}mae']),
        names.number(s[f'{kind}bias'], sign=True)])
  return table(
      ['forecast', *(f'RMSE {t} [{units}]' if i == 0 else t for i, t in enumerate(titles)),
       f'all leads [{units}]', 'gain on persistence [%]', f'MAE [{units}]', f'bias [{units}]'],
      rows)


def _strata(card: Mapping, scores: Mapping, kind: str) -> list[str]:
  units, strata = scores['units'], scores['strata']
  rows = [
      [names.forecast(name, scores['frames_per_day'], card.get('t_in', 0)), *(
          cell for s in strata for cell in (
              names.number(each[s][f'{kind}rmse']),
              names.number(each[s].get(f'{kind}gain'), 1, sign=True)))]
      for name, each in names.ordered(scores['forecasts']).items()]
  header = ['forecast']
  for name in strata:
    header += [f'{name}: RMSE [{units}]', 'gain [%]']
  sizes = '; '.join(
      f'{name}: {s["frames"]} frames of {s["windows"]} windows' for name, s in strata.items())
  return [*table(header, rows), f'Storm: Kp >= 5 in the target frame. {sizes}.', '']


def _protocols(card: Mapping, scores: Mapping) -> list[str]:
  net = names.net(scores)['all']
  if 'mse_sum' not in net:
    return []
  n = names.number
  standard = [
      ('RMSE', n(net['rmse']), scores['units'], 'valid pixels, each counts the same'),
      ('SSIM', n(net.get('ssim'), 4), '1', 'data range 1, 7x7 window, valid windows'),
      ('PSNR', n(net.get('psnr')), 'dB', 'data range 1'),
      ('SNR', n(net.get('snr')), 'dB', '')]
  root = None if net['mse_sum'] is None else float(net['mse_sum'])**0.5
  upstream = [
      ('mse', n(net['mse_sum'], 4), '1', 'sum over the pixels of a frame, mean over frames'),
      ('mae', n(net['mae_sum'], 4), '1', 'likewise'),
      ('rmse', n(root, 4), '1', 'root of that mse'),
      ('ssim', n(net.get('upstream_ssim'), 4), '1', 'data range 2 on frames in 0..1: too high'),
      ('psnr', n(net.get('upstream_psnr')), 'dB', 'prediction clipped to 0..1'),
      ('snr', n(net.get('upstream_snr')), 'dB', 'prediction clipped to 0..1')]
  if card.get('divisor') and card.get('shape') and root is not None:
    size = math.prod(card['shape'])
    upstream += [
        ('RMSE', n(card['divisor'] * root / size**0.5), scores['units'], 'every pixel of a frame'),
        ('MAE', n(card['divisor'] * float(net['mae_sum']) / size), scores['units'], 'likewise')]
  header = ('score of the net', 'value', 'unit', 'how')
  return [
      '**Protocol `standard`** (RMSE in physical units, the rest of frames scaled to 0..1)', '',
      *table(header, standard, left=(0, 2, 3)),
      '**Protocol `upstream`** (frames scaled to 0..1, padding rows included: only to compare with '
      'published tables)', '', *table(header, upstream, left=(0, 2, 3))]


def _summary(card: Mapping, scores: Mapping, kind: str) -> list[str]:
  forecasts = dict(scores['forecasts'])
  net = forecasts.pop('net', None)
  if not net or not forecasts or net['all'][f'{kind}rmse'] is None:
    return []
  best = min(forecasts, key=lambda f: forecasts[f]['all'][f'{kind}rmse'])
  value, bar = net['all'][f'{kind}rmse'], forecasts[best]['all'][f'{kind}rmse']
  if not bar:
    return []
  label = names.forecast(best, scores['frames_per_day'], card.get('t_in', 0))
  gain = 100 * (1 - value / bar)
  units = '' if scores['units'] == '1' else ' ' + scores['units']
  return [
      f'The net is **{abs(gain):.1f} % {"better" if gain >= 0 else "worse"}** than the best '
      f'baseline ({label}): RMSE {names.number(value)} against {names.number(bar)}'
      f'{units}.', '']


def markdown(card: Mapping) -> str:
  """The card as text.

  Args:
    card: `splits` {split: `metrics.accumulate.Scores.result()`} and what they belong to: `name`,
      `words`, `step`, `model`, `fusion`, `anchor`, `channels`, `t_in`, `t_out`, `cadence_hours`,
      `future_forcings`, `filled`, `parameters`, `trained_on`, `data` [{name, description}].
  """
  lines = [f'# Score card: {card.get("name", "run")}', '']
  if is_simulated(card):
    lines += ['**SIMULATED DATA: skill here says nothing yet about real maps.**', '']
  lines += _facts(card)
  for split, scores in card['splits'].items():
    kind = names.primary(scores)
    lines += [f'## Split `{split}`: {scores["windows"]} windows', '', *_summary(card, scores, kind)]
    if kind:
      lines += ['Cosine-of-latitude weights: every square kilometre counts the same.', '',
                *_main(card, scores, kind),
                'Unweighted: every pixel counts the same (high latitudes count too much).', '']
    lines += _main(card, scores, '')
    lines += fields.markdown(card, scores)
    if len(scores['strata']) > 1:
      lines += _strata(card, scores, kind)
    lines += _protocols(card, scores)
  return '\n'.join(lines).rstrip() + '\n'


def plain(tree):
  """A tree that strict JSON can hold: NaN becomes null, infinity the word 'inf'."""
  if isinstance(tree, Mapping):
    return {str(k): plain(v) for k, v in tree.items()}
  if isinstance(tree, list | tuple):
    return [plain(v) for v in tree]
  if isinstance(tree, str | bool | int) or tree is None:
    return tree
  try:
    value = float(tree)
  except (TypeError, ValueError):
    return str(tree)
  if math.isnan(value):
    return None
  return value if math.isfinite(value) else ('inf' if value > 0 else '-inf')


def compact(card: Mapping) -> dict:
  """The card's headline numbers, with units in the keys' `units` table."""
  splits = {}
  for split, scores in card['splits'].items():
    kind = names.primary(scores)
    splits[split] = dict(
        windows=scores['windows'], lead_hours=scores['lead_hours'],
        weights='cosine of latitude' if kind else 'none',
        forecasts={
            name: {stratum: dict(
                rmse=s[f'{kind}rmse'], mae=s[f'{kind}mae'], bias=s[f'{kind}bias'],
                gain=s.get(f'{kind}gain'), rmse_by_day=s['by_day'][f'{kind}rmse'])
                for stratum, s in strata.items()}
            for name, strata in names.ordered(scores['forecasts']).items()})
  units = next(iter(card['splits'].values()))['units']
  facts = {k: v for k, v in card.items() if k != 'splits'}
  return dict(
      facts, simulated=is_simulated(card), splits=splits,
      units_of=dict(rmse=units, mae=units, bias=units, gain='%', lead_hours='h'))


def write(folder: pathlib.Path, card: Mapping) -> list[pathlib.Path]:
  """Writes `score_card.md`, `score_card.json` (headline) and `scores.json` (everything)."""
  paths = [folder / n for n in ('score_card.md', 'score_card.json', 'scores.json')]
  files.write_text(paths[0], markdown(card))
  write_json(paths[1], plain(compact(card)))
  write_json(paths[2], plain(card))
  return paths
