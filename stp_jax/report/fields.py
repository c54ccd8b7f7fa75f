"""The parts of a score card that rain maps and weather fields have, as Markdown."""

from collections.abc import Mapping

from stp_jax.report import names
from stp_jax.report.names import table

# Which direction is better.
TITLES = dict(csi='CSI ↑', pod='POD ↑', far='FAR ↓', hss='HSS ↑', bias='bias (1 is best)',
              fss='FSS ↑')


def markdown(card: Mapping, scores: Mapping) -> list[str]:
  """Lines of the sections `events` or `weather` of a split's scores; [] without them."""
  lines = []
  if 'events' in scores:
    lines += _events(card, scores)
  if 'weather' in scores:
    lines += _weather(card, scores)
  return lines + [line for note in scores.get('notes', ()) for line in (f'*{note}*', '')]


def _label(card: Mapping, name: str) -> str:
  return names.forecast(name, 1, card.get('t_in', 0))


def _events(card: Mapping, scores: Mapping) -> list[str]:
  events = scores['events']
  units, shown = events['units'], [f'{t:g}' for t in events['thresholds']]
  forecasts = names.ordered(events['forecasts'])
  seen = ', '.join('-' if v is None else f'{100 * v:.3g} %' for v in events['observed'])
  lines = [
      f'### Events: a value of at least {" ".join(shown)} {units}', '',
      f'Counts of all pixels, windows and leads of the split, added before the ratio; observed in '
      f'{seen} of the valid pixels. Neighbourhoods compare maxima of n x n pixels (FSS: shares).',
      '']
  for i, side in enumerate(events['scales']):
    keys = list(TITLES) if side == min(events['scales']) else ['csi', 'pod', 'far', 'fss']
    rows = []
    for key in keys:
      for name, found in forecasts.items():
        rows.append([TITLES[key], _label(card, name),
                     *(names.number(v, 3) for v in found[key][i]),
                     names.number(found['mean'][key][i], 3)])
    where = 'pixel by pixel' if side == 1 else f'neighbourhoods of {side} x {side} pixels'
    lines += [f'**{where}**', '', *table(
        ['score', 'forecast', *(f'{t} {units}' if j == 0 else t for j, t in enumerate(shown)),
         'mean'], rows, left=(0, 1))]
  leads = scores['leads']
  picked = sorted({0, (leads - 1) // 2, leads - 1})
  lines += [f'CSI by lead at {shown[0]} {units}, pixel by pixel', '', *table(
      ['forecast', *(lead(card, scores, t) for t in picked)],
      [[_label(card, name), *(names.number(f['by_lead']['csi'][t][0][0], 3) for t in picked)]
       for name, f in forecasts.items()])]
  return lines


def lead(card: Mapping, scores: Mapping, index: int) -> str:
  """Title of a lead: '+30 min', '+6 h', or 'frame 3' without a clock."""
  hours = scores['lead_hours'][index] if names.clock(card, scores) else 0
  if not hours:
    return f'frame {index + 1}'
  return f'+{60 * hours:.0f} min' if scores['cadence_hours'] < 1 else f'+{hours:g} h'


def _weather(card: Mapping, scores: Mapping) -> list[str]:
  found = scores['weather']
  forecasts = names.ordered(found['forecasts'])
  lines = ['### Weather', '', 'Weighted by the cosine of latitude (protocol `standard`); as '
           'OpenSTL has it, every grid point alike (protocol `upstream`).', '']
  last = scores['leads'] - 1
  for i, variable in enumerate(found['variables']):
    units, rows = variable['units'], []
    for name, each in forecasts.items():
      one, other = each['standard'], each['upstream']
      by_lead = [names.number(one['by_lead']['rmse'][t][i], 3) for t in (0, last)]
      whole = [names.number(s[k][i], 3) if k in s else '-' for s, k in (
          (one, 'acc'), (one, 'mae'), (one, 'bias'), (other, 'rmse'), (other, 'mae'))]
      rows.append([_label(card, name), names.number(one['rmse'][i], 3), *by_lead, *whole])
    lines += [f'**{variable["name"]}**', '', *table(
        ['forecast', f'RMSE [{units}]', lead(card, scores, 0), lead(card, scores, last), 'ACC',
         f'MAE [{units}]', f'bias [{units}]', 'upstream RMSE', 'upstream MAE'], rows)]
  return lines
