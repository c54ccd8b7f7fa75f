"""Table 1 of the Channel Mixer Layer: our runs beside the published numbers.

    python -m stp_jax.report --table1 runs/*

The published values were transcribed from the paper's table: parameters [M], multiply-adds [G], MAE
in low and in high solar activity, RMSE [TECU]. Its LSTM, GRU and "action" rows belong to models
that were never published, so nothing here can stand beside them.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

from stp_jax.report import score_card

# backbone: {channels, fusion: (parameters, multiply-adds, MAE low, MAE high, RMSE)}
_ROWS = {
    'e3dlstm': [(1, '', 53.15, 301, 1.11, 3.54, 2.56)],
    'mau': [(1, '', 4.72, 67.13, 1.10, 3.28, 2.41),
            (4, 'concatenate', 4.72, 67.19, 1.12, 3.27, 2.40),
            (9, 'concatenate', 4.72, 67.28, 1.08, 3.11, 2.30),
            (16, 'concatenate', 4.72, 67.42, 1.05, 2.86, 2.14)],
    'predrnn': [(1, '', 23.84, 456, 1.10, 3.26, 2.40),
                (4, 'concatenate', 24.92, 476, 1.21, 3.49, 2.55),
                (4, 'mix', 25.27, 483, 1.15, 3.35, 2.46),
                (9, 'concatenate', 26.71, 511, 1.16, 3.37, 2.44),
                (9, 'mix', 27.06, 518, 1.16, 3.32, 2.43),
                (16, 'concatenate', 29.22, 558, 1.11, 3.10, 2.29),
                (16, 'mix', 29.57, 565, 1.05, 2.98, 2.24)],
    'tau': [(1, '', 48.24, 22.54, 1.09, 3.26, 2.39),
            (4, 'concatenate', 48.24, 22.61, 1.12, 3.23, 2.38),
            (4, 'mix', 48.24, 22.61, 1.11, 3.20, 2.37),
            (9, 'concatenate', 48.24, 22.83, 1.04, 3.18, 2.33),
            (9, 'mix', 48.24, 22.83, 1.05, 3.11, 2.29),
            (16, 'concatenate', 48.25, 23.08, 1.02, 2.96, 2.19),
            (16, 'mix', 48.25, 23.11, 0.99, 2.89, 2.14)],
    'simvp': [(1, '', 50.53, 23.32, 1.05, 3.24, 2.38),
              (4, 'concatenate', 50.53, 23.43, 1.12, 3.29, 2.41),
              (4, 'mix', 50.53, 23.46, 1.11, 3.28, 2.40),
              (9, 'concatenate', 50.53, 23.61, 1.08, 3.19, 2.34),
              (9, 'mix', 50.53, 23.64, 1.05, 3.14, 2.31),
              (16, 'concatenate', 50.54, 23.86, 1.00, 2.94, 2.18),
              (16, 'mix', 50.54, 23.90, 0.98, 2.90, 2.13)],
    'convlstm': [(1, '', 15.08, 223, 1.25, 3.75, 2.71),
                 (4, 'concatenate', 15.70, 235, 1.28, 3.79, 2.75),
                 (4, 'mix', 15.90, 239, 1.10, 3.51, 2.57),
                 (9, 'concatenate', 16.72, 255, 1.12, 3.37, 2.51),
                 (9, 'mix', 16.93, 258, 1.09, 3.38, 2.50),
                 (16, 'concatenate', 18.16, 282, 1.08, 3.20, 2.36),
                 (16, 'mix', 18.36, 286, 1.02, 3.03, 2.26)],
    'predrnnv2': [(1, '', 23.86, 458, 1.07, 3.25, 2.40),
                  (4, 'concatenate', 24.93, 479, 1.10, 3.35, 2.43),
                  (4, 'mix', 25.29, 486, 1.11, 3.31, 2.41),
                  (9, 'concatenate', 26.72, 513, 1.12, 3.25, 2.39),
                  (9, 'mix', 27.08, 520, 1.10, 3.23, 2.38),
                  (16, 'concatenate', 29.23, 561, 1.01, 2.88, 2.16),
                  (16, 'mix', 29.59, 568, 0.99, 2.83, 2.12)],
    'mim': [(1, '', 38.20, 711, 1.12, 3.32, 2.45), (4, 'concatenate', 39.28, 731, 1.11, 3.32, 2.45),
            (4, 'mix', 39.63, 738, 1.14, 3.30, 2.45),
            (9, 'concatenate', 41.07, 766, 1.09, 3.19, 2.37),
            (9, 'mix', 41.42, 773, 1.08, 3.18, 2.34),
            (16, 'concatenate', 43.58, 814, 1.01, 2.93, 2.19),
            (16, 'mix', 43.93, 821, 0.98, 2.90, 2.12)],
    'predrnnpp': [(1, '', 38.58, 675, 1.05, 3.26, 2.41),
                  (4, 'concatenate', 39.66, 695, 1.05, 3.24, 2.38),
                  (4, 'mix', 40.01, 702, 1.10, 3.21, 2.37),
                  (9, 'concatenate', 41.45, 730, 1.11, 3.16, 2.34),
                  (9, 'mix', 41.81, 737, 1.05, 3.12, 2.31),
                  (16, 'concatenate', 43.96, 778, 0.97, 2.74, 2.12),
                  (16, 'mix', 44.32, 785, 0.94, 2.63, 2.05)]}
PUBLISHED = {(name, channels, fusion or 'none'): numbers
             for name, rows in _ROWS.items() for channels, fusion, *numbers in rows}


def _key(card: Mapping) -> tuple[str, int, str]:
  name = card['model']
  words = card.get('words', '')
  if name == 'simvp' and 'model=tau' in words.split(','):
    name = 'tau'
  channels = len(card.get('channels', ('tec',)))
  return name, channels, 'none' if channels == 1 else card.get('fusion', 'none')


def _splits(card: Mapping) -> dict[str, Mapping]:
  """Scores of the net by kind: low, high activity, and all of the test."""
  found = {k: v['forecasts']['net']['all'] for k, v in card['splits'].items()}
  low, high = found.get('test_low'), found.get('test_high') or found.get('test')
  return dict(low=low, high=high, all=found.get('test') or high or low)


def table(runs: Sequence[str | pathlib.Path]) -> str:
  """The table as Markdown, a line per run that was evaluated, ours beside the published.

  Raises:
    ValueError: no run with scores among `runs`.
  """
  cards = {}
  for run in map(pathlib.Path, runs):
    path = run / 'report' / 'scores.json'
    if path.exists():
      card = json.loads(path.read_text())
      if card.get('units') == 'TECU' and card.get('splits'):
        cards[run.name] = card
  if not cards:
    raise ValueError(f'{" ".join(map(str, runs)) or "no run"}: none holds report/scores.json of '
                     'TEC maps; run python -m stp_jax.evaluate')
  plain = {}  # RMSE of the one-channel run of each backbone: the gain is against it
  for card in cards.values():
    name, channels, _ = _key(card)
    if channels == 1:
      plain[name] = _splits(card)['all']['rmse']
  pair = lambda ours, theirs, form='.2f': (
      f'{"-" if ours is None else format(ours, form)} ({"-" if theirs is None else theirs})')
  rows = []
  for run, card in sorted(cards.items(), key=lambda item: (_key(item[1]), item[0])):
    name, channels, fusion = _key(card)
    published = PUBLISHED.get((name, channels, fusion), [None] * 5)
    base = PUBLISHED.get((name, 1, 'none'), [None] * 5)[4]
    scores = _splits(card)
    get = lambda kind, key, s=scores: s[kind][key] if s[kind] else None
    rmse = get('all', 'rmse')
    gain = 100 * (1 - rmse / plain[name]) if name in plain and rmse else None
    theirs = None if base is None or published[4] is None else (
        f'{100 * (1 - published[4] / base):+.1f}')
    simulated = score_card.is_simulated(card)
    rows.append([
        run, f'{fusion}-{name}' if channels > 1 else name, channels,
        pair(card['parameters'] / 1e6, published[0]), pair(get('low', 'mae'), published[2]),
        pair(get('high', 'mae'), published[3]), pair(rmse, published[4]),
        pair(gain, theirs, '+.1f'), card.get('future_forcings', ''),
        'SIMULATED' if simulated else 'real'])
  lines = [
      'Ours (published in brackets). MAE low and high: the splits test_low and test_high (else '
      'test); errors in TECU without weights, as published; gain: RMSE against the one-channel '
      'run. The published runs see the drivers observed later (future forcings: observed), and '
      "their data are CODE's maps: only runs on those, in that mode, compare.", '']
  lines += score_card.table(
      ['run', 'model', 'C', 'parameters [M]', 'MAE low', 'MAE high', 'RMSE', 'gain [%]', 'future',
       'data'], rows, left=(0, 1, 8, 9))
  lines += ['The published table also has LSTM, GRU and "action" rows; those models are in no '
            'repository, so there is nothing to run beside them.', '']
  return '\n'.join(lines)
