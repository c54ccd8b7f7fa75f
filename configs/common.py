"""Every field of a run, with its default and what it means. Config files change a few of them."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """The base of every config; a field that is not here is an error."""
  c = ml_collections.ConfigDict
  config = c()
  config.name = ''  # names the default workdir, runs/<name>
  config.words = ''  # the words the config was made with
  config.seed = 0
  config.protocol = 'standard'  # standard | upstream: whose conventions head the score card
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
      domains=(),  # names of the stores, where they differ in size, units or channels
      balanced=False,  # domains: every store as often as any other
      frame_size=(), frame_channels=0,  # domains: rows, columns and channels of all
      eval_stores=(),  # clip stores to evaluate on; () = stores
      cache='runs/stores',  # where sets that we make are kept
      train_splits=('train',), validation_splits=('validation',), test_splits=('test',),
      t_in=12, t_out=48,  # frames given, frames forecast; 0: what the clips allow
      preferred=(5, 5),  # the same, where they are 0 and clips are long enough
      stride=1,  # frames between the starts of training windows
      eval_stride=1,  # the same in evaluation
      validation_windows=0,  # in evaluations during training: so many, spread evenly; 0 = all
      test_windows=0,  # domains, in the final evaluation: so many of each
      channels='1',  # a count (prefix of the 20), or names joined by +
      # persist | observed | forecast | none; forecast: predictions of the driver file, which it has
      # for the days to come and not for history, so that no run can be trained on it
      future_forcings='persist',
      missing_drivers='error',  # error | fill: what no file gives becomes its training mean or zero
      batch_size=8, eval_batch_size=8,  # windows in a global batch
      workers=0))  # loader processes; memory maps need none

  config.task = c(dict(
      name='forecast',
      stage='',  # of the task masked: pretrain | prompt | full
      loss='mse',  # mse | mae | mse+mae | none: only the weighted terms of the model
      loss_scale='none',  # none | last_day_mean: divide errors by the last input day's mean
      latitude_weight=False,  # weight the loss by cos(latitude)
      horizons=(),  # ((first step, frames forecast), ...): short forecasts first; () = t_out
      term_weights=c(type_safe=False),  # weights of the model's auxiliary losses, by name
      scores='auto',  # auto (by the store's units and grid) | nowcast | weather | none
      events=c(dict(  # read by the scores of nowcasts
          thresholds=(),  # of an event, in mm/h, dBZ or the store's unit; () = those of the unit
          scales=(1, 4, 16),  # pixels: sides of the neighbourhoods that are compared
          # What 1 stands for in frames of full scale, its unit and thresholds; 0 = nothing.
          full_scale=0.0, full_scale_units='', full_scale_thresholds=())),
      beam=c(dict(  # read by the tasks beam and rebuild
          soft_labels=True,  # a bell around the beam, or 1 at it alone
          gps='angle',  # angle | extremes: what is fed of the two positions
          missing_train=(), missing_test=(),  # modalities lost in training, in evaluation
          missing_rate=1.0,  # in training each named one is lost with this probability
          fill='zero',  # zero | random: what stands in for a lost one, after normalisation
          flip=0.0,  # training: probability of the mirror image, beams too
          color=0.0,  # brightness, contrast, saturation, gamma by factors up to exp(color)
          lidar_drop=0.0, radar_noise=0.0,  # share of the points lost; relative noise
          robustness=128,  # samples that every subset of the modalities is scored on; 0 = none
          imagenet=c(dict(image='', lidar='', radar='')))),  # .npz of `stp_jax.convert resnet`
      rebuild=c(dict(
          sources=('lidar', 'radar'), targets=('image',),  # sensors: rebuilt from, rebuilt
          weights=c(dict(translation=1.0, contrast=1.0, distance=0.1, fusion=1.0)),
          temperature=0.1,  # of the contrastive loss
          distance='mean',  # mean | norm (upstream: grows with batch and size) | mse
          features=128,  # of a projection; the first half is what sensors share
          dropout=0.5,  # in the translator
          train_heads=True,  # batch statistics and dropout; upstream: only before a validation
          train_fusion=False,  # the same in the network, whose statistics are settled
          use_rate=1.0,  # share of training examples that see the rebuilt features; upstream .25
          image_twice=False))))  # upstream: images normalised twice on their way to the network

  config.model = c(dict(
      name='simvp',
      fusion='none',  # none | concatenate | mix
      mix='strict',  # strict | upstream: also channel counts that are no square
      patch=1,
      anchor='none',  # none | persistence | climatology: what the network corrects
      frame='geographic',  # geographic | sun: maps turned until local noon is in the middle
      padding='zero',  # zero | circular: convolutions wrap in longitude
      remat=False, unroll=1,
      backbone=c(type_safe=False)))  # keywords of the backbone, unchanged

  config.optimizer = c(dict(
      name='adam', learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, momentum=0.9,
      weight_decay=0.0, skip_decay_1d=True, clip_norm=1.0,  # clip_norm 0 = off
      clip_value=0.0,  # every element of a gradient within -value and value; 0 = off
      # onecycle | cosine | tanh | step | multistep | constant | cyclic_cosine | plateau
      schedule='onecycle',
      steps_per_epoch=0,  # 0 = windows // batch_size; the epoch of the epoch-wise schedules
      pct_start=0.3, div_factor=25.0, final_div_factor=1e4, cycle_momentum=True,
      warmup_epochs=0.0, warmup_lr=1e-5, min_lr=1e-6, k_decay=1.0,
      decay_epochs=100.0, decay_rate=0.1, milestones=(), by_epoch=True,
      # cyclic_cosine: epochs of the first decay and of a restart (0 = none), its rate (0 =
      # learning_rate), and how much longer each one is
      initial_epochs=15.0, restart_epochs=0.0, restart_lr=0.0, restart_multiplier=1.0,
      # plateau: the rate times factor after more than `patience` validations without a better
      # validation.metric (by the relative threshold), down to min_lr; then `cooldown` ones rest
      plateau_factor=0.1, plateau_patience=10, plateau_threshold=1e-4, plateau_cooldown=0,
      slow=c(type_safe=False),  # fields that differ for the parameters that a task calls slow
      accumulate=1,  # parts of a batch that are computed one after the other: less memory
      ema_decay=0.0))  # 0 = no average

  config.sampling = c(dict(
      name='off',  # standard | reverse | off
      start=1.0, stop_step=50000, rate=2e-5,  # standard
      step_1=25000, step_2=50000, alpha=5000.0))  # reverse

  config.validation = c(dict(
      epochs=0,  # validate after every so many epochs; 0: see eval_every, or 1 if there is a metric
      metric='',  # of validation/<metric> (loss, rmse, ...): its best checkpoint is kept; '' = none
      direction='min',  # min | max: which is better
      patience=0,  # stop after so many validations in a row that were no better; 0 = never
      min_delta=0.0))  # a better one is better by more than this

  config.mesh = c(dict(data=-1, fsdp=1))  # -1 = all devices that are left
  config.max_skipped = 20  # non-finite steps to skip before the run stops
  config.watchdog_minutes = 30.0  # no step ends for so long: print every thread's stack; 0 = off
  config.log_every = 20
  config.eval_every = 0  # 0 = at the end only
  config.checkpoint_every = 100
  config.keep_checkpoints = 2
  return config
