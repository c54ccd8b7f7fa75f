"""Every field of a run, with its default and what it means. Config files change a few of them."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """The base of every config; a field that is not here is an error."""
  c = ml_collections.ConfigDict
  config = c()
  config.name = ''  # names the default workdir, runs/<name>
  config.words = ''  # the words the config was made with
  config.seed = 0
  config.dtype = 'float32'  # compute type; parameters, norms, carries and losses stay float32
  config.steps = 240  # optimizer steps
  config.epochs = 0  # instead of steps: so many times all training windows; 0 = steps
  config.init_from = ''  # a run or converted checkpoint whose weights start this one
  config.keep_constants = False  # with init_from: keep its climatology, do not fit one here

  config.data = c(dict(
      dataset='',  # a set that this package can make itself, used when stores is empty
      dataset_options=c(type_safe=False),  # keywords of its importer
      stores=(),  # clip stores to train on
      weights=(),  # mixing weights of the stores; () = in proportion to their windows
      eval_stores=(),  # clip stores to evaluate on; () = stores
      cache='runs/stores',  # where sets that we make are kept
      train_splits=('train',), validation_splits=('validation',), test_splits=('test',),
      t_in=12, t_out=48,  # frames given, frames forecast
      stride=1,  # frames between the starts of training windows
      eval_stride=1,  # the same in evaluation
      validation_windows=0,  # in evaluations during training: so many, spread evenly; 0 = all
      channels='1',  # a count (prefix of the 20), or names joined by +
      future_forcings='persist',  # persist | observed | forecast | none
      missing_drivers='error',  # error | fill: what no file gives becomes its training mean or zero
      batch_size=8, eval_batch_size=8,  # windows in a global batch
      workers=0))  # loader processes; memory maps need none

  config.task = c(dict(
      name='forecast',
      loss='mse',  # mse | mae | mse+mae | none: only the weighted terms of the model
      loss_scale='none',  # none | last_day_mean: divide errors by the last input day's mean
      latitude_weight=False,  # weight the loss by cos(latitude)
      horizons=(),  # ((first step, frames forecast), ...): short forecasts first; () = t_out
      term_weights=c(type_safe=False)))  # weights of the model's auxiliary losses, by name

  config.model = c(dict(
      name='simvp',
      fusion='none',  # none | concatenate | mix
      mix='strict',  # strict | upstream: also channel counts that are no square
      patch=1,
      anchor='none',  # none | persistence | climatology: what the network corrects
      remat=False, unroll=1,
      backbone=c(type_safe=False)))  # keywords of the backbone, unchanged

  config.optimizer = c(dict(
      name='adam', learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, momentum=0.9,
      weight_decay=0.0, skip_decay_1d=True, clip_norm=1.0,  # clip_norm 0 = off
      schedule='onecycle',  # onecycle | cosine | tanh | step | multistep | constant
      steps_per_epoch=0,  # 0 = windows // batch_size; the epoch of the epoch-wise schedules
      pct_start=0.3, div_factor=25.0, final_div_factor=1e4, cycle_momentum=True,
      warmup_epochs=0.0, warmup_lr=1e-5, min_lr=1e-6, k_decay=1.0,
      decay_epochs=100.0, decay_rate=0.1, milestones=(), by_epoch=True,
      slow=c(type_safe=False),  # fields that differ for the parameters that a task calls slow
      ema_decay=0.0))  # 0 = no average

  config.sampling = c(dict(
      name='off',  # standard | reverse | off
      start=1.0, stop_step=50000, rate=2e-5,  # standard
      step_1=25000, step_2=50000, alpha=5000.0))  # reverse

  config.mesh = c(dict(data=-1, fsdp=1))  # -1 = all devices that are left
  config.max_skipped = 20  # non-finite steps to skip before the run stops
  config.log_every = 20
  config.eval_every = 0  # 0 = at the end only
  config.checkpoint_every = 100
  config.keep_checkpoints = 2
  return config
