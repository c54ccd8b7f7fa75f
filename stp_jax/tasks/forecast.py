"""The forecast task: frames and forcings in, frames out; owns the loss and the scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stp_jax import models, sampling, sharding
from stp_jax.data import climatology, clip_store, domains, forcings
from stp_jax.data.spec import DataSpec
from stp_jax.metrics import baselines, tec, video
from stp_jax.metrics import fields as field_scores
from stp_jax.models import anchor
from stp_jax.tasks import base
from stp_jax.typing import Array, Batch, Output, PyTree, Variables

_POSITIVE = ('prednet', 'unet')  # networks that end in a ReLU


class Forecast(base.Task):
  """Trains `model(frames, forcings) -> frames` and scores it beside its baselines.

  Args:
    config: the run's config.
    spec: the data's shape, units and scaling.
  """

  def __init__(self, config, spec: DataSpec):
    super().__init__(config, spec)
    self.t_in, self.t_out = config.data.t_in, config.data.t_out
    self.horizons = tuple(config.task.horizons) or ((0, self.t_out),)
    longest = max(t for _, t in self.horizons)
    if longest > self.t_out or self.horizons[0][0] != 0:
      raise ValueError(
          f'task.horizons={self.horizons}: start at step 0, at most t_out={self.t_out}')
    self.needs_climatology = config.model.anchor == 'climatology'
    if self.needs_climatology and not self.has_clock:
      raise ValueError(f'{spec.name}: anchor=climatology needs frames with times; it has none')
    if config.model.frame == 'sun' and not self.has_clock:
      raise ValueError(f'{spec.name}: model.frame=sun needs frames with times; it has none')
    if self.needs_climatology and spec.shift:
      raise ValueError(f'{spec.name}: anchor=climatology needs values that begin at 0, not at '
                       f'{spec.shift:g} {spec.units}; choose another anchor')
    if spec.signed and config.model.anchor == 'none':
      self._check_range()
    if spec.signed and config.task.loss_scale != 'none':
      raise ValueError(f'{spec.name}: task.loss_scale={config.task.loss_scale} divides by a mean, '
                       'which may be 0 here, as values have both signs; set it to none')

  def _check_range(self) -> None:
    """ValueError for a network that cannot forecast a value below 0."""
    name = self.config.model.name
    cure = ('set --config.model.backbone.squash=false' if getattr(
        self.model().backbone, 'squash', False) else 'choose another model')
    if cure.startswith('set') or name in _POSITIVE:
      raise ValueError(f'{self.spec.name}: values have both signs, and {name} ends in a function '
                       f'that is never negative; {cure}')

  @classmethod
  def data_spec(cls, config, stores: Sequence[clip_store.ClipStore]) -> DataSpec:
    """Of domains, where the config names some: one size and range for all, see `data.domains`."""
    data = config.data
    if not data.domains:
      return super().data_spec(config, stores)
    named = list(domains.named(data, stores).items())
    return domains.data_spec(named, tuple(data.frame_size) or None, data.frame_channels)

  def sources(self, stores: Sequence[clip_store.ClipStore], splits: Sequence[str],
              stride: int = 1) -> list[Any]:
    if not self.config.data.domains:
      return super().sources(stores, splits, stride)
    named = list(domains.named(self.config.data, stores).items())
    return domains.sources(named, self.spec, splits, self.length, stride, every=False)

  def check_splits(self, stores: Sequence[clip_store.ClipStore]) -> None:
    if not self.config.data.domains:
      return super().check_splits(stores)
    domains.assert_disjoint(
        list(domains.named(self.config.data, stores).items()), self.config.data.train_splits)

  @property
  def channels(self) -> tuple[str, ...]:
    """The channels that are fed: without a fusion only the image."""
    return self.spec.channels[:1] if self.config.model.fusion == 'none' else self.spec.channels

  @property
  def length(self) -> int:
    """Frames in a window."""
    return self.t_in + self.t_out

  def model(self, t_out: int | None = None):
    """The forecaster that predicts `t_out` frames; parameters do not depend on `t_out`."""
    c = self.config
    return models.build(
        c.model, shape=self.spec.shape, forcings=len(self.channels) - 1, t_in=self.t_in,
        t_out=t_out or self.t_out, frames_per_day=self.frames_per_day,
        divisor=self.spec.divisor, dtype=c.dtype, longitude=self.spec.grid.get('longitude'))

  def stage(self, step: int) -> int:
    """Frames forecast at this step: what the compiled step depends on besides shapes."""
    return [t for first, t in self.horizons if first <= step][-1]

  def init(self, rng: jax.Array) -> Variables:
    """Random variables; traces one forecast, nothing is computed under `eval_shape`."""
    batch = dict(frames=jnp.zeros((1, self.length, *self.spec.shape), self.spec.dtype),
                 forcings=jnp.zeros((1, self.length, len(self.spec.columns))))
    inputs = self.inputs(batch, self.t_out)
    return self.model().init(
        {'params': rng, 'dropout': rng}, **{k: inputs[k] for k in _MODEL_INPUTS}, train=False)

  @property
  def required_columns(self) -> tuple[str, ...]:
    """The forcing columns that the model reads; a store or a caller must give these."""
    wanted = list(forcings.scalars(self.channels))
    if self.needs_climatology:
      wanted += ['month', 'hour', 'date', 'f107']
    if self.config.model.frame == 'sun':
      wanted += ['month', 'hour']
    return tuple(c for c in self.spec.columns if c in wanted)

  @property
  def frames_per_day(self) -> int:
    """The lag of persistence: a day where frames have a clock, else one frame."""
    return self.spec.frames_per_day if self.has_clock else 1

  @property
  def has_clock(self) -> bool:
    """Whether frames carry month and hour, which climatologies need."""
    return {'month', 'hour'} <= set(self.spec.columns)

  def fit_climatology(self, stores: Sequence[clip_store.ClipStore], splits: Sequence[str]
                      ) -> PyTree:
    """The training clips' climatology, see `data.climatology.fit`."""
    return climatology.fit(stores, splits, self.spec.frames_per_day)

  def constants(self, stores: Sequence[clip_store.ClipStore], splits: Sequence[str]) -> PyTree:
    """Tables that come from the training clips and travel with the weights, or {}."""
    if not self.needs_climatology:
      return {}
    return dict(self.fit_climatology(stores, splits), row_weights=self.spec.row_weights)

  def inputs(self, batch: Batch, t_out: int) -> dict[str, Array | None]:
    """Raw batch -> model inputs, on the device: scaling, planes, validity; see `_MODEL_INPUTS`."""
    spec, total = self.spec, self.t_in + t_out
    raw = batch['frames'][:, :total]
    if 'scale' in batch:  # a batch of several domains: each example has its own scale
      scale, offset, missing = (
          batch[k][:, None, None, None, None] for k in ('scale', 'offset', 'missing'))
      physical, valid = raw.astype(jnp.float32) * scale + offset, raw != missing
    else:
      physical = raw.astype(jnp.float32) * spec.scale + spec.offset
      valid = jnp.ones(raw.shape, bool) if spec.missing is None else raw != spec.missing
    if jnp.issubdtype(raw.dtype, jnp.floating):
      valid &= jnp.isfinite(raw)
    value = physical if spec.maximum is None else jnp.minimum(physical, spec.maximum)
    value = (value - spec.shift) / spec.divisor
    # A hole is fed as the mean of its frame: no model sees the missing value's code.
    count = jnp.maximum(valid.sum((2, 3), keepdims=True), 1)
    mean = jnp.where(valid, value, 0).sum((2, 3), keepdims=True) / count
    result = dict(
        frames=jnp.where(valid, value, mean), physical=physical,
        valid=valid & (spec.pixel_mask > 0)[..., None], forcings=None, calendar=None, driver=None)
    scalars = (batch['forcings'][:, :total] if 'forcings' in batch else
               jnp.zeros((*raw.shape[:2], 0)))
    height, width, _ = spec.shape
    result['forcings'] = forcings.planes(
        scalars, spec.columns, self.channels, height, width, spec.grid)
    column = spec.columns.index
    if self.has_clock:
      # Without a day of the month: its middle.
      date = scalars[..., column('date')] if 'date' in spec.columns else 15.7
      result['calendar'] = anchor.calendar(
          scalars[..., column('month')], date, scalars[..., column('hour')])
    if 'f107' in spec.columns and 'f107' not in spec.filled:
      result['driver'] = scalars[:, self.t_in - 1, column('f107')]
    return result

  def apply(self, variables: Variables, inputs: Mapping[str, Array | None], t_out: int,
            use_true: Array | None = None, train: bool = False, rng: jax.Array | None = None
            ) -> tuple[Output, PyTree]:
    """One forecast in model units, and the updated collections."""
    arguments = {k: inputs[k] for k in _MODEL_INPUTS}
    if not train:
      return self.model(t_out).apply(variables, **arguments, train=False), {}

    def forward(whole, batched):
      variables, rng = whole
      arguments, use_true = batched
      return self.model(t_out).apply(
          variables, **arguments, use_true=use_true, train=True, mutable=['batch_stats'],
          rngs={'dropout': rng})

    whole, batched = (variables, rng), (arguments, use_true)
    if self._splits(forward, whole, batched):
      return sharding.per_shard(forward, whole, batched)
    return forward(whole, batched)

  def _splits(self, forward, whole, batched) -> bool:
    """Whether each device may compute its rows of the batch by itself."""
    mesh = sharding.mesh_in_training()
    if mesh is None or mesh.devices.size == 1:
      return False
    if 'batch_stats' in whole[0] and not sharding.keeps_order(mesh):
      return False  # statistics of the whole batch are collectives between the layers
    paths = [jax.tree_util.keystr(p, simple=True, separator='/')
             for p, _ in jax.tree_util.tree_leaves_with_path(whole[0]['params'])]
    if mesh.shape['fsdp'] > 1 and not all(map(self.gathered, paths)):
      return False  # a stack of layers that is gathered layer by layer
    # Dropout: the same examples must be dropped on any number of devices.
    return not sharding.draws(forward, whole, batched)

  def loss(self, variables: Variables, batch: Batch, *, rng: jax.Array, step: Array, stage: int
           ) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
    """Mean loss over the valid pixels of every predicted frame.

    Returns:
      `(loss [], (metrics {name: []}, updated collections))`.
    """
    t_out, config = stage, self.config.task
    inputs = self.inputs(batch, t_out)
    sample_rng, drop_rng = jax.random.split(rng)
    use_true = sampling.mask(self.config.sampling, step, sample_rng,
                             batch['frames'].shape[0], self.t_in, t_out)
    output, updated = self.apply(variables, inputs, t_out, use_true, True, drop_rng)
    predicted, first = output.prediction, self.t_in
    if output.context is not None:
      first -= output.context.shape[1]
      predicted = jnp.concatenate([output.context, predicted], 1)
    truth, weight = inputs['frames'][:, first:], self._weight(inputs, first)
    check_weights(config.term_weights, output.terms, self.config.model.name)
    loss = main = self.distance(
        (predicted.astype(jnp.float32) - truth) / self._loss_scale(inputs), weight)
    metrics = {}
    for name, term in output.terms.items():
      metrics[f'term/{name}'] = value = jnp.mean(term)
      loss += config.term_weights.get(name, 0.0) * value
    if config.loss == 'none' and not any(map(config.term_weights.get, output.terms)):
      raise ValueError(
          f'task.loss=none needs a weight in task.term_weights; {self.config.model.name} has the '
          f'terms {" ".join(output.terms) or "(none)"}')
    if metrics:
      metrics['term/main'] = main
    return loss, (metrics, updated)

  def _weight(self, inputs: Mapping[str, Array | None], first: int) -> Array:
    """Of every pixel in the loss, from frame `first` on; 0 where there is no value."""
    weight = inputs['valid'][:, first:].astype(jnp.float32)
    if self.config.task.latitude_weight:
      weight = weight * self.spec.row_weights[:, None, None]
    return weight

  def _loss_scale(self, inputs: Mapping[str, Array | None]) -> Array | float:
    """What errors are divided by."""
    scale = self.config.task.loss_scale
    if scale == 'last_day_mean':
      day = slice(max(0, self.t_in - self.spec.frames_per_day), self.t_in)
      return jnp.maximum(inputs['frames'][:, day].mean((1, 2, 3, 4), keepdims=True), 1e-3)
    if scale != 'none':
      raise ValueError(f'task.loss_scale={scale!r}: none or last_day_mean')
    return 1.0

  def distance(self, error: Array, weight: Array, name: str = '') -> Array:
    """The main loss `[]`: the weighted mean over pixels of what a loss makes of an error.

    Args:
      name: default `task.loss`.
    """
    # 'none': the model's own terms alone, as DMVFN is trained.
    cost = {'mse': lambda e: e**2, 'mae': jnp.abs, 'mse+mae': lambda e: e**2 + jnp.abs(e),
            'none': jnp.zeros_like}
    name = name or self.config.task.loss
    if name not in cost:
      raise ValueError(f'task.loss={name!r}: choose one of {" ".join(cost)}')
    return jnp.sum(cost[name](error) * weight) / jnp.maximum(jnp.sum(weight), 1)

  def frame_loss(self, variables: Variables, batch: Batch) -> Array:
    """The main loss of a forecast without its terms, `[B, T_out]`, of frames that are there.

    Training draws no frame of it from the truth here, and no auxiliary term counts. Where a model
    trains on its own terms alone (`task.loss=none`) it is the absolute error.
    """
    name = 'mae' if self.config.task.loss == 'none' else self.config.task.loss
    t_in, spec = self.t_in, self.spec
    inputs = self.inputs(batch, self.t_out)
    forecast = (self.predict(variables, batch) - spec.shift) / spec.divisor
    error = (forecast - inputs['frames'][:, t_in:]) / self._loss_scale(inputs)
    weight = self._weight(inputs, t_in)
    loss = jax.vmap(jax.vmap(lambda e, w: self.distance(e, w, name)))(error, weight)
    return jnp.where(weight.sum((2, 3, 4)) > 0, loss, jnp.nan)

  def predict(self, variables: Variables, batch: Batch) -> Array:
    """Forecast `[B, T_out, H, W, C]` in physical units."""
    output, _ = self.apply(variables, self.inputs(batch, self.t_out), self.t_out)
    return output.prediction.astype(jnp.float32) * self.spec.divisor + self.spec.shift

  def baseline_batch(self, batch: Batch) -> dict[str, Array]:
    """What `metrics.baselines.fit` reads of one batch of training windows."""
    inputs = self.inputs(batch, self.t_out)
    result = dict(frames=inputs['physical'], valid=inputs['valid'], calendar=inputs['calendar'],
                  driver=inputs['driver'], mask=batch['mask'])
    return {k: v for k, v in result.items() if v is not None}

  def evaluate(self, variables: Variables, fitted: PyTree, batch: Batch) -> dict:
    """Per-example statistics of the forecast and of every baseline.

    Args:
      variables: of the model. fitted: of `metrics.baselines`, or None. batch: of `eval_batches`;
        its `given` holds forecasts {name: [B, T_out, H, W, C]} that are scored alike.

    Returns:
      `forecasts` {name: {statistic: [B, T_out]}}, `frames` {metric: [B, T_out]} of the net in model
      units, `strata` {name: [B, T_out] bool}, `fields` of `metrics.fields.statistics`.
    """
    t_in, spec = self.t_in, self.spec
    inputs = self.inputs(batch, self.t_out)
    truth, valid = inputs['physical'][:, t_in:], inputs['valid'][:, t_in:]
    forecasts = {'net': self.predict(variables, batch)} | baselines.apply(
        fitted, inputs['physical'], inputs['calendar'], inputs['driver'], t_in=t_in,
        t_out=self.t_out, valid=inputs['valid'], row_weights=spec.row_weights,
        frames_per_day=self.frames_per_day)
    forecasts |= batch.get('given', {})
    statistics = {name: tec.per_example(f, truth, valid, spec.row_weights)
                  for name, f in forecasts.items()}
    fields = field_scores.statistics(self.config, spec, forecasts, truth, valid)
    frames = video.per_example(
        (forecasts['net'] - spec.shift) / spec.divisor, inputs['frames'][:, t_in:], valid)
    strata = {}
    if 'kp' in spec.columns and 'kp' not in spec.filled:
      kp = batch['observed'][:, t_in:, spec.columns.index('kp')]
      strata = {'quiet': kp < tec.STORM_KP10, 'storm': kp >= tec.STORM_KP10}
    return dict(forecasts=statistics, frames=frames, strata=strata, fields=fields)


def check_weights(weights: Mapping[str, float], terms: Iterable[str], model: str) -> None:
  """Raises ValueError for the weight of a term that no term answers to.

  Terms that are numbered by layer, `error_4`, may be more than a shallow network has.
  """
  stem = lambda name: name.rstrip('0123456789')
  known = {stem(t) for t in terms}
  for name, weight in weights.items():
    if weight and stem(name) not in known:
      raise ValueError(f'task.term_weights.{name}: {model} has the terms '
                       f'{" ".join(terms) or "(none)"}')


_MODEL_INPUTS = ('frames', 'forcings', 'calendar', 'driver')
