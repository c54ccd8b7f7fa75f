"""Optimizers and learning-rate schedules, step for step the ones PyTorch training used.

A schedule is a pure function of the integer step: it traces under `jax.jit`, needs no state, and a
resumed run repeats it exactly. Written with sin^2 (not 1 + cos), so that float32 keeps six digits
down to the last, tiny rates; under `jax.enable_x64` it is exact to 1e-15.

A step past the end holds the last value. (PyTorch's OneCycleLR is stepped once more after the last
update and then climbs again; that value is logged upstream but never used, and not reproduced.)
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stp_jax.typing import Array, PyTree

Schedule = Callable[[Array | int], Array]

DEFAULTS = dict(
    name='adam', learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, momentum=0.9,
    weight_decay=0.0, skip_decay_1d=True, clip_norm=0.0,
    schedule='onecycle', pct_start=0.3, div_factor=25.0, final_div_factor=1e4, cycle_momentum=True,
    warmup_epochs=0.0, warmup_lr=1e-5, min_lr=1e-6, k_decay=1.0,
    decay_epochs=100.0, decay_rate=0.1, milestones=(), by_epoch=True,
    initial_epochs=15.0, restart_epochs=0.0, restart_lr=0.0, restart_multiplier=1.0)
# Fields of the same section of a config that others read.
_ELSEWHERE = ('steps_per_epoch', 'ema_decay', 'accumulate', 'slow')
# torch.optim.lr_scheduler.OneCycleLR's defaults, which no published run changes.
_CYCLE_LOW, _CYCLE_HIGH = 0.85, 0.95


class _Momentum(NamedTuple):
  """The state of Adam and of SGD: `second` is empty for SGD."""
  count: Array
  first: PyTree
  second: PyTree


def _fields(config: Mapping[str, Any], whole: bool = True) -> dict[str, Any]:
  """The fields with their defaults, or without (`whole=False`); unknown ones are an error."""
  unknown = [k for k in config if k not in DEFAULTS and k not in _ELSEWHERE]
  if unknown:
    raise ValueError(f'optimizer: unknown field {", ".join(unknown)}; known: {" ".join(DEFAULTS)}')
  return (DEFAULTS if whole else {}) | dict(config)


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
  """timm 0.6.11's cosine, tanh and step schedules, multistep, and a constant.

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


def _schedules(c: Mapping[str, Any], total: int, steps_per_epoch: int
               ) -> tuple[Schedule, Schedule]:
  known = ('onecycle', 'cosine', 'tanh', 'step', 'multistep', 'constant', 'cyclic_cosine')
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


def _scale_by_adam(b1: Schedule, b2: float, eps: float) -> optax.GradientTransformation:
  """Adam (Kingma and Ba 2015) whose b1 follows a schedule, as OneCycleLR makes PyTorch's do.

  The bias corrections are 1 - b^n by expm1: in float32 1 - 0.999^n loses four digits at n = 1.
  """
  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return _Momentum(jnp.zeros([], jnp.int32), zeros, zeros)

  def update(grads, state, params=None):
    del params
    first_rate = b1(state.count)
    n = (state.count + 1).astype(first_rate.dtype)
    fix1 = -jnp.expm1(n * jnp.log1p(-(1 - first_rate)))
    fix2 = -jnp.expm1(n * math.log(b2))
    first = jax.tree.map(lambda m, g: (m + (1 - first_rate) * (g - m)).astype(m.dtype),
                         state.first, grads)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.second, grads)
    updates = jax.tree.map(
        lambda m, v: (m / fix1 / (jnp.sqrt(v / fix2) + eps)).astype(m.dtype), first, second)
    return updates, _Momentum(state.count + 1, first, second)

  return optax.GradientTransformation(init, update)


def _scale_by_momentum(momentum: Schedule) -> optax.GradientTransformation:
  """PyTorch's SGD with momentum (no dampening): the buffer is momentum * buffer + gradient."""
  def init(params):
    return _Momentum(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params), ())

  def update(grads, state, params=None):
    del params
    keep = momentum(state.count)
    first = jax.tree.map(lambda m, g: (keep * m + g).astype(m.dtype), state.first, grads)
    return first, _Momentum(state.count + 1, first, ())

  return optax.GradientTransformation(init, update)


def global_norm(tree: PyTree) -> Array:
  """The L2 norm over all leaves, summed in float32 or wider."""
  wide = jnp.result_type(float)
  return jnp.sqrt(sum(jnp.sum(jnp.square(x.astype(wide))) for x in jax.tree.leaves(tree)))


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
  """Scales gradients whose global L2 norm exceeds `limit`, with PyTorch's 1e-6 in the divisor."""
  def update(grads, params=None):
    del params
    scale = jnp.minimum(1.0, limit / (global_norm(grads) + 1e-6))
    return jax.tree.map(lambda g: (g * scale).astype(g.dtype), grads)

  return optax.stateless(update)


