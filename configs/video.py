"""Video prediction with the models of OpenSTL; on synthetic clips until real stores are given."""

from configs import common, gs2pm_models
from configs import encoder_forecaster_models as encoders
from configs import video_presets as presets
from stp_jax.config import choose, parse_words
from stp_jax.convert import published
from stp_jax.models import BACKBONES
from stp_jax.models.simvp import translators

WORDS = dict(
    # moving_mnist | kth | taxibj | bair | kitticaltech | human | kinetics | weatherbench | hko7 ...
    dataset='moving_mnist',  # an unknown one lists them all; docs/datasets.md tells more
    model='simvp',  # simvp | tau | convlstm | predrnn ... ; an unknown one lists them all
    scale='small',  # small: minutes on two cores | paper: the published size and schedule
    size='',  # of the synthetic clips, a side or HEIGHTxWIDTH; default: the data set's, small <= 64
    channels=0, t_in=0, t_out=0,  # 0: the data set's
    steps=0, batch_size=0, learning_rate=0.0, seed=0, init_from='', smoke=False)
# Every translator is a model of its own; SimVP's is gsta. GS2PM and its comparison: gs2pm.py.
SIMVP = {'simvp': 'gsta', **{name: name for name in translators.names() if name != 'mlp'}}
MODELS = (*SIMVP, *(name for name in BACKBONES if name not in gs2pm_models.MODELS))


def get_sweep(h, name: str = ''):
  """The runs of `launch/sweep.py --config=configs/video.py:sweep=NAME`; default: models."""
  return h.choose(name, dict(
      models=h.product(model=[*MODELS, *encoders.PRESETS]),
      datasets=h.product(dataset=['moving_mnist', 'kth', 'taxibj'], model=['simvp', 'predrnnv2']),
      seeds=h.product(seed=[0, 1, 2, 3, 4])))


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  config = common.get_config()
  paper = choose('scale', words.scale, dict(small=False, paper=True))
  known = choose('dataset', words.dataset, presets.DATASETS)
  name = choose('model', words.model, {m: m for m in (*MODELS, *encoders.PRESETS)})
  config.name, config.seed, config.init_from = 'video', words.seed, words.init_from
  like = presets.LIKE.get(words.dataset, words.dataset)

  data, model, optimizer = config.data, config.model, config.optimizer
  data.t_in, data.t_out = words.t_in or known.t_in, words.t_out or known.t_out
  data.batch_size, data.eval_batch_size = (16, 16) if paper else (4, 8)
  data.stride = data.eval_stride = presets.STRIDE.get(words.dataset, 1)
  data.validation_windows = 64
  model.name, model.patch = name, 1
  if name in SIMVP:
    model.name = 'simvp'
    sizes = presets.SIMVP_OF.get(name, presets.SIMVP)[like]
    model.backbone = dict(sizes if paper else presets.SMALL_SIMVP, translator=SIMVP[name])
    if name in ('convmixer', 'incepu'):
      model.backbone.drop_path = 0.0  # they have none
  elif name in encoders.PRESETS:
    preset = encoders.preset(name, like)
    model.backbone = dict(preset.backbone if paper else encoders.SMALL[name])
    model.patch = preset.patch
  else:
    model.backbone = dict((presets.PAPER if paper else presets.SMALL).get(name, {}))
    if name not in presets.WHOLE:
      small = 8 if name == 'e3dlstm' else 4
      model.patch = presets.PATCH_OF.get(name, presets.PATCH)[like] if paper else small
    if paper and name == 'mau':
      model.backbone.sr_size = presets.SR_SIZE[like]
    if paper and name == 'phydnet' and min(known.size) < 64:
      model.backbone.downscale = 2
    if like == 'weatherbench' and name == 'phydnet':
      # Fields less their mean have both signs. OpenSTL keeps the sigmoid: squash=true.
      model.backbone.squash = False
  config.task.term_weights = presets.TERM_WEIGHTS.get(name, {})
  if name == 'phydnet':
    config.task.term_weights = dict(moments=1 / (data.t_in + data.t_out - 1))

  if BACKBONES[model.name].kind != 'chunks' and name not in encoders.PRESETS:
    config.sampling.name = 'reverse' if name == 'predrnnv2' else 'standard'
  if name in presets.ALWAYS_TRUE:
    config.sampling.rate, config.sampling.stop_step = 0.0, 10 ** 9
  optimizer.clip_norm = 0.0 if paper else 1.0
  if paper:
    optimizer.learning_rate = presets.RATE.get(name, 1e-3)
    if name in SIMVP:
      optimizer.update(presets.SIMVP_OPTIMIZER.get(like, {}))
    if name in encoders.PRESETS:
      data.batch_size = data.eval_batch_size = preset.batch_size
      optimizer.schedule, optimizer.learning_rate = 'constant', preset.learning_rate
    config.steps = known.epochs * max(1, known.windows // (words.batch_size or data.batch_size))
    config.eval_every = config.checkpoint_every = 5000
    published.apply_fields(config, published.published_fields(config, 'openstl'))
  else:
    config.steps, config.checkpoint_every = 240, 80
    optimizer.learning_rate, optimizer.pct_start = 4e-3, 0.1
    sampling = config.sampling
    if name not in presets.ALWAYS_TRUE:
      sampling.stop_step, sampling.rate = 200, 1 / 200
    sampling.step_1, sampling.step_2, sampling.alpha = 100, 200, 20.0
  config.task.loss = presets.LOSS.get(name, 'mse')

  largest = 32 if words.smoke else max(known.size) if paper else 64
  shrink = max(1, min(known.size) // largest)
  size = words.size or 'x'.join(str(n // shrink) for n in known.size)
  if words.smoke:
    config.steps, config.log_every, config.checkpoint_every = 4, 1, 2
    data.t_in, data.t_out = min(data.t_in, 4), min(data.t_out, 5)
    data.batch_size = data.eval_batch_size = 2
    model.backbone.update(
        presets.SMOKE_SIMVP if name in SIMVP else (presets.SMOKE | encoders.SMOKE).get(name, {}))
  data.dataset = 'synthetic'
  data.dataset_options = dict(
      size=size, channels=words.channels or known.channels, length=data.t_in + data.t_out,
      clips=16 if words.smoke else 512)
  config.steps = words.steps or config.steps
  data.batch_size = words.batch_size or data.batch_size
  optimizer.learning_rate = words.learning_rate or optimizer.learning_rate
  return config
