"""Weather fields on a latitude-longitude grid with any model: RMSE and ACC by area.

  python -m stp_jax.main --config=configs/weather.py:dataset=t2m --store=STORE

Scored beside persistence and climatology, weighted by the cosine of latitude and, to compare with
OpenSTL's tables, unweighted. Without a store: synthetic clips.
"""

import collections

from configs import field_models
from stp_jax.config import choose, parse_words

WORDS = dict(
    dataset='t2m',  # t2m | r | uv10 | tcc | multi: WeatherBench's variables at 5.625 degrees
    **field_models.WORDS)
Data = collections.namedtuple('Data', 'size channels t_in t_out epochs windows')
_ONE = Data((32, 64), 1, 12, 12, 50, 52500)
# multi: 4 frames of r, t, u, v at 3 levels each.
DATASETS = dict(
    t2m=_ONE, r=_ONE, uv10=_ONE._replace(channels=2), tcc=_ONE,
    multi=_ONE._replace(channels=12, t_in=4, t_out=4))


def get_sweep(h, name: str = ''):
  """The runs of `launch/sweep.py --config=configs/weather.py:sweep=NAME`; default: models."""
  return h.choose(name, dict(
      models=h.product(model=['simvp', 'tau', 'convlstm', 'predrnn', 'predrnnv2', 'mau']),
      variables=h.product(dataset=list(DATASETS)),
      seeds=h.product(seed=[0, 1, 2, 3, 4])))


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  known = choose('dataset', words.dataset, DATASETS)
  config = field_models.get_config(words, known, 'weatherbench', 'weather')
  config.task.scores = 'weather'
  return config
