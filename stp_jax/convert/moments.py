"""The optimizer of a PyTorch checkpoint as ours, so that training goes on where it stopped.

PyTorch numbers an optimizer's parameters and names none: the numbers follow the order in which the
model registers them, which is that of its state_dict without buffers. Every shape is compared, and
a parameter without moments must be one that nothing uses; otherwise the moments are left behind.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stp_jax.convert import rules

_FIRST = ('exp_avg', 'momentum_buffer')
_BUFFERS = ('running_mean', 'running_var')


class OrderUnknown(ValueError):
  """Moments that cannot be given to parameters; one line that says why."""


@dataclasses.dataclass(frozen=True)
class Moments:
  """Attributes:
    steps: updates taken. first, second: PyTorch key -> moment (`second` is empty for SGD).
    fields: dotted config fields that the optimizer and its schedule say.
  """
  steps: int
  first: dict[str, np.ndarray]
  second: dict[str, np.ndarray]
  fields: dict[str, Any]


def parameter_names(family: rules.Family, weights: Mapping[str, np.ndarray]) -> list[str]:
  """The parameters among `weights` in their order, each once where PyTorch lists it twice."""
  names: dict[str, str] = {}
  for key in weights:
    buffer = (key.rpartition('.')[2] in _BUFFERS or key in family.constants
              or rules.matches(family.buffers, key))
    if not buffer:
      names.setdefault(rules.first_name(family, key), key)
  return list(names)


def _orders(names: Sequence[str], weights: Mapping[str, np.ndarray], groups: Sequence[Sequence[int]]
            ) -> list[str]:
  """Names in the optimizer's numbering: as registered, or those without weight decay first."""
  if len(groups) == 2:
    plain = [n for n in names if weights[n].ndim <= 1 or n.endswith('.bias')]
    names = plain + [n for n in names if n not in set(plain)]
    if len(plain) != len(groups[0]):
      raise OrderUnknown(f'its first group has {len(groups[0])} parameters, not the {len(plain)} '
                         'without weight decay')
  elif len(groups) != 1:
    raise OrderUnknown(f'its parameters are in {len(groups)} groups')
  return list(names)


def read(family: rules.Family, weights: Mapping[str, np.ndarray], live: set[str],
         optimizer: Mapping[str, Any], scheduler: Mapping[str, Any] | None = None) -> Moments:
  """The moments of a state_dict of Adam, AdamW or SGD.

  Args:
    weights: as read, in the file's order. live: keys of parameters that ours has.
    optimizer, scheduler: their state_dicts.

  Raises:
    OrderUnknown: no moments, or which parameter they belong to is not certain.
  """
  try:
    groups, state = optimizer['param_groups'], dict(optimizer['state'])
    numbered = [int(i) for g in groups for i in g['params']]
  except (KeyError, TypeError, ValueError) as error:
    raise OrderUnknown('it holds no optimizer state') from error
  if not state:
    raise OrderUnknown('its optimizer has taken no step')
  names = parameter_names(family, weights)
  if len(numbered) != len(names):
    raise OrderUnknown(f'its optimizer has {len(numbered)} parameters, the model {len(names)}')
  names = _orders(names, weights, [g['params'] for g in groups])
  first, second, steps = {}, {}, set()
  for number, name in zip(numbered, names):
    entry = state.get(number)
    if not entry:
      if rules.first_name(family, name) in live:
        raise OrderUnknown(f'{name} has no moments')
      continue
    kind = next((k for k in _FIRST if entry.get(k) is not None), None)
    if kind is None or 'max_exp_avg_sq' in entry:
      raise OrderUnknown(f'its optimizer keeps {" ".join(map(str, entry))}, not the moments of '
                         'Adam or SGD')
    if np.shape(entry[kind]) != weights[name].shape:
      raise OrderUnknown(f'moment {number} is {tuple(entry[kind].shape)}, but {name} '
                         f'{weights[name].shape}')
    first[name] = entry[kind]
    if kind == 'exp_avg':
      second[name] = entry['exp_avg_sq']
    steps.add(int(entry.get('step', (scheduler or {}).get('last_epoch', 0))))
  if len(steps) != 1:
    raise OrderUnknown(f'its parameters took {sorted(steps)} steps')
  return Moments(steps.pop(), first, second, _fields(groups, bool(second), scheduler or {}))


def _fields(groups: Sequence[Mapping[str, Any]], adam: bool, scheduler: Mapping[str, Any]
            ) -> dict[str, Any]:
  """What the optimizer itself says is exact; arguments may have been changed on the way."""
  group = groups[-1]
  fields: dict[str, Any] = dict(eps=group['eps'], b2=group['betas'][1]) if adam else dict(
      name='sgd', momentum=group['momentum'])
  if 'decoupled_weight_decay' in group:  # an older Adam and AdamW look alike
    fields['name'] = 'adamw' if group['decoupled_weight_decay'] else 'adam'
  fields['weight_decay'] = group.get('weight_decay', 0)
  fields['skip_decay_1d'] = len(groups) == 2
  phases = scheduler.get('_schedule_phases') or ()
  if scheduler.get('_anneal_func_type') == 'cos' and len(phases) == 2 and 'max_lr' in group:
    top, low = group['max_lr'], group['initial_lr']
    fields |= dict(
        schedule='onecycle', learning_rate=top, div_factor=top / low,
        final_div_factor=low / group['min_lr'], warmup_epochs=0.0,
        pct_start=(phases[0]['end_step'] + 1) / scheduler['total_steps'],
        cycle_momentum=bool(scheduler.get('cycle_momentum')))
  elif adam and not scheduler:
    fields['learning_rate'] = group['lr']
  result = {f'optimizer.{k}': float(v) if isinstance(v, int) and not isinstance(v, bool) else v
            for k, v in fields.items()}
  if 'schedule' in fields:
    result['steps'] = int(scheduler['total_steps'])
  return result
