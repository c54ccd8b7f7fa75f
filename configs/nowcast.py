"""Nowcasts of rain with any model, scored by CSI, POD, FAR, HSS, bias and FSS beside persistence.

  python -m stp_jax.prepare radar --in DIR --out STORE --values dbz --size 128
  python -m stp_jax.main --config=configs/nowcast.py:dataset=knmi --store=STORE

Without a store: synthetic clips. Thresholds follow the store's units (dBZ, mm/h; mm of an
accumulation are scored as mm/h) unless the word says others.
"""

import collections

from configs import field_models
from stp_jax.config import choose, parse_words

WORDS = dict(
    dataset='knmi',  # knmi | bom | sevir | hko7 | shanghai2020: lengths, what full scale means
    thresholds='',  # of an event, joined by +; default: those of the unit
    neighbourhoods='1+4+16',  # pixels, joined by +
    **field_models.WORDS)
# windows: of an epoch, an estimate: it only sets `steps`. full_scale: what 1 stands for in frames
# that are pictures, its unit, and the thresholds of the data set's tables.
Data = collections.namedtuple(
    'Data', 'size channels t_in t_out epochs windows full_scale units thresholds')
_DBZ = (70.0, 'dBZ', (10.0, 20.0, 30.0, 40.0, 50.0))
DATASETS = dict(
    knmi=Data((128, 128), 1, 6, 12, 50, 20000, 60.0, 'mm/h', (0.5, 2.0, 5.0, 10.0, 30.0)),
    bom=Data((128, 128), 1, 6, 6, 50, 20000, 60.0, 'mm/h', (0.5, 2.0, 5.0, 10.0, 30.0)),
    # Codes 0 to 255 of vertically integrated liquid (Veillette et al. 2020).
    sevir=Data((384, 384), 1, 13, 12, 50, 35718, 255.0, 'of 255',
               (16.0, 74.0, 133.0, 160.0, 181.0, 219.0)),
    hko7=Data((480, 480), 1, 5, 15, 50, 20000, *_DBZ),
    shanghai2020=Data((460, 460), 1, 10, 10, 50, 33000, *_DBZ))


def get_sweep(h, name: str = ''):
  """The runs of `launch/sweep.py --config=configs/nowcast.py:sweep=NAME`; default: models."""
  return h.choose(name, dict(
      models=h.product(model=['simvp', 'tau', 'convlstm', 'predrnn', 'predrnnv2', 'mau']),
      lengths=h.zip(t_in=[4, 6, 10], t_out=[12, 12, 20]),
      seeds=h.product(seed=[0, 1, 2, 3, 4])))


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  known = choose('dataset', words.dataset, DATASETS)
  config = field_models.get_config(words, known, 'moving_mnist', 'nowcast')
  config.task.scores, events = 'nowcast', config.task.events
  events.full_scale, events.full_scale_units = known.full_scale, known.units
  events.full_scale_thresholds = known.thresholds
  numbers = lambda word, kind: tuple(kind(n) for n in filter(None, words[word].split('+')))
  try:
    events.thresholds = numbers('thresholds', float)
    events.scales = numbers('neighbourhoods', int)
  except ValueError:
    raise ValueError(f'thresholds={words.thresholds}, neighbourhoods={words.neighbourhoods}: '
                     'numbers joined by +') from None
  return config
