"""Global maps of total electron content, with auxiliary channels fused by the Channel Mixer."""

from configs import common
from stp_jax.config import choose, parse_words

WORDS = dict(
    model='simvp',  # simvp | tau | convlstm
    fusion='mix',  # none | concatenate | mix
    channels='9',  # 1, 4, 9, 16, 20 or names joined by +
    scale='small',  # small: minutes on two cores | paper: the published size and schedule
    anchor='',  # none | persistence | climatology; default: climatology, none under scale=paper
    future='persist',  # persist | observed | forecast | none: what the run sees of future drivers
    t_in=12, t_out=48, steps=0, batch_size=0, learning_rate=0.0, seed=0, init_from='',
    mix='strict', missing_drivers='error', smoke=False)

# Published sizes (Channel Mixer Layer, configs/iono): the same for every number of channels.
_PAPER = dict(
    simvp=dict(hid_S=64, hid_T=512, N_S=4, N_T=8, mlp_ratio=8.0, drop_path_floor=0.01),
    tau=dict(hid_S=64, hid_T=512, N_S=4, N_T=8, mlp_ratio=8.0, drop_path_floor=0.01),
    convlstm=dict(features=(128,) * 4, kernel_size=5, cell='channel_mixer'))
_SMALL = dict(
    simvp=dict(hid_S=8, hid_T=96, N_S=4, N_T=3, mlp_ratio=4.0, layer_scale_init=0.3),
    tau=dict(hid_S=8, hid_T=96, N_S=4, N_T=3, mlp_ratio=4.0, layer_scale_init=0.3),
    convlstm=dict(features=(32, 32), kernel_size=3))
_RATE = dict(simvp=1e-3, tau=1e-3, convlstm=5e-4)


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  config = common.get_config()
  paper = choose('scale', words.scale, dict(small=False, paper=True))
  recurrent = choose('model', words.model, dict(simvp=False, tau=False, convlstm=True))
  config.name = 'iono_mixer'
  config.seed = words.seed
  config.init_from = words.init_from

  data = config.data
  data.dataset = 'embedded'
  data.t_in, data.t_out = words.t_in, words.t_out
  data.channels = words.channels if words.fusion != 'none' else '1'
  data.future_forcings, data.missing_drivers = words.future, words.missing_drivers
  data.test_splits = ('test', 'test_low')
  data.batch_size, data.eval_batch_size = (8, 4) if paper else (4, 8)
  data.stride = 1 if paper else 3
  data.eval_stride = 1 if paper else 97  # not a whole number of days: every hour is an issue time
  data.validation_windows = 24

  model = config.model
  model.name = 'simvp' if words.model == 'tau' else words.model
  model.fusion, model.mix = words.fusion, words.mix
  model.patch = 4 if recurrent else 1
  model.anchor = words.anchor or ('none' if paper else 'climatology')
  model.backbone = dict((_PAPER if paper else _SMALL)[words.model])
  if words.model != 'convlstm':
    model.backbone.translator = 'tau' if words.model == 'tau' else 'gsta'
  if words.model == 'tau':
    config.task.term_weights = dict(diff_div=0.1)

  optimizer = config.optimizer
  if paper:
    config.steps = 10 * 5000  # ten epochs; set steps to 10 * windows / 8 of the store
    optimizer.learning_rate, optimizer.clip_norm = _RATE[words.model], 0.0
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
  if recurrent:
    config.sampling.name = 'standard'
    if not paper:
      config.sampling.stop_step, config.sampling.rate = 200, 1 / 200
  if words.smoke:
    data.dataset_options = dict(smoke=True)
    config.steps, config.log_every, config.checkpoint_every = 4, 1, 2
    config.task.horizons = ()
    data.t_in, data.t_out = min(words.t_in, 4), min(words.t_out, 6)
    data.eval_batch_size, data.batch_size = 2, 2
    small = dict(features=(8,)) if recurrent else dict(hid_S=4, hid_T=16, N_S=2, N_T=2)
    model.backbone.update(small)
  config.steps = words.steps or config.steps
  data.batch_size = words.batch_size or data.batch_size
  optimizer.learning_rate = words.learning_rate or optimizer.learning_rate
  if config.task.horizons and config.steps != 240:
    config.task.horizons = ((0, words.t_in), (config.steps * 5 // 6, words.t_out))
  return config
