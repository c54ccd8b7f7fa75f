"""What configs/nowcast.py and configs/weather.py share: any model of the registry on maps."""

from configs import gs2pm_models, video
from stp_jax.config import choose

WORDS = dict(
    model='simvp',  # simvp | tau | convlstm | predrnn | unet ... ; an unknown one lists them all
    scale='small',  # small: minutes on two cores | paper: published widths
    size='',  # of the synthetic clips, a side or HEIGHTxWIDTH; default: the data set's, small <= 64
    channels=0,  # of the synthetic clips; 0: the data set's
    t_in=0, t_out=0,  # frames given, frames forecast; 0: the data set's, or what its clips allow
    steps=0, batch_size=0, learning_rate=0.0, seed=0, init_from='', smoke=False)
# Masked pretraining has a task of its own, configs/gs2pm.py; here gs2pm forecasts.
COMPARED = tuple(m for m in gs2pm_models.MODELS if m not in video.MODELS and m != 'ms2p_v2')
MODELS = (*video.MODELS, *COMPARED)
SQUASHED = ('phydnet', 'convlstmnet', 'escl', 'lmc')  # end in a sigmoid unless they are told
_NUMBERS = ('scale', 'seed', 'steps', 'batch_size', 'learning_rate')


def get_config(words, known, like: str, name: str):
  """The config of these words on a data set.

  Args:
    words: those of `WORDS`, read. known: the data set's `size`, `channels`, `t_in`, `t_out`,
      `epochs`, `windows`. like: the video set whose published widths stand in for `scale=paper`.
    name: of the config, and so of the default workdir.
  """
  choose('model', words.model, dict.fromkeys(MODELS, True))
  compared = words.model in COMPARED
  t_in, t_out = words.t_in or known.t_in, words.t_out or known.t_out
  given = {k: words[k] for k in _NUMBERS} | dict(
      dataset=like, model='simvp' if compared else words.model, t_in=t_in, t_out=t_out,
      smoke=words.smoke)
  if words.init_from:
    given['init_from'] = words.init_from
  config = video.get_config(','.join(f'{k}={v}' for k, v in given.items()))
  config.name = name
  data, paper = config.data, words.scale == 'paper'
  if compared:
    preset = gs2pm_models.MODELS[words.model]
    config.model.name, config.model.patch = words.model, 1
    config.model.backbone = dict(preset.get('paper' if paper else 'mini', {}))
    if words.model == 'gs2pm':
      config.model.backbone = dict(gs2pm_models.SCALES['small' if paper else 'mini'])
    if words.smoke:
      config.model.backbone.update(preset.get('smoke', {}))
    config.task.loss, config.task.term_weights = 'mse+mae', {}
    config.optimizer.learning_rate = words.learning_rate or 1e-3
  if name == 'weather' and words.model in SQUASHED:
    config.model.backbone.squash = False  # fields less their mean have both signs
  if paper and not words.steps and not words.smoke:
    config.steps = known.epochs * max(1, known.windows // data.batch_size)
  # Open where no word closes them: a store's clips may be shorter than the data set's windows.
  data.preferred = data.t_in, data.t_out
  data.t_in, data.t_out = words.t_in, words.t_out
  largest = 32 if words.smoke else max(known.size) if paper else 64
  shrink = max(1, max(known.size) // largest)
  size = words.size or 'x'.join(str(n // shrink) for n in known.size)
  data.dataset_options = dict(
      size=size, channels=words.channels or known.channels,
      length=max(t_in + t_out, sum(data.preferred)), clips=16 if words.smoke else 256)
  return config
