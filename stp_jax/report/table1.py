"""Table 1 of the Channel Mixer Layer: our runs beside the published numbers.

    python -m stp_jax.report --table1 runs/*

The published values were transcribed from the paper's table: parameters [M], multiply-adds [G],
speed [frames/s on the authors' GPU], MAE in low and in high solar activity, RMSE [TECU]. Its LSTM,
GRU and "action" rows belong to models that were never published, so nothing here can stand beside
them; of its 63 configurations that can be run, nine (E3D-LSTM with more than one channel, MAU with
the mixer) have no row.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence

from stp_jax.report import score_card

# backbone: (channels, fusion, parameters, multiply-adds, speed, MAE low, MAE high, RMSE)
_ROWS = {
    'e3dlstm': [(1, '', 53.15, 301, 22, 1.11, 3.54, 2.56)],
    'mau': [(1, '', 4.72, 67.13, 242, 1.10, 3.28, 2.41),
            (4, 'concatenate', 4.72, 67.19, 235, 1.12, 3.27, 2.40),
            (9, 'concatenate', 4.72, 67.28, 215, 1.08, 3.11, 2.30),
            (16, 'concatenate', 4.72, 67.42, 188, 1.05, 2.86, 2.14)],
    'predrnn': [(1, '', 23.84, 456, 65, 1.10, 3.26, 2.40),
                (4, 'concatenate', 24.92, 476, 62, 1.21, 3.49, 2.55),
                (4, 'mix', 25.27, 483, 61, 1.15, 3.35, 2.46),
                (9, 'concatenate', 26.71, 511, 58, 1.16, 3.37, 2.44),
                (9, 'mix', 27.06, 518, 57, 1.16, 3.32, 2.43),
                (16, 'concatenate', 29.22, 558, 53, 1.11, 3.10, 2.29),
                (16, 'mix', 29.57, 565, 52, 1.05, 2.98, 2.24)],
    'tau': [(1, '', 48.24, 22.54, 341, 1.09, 3.26, 2.39),
            (4, 'concatenate', 48.24, 22.61, 331, 1.12, 3.23, 2.38),
            (4, 'mix', 48.24, 22.61, 326, 1.11, 3.20, 2.37),
            (9, 'concatenate', 48.24, 22.83, 302, 1.04, 3.18, 2.33),
            (9, 'mix', 48.24, 22.83, 296, 1.05, 3.11, 2.29),
            (16, 'concatenate', 48.25, 23.08, 264, 1.02, 2.96, 2.19),
            (16, 'mix', 48.25, 23.11, 254, 0.99, 2.89, 2.14)],
    'simvp': [(1, '', 50.53, 23.32, 335, 1.05, 3.24, 2.38),
              (4, 'concatenate', 50.53, 23.43, 327, 1.12, 3.29, 2.41),
              (4, 'mix', 50.53, 23.46, 322, 1.11, 3.28, 2.40),
              (9, 'concatenate', 50.53, 23.61, 298, 1.08, 3.19, 2.34),
              (9, 'mix', 50.53, 23.64, 291, 1.05, 3.14, 2.31),
              (16, 'concatenate', 50.54, 23.86, 253, 1.00, 2.94, 2.18),
              (16, 'mix', 50.54, 23.90, 241, 0.98, 2.90, 2.13)],
    'convlstm': [(1, '', 15.08, 223, 136, 1.25, 3.75, 2.71),
                 (4, 'concatenate', 15.70, 235, 132, 1.28, 3.79, 2.75),
                 (4, 'mix', 15.90, 239, 130, 1.10, 3.51, 2.57),
                 (9, 'concatenate', 16.72, 255, 121, 1.12, 3.37, 2.51),
                 (9, 'mix', 16.93, 258, 118, 1.09, 3.38, 2.50),
                 (16, 'concatenate', 18.16, 282, 105, 1.08, 3.20, 2.36),
                 (16, 'mix', 18.36, 286, 101, 1.02, 3.03, 2.26)],
    'predrnnv2': [(1, '', 23.86, 458, 63, 1.07, 3.25, 2.40),
                  (4, 'concatenate', 24.93, 479, 60, 1.10, 3.35, 2.43),
                  (4, 'mix', 25.29, 486, 59, 1.11, 3.31, 2.41),
                  (9, 'concatenate', 26.72, 513, 56, 1.12, 3.25, 2.39),
                  (9, 'mix', 27.08, 520, 54, 1.10, 3.23, 2.38),
                  (16, 'concatenate', 29.23, 561, 51, 1.01, 2.88, 2.16),
                  (16, 'mix', 29.59, 568, 51, 0.99, 2.83, 2.12)],
    'mim': [(1, '', 38.20, 711, 43, 1.12, 3.32, 2.45),
            (4, 'concatenate', 39.28, 731, 42, 1.11, 3.32, 2.45),
            (4, 'mix', 39.63, 738, 41, 1.14, 3.30, 2.45),
            (9, 'concatenate', 41.07, 766, 38, 1.09, 3.19, 2.37),
            (9, 'mix', 41.42, 773, 37, 1.08, 3.18, 2.34),
            (16, 'concatenate', 43.58, 814, 34, 1.01, 2.93, 2.19),
            (16, 'mix', 43.93, 821, 32, 0.98, 2.90, 2.12)],
    'predrnnpp': [(1, '', 38.58, 675, 46, 1.05, 3.26, 2.41),
                  (4, 'concatenate', 39.66, 695, 44, 1.05, 3.24, 2.38),
                  (4, 'mix', 40.01, 702, 43, 1.10, 3.21, 2.37),
                  (9, 'concatenate', 41.45, 730, 41, 1.11, 3.16, 2.34),
                  (9, 'mix', 41.81, 737, 40, 1.05, 3.12, 2.31),
                  (16, 'concatenate', 43.96, 778, 35, 0.97, 2.74, 2.12),
                  (16, 'mix', 44.32, 785, 34, 0.94, 2.63, 2.05)]}
# (backbone, channels, fusion): [parameters, multiply-adds, MAE low, MAE high, RMSE]
PUBLISHED = {(name, channels, fusion or 'none'): [size, macs, *errors]
             for name, rows in _ROWS.items() for channels, fusion, size, macs, _, *errors in rows}
SPEEDS = {(name, row[0], row[1] or 'none'): row[4] for name, rows in _ROWS.items() for row in rows}


def _key(card: Mapping) -> tuple[str, int, str]:
  name = card['model']
  if name == 'simvp' and (card.get('translator') == 'tau'
                          or 'model=tau' in card.get('words', '').split(',')):
    name = 'tau'
  channels = len(card.get('channels', ('tec',)))
  return name, channels, 'none' if channels == 1 else card.get('fusion', 'none')


def _modes(card: Mapping) -> dict[str, str]:
  """Forecast of the card: its future-forcings mode; '' where only the image is fed."""
  found = {'net': score_card.forcings_mode(card)}
  for scores in card['splits'].values():
    found |= scores.get('modes', {})
  return found


def _errors(card: Mapping, scores: Mapping) -> tuple[float, float]:
  """RMSE and MAE [TECU] as published, over every pixel of a frame where the card tells it."""
  if scores.get('mse_sum') is not None and card.get('divisor') and card.get('shape'):
    pixels = math.prod(card['shape'])
    return (card['divisor'] * (scores['mse_sum'] / pixels) ** 0.5,
            card['divisor'] * scores['mae_sum'] / pixels)
  return scores['rmse'], scores['mae']


def _scores(card: Mapping, forecast: str) -> dict[str, float | None]:
  """`low` and `high`: MAE by solar activity; `rmse` over all test splits together."""
  found, weights = {}, {}
  for split, scores in card['splits'].items():
    if split.startswith('test') and forecast in scores['forecasts']:
      found[split] = _errors(card, scores['forecasts'][forecast]['all'])
      weights[split] = scores.get('windows', 1)
  if not found:  # scored on a split of another name
    split, scores = next(iter(card['splits'].items()))
    if forecast not in scores['forecasts']:
      return dict(low=None, high=None, rmse=None)
    found, weights = {split: _errors(card, scores['forecasts'][forecast]['all'])}, {split: 1}
  total = sum(weights.values())
  low = found.get('test_low')
  high = found.get('test_high') or found.get('test')
  return dict(low=low and low[1], high=high and high[1],
              rmse=(sum(weights[s] * v[0] ** 2 for s, v in found.items()) / total) ** 0.5)


def _read(runs: Sequence[str | pathlib.Path]) -> dict[str, dict]:
  """The cards of TEC runs by the shortest names that tell them apart."""
  cards = {}
  for run in map(pathlib.Path, runs):
    path = run / 'report' / 'scores.json'
    if path.exists():
      card = json.loads(path.read_text())
      if card.get('units') == 'TECU' and card.get('splits'):
        cards[run] = card
  names = [run.name for run in cards]
  return {run.name if names.count(run.name) == 1 else str(run): card
          for run, card in cards.items()}


def _family(card: Mapping) -> tuple:
  """Runs of the same backbone on the same data: what a gain may be reckoned between."""
  data = tuple(d.get('path', d.get('name')) for d in card.get('data', ()))
  return _key(card)[0], data, card.get('t_in'), card.get('t_out')


def _error(ours: float | None, theirs: float | None) -> str:
  return _pair(ours, None if theirs is None else f'{theirs:.2f}')


def _pair(ours: float | None, theirs: float | str | None, form: str = '.2f') -> str:
  return f'{"-" if ours is None else format(ours, form)} ({"-" if theirs is None else theirs})'


def table(runs: Sequence[str | pathlib.Path]) -> str:
  """The table as Markdown, ours beside the published.

  A line per run that was evaluated and per future-forcings mode that it was scored under.

  Raises:
    ValueError: no run with scores among `runs`.
  """
  cards = _read(runs)
  if not cards:
    raise ValueError(f'{" ".join(map(str, runs)) or "no run"}: none holds report/scores.json of '
                     'TEC maps; run python -m stp_jax.evaluate')
  plain: dict[tuple, list] = {}  # RMSE of one-channel runs: the gain is against their mean
  for card in cards.values():
    if _key(card)[1] == 1:
      plain.setdefault(_family(card), []).append(_scores(card, 'net')['rmse'])
  rows, devices = [], set()
  for run, card in sorted(cards.items(), key=lambda item: (_key(item[1]), item[0])):
    name, channels, fusion = key = _key(card)
    published = PUBLISHED.get(key, [None] * 5)
    base = PUBLISHED.get((name, 1, 'none'), [None] * 5)[4]
    gained = None if base is None or published[4] is None else (
        f'{100 * (1 - published[4] / base):+.1f}')
    devices |= {card['speed_device']} if 'speed_device' in card else set()
    size = card.get('parameters_upstream') or card['parameters']
    for forecast, mode in _modes(card).items():
      scores = _scores(card, forecast)
      ones = [r for r in plain.get(_family(card), ()) if r]
      gain = (100 * (1 - scores['rmse'] * len(ones) / sum(ones))
              if ones and scores['rmse'] else None)
      rows.append([
          run, f'{fusion}-{name}' if channels > 1 else name, channels,
          _pair(size / 1e6, published[0]), _pair(card.get('gmacs'), published[1], '.4g'),
          _pair(card.get('forecasts_per_second'), SPEEDS.get(key), '.3g'),
          _error(scores['low'], published[2]), _error(scores['high'], published[3]),
          _error(scores['rmse'], published[4]), _pair(gain, gained, '+.1f'), mode or 'none fed',
          'SIMULATED' if score_card.is_simulated(card) else 'real'])
  here = f' ({"; ".join(sorted(devices))})' if devices else ''
  lines = [
      'Ours (published in brackets).', '',
      '- parameters and multiply-adds as upstream counts them, unused tensors included; '
      'of recurrent networks a whole window, of SimVP and TAU one chunk of t_in frames',
      f"- speed: whole forecasts per second on this machine{here}; published: on the authors' GPU, "
      'so the two do not compare',
      '- MAE low and high: the splits test_low and test_high (else test); RMSE over all test '
      'splits; TECU, every pixel of a frame counts the same, as published',
      '- gain: of the RMSE, against the one-channel run of the same backbone on the same data',
      '- future: a run that reads drivers has a line for each way of seeing their future. The '
      "published runs see them observed, on CODE's maps: only such lines compare", '']
  lines += score_card.table(
      ['run', 'model', 'C', 'parameters [M]', 'multiply-adds [G]', 'speed [1/s]', 'MAE low',
       'MAE high', 'RMSE', 'gain [%]', 'future', 'data'], rows, left=(0, 1, 10, 11))
  if any('gmacs' not in card for card in cards.values()):
    lines += ['Multiply-adds and speed are counted by `python -m stp_jax.evaluate`; runs that show '
              'none were scored before it did.', '']
  lines += ['The published table also has LSTM, GRU and "action" rows; those models are in no '
            'repository, so there is nothing to run beside them.', '']
  return '\n'.join(lines)
