"""Beam prediction from camera, lidar, radar and GPS; on SIMULATED scenes until stores are given."""

from configs import common
from stp_jax.config import WordError, choose, parse_words

WORDS = dict(
    model='mambafusion',  # mambafusion | transfuser
    stage='fusion',  # fusion | rebuild: learn to do without a sensor, from init_from
    modalities='image+lidar+radar+gps',
    missing='',  # modalities that are lost, joined by +
    missing_in='both',  # train | test | both
    missing_rate=1.0,  # in training each of them is lost with this probability
    missing_type='zero',  # zero | random
    window='5to1',  # frames seen TO beams predicted: 5to1 | 10to5 | 20to5
    loss='',  # focal | ce; default: the published focal loss; cross-entropy at scale=small
    scale='small',  # small: minutes on two cores | paper: the published size and schedule
    ffm='on', tfm='on',  # fusion at four scales, fusion over time: on | off
    augment=False,
    sources='lidar+radar', targets='image',  # stage=rebuild
    translation=1.0, contrast=1.0, distance=0.1, fusion=1.0,  # weights of its losses
    name='',  # of the default workdir, runs/<name>
    steps=0, epochs=0, batch_size=0, learning_rate=0.0, seed=0, init_from='', smoke=False)
_WINDOWS = {'5to1': (5, 1), '10to5': (10, 5), '20to5': (20, 5)}
_SMALL = dict(
    image_depths=(1, 1, 1, 1), depths=(1, 1, 1, 1), widths=(16, 32, 48, 64), anchors=(4, 4),
    n_layer=1, hidden=(64, 64), d_state=8, dropout=0.0)
_SMOKE = dict(widths=(4, 8, 8, 8), anchors=(2, 2), hidden=(16, 16), d_state=4)
# The fork's ablations: lost modality -> what is there.
_ALL = 'image+lidar+radar+gps'
_LOSSES = dict(fusion='translation=0,contrast=0,distance=0', translation='contrast=0,distance=0',
               contrast='distance=0', distance='')
_DIRECTIONS = (('lidar+radar', 'image'), ('image+radar', 'lidar'), ('image+lidar', 'radar'),
               ('image', 'lidar+radar'))


