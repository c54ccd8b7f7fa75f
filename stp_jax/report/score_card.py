"""The score card: which numbers, of what, in which units, against which baselines."""

import math
import pathlib
from collections.abc import Mapping

from stp_jax import files
from stp_jax.data.clip_writer import write_json
from stp_jax.report import fields, names, protocols
from stp_jax.report.names import table


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
      ('future forcings', f'{mode}: {protocols.FORCINGS.get(mode, "")}' if mode else
       'none are fed, only the image'),
      ('protocol', protocols.NAMES.get(card.get('protocol', 'standard'), card.get('protocol'))),
  ]
  if 'gmacs' in card:
    rows.append(('multiply-additions', f'{card["gmacs"]:g} G, counted as upstream does'))
  if 'forecasts_per_second' in card:
    rows.append(('speed', f'{card["forecasts_per_second"]:g} forecasts/s on this machine '
                 f'({card["speed_device"]}; {card["speed_batch"]} at a time)'))
  chosen = [s for s in card.get('chosen_on', ()) if s in card['splits']]
  if chosen:
    rows.append(('CHOSEN ON THE TEST SPLIT',
                 f'the checkpoint is the best on {"+".join(chosen)}, as the originals choose it'))
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
        names.label(name, card, scores),
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
      [names.label(name, card, scores), *(
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


def _summary(card: Mapping, scores: Mapping, kind: str) -> list[str]:
  net = scores['forecasts'].get('net')
  forecasts = {k: v for k, v in scores['forecasts'].items() if not names.is_net(k)}
  if not net or not forecasts or net['all'][f'{kind}rmse'] is None:
    return []
  best = min(forecasts, key=lambda f: forecasts[f]['all'][f'{kind}rmse'])
  value, bar = net['all'][f'{kind}rmse'], forecasts[best]['all'][f'{kind}rmse']
  if not bar:
    return []
  label = names.label(best, card, scores)
  gain = 100 * (1 - value / bar)
  units = '' if scores['units'] == '1' else ' ' + scores['units']
  net = names.label('net', card, scores)
  return [
      f'The {net} is **{abs(gain):.1f} % {"better" if gain >= 0 else "worse"}** than the best '
      f'baseline ({label}): RMSE {names.number(value)} against {names.number(bar)}'
      f'{units}.', *protocols.modes(scores, kind, units), '']


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
  for split, found in (card.get('scored_on_training') or {}).items():
    lines += [f'**{names.scored_on_training(found, split)}.**', '']
  lines += _facts(card)
  for split, scores in card['splits'].items():
    kind, weighted = names.primary(scores, card), names.weighted(scores)
    lines += [f'## Split `{split}`: {scores["windows"]} windows', '', *_summary(card, scores, kind)]
    tables = [[*_main(card, scores, '')]]
    if weighted:
      tables[0][:0] = [
          'Unweighted: every pixel counts the same (high latitudes count too much).', '']
      tables.insert(0 if kind else 1, [
          'Cosine-of-latitude weights: every square kilometre counts the same.', '',
          *_main(card, scores, weighted)])
    lines += [line for part in tables for line in part]
    lines += fields.markdown(card, scores)
    if len(scores['strata']) > 1:
      lines += _strata(card, scores, kind)
    lines += protocols.markdown(card, scores)
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
    kind = names.primary(scores, card)
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
