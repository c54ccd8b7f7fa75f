"""What follows from validation scores: the best checkpoint, an early end, a lower learning rate.

Everything counted here is plain numbers that travel in every checkpoint, so that a run that was
stopped and continued decides as one that was not.
"""

import dataclasses
import math

import ml_collections

from stp_jax import evaluate, optimizers
from stp_jax.state import TrainState

_EPS = 1e-8  # PyTorch's: a rate that would fall by less stays


@dataclasses.dataclass
class Plateau:
  """PyTorch's ReduceLROnPlateau (threshold_mode rel): `scale` of the learning rate."""
  factor: float
  patience: int
  threshold: float
  cooldown: int
  sign: int  # 1: less is better
  rate: float
  min_rate: float
  best: float | None = None
  bad: int = 0
  cooling: int = 0
  scale: float = 1.0

  def update(self, value: float) -> None:
    """Takes the score of one validation; NaN is never better."""
    margin = 1 - self.sign * self.threshold
    if not math.isnan(value) and (
        self.best is None or self.sign * value < self.sign * self.best * margin):
      self.best, self.bad = value, 0
    else:
      self.bad += 1
    if self.cooling:
      self.cooling -= 1
      self.bad = 0
    if self.bad > self.patience:
      lower = max(self.scale * self.factor, self.min_rate / self.rate)
      if self.rate * (self.scale - lower) > _EPS:
        self.scale = lower
      self.cooling, self.bad = self.cooldown, 0


class Monitor:
  """Watches `config.validation.metric` during training.

  Attributes:
    best_step: of the best validation so far, or None.
    stopped: `validation.patience` validations in a row were no better.

  Args:
    config: the run's. per_epoch: steps of an epoch.

  Raises:
    ValueError: fields that do not fit each other.
  """

  def __init__(self, config: ml_collections.ConfigDict, per_epoch: int):
    v, o = config.validation, config.optimizer
    self.metric, self.patience, self.min_delta = v.metric, v.patience, v.min_delta
    if v.direction not in ('min', 'max'):
      raise ValueError(f'validation.direction={v.direction!r}: min or max')
    if not v.metric and (v.patience or o.schedule == 'plateau'):
      field = 'validation.patience' if v.patience else 'optimizer.schedule=plateau'
      raise ValueError(f'{field} needs validation.metric, the score to watch, such as loss or rmse')
    if min(v.epochs, v.patience, v.min_delta) < 0:
      raise ValueError('validation.epochs, patience and min_delta are not negative')
    self.every = v.epochs * per_epoch or config.eval_every or (per_epoch if v.metric else 0)
    self._sign = 1 if v.direction == 'min' else -1
    self._plateau = Plateau(
        o.plateau_factor, o.plateau_patience, o.plateau_threshold, o.plateau_cooldown,
        self._sign, o.learning_rate, o.min_lr) if o.schedule == 'plateau' else None
    if self._plateau and not (0 < o.plateau_factor < 1 and o.learning_rate > 0):
      raise ValueError('optimizer.schedule=plateau needs 0 < plateau_factor < 1 and a rate above 0')
    self.best: float | None = None
    self.best_step: int | None = None
    self.bad, self.stopped = 0, False

  def check(self, task, state: TrainState, stores, mesh) -> None:
    """Validates on one window: a score that is not there must not cost an epoch to find out."""
    if not self.metric:
      return
    data = task.config.data
    whole, data.validation_windows = data.validation_windows, 1
    try:
      self._value(evaluate.validate(task, state, stores, mesh))
    finally:
      data.validation_windows = whole

  def _value(self, values: dict[str, float]) -> float:
    name = f'validation/{self.metric}'
    if name not in values:
      there = ' '.join(k.removeprefix('validation/') for k in values) or (
          'none: no window in a validation split (data.validation_splits)')
      raise ValueError(f'validation.metric={self.metric}: no such score; there are: {there}')
    return math.nan if values[name] is None else float(values[name])

  def due(self, done: int, steps: int) -> bool:
    """Whether to validate after step `done`: the last one only where a best one is looked for."""
    if done == steps:
      return bool(self.metric)
    return bool(self.every) and done % self.every == 0

  def update(self, done: int, values: dict[str, float], state: TrainState) -> TrainState:
    """Takes the scores of step `done`; returns the state, its learning rate lowered if it is time.

    Raises:
      ValueError: the score that is watched is not among them.
    """
    if not self.metric:
      return state
    value = self._value(values)
    if not math.isnan(value) and (
        self.best is None or self._sign * (self.best - value) > self.min_delta):
      self.best, self.best_step, self.bad = value, done, 0
    else:
      self.bad += 1
    self.stopped = bool(self.patience) and self.bad >= self.patience
    if self._plateau:
      before = self._plateau.scale
      self._plateau.update(value)
      if self._plateau.scale != before:
        state = state.replace(
            opt_state=optimizers.with_rate_scale(state.opt_state, self._plateau.scale))
    return state

  def saves(self, done: int) -> bool:
    """Whether step `done` must be kept: it is the best, or the last."""
    return self.stopped or self.best_step == done

  def ended(self) -> str:
    """What an early end says."""
    return (f'stopped early: validation/{self.metric} did not improve in {self.bad} validations; '
            f'the best is {self.best:.6g} at step {self.best_step}' if self.best is not None else
            f'stopped early: validation/{self.metric} was never a number')

  def state(self) -> dict:
    """Plain numbers for a checkpoint; {} where nothing is watched."""
    if not self.metric:
      return {}
    kept = dict(metric=self.metric, best=self.best, best_step=self.best_step, bad=self.bad)
    if self._plateau:
      p = self._plateau
      kept['plateau'] = dict(best=p.best, bad=p.bad, cooling=p.cooling, scale=p.scale)
    return kept

  def restore(self, kept: dict) -> None:
    """Goes on from a checkpoint; what an older one lacks stays as at the start."""
    if self._plateau and 'plateau' in kept:
      self._plateau.scale = kept['plateau']['scale']  # the optimizer's state has it too
    if not self.metric or kept.get('metric') != self.metric:
      return  # another score is watched from now on
    self.best, self.best_step = kept.get('best'), kept.get('best_step')
    self.bad = kept.get('bad', 0)
    # A longer patience than the one that ended the run continues it.
    self.stopped = bool(self.patience) and self.bad >= self.patience
    if self._plateau:
      for name, value in kept.get('plateau', {}).items():
        setattr(self._plateau, name, value)