def with_moments(state: optax.OptState, count: Array, first: PyTree, second: PyTree
                 ) -> optax.OptState:
  """The state of `make`'s transformation after `count` updates that left these moments.

  Args:
    first, second: trees of the parameters; `second` is not read for SGD.
  """
  def put(node):
    if isinstance(node, _Momentum):
      return _Momentum(count, first, second if jax.tree.leaves(node.second) else ())
    return node._replace(count=count) if isinstance(node, optax.ScaleByScheduleState) else node

  ours = (_Momentum, optax.ScaleByScheduleState)
  return jax.tree.map(put, state, is_leaf=lambda x: isinstance(x, ours))


def decay_mask(params: PyTree) -> PyTree:
  """True where weight decay applies: not on one-dimensional leaves, and not on any bias."""
  def decays(path, leaf):
    return leaf.ndim > 1 and not jax.tree_util.keystr(path, simple=True).endswith('bias')

  return jax.tree_util.tree_map_with_path(decays, params)


def labels(label: Callable[[str], str], params: PyTree) -> PyTree:
  """`label(path)` of every parameter, the path as 'a/b/kernel'.

  Raises:
    ValueError: a label that is not main, slow or frozen.
  """
  def one(path, _):
    path = jax.tree_util.keystr(path, simple=True, separator='/')
    if (found := label(path)) not in ('main', 'slow', 'frozen'):
      raise ValueError(f'{path}: label {found!r}; choose main, slow or frozen')
    return found

  return jax.tree_util.tree_map_with_path(one, params)


def make(config: Mapping[str, Any], total_steps: int, steps_per_epoch: int = 0,
         label: Callable[[str], str] | None = None
         ) -> tuple[optax.GradientTransformation, Callable[[Array | int], dict[str, Array]]]:
  """The optimizer of a run, and its schedule for the log.

  Args:
    config: the fields of `DEFAULTS`; an absent one takes its default. `adam` and `sgd` add
      `weight_decay * parameter` to the gradient, `adamw` decays the parameter itself, as in
      PyTorch. `clip_norm` 0 or None is off. `momentum` is SGD's. OneCycle moves b1 (SGD: momentum)
      .95 -> .85 -> .95 unless `cycle_momentum` is off. Milestones and decays count epochs.
    total_steps: updates of the whole run.
    steps_per_epoch: updates per epoch, for the epoch-wise schedules; 0 = one epoch is the run.
    label: of a parameter's path, see `labels`. 'slow' ones learn by these fields as changed by
      those in `slow`, 'frozen' ones never move and have no moments; None: all are 'main'.

  Returns:
    The transformation, and `schedule(step) -> {'learning_rate', 'b1'}`, scalars in force at that
    update. The transformation counts the updates it took: a skipped step does not move its clock.

  Raises:
    ValueError: a field, name or schedule that is unknown, or no steps.
  """
  c = _fields(config)
  if total_steps < 1:
    raise ValueError(f'optimizer: a run of {total_steps} steps')
  main, log = _rule(c, total_steps, steps_per_epoch)
  slow, _ = _rule(c | _fields(c.get('slow') or {}, whole=False), total_steps, steps_per_epoch)
  clip = [clip_by_global_norm(c['clip_norm'])] if c['clip_norm'] else []
  if label is None:
    return optax.chain(*clip, *main), log

  def init(params):
    return choose(params).init(params)

  def choose(params):
    """Plain, as long as all parameters learn alike: what is saved then has no groups."""
    found = labels(label, params)
    if set(jax.tree.leaves(found)) <= {'main'}:
      return optax.chain(*clip, *main)
    groups = dict(main=optax.chain(*main), slow=optax.chain(*slow), frozen=optax.set_to_zero())
    return optax.chain(*clip, optax.multi_transform(groups, found))

  def update(grads, state, params):
    return choose(params).update(grads, state, params)

  return optax.GradientTransformation(init, update), log


def _rule(c: Mapping[str, Any], total_steps: int, steps_per_epoch: int
          ) -> tuple[list[optax.GradientTransformation], Callable]:
  """The steps that turn gradients into updates, clipping apart, and the schedule for the log."""
  rate, b1 = _schedules(c, total_steps, steps_per_epoch or total_steps)
  scales = {
      'adam': lambda: _scale_by_adam(b1, c['b2'], c['eps']),
      'adamw': lambda: _scale_by_adam(b1, c['b2'], c['eps']),
      'sgd': lambda: _scale_by_momentum(b1)}
  if c['name'] not in scales:
    raise ValueError(f'optimizer.name={c["name"]}: choose one of {" ".join(scales)}')
  decay = []
  if c['weight_decay']:
    decay = [optax.add_decayed_weights(
        c['weight_decay'], decay_mask if c['skip_decay_1d'] else None)]
  scale = [scales[c['name']]()]
  chain = scale + decay if c['name'] == 'adamw' else decay + scale
  chain.append(optax.scale_by_learning_rate(rate))
  return chain, lambda step: {'learning_rate': rate(step), 'b1': b1(step)}