def _list(text):
  return tuple(filter(None, text.split('+')))


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  config = common.get_config()
  paper = choose('scale', words.scale, dict(small=False, paper=True))
  rebuild = choose('stage', words.stage, dict(fusion=False, rebuild=True))
  config.name = words.name or ('beam_rebuild' if rebuild else 'beam_fusion')
  config.seed, config.init_from = words.seed, words.init_from
  if rebuild and not words.init_from:
    raise WordError('config word init_from: stage=rebuild starts from a trained run, init_from=RUN')

  data, model, task, optimizer = config.data, config.model, config.task, config.optimizer
  data.t_in, data.t_out = choose('window', words.window, _WINDOWS)
  data.batch_size, data.eval_batch_size = (24, 24) if paper else (16, 16)
  data.validation_windows = 0 if paper else 64

  model.name = choose('model', words.model, {m: m for m in ('mambafusion', 'transfuser')})
  model.backbone = dict(_SMOKE if words.smoke else {}, modalities=_list(words.modalities))
  if not paper:
    model.backbone = {**_SMALL, **model.backbone}
  if not choose('ffm', words.ffm, dict(on=True, off=False)):
    model.backbone.ffm = 'none'
  # Upstream's TransFuser sums over time; the word would mean another model.
  if model.name == 'mambafusion':
    model.backbone.tfm = choose('tfm', words.tfm, dict(on='on', off='off'))

  task.name = 'rebuild' if rebuild else 'beam'
  # In the few hundred steps of scale=small the focal loss has hardly left the prior.
  task.loss = choose(
      'loss', words.loss or ('focal' if paper else 'ce'), dict(focal='focal', ce='ce'))
  lost, place = _list(words.missing), words.missing_in
  train, test = choose('missing_in', place, dict(train=(1, 0), test=(0, 1), both=(1, 1)))
  task.beam.missing_train, task.beam.missing_test = lost * train, lost * test
  task.beam.missing_rate = words.missing_rate
  task.beam.fill = choose('missing_type', words.missing_type, dict(zero='zero', random='random'))
  if words.augment:
    task.beam.update(flip=0.5, color=0.5, lidar_drop=0.1, radar_noise=0.1)
  if rebuild:
    task.rebuild.sources, task.rebuild.targets = _list(words.sources), _list(words.targets)
    task.rebuild.weights = {k: words[k] for k in ('translation', 'contrast', 'distance', 'fusion')}

  optimizer.name, optimizer.weight_decay, optimizer.ema_decay = 'adamw', 0.01, 0.999
  if paper:
    config.epochs = 30 if rebuild else 50
    optimizer.learning_rate, optimizer.skip_decay_1d = 1e-4, False
    optimizer.schedule, optimizer.min_lr, optimizer.warmup_lr = 'cyclic_cosine', 2.5e-6, 2.5e-6
    optimizer.warmup_epochs, optimizer.restart_epochs, optimizer.restart_lr = 10.0, 10.0, 1.25e-4
    optimizer.clip_norm = 3.0 if data.t_out > 1 else 0.0
    optimizer.slow = dict(learning_rate=1e-6)
    config.eval_every = config.checkpoint_every = 1000
    if rebuild:
      optimizer.weight_decay, optimizer.schedule, optimizer.warmup_epochs = 1e-4, 'constant', 0.0
  else:
    config.steps, config.checkpoint_every = 200 if rebuild else 400, 100
    optimizer.learning_rate, optimizer.schedule, optimizer.warmup_epochs = 2e-3, 'onecycle', 0.0
    optimizer.slow = dict(learning_rate=2e-4)
    optimizer.ema_decay = 0.98
    if rebuild:
      task.rebuild.features, task.rebuild.dropout = 32, 0.1
  data.dataset = 'deepsense_scenes'
  scenes = dict(samples=1600, adaptation=200, size=64)
  if data.t_out > 1:
    scenes |= dict(window=words.window, stride=1, length=32)
  if words.smoke:
    config.steps, config.log_every, config.checkpoint_every = 3, 1, 2
    data.batch_size = data.eval_batch_size = 4
    scenes |= dict(samples=96, adaptation=24, test=8, size=16, camera='32x24', points=100)
  data.dataset_options = dict(scenes, as_store=True)
  config.steps = words.steps or config.steps
  config.epochs = words.epochs or (0 if words.steps else config.epochs)
  data.batch_size = words.batch_size or data.batch_size
  optimizer.learning_rate = words.learning_rate or optimizer.learning_rate
  return config


def get_sweep(h, name: str = 'table1'):
  """The published experiments of the fork's README, Table I to IV; run in this order.

  `python launch/sweep.py --config=configs/beam_fusion.py:sweep=table1`: every run names itself, and
  later ones start from runs/<name> of earlier ones.

  Table III's evaluations with a lost sensor, zeros and noise, are rows of the score card of
  table3_base, which also names each subset; so are its rows with rebuilding of those runs' cards.

  Args:
    name: table1 | table2 | table3 | table4.

  Raises:
    SweepError: another name.
  """
  base = lambda table, more='': f'scale=paper,name={table}_base{more}'
  lost = lambda table, sensors: (
      f'scale=paper,name={table}_without_{sensors.replace("+", "_")},missing={sensors}')

  def rebuilding(table, source, target, kind, losses=''):
    name = '_'.join(filter(None, (table, target.replace('+', '_'), losses, kind)))
    more = f',{_LOSSES[losses]}' if losses and _LOSSES[losses] else ''
    return (f'scale=paper,name={name},stage=rebuild,init_from=runs/{table}_base,sources={source},'
            f'targets={target},missing_type={kind}{more}')

  tables = dict(
      table1=['scale=paper,name=table1_transfuser,model=transfuser', base('table1'),
              *(lost('table1', s) for s in ('radar', 'lidar', 'image', 'lidar+radar'))],
      table2=[f'scale=paper,name=table2_ffm_{ffm}_tfm_{tfm},ffm={ffm},tfm={tfm}'
              for ffm, tfm in (('off', 'off'), ('on', 'off'), ('off', 'on'), ('on', 'on'))],
      table3=[base('table3'), *(rebuilding('table3', *d, kind) for d in _DIRECTIONS
                                for kind in ('zero', 'random'))],
      table4=[base('table4'), *(rebuilding('table4', *d, 'random', losses) for d in _DIRECTIONS
                                for losses in _LOSSES)])
  return h.choose(name, {k: [h.words(text) for text in v] for k, v in tables.items()})
