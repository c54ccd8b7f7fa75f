"""Learning-rate schedules, step for step the ones PyTorch training used.

A schedule is a pure function of the integer step: it traces under `jax.jit`, needs no state, and a
resumed run repeats it exactly. Written with sin^2 (not 1 + cos), so that float32 keeps six digits
down to the last, tiny rates; under `jax.enable_x64` it is exact to 1e-15.

A step past the end holds the last value. (PyTorch's OneCycleLR is stepped once more after the last
update and then climbs again; that value is logged upstream but never used, and not reproduced.)
What depends on validation scores (plateau) cannot be such a function: the rate is constant here,
and `plateau.Plateau` lowers it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stp_jax.typing import Array

Schedule = Callable[[Array | int], Array]
# torch.optim.lr_scheduler.OneCycleLR's defaults, which no published run changes.
_CYCLE_LOW, _CYCLE_HIGH = 0.85, 0.95


def _float(step: Array | int, last: int) -> Array:
  """`step` held at `last`, in the widest float that is enabled."""
  return jnp.minimum(jnp.asarray(step), last).astype(jnp.result_type(float))


def _one_cycle(c: Mapping[str, Any], total: int) -> tuple[Schedule, Schedule]:
  """Smith and Topin 2018 as PyTorch's OneCycleLR does it: two cosine phases; and its momentum."""
  top, low = c['learning_rate'], c['learning_rate'] / c['div_factor']
  bottom = low / c['final_div_factor']
  peak, last = c['pct_start'] * total - 1, total - 1  # the peak may lie between two steps
  # PyTorch divides by zero when the first phase ends at step 0: that step is then the peak.
  rise, fall = max(peak, 1e-9), max(last - peak, 1e-9)

  def blend(step, start, middle, end):
    step = _float(step, last)
    up = jnp.sin(0.5 * math.pi * step / rise) ** 2
    down = jnp.sin(0.5 * math.pi * (last - step) / fall) ** 2
    return jnp.where((step <= peak) & (peak > 0), start + (middle - start) * up,
                     end + (middle - end) * down)

  return (lambda step: blend(step, low, top, bottom),
          lambda step: blend(step, _CYCLE_HIGH, _CYCLE_LOW, _CYCLE_HIGH))


def _by_epoch(c: Mapping[str, Any], total: int, steps_per_epoch: int) -> Schedule:
  """timm 0.6.11's cosine, tanh and step schedules, multistep, and a constant (plateau is one).

  `by_epoch` (as published) sets the rate once per epoch, from the epoch's index before it; without
  it the epoch is a real number that moves with every step.
  """
  kind, rate, floor = c['schedule'], c['learning_rate'], c['min_lr']
  epochs, warm = total / steps_per_epoch, c['warmup_epochs']

  def plain(t):
    part = t / epochs  # warm-up does not shift this clock
    if kind == 'cosine':
      return floor + (rate - floor) * jnp.sin(0.5 * math.pi * (1 - part ** c['k_decay'])) ** 2
    if kind == 'tanh':  # from -7 to 3
      return floor + (rate - floor) * jax.nn.sigmoid(2 * (7 - 10 * part))
    if kind == 'step':
      return rate * c['decay_rate'] ** jnp.floor(t / c['decay_epochs'])
    if kind == 'multistep':
      passed = sum(((t >= m).astype(t.dtype) for m in c['milestones']), jnp.zeros_like(t))
      return rate * c['decay_rate'] ** passed
    return jnp.full_like(t, rate)

  def schedule(step):
    t = _float(step, total - 1) / steps_per_epoch
    if c['by_epoch']:
      # The quotient of whole numbers may round down to just below a whole number.
      t = jnp.floor((_float(step, total - 1) + 0.5) / steps_per_epoch)
    value = plain(t)
    if warm:
      # timm's tanh warms up to where it will be; the others to the full rate.
      target = plain(jnp.full_like(t, warm)) if kind == 'tanh' else rate
      value = jnp.where(t < warm, c['warmup_lr'] + t * (target - c['warmup_lr']) / warm, value)
    return value

  return schedule


def _cyclic_cosine(c: Mapping[str, Any], total: int, steps_per_epoch: int) -> Schedule:
  """Warm-up, one decay, then restarts, all halves of cosines: DeepSense6G_TII's schedule.

  `warmup_epochs` from `warmup_lr` to the rate; `initial_epochs` down to `min_lr`; then cycles of
  `restart_epochs` (each `restart_multiplier` times the one before) from `restart_lr` (0: the rate)
  to `min_lr`, or `min_lr` for good where `restart_epochs` is 0.
  """
  rate, low, warm = c['learning_rate'], c['min_lr'], c['warmup_lr']
  rise, fall = c['warmup_epochs'], c['initial_epochs']
  period, grow = c['restart_epochs'], c['restart_multiplier']
  top = c['restart_lr'] or rate
  if fall <= 0 or grow <= 0 or min(rise, period) < 0:
    raise ValueError('optimizer: cyclic_cosine needs initial_epochs and restart_multiplier above 0')

  def half(part, start, end):
    # Two squares, no difference: small rates keep their digits in float32.
    angle = 0.5 * math.pi * jnp.clip(part, 0, 1)
    return start * jnp.cos(angle) ** 2 + end * jnp.sin(angle) ** 2

  def cycle(x):
    if grow == 1:
      return (x % period) / period
    # Cycle n begins at period (1 - m^n) / (1 - m); the logarithm may round to just below n.
    inside = jnp.maximum(1 - (1 - grow) * x / period, 1e-30)
    n = jnp.floor(jnp.log(inside) / math.log(grow) + 1e-4)
    begin = period * (1 - grow ** n) / (1 - grow)
    return (x - begin) / (period * grow ** n)

  def schedule(step):
    t = _float(step, total - 1) / steps_per_epoch
    if c['by_epoch']:
      t = jnp.floor((_float(step, total - 1) + 0.5) / steps_per_epoch)
    x = t - rise - fall
    late = half(cycle(jnp.maximum(x, 0)), top, low) if period else jnp.full_like(t, low)
    value = jnp.where(x < 0, half((t - rise) / fall, rate, low), late)
    return jnp.where(t < rise, half(t / rise, warm, rate), value) if rise else value

  return schedule


def make(c: Mapping[str, Any], total: int, steps_per_epoch: int) -> tuple[Schedule, Schedule]:
  """The learning rate and the momentum (Adam's b1) of every update, see `optimizers.make`.

  Args:
    c: the fields of `optimizers.DEFAULTS`, all of them. total: updates of the run.

  Raises:
    ValueError: an unknown schedule, or fields that do not fit it.
  """
  known = ('onecycle', 'cosine', 'tanh', 'step', 'multistep', 'constant', 'cyclic_cosine',
           'plateau')
  if c['schedule'] not in known:
    raise ValueError(f'optimizer.schedule={c["schedule"]}: choose one of {" ".join(known)}')
  momentum = c['momentum'] if c['name'] == 'sgd' else c['b1']

  def steady(step):
    del step
    return jnp.full((), momentum, jnp.result_type(float))

  if c['schedule'] == 'onecycle':
    if c['warmup_epochs']:
      raise ValueError('optimizer.warmup_epochs: onecycle has its own warm-up, set pct_start')
    rate, cycled = _one_cycle(c, total)
    return rate, cycled if c['cycle_momentum'] else steady
  if c['schedule'] == 'cyclic_cosine':
    return _cyclic_cosine(c, total, steps_per_epoch), steady
  return _by_epoch(c, total, steps_per_epoch), steady
