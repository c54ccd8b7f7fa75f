"""Training steps of a beam network: AdamW on everything, clipping, moving average of weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stp_jax import optimizers
from stp_jax.convert import beam, rules
from stp_jax.data.deepsense_features import soft_labels
from stp_jax.models.beam.maps import SENSORS
from stp_jax.parity import mamba_models, runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported


def _optimizer(case: Case) -> optax.GradientTransformation:
  o = case.spec['optimizer']
  if o['trainable'] != 'all':
    raise Unsupported(f'training of {o["trainable"]}')
  fields = dict(
      name=o['name'], learning_rate=o['lr'], b1=o['beta1'], b2=o['beta2'], eps=o['eps'],
      weight_decay=o['weight_decay'], skip_decay_1d=False, clip_norm=o['clip_norm'] or 0.0,
      schedule='constant')
  return optimizers.make(fields, o['steps'], o['steps'])[0]


def run(case: Case) -> Result:
  """Losses and gradient norms of every step, weights and averages after the last."""
  c, o, model = case.config, case.spec['optimizer'], mamba_models.network(case)
  decay = o.get('ema_decay') or 0.0

  def inputs(k):
    arrays = {name: case.input(f'step{k}/{name}') for name in (*SENSORS, 'gps')}
    target = soft_labels(case.input(f'step{k}/beamidx'), beams=c['head'][-1])
    batch = mamba_models.batch_of(arrays, case.double)
    return batch, target.astype(batch['gps'].dtype)

  batch, _ = inputs(0)
  first, unused = weights.load(case, beam.FAMILY, lambda: model.init(jax.random.key(0), batch))
  tx = _optimizer(case)

  @runtime.compiled
  def step(variables, state, ema, batch, target):
    def loss_of(params):
      logits, updated = model.apply(
          {**variables, 'params': params}, batch, True, mutable=['batch_stats'])
      return mamba_models.focal(logits, target), updated

    (loss, updated), grads = jax.value_and_grad(loss_of, has_aux=True)(variables['params'])
    updates, state = tx.update(grads, state, variables['params'])
    params = optax.apply_updates(variables['params'], updates)
    ema = optax.incremental_update(params, ema, 1 - decay)
    return {'params': params, **updated}, state, ema, loss, optimizers.global_norm(grads)

  variables = jax.tree.map(jnp.asarray, first)
  state, ema, losses, norms = tx.init(variables['params']), variables['params'], [], []
  for k in range(o['steps']):
    batch, target = inputs(k)
    variables, state, ema, loss, norm = step(variables, state, ema, batch, target)
    losses.append(float(loss))
    norms.append(float(norm))
  logits = runtime.compiled(lambda v: model.apply(v, batch))
  averaged = {**variables, 'params': ema}
  torch = lambda tree: rules.to_torch(beam.FAMILY, tree)
  before, after = torch(first), torch(variables)
  change: dict[str, Any] = {k: np.linalg.norm(np.asarray(v - before[k], np.float64))
                            for k, v in after.items()}
  outputs = {
      'loss': np.array(losses), 'grad_norm_before_clip': np.array(norms),
      'eval_logits_last_batch': np.asarray(logits(variables)),
      'eval_logits_ema_last_batch': np.asarray(logits(averaged)),
      **{f'param_delta_norm/{k}': v for k, v in change.items()},
      **{f'param_after/{k}': v for k, v in after.items()},
      **{f'ema_after/{k}': v for k, v in torch({'params': ema}).items()}}
  return Result(outputs, loss=losses[0],
                n_params=rules.parameter_count(beam.FAMILY, first['params'], unused))
