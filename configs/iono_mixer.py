"""Global maps of total electron content, with auxiliary channels fused by the Channel Mixer."""

from configs import common, iono_backbones
from stp_jax.config import WordError, choose, parse_words
from stp_jax.data import forcings
from stp_jax.models import globe

WORDS = dict(
    # convlstm | predrnn | predrnnpp | predrnnv2 | mim | e3dlstm | mau | simvp | tau
    model='simvp',
    fusion='mix',  # none | concatenate | mix
    channels='9',  # 1, 4, 9, 16, 20 or names joined by +
    scale='small',  # small: minutes on two cores | paper: the published size and schedule
    anchor='',  # none | persistence | climatology; default: climatology, none under scale=paper
    frame='geographic',  # geographic | sun: the network sees maps turned, noon in the middle
    padding='zero',  # zero | circular: convolutions wrap in longitude
    loss_weights='none',  # none | area: the loss weighted by cos(latitude)
    magnetic=False,  # of a count of channels: magnetic latitude in place of the year
    # persist | observed | forecast | none: what the run sees of future drivers; default: persist;
    # forecast: the driver file's predictions, which history has none of (not for training)
    future='',
    protocol='standard',  # upstream: the originals' split, loss, drivers and scores, see _upstream
    t_in=12, t_out=48, steps=0, batch_size=0, learning_rate=0.0, seed=0, init_from='',
    mix='',  # strict | upstream; default: strict
    missing_drivers='error', smoke=False)


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  config = common.get_config()
  paper = choose('scale', words.scale, dict(small=False, paper=True))
  upstream = choose('protocol', words.protocol, dict(standard=False, upstream=True))
  name = words.model
  backbone = choose('model', name, iono_backbones.PAPER if paper else iono_backbones.SMALL)
  chunks = name in ('simvp', 'tau')
  config.name = 'iono_mixer'
  config.seed = words.seed
  config.init_from = words.init_from

  data = config.data
  data.dataset = 'embedded'
  data.t_in, data.t_out = words.t_in, words.t_out
  data.channels = _channels(words) if words.fusion != 'none' else '1'
  data.future_forcings = words.future or ('observed' if upstream else 'persist')
  data.missing_drivers = words.missing_drivers
  data.test_splits = ('test', 'test_low')
  data.batch_size, data.eval_batch_size = (8, 8 if name == 'mim' else 4) if paper else (4, 8)
  data.stride = 1 if paper else 3
  data.eval_stride = 1 if paper else 97  # not a whole number of days: every hour is an issue time
  data.validation_windows = 24

  model = config.model
  model.name = 'simvp' if chunks else name
  model.fusion, model.mix = words.fusion, words.mix or ('upstream' if upstream else 'strict')
  model.patch = iono_backbones.patch(name, words.scale, data.channels != '1')
  model.anchor = words.anchor or ('none' if paper or upstream else 'climatology')
  model.frame = choose('frame', words.frame, {f: f for f in globe.FRAMES})
  model.padding = choose('padding', words.padding, {p: p for p in globe.PADDINGS})
  model.backbone = dict(backbone)
  config.task.latitude_weight = choose('loss_weights', words.loss_weights,
                                       dict(none=False, area=True))
  config.task.loss = iono_backbones.LOSS.get(name, 'mse')
  config.task.term_weights = iono_backbones.TERM_WEIGHTS.get(name, {})

  optimizer, sampling = config.optimizer, config.sampling
  sampling.name = iono_backbones.SAMPLING[name]
  if paper:
    config.epochs = 10
    optimizer.learning_rate, optimizer.clip_norm = iono_backbones.PAPER_RATE[name], 0.0
    config.eval_every = config.checkpoint_every = 5000
  else:
    config.steps = 240
    config.task.loss_scale = 'last_day_mean'
    # Short forecasts teach the same weights at a quarter of the cost.
    if words.t_out > words.t_in:
      config.task.horizons = ((0, words.t_in), (200, words.t_out))
    optimizer.learning_rate, optimizer.pct_start = 4e-3, 0.1
    optimizer.cycle_momentum = False
    config.checkpoint_every = 80
    sampling.stop_step, sampling.rate = 200, 1 / 200
    sampling.step_1, sampling.step_2, sampling.alpha = 100, 200, 20.0
  if upstream:
    _upstream(config, name)
  if words.smoke:
    data.dataset_options = dict(smoke=True)
    config.steps, config.log_every, config.checkpoint_every = 4, 1, 2
    config.task.horizons = ()
    data.t_in, data.t_out = min(words.t_in, 4), min(words.t_out, 6)
    data.eval_batch_size, data.batch_size = 2, 2
    model.backbone.update(iono_backbones.SMOKE[name])
  if words.smoke or words.steps:
    config.epochs = 0
  config.steps = words.steps or config.steps
  data.batch_size = words.batch_size or data.batch_size
  optimizer.learning_rate = words.learning_rate or optimizer.learning_rate
  if config.task.horizons and config.steps != 240:
    config.task.horizons = ((0, words.t_in), (config.steps * 5 // 6, words.t_out))
  return config


def _channels(words) -> str:
  """The word, or with `magnetic` its names: the year is one number in all of a forecast."""
  if not words.magnetic:
    return words.channels
  names = forcings.channel_names(words.channels)
  if 'year' not in names:
    raise WordError(f'config word magnetic: no year in channels={words.channels} to take the place '
                    'of; name magnetic_latitude among the channels')
  return '+'.join('magnetic_latitude' if n == 'year' else n for n in names)


def _upstream(config, name: str) -> None:
  """What the originals do, at any size (the size, the schedule's length: `scale=paper`).

  Maps are divided by 200 TECU and clipped there, as by default; no pixel has another weight. There
  are two splits, and the checkpoint is chosen on the test split: its scores are too good.
  """
  config.protocol = 'upstream'
  data, optimizer = config.data, config.optimizer
  data.train_splits, data.validation_splits = ('train', 'validation'), ('test',)
  data.stride = 1
  config.validation.metric = 'loss'
  config.task.loss_scale, config.task.horizons = 'none', ()
  optimizer.learning_rate = iono_backbones.PAPER_RATE[name]
  optimizer.clip_norm, optimizer.pct_start, optimizer.cycle_momentum = 0.0, 0.3, True


def get_sweep(h, name: str = ''):
  """The runs of `launch/sweep.py --config=configs/iono_mixer.py:sweep=NAME`; default: models."""
  return h.choose(name, dict(
      models=h.product(model=['simvp', 'tau', 'convlstm', 'predrnn', 'predrnnpp', 'predrnnv2',
                              'mim', 'e3dlstm', 'mau'],
                       fusion=['none', 'concatenate', 'mix']),
      # The 63 runs of the original; at its size and by its rules: scale=paper,protocol=upstream.
      table1=h.product(
          h.sweep('model', ['simvp', 'tau', 'convlstm', 'predrnn', 'predrnnpp', 'predrnnv2', 'mim',
                            'e3dlstm', 'mau']),
          h.chain(h.product(fusion=['none'], channels=[1]),
                  h.product(fusion=['concatenate', 'mix'], channels=[4, 9, 16]))),
      channels=h.product(channels=[1, 4, 9, 16, 20], fusion=['concatenate', 'mix']),
      drivers=h.product(model=['simvp', 'convlstm'], future=['persist', 'observed', 'none']),
      # What the original does not have, alone and together.
      options=h.product(frame=['geographic', 'sun'], padding=['zero', 'circular'],
                        loss_weights=['none', 'area'], magnetic=[False, True]),
      # A larger batch wants a larger rate.
      rates=h.zip(batch_size=[4, 8, 16], learning_rate=[2e-3, 4e-3, 8e-3]),
      seeds=h.product(seed=[0, 1, 2, 3, 4])))
