"""Your own frames: forecasts with any video model on a store of `python -m stp_jax.prepare folder`.

  python -m stp_jax.prepare folder --in DIR --out STORE
  python -m stp_jax.main --config=configs/moving_frames.py --store=STORE

Without a store: synthetic clips.
"""

from configs import video
from stp_jax.config import parse_words

WORDS = dict(
    model='simvp',  # simvp | tau | convlstm | predrnn ... ; an unknown one lists them all
    scale='small',  # small: minutes on two cores | paper: the widths of the Moving MNIST tables
    t_in=0, t_out=0,  # frames given, frames forecast; 0: what the clips allow, 5 -> 5 if they can
    steps=0, batch_size=0, learning_rate=0.0, seed=0, init_from='', smoke=False)


def get_sweep(h, name: str = ''):
  """The runs of `launch/sweep.py --config=configs/moving_frames.py:sweep=NAME`; default: models."""
  return h.choose(name, dict(
      models=h.product(model=['simvp', 'tau', 'convlstm', 'predrnn', 'predrnnv2', 'mau']),
      rates=h.zip(batch_size=[4, 8, 16], learning_rate=[2e-3, 4e-3, 8e-3]),
      seeds=h.product(seed=[0, 1, 2, 3, 4])))


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  same = ('model', 'scale', 'steps', 'batch_size', 'learning_rate', 'seed')
  # Five frames each, where a term's weight depends on their number.
  given = dict(
      {k: words[k] for k in same}, t_in=words.t_in or 5, t_out=words.t_out or 5,
      smoke=words.smoke)
  if words.init_from:
    given['init_from'] = words.init_from
  config = video.get_config(','.join(f'{k}={v}' for k, v in given.items()))
  config.name = 'moving_frames'
  data = config.data
  data.t_in, data.t_out = words.t_in, words.t_out
  data.dataset_options = dict(
      size='24x40' if words.smoke else '64', channels=3, length=max(10, words.t_in + words.t_out),
      clips=16 if words.smoke else 256)
  if words.smoke:
    config.steps = words.steps or 6
  return config
