"""The selective scan, the Mamba block and the gated bidirectional block (group mamba)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.convert import rules
from stp_jax.models.layers.mamba import BiMambaBlock, Mamba
from stp_jax.models.ops.selective_scan import selective_scan
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported

_FAMILY = rules.Family('mamba', rules.spell)
_OPTIONAL = {'has_D': 'D', 'has_z': 'z', 'has_delta_bias': 'delta_bias'}


def _scan(case: Case) -> Result:
  """The scan alone, differentiated in all its inputs."""
  c = case.config
  names = ['u', 'delta', 'A', 'B', 'C', *(name for has, name in _OPTIONAL.items() if c[has])]
  kind = np.float64 if case.double else np.float32
  inputs = {name: case.input(name).astype(kind) for name in names}
  cotangent = case.input('cotangent').astype(kind)

  def loss_of(inputs):
    y, last = selective_scan(**inputs, softplus=bool(c['delta_softplus']))
    return jnp.sum(y * cotangent), (y, last)

  (_, (y, last)), grads = runtime.compiled(jax.value_and_grad(loss_of, has_aux=True))(inputs)
  # A float32 sum of thousands of terms of either sign is off by as much as the case allows.
  loss = float(np.sum(np.asarray(y, np.float64) * cotangent))
  return Result({'out': np.asarray(y), 'last_state': np.asarray(last)}, loss=loss,
                grads={k: np.asarray(v) for k, v in grads.items()})


def _block(case: Case, module: nn.Module) -> Result:
  """A module of tokens against a target, by the mean squared error."""
  kind = np.float64 if case.double else np.float32
  x, target = (case.input(name).astype(kind) for name in ('x', 'target'))
  variables, unused = weights.load(case, _FAMILY, lambda: module.init(jax.random.key(0), x))

  def loss_of(params):
    y = module.apply({'params': params}, x)
    return jnp.mean(jnp.square(y - target)), y

  (loss, y), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  return Result(
      {'y': np.asarray(y)}, loss=float(loss), grads=weights.gradients(_FAMILY, grads),
      n_params=rules.parameter_count(_FAMILY, variables['params'], unused))


def run(case: Case) -> Result:
  """Runs a case by its kind and model."""
  c, what = case.config, (case.spec['kind'], case.spec['model'])
  if what == ('op', 'selective_scan'):
    return _scan(case)
  fields = {name: c[name] for name in ('d_state', 'd_conv', 'expand', 'dt_rank') if name in c}
  if what == ('block', 'mamba_block'):
    return _block(case, Mamba(**fields))
  if what == ('block', 'bimamba_block'):
    return _block(case, BiMambaBlock(align='upstream', residual=False, norm='joint', **fields))
  raise Unsupported(' '.join(what))
