r"""The course's video prediction (DS-GA 1008): 11 frames of 160 x 240 x 3, the 11 that follow.

  python -m stp_jax.main --config=configs/course.py:data=DIR,scale=paper
  python -m stp_jax.predict --checkpoint=runs/course --step=best --split=hidden --format=npy \
      --out=OUT
  python -m stp_jax.report.frames --array=OUT/video_arrays_result_hidden.npy --out=OUT/hidden

DIR holds train/, val/, unlabeled/ and hidden/; launch/course.sbatch does all three. Without data:
synthetic clips.
"""

from configs import encoder_forecaster_models as encoders
from configs import video
from stp_jax.config import choose, parse_words

WORDS = dict(
    data='',  # the folder of the videos; prepared on first use. Or give --store
    model='ed_convgru',  # ed_convgru | ed_convlstm
    scale='small',  # small: minutes on two cores, in patches of 4 | paper: 7,112,355 parameters
    unlabeled=True,  # train on the unlabeled videos as well
    size='',  # HEIGHTxWIDTH to resize to; '' = as they are, 160x240
    t_in=11, t_out=11, steps=0, epochs=0, batch_size=0, learning_rate=0.0, seed=2023,
    init_from='', smoke=False)


def get_config(text: str = ''):
  """The config of these words; `WORDS` lists them with their defaults."""
  words = parse_words(text, WORDS)
  choose('model', words.model, {m: m for m in ('ed_convgru', 'ed_convlstm')})
  size = words.size or ('32x48' if words.smoke else '160x240')
  given = dict(model=words.model, scale=words.scale, t_in=words.t_in, t_out=words.t_out, channels=3,
               size=size, seed=words.seed, smoke=words.smoke)
  config = video.get_config(','.join(f'{k}={v}' for k, v in given.items()))
  config.name, config.init_from = 'course', words.init_from
  data, optimizer = config.data, config.optimizer
  data.t_in, data.t_out = words.t_in, words.t_out
  data.train_splits = ('train', 'unlabeled') if words.unlabeled else ('train',)
  data.validation_splits = data.test_splits = ('validation',)  # of hidden there is no truth
  data.batch_size, data.eval_batch_size = (2, 2) if words.smoke else (4, 4)
  data.dataset_options.length = words.t_in + words.t_out
  if words.data:
    data.dataset = 'course'
    data.dataset_options = dict(in_dir=words.data, size=words.size)
  config.validation.metric = 'loss'
  if words.scale == 'paper':
    preset = encoders.PRESETS[words.model].get('course')
    config.model.patch = preset.patch
    if not words.smoke:
      config.model.backbone.update(preset.backbone)
    data.validation_windows = 0
    optimizer.schedule, optimizer.learning_rate = 'plateau', preset.learning_rate
    optimizer.plateau_factor, optimizer.plateau_patience, optimizer.min_lr = 0.5, 4, 0.0
    optimizer.clip_norm, optimizer.clip_value = 0.0, 10.0
    config.epochs, config.eval_every, config.checkpoint_every = 300, 0, 500
    config.validation.epochs, config.validation.patience = 1, 15
  else:
    config.model.patch = 4
    config.eval_every = 60
  if words.smoke:
    config.steps, config.epochs, config.eval_every = 4, 0, 2
    config.validation.epochs = 0
  config.steps = words.steps or config.steps
  config.epochs = words.epochs or (0 if words.steps else config.epochs)
  data.batch_size = words.batch_size or data.batch_size
  optimizer.learning_rate = words.learning_rate or optimizer.learning_rate
  return config
