"""Optimizers, step for step the ones PyTorch training used; schedules are in `schedules`."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stp_jax import schedules, stacks
from stp_jax.schedules import Schedule
from stp_jax.typing import Array, PyTree

DEFAULTS = dict(
    name='adam', learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, momentum=0.9,
    weight_decay=0.0, skip_decay_1d=True, clip_norm=0.0, clip_value=0.0,
    schedule='onecycle', pct_start=0.3, div_factor=25.0, final_div_factor=1e4, cycle_momentum=True,
    warmup_epochs=0.0, warmup_lr=1e-5, min_lr=1e-6, k_decay=1.0,
    decay_epochs=100.0, decay_rate=0.1, milestones=(), by_epoch=True,
    initial_epochs=15.0, restart_epochs=0.0, restart_lr=0.0, restart_multiplier=1.0,
    plateau_factor=0.1, plateau_patience=10, plateau_threshold=1e-4, plateau_cooldown=0)
# Fields of the same section of a config that others read.
_ELSEWHERE = ('steps_per_epoch', 'ema_decay', 'accumulate', 'slow')


class _Momentum(NamedTuple):
  """The state of Adam and of SGD: `second` is empty for SGD."""
  count: Array
  first: PyTree
  second: PyTree


class RateScale(NamedTuple):
  """What `monitor.Plateau` left of the learning rate, `[]` float32; only with schedule=plateau."""
  scale: Array


def _scale_by_plateau() -> optax.GradientTransformation:
  def init(params):
    del params
    return RateScale(jnp.ones([], jnp.float32))

  def update(updates, state, params=None):
    del params
    return jax.tree.map(lambda u: (u * state.scale).astype(u.dtype), updates), state

  return optax.GradientTransformation(init, update)


def _is_scale(node: Any) -> bool:
  return isinstance(node, RateScale)


def with_rate_scale(state: optax.OptState, scale: float) -> optax.OptState:
  """The state of an optimizer whose schedule is plateau, with another scale of its rate."""
  def put(node):
    if not _is_scale(node):
      return node
    return RateScale(jax.device_put(np.float32(scale), getattr(node.scale, 'sharding', None)))

  return jax.tree.map(put, state, is_leaf=_is_scale)


def _fields(config: Mapping[str, Any], whole: bool = True) -> dict[str, Any]:
  """The fields with their defaults, or without (`whole=False`); unknown ones are an error."""
  unknown = [k for k in config if k not in DEFAULTS and k not in _ELSEWHERE]
  if unknown:
    raise ValueError(f'optimizer: unknown field {", ".join(unknown)}; known: {" ".join(DEFAULTS)}')
  return (DEFAULTS if whole else {}) | dict(config)


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


def clip_by_value(limit: float) -> optax.GradientTransformation:
  """Every element of a gradient within -limit and limit, PyTorch's clip_grad_value_."""
  return optax.stateless(
      lambda grads, params=None: jax.tree.map(lambda g: jnp.clip(g, -limit, limit), grads))


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
  """True where weight decay applies: not on one-dimensional leaves, and not on any bias.

  Of a stack of equal layers the first axis counts the layers, see `stp_jax.stacks`.
  """
  def decays(path, leaf):
    names = jax.tree_util.keystr(path, simple=True, separator='/').split('/')
    return leaf.ndim - stacks.is_stacked(names) > 1 and not names[-1].endswith('bias')

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
         ) -> tuple[optax.GradientTransformation, Callable[..., dict[str, Array]]]:
  """The optimizer of a run, and its schedule for the log.

  Args:
    config: the fields of `DEFAULTS`; an absent one takes its default. `adam` and `sgd` add
      `weight_decay * parameter` to the gradient, `adamw` decays the parameter itself, as in
      PyTorch. `clip_norm` 0 or None is off, and `clip_value`, which comes first. `momentum` is
      SGD's. OneCycle moves b1 (SGD: momentum) .95 -> .85 -> .95 unless `cycle_momentum` is off.
      Milestones and decays count epochs.
    total_steps: updates of the whole run.
    steps_per_epoch: updates per epoch, for the epoch-wise schedules; 0 = one epoch is the run.
    label: of a parameter's path, see `labels`. 'slow' ones learn by these fields as changed by
      those in `slow`, 'frozen' ones never move and have no moments; None: all are 'main'.

  Returns:
    The transformation, and `schedule(step, opt_state=None) -> {'learning_rate', 'b1'}`, scalars in
    force at that update; what plateau made of the rate stands in the optimizer's state. The
    transformation counts the updates it took: a skipped step does not move its clock.

  Raises:
    ValueError: a field, name or schedule that is unknown, or no steps.
  """
  c = _fields(config)
  if total_steps < 1:
    raise ValueError(f'optimizer: a run of {total_steps} steps')
  for name in ('clip_norm', 'clip_value'):
    if name in (c.get('slow') or {}):
      raise ValueError(f'optimizer.slow.{name}: gradients are clipped all together, by '
                       f'optimizer.{name}')
  main, log = _rule(c, total_steps, steps_per_epoch)
  slow, _ = _rule(c | _fields(c.get('slow') or {}, whole=False), total_steps, steps_per_epoch)
  clip = [clip_by_value(c['clip_value'])] if c['clip_value'] else []
  clip += [clip_by_global_norm(c['clip_norm'])] if c['clip_norm'] else []
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
  rate, b1 = schedules.make(c, total_steps, steps_per_epoch or total_steps)
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
  if c['schedule'] == 'plateau':
    chain.append(_scale_by_plateau())

  def log(step, opt_state=None):
    found = [n.scale for n in jax.tree.leaves(opt_state, is_leaf=_is_scale) if _is_scale(n)]
    return {'learning_rate': rate(step) * found[0] if found else rate(step), 'b1': b1(step)}

  return chain, log
