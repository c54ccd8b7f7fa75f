"""GS2PM's own cuts of recurrent networks (group gs2pm_baselines)."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import convert, models
from stp_jax.convert import rules
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last
from stp_jax.typing import Array

GROUPS = ('gs2pm_baselines',)
_ELSEWHERE = 'stp_jax.parity.gs2pm_models'  # the networks that are no cut of one of ours


def stack(c: Mapping[str, Any]) -> dict[str, Any]:
  """Our keywords of a stack of layers, from what upstream calls them."""
  return dict(
      features=tuple(c['hidden_channels_list']), kernel_size=tuple(c['kernel_size_list']),
      forget_bias=c['forget_bias'])


def _predrnnpp(c: Mapping[str, Any]) -> dict[str, Any]:
  return dict(stack(c), ghu_features=c['ghu_hidden_channels'],
              ghu_kernel_size=c['ghu_kernel_size'])


def _e3dlstm(c: Mapping[str, Any]) -> dict[str, Any]:
  return dict(features=tuple(c['hidden_channels_list']), window=c['window_length'],
              kernel_size=tuple(c['kernel_size']), attention='upstream')


# Model there -> our name, (config) -> our backbone's keywords.
_BACKBONES: dict[str, tuple[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = dict(
    predrnn=('gs2pm_predrnn', stack),
    predrnnpp=('gs2pm_predrnnpp', _predrnnpp),
    mim=('gs2pm_mim', lambda c: dict(stack(c), difference='upstream')),
    e3dlstm=('gs2pm_e3dlstm', _e3dlstm),
    peephole_convlstm=('peephole_convlstm', lambda c: dict(stack(c), peepholes='upstream')))


def run(case: Case) -> Result:
  """The forecast, its mean squared plus absolute error, and the gradients, from one call."""
  c, name = case.config, case.spec['model']
  if case.spec['kind'] == 'model' and name in _BACKBONES and case.spec['variant'] == 'gs2pm':
    name, backbone = _BACKBONES[name][0], _BACKBONES[name][1](c)
  elif importlib.util.find_spec(_ELSEWHERE):
    return importlib.import_module(_ELSEWHERE).run(case)
  else:
    raise Unsupported(f'{case.spec["kind"]} {name} {case.spec["variant"]}')
  if name != 'peephole_convlstm':
    backbone['skipped'] = 1
  return forecast(
      case, dict(name=name, backbone=backbone),
      lambda error: jnp.mean(jnp.square(error)) + jnp.mean(jnp.abs(error)))


def forecast(case: Case, config: Mapping[str, Any], cost: Callable[[Array], Array]) -> Result:
  """The forecast `y` of `x` by the model of this config, and the cost of its error."""
  frames, target = (
      channels_last(case.input(k)).astype(np.float64 if case.double else np.float32)
      for k in ('x', 'target'))
  model = models.build(
      config, shape=frames.shape[2:], t_in=frames.shape[1],
      t_out=target.shape[1])
  family = convert.family_of(config['name'])
  variables, unused = weights.load(case, family, lambda: model.init(jax.random.key(0), frames))

  def loss_of(params):
    y = model.apply({'params': params}, frames).prediction
    return cost(y - target), y

  (loss, y), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  return Result(
      {'y': channels_first(y), 'loss': np.asarray(loss)}, loss=float(loss),
      grads=weights.gradients(family, grads),
      n_params=rules.parameter_count(family, variables['params'], unused),
      notes=weights.checkpoint_notes(case))
