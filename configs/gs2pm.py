"""Masked pretraining over many domains, prompt or full tuning, and the models to compare with."""

from configs import common
from configs import gs2pm_models as presets
from stp_jax.config import WordError, choose, parse_words

WORDS = dict(
    model='gs2pm',  # gs2pm | simvp | simvp_v1 | unet | predrnn ... ; an unknown one lists them all
    scale='mini',  # mini: minutes on two cores | small | medium | large | large_readme: published
    stage='pretrain',  # pretrain | prompt: only the border learns | full
    domains='',  # name:STORE+name:STORE; default: synthetic clips
    mixing='proportional',  # proportional (to the clips, as published) | balanced
    size='',  # common frame size, a side or HEIGHTxWIDTH; default 64 in mini, else 128
    channels=0,  # 1 or 3; default 1 in mini, else 3
    t_in=0, t_out=0,  # default 5, 5 in mini, else 10, 10
    freeze_statistics=True,  # in stage=prompt: keep batch statistics; false = upstream's drift
    mask_ratio=0.6, mask_per_sample=False,  # the share of patches kept; a mask per example
    schedule='constant',  # constant, as published | onecycle | cosine
    remat='none',  # none | full | dots
    init_from='', steps=0, batch_size=0, learning_rate=0.0, seed=0, smoke=False)


def get_sweep(h, name: str = ''):
  """The runs of `launch/sweep.py --config=configs/gs2pm.py:sweep=NAME`; default: models."""
  return h.choose(name, dict(
      models=h.product(model=list(presets.MODELS)),
      masks=h.product(mask_ratio=[0.4, 0.6, 0.8, 1.0]),
      seeds=h.product(seed=[0, 1, 2, 3, 4])))


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  config = common.get_config()
  mini = words.scale == 'mini'
  scale = choose('scale', words.scale, presets.SCALES)
  backbone = choose('model', words.model, presets.MODELS)
  stage = choose('stage', words.stage, {s: s for s in ('pretrain', 'prompt', 'full')})
  config.name = f'gs2pm_{words.model}_{stage}' if words.model != 'gs2pm' else f'gs2pm_{stage}'
  config.seed, config.init_from = words.seed, words.init_from
  if stage != 'pretrain' and not words.init_from:
    raise ValueError(f'stage={stage} tunes a pretrained model: name it with init_from=RUN')

  if stage == 'prompt' and backbone.get('name', words.model) != 'gs2pm':
    raise WordError(f'config word stage=prompt: {words.model} has no prompt; choose stage=full')

  data, model, optimizer, task = config.data, config.model, config.optimizer, config.task
  domains = [item.partition(':') for item in filter(None, words.domains.split('+'))]
  if any(not path for _, _, path in domains):
    raise ValueError(f'domains={words.domains}: write name:STORE+name:STORE')
  data.t_in, data.t_out = words.t_in or (5 if mini else 10), words.t_out or (5 if mini else 10)
  height, _, width = (words.size or ('64' if mini else '128')).partition('x')
  data.frame_size = int(height), int(width or height)
  data.frame_channels = words.channels or (1 if mini else 3)
  if domains:
    data.domains = tuple(name for name, _, _ in domains)
    data.stores = tuple(path for _, _, path in domains)
    data.balanced = choose('mixing', words.mixing, dict(proportional=False, balanced=True))
  else:
    data.dataset = 'synthetic'
    data.dataset_options = dict(
        size='x'.join(map(str, data.frame_size)), channels=data.frame_channels,
        length=data.t_in + data.t_out, clips=16 if words.smoke else 256)
  data.batch_size = data.eval_batch_size = words.batch_size or 8
  data.eval_stride, data.validation_windows = 1, 64
  data.test_windows = 256 if mini else 0

  model.name = backbone.get('name', words.model)
  model.backbone = dict(backbone.get('mini' if mini else 'paper', {}) | backbone.get('fields', {}))
  task.loss = 'mse+mae'
  if model.name == 'gs2pm':
    task.name, task.stage = 'masked', stage
    task.term_weights = dict(reconstruction=1.0) if stage == 'pretrain' else {}
    model.backbone.update(
        scale, drop_path_floor=0.0 if mini else 0.01, mask_ratio=words.mask_ratio,
        mask_per_sample=words.mask_per_sample, remat=words.remat,
        freeze_statistics=stage == 'prompt' and words.freeze_statistics)
  optimizer.schedule, optimizer.clip_norm = words.schedule, 0.0
  optimizer.cycle_momentum = False
  # A border has few numbers and no network behind it to upset.
  rate = 1e-4 if not mini else 2e-2 if stage == 'prompt' else 1e-3
  optimizer.learning_rate = words.learning_rate or rate
  config.epochs = 0 if mini else 100
  config.steps = words.steps or (400 if stage == 'pretrain' else 150)
  config.eval_every = 0 if mini else 5000
  config.checkpoint_every = 100 if mini else 5000
  if words.smoke:
    config.steps, config.log_every, config.checkpoint_every = words.steps or 4, 1, 2
    data.batch_size = data.eval_batch_size = words.batch_size or 2
    model.backbone.update(backbone.get('smoke', {}))
  if words.steps or words.smoke:
    config.epochs = 0
  return config
