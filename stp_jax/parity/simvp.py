"""SimVP and TAU: the network alone, the rollout around it, and training steps."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stp_jax import models, optimizers
from stp_jax.convert import rules
from stp_jax.convert.simvp import FAMILY
from stp_jax.models.simvp import translators
from stp_jax.models.simvp.translators.tau import differential_divergence
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last, fusion_of
from stp_jax.parity.schedule import optimizer_config, schedule_values

GROUPS = ('simvp',)


def _backbone(c: Mapping[str, Any]) -> dict[str, Any]:
  """Our keywords; upstream's case-insensitive `model_type` means gSTA where it is empty."""
  translator = (c.get('model_type') or 'gsta').lower()
  if translator not in translators.names():
    raise Unsupported(f'translator {translator}')
  # Drop path is off in every case, so neither upstream's rates nor its floor are asked for.
  quirks = dict(shift_mask='upstream') if translator == 'swin' else {}
  return dict(
      translator=translator, mlp_ratio=c['mlp_ratio'], **quirks,
      **{k: c[k] for k in ('hid_S', 'hid_T', 'N_S', 'N_T', 'spatio_kernel_enc',
                           'spatio_kernel_dec')})


def _count(variables: Mapping[str, Any], unused: Mapping[str, np.ndarray]) -> int:
  return rules.parameter_count(FAMILY, variables['params'], unused)


def _network(case: Case) -> Result:
  """`pred = network(frames)` in both modes; the frames are what the network reads, fused."""
  c = case.config
  network = models.BACKBONES['simvp'](channels=c['img_channel'], **_backbone(c))
  frames = channels_last(case.input('frames'))[:, :c['pre_seq_length']]
  target = channels_last(case.input('target'))
  variables, unused = weights.load(
      case, FAMILY, lambda: network.init(jax.random.key(0), frames, False))

  def apply(variables, train):
    (pred, _), updated = network.apply(variables, frames, train, mutable=['batch_stats'])
    return pred, updated

  def loss_of(params):
    pred, updated = apply({**variables, 'params': params}, case.spec['loss']['mode'] == 'train')
    return jnp.mean(jnp.square(pred - target)), (pred, updated)

  return _result(case, variables, unused, lambda v: apply(v, False)[0], loss_of)


def _result(case, variables, unused, evaluate, loss_of) -> Result:
  pred = runtime.compiled(evaluate)(variables)
  (loss, (pred_train, updated)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  outputs = {'pred': channels_first(pred), 'pred_train': channels_first(pred_train)}
  buffers = rules.to_torch(FAMILY, updated)
  outputs |= {f'after_train_forward/{k}': v for k, v in buffers.items()}
  return Result(outputs, loss=float(loss), grads=weights.gradients(FAMILY, grads),
                n_params=_count(variables, unused))


class _Rollout:
  """The forecaster of a rollout or training case, upstream's loss, and batches as it wants them."""

  def __init__(self, case: Case):
    c = self.config = case.config
    self.image, total = c['img_channel'], c['total_channel']
    fuse = fusion_of(c['fusion_method'], self.image, total, 1)
    height, width = c['in_shape'][-2:]
    self.model = models.build(
        dict(name='simvp', fusion=fuse.kind, mix='upstream', backbone=_backbone(c)),
        shape=(height, width, self.image), forcings=total - self.image,
        t_in=c['pre_seq_length'], t_out=c['aft_seq_length'])

  def split(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """`[B, T, C, H, W]` -> image and forcing planes, channels last."""
    data = channels_last(data)
    planes = data[..., self.image:]
    return data[..., :self.image], planes if planes.shape[-1] else None

  def init(self, data: np.ndarray) -> Any:
    return self.model.init(jax.random.key(0), *self.split(data))

  def apply(self, variables, frames, planes, train):
    out, updated = self.model.apply(
        variables, frames, planes, None, train, mutable=['batch_stats'])
    return out.prediction, updated

  def loss(self, pred, labels):
    """MSE, and for TAU alpha times the differential divergence."""
    loss = jnp.mean(jnp.square(pred - labels))
    if self.config['method'].lower() == 'tau':
      loss += self.config['alpha'] * jnp.mean(differential_divergence(pred, labels))
    return loss


def _rollout(case: Case) -> Result:
  rollout = _Rollout(case)
  data, labels = case.input('data'), channels_last(case.input('labels'))
  frames, planes = rollout.split(data)
  variables, unused = weights.load(case, FAMILY, lambda: rollout.init(data))

  def loss_of(params):
    pred, updated = rollout.apply(
        {**variables, 'params': params}, frames, planes, case.spec['loss']['mode'] == 'train')
    return rollout.loss(pred, labels), (pred, updated)

  return _result(case, variables, unused,
                 lambda v: rollout.apply(v, frames, planes, False)[0], loss_of)


def _train(case: Case) -> Result:
  """The published training loop, with our optimizer and schedule."""
  c, rollout = case.config, _Rollout(case)
  data, steps, per_epoch = case.input('data'), case.spec['optimizer']['steps'], c['steps_per_epoch']
  variables, unused = weights.load(case, FAMILY, lambda: rollout.init(data[0]))
  count = _count(variables, unused)
  tx, _ = optimizers.make(*optimizer_config(c, per_epoch))

  def step(variables, state, frames, planes, labels):
    def loss_of(params):
      pred, updated = rollout.apply({**variables, 'params': params}, frames, planes, True)
      return rollout.loss(pred, labels), updated

    (loss, updated), grads = jax.value_and_grad(loss_of, has_aux=True)(variables['params'])
    updates, state = tx.update(grads, state, variables['params'])
    params = optax.apply_updates(variables['params'], updates)
    return {'params': params, **updated}, state, loss, optimizers.global_norm(grads)

  step, state, losses, norms = runtime.compiled(step), tx.init(variables['params']), [], []
  for k in range(steps):
    frames, planes = rollout.split(data[k % len(data)])
    labels = frames[:, -c['aft_seq_length']:]
    variables, state, loss, norm = step(variables, state, frames, planes, labels)
    losses.append(float(loss))
    norms.append(float(norm))
  frames, planes = rollout.split(data[0])
  pred = runtime.compiled(lambda v: rollout.apply(v, frames, planes, False)[0])(variables)
  chunks = -(-c['aft_seq_length'] // c['pre_seq_length'])
  # PyTorch counts the batches that batch norm saw; nothing reads the count.
  kept = {k: v + steps * chunks if k.endswith('num_batches_tracked') else v
          for k, v in unused.items()}
  after = rules.to_torch(FAMILY, variables, kept)
  outputs = {
      'loss': np.array(losses), 'grad_norm': np.array(norms), 'pred_after': channels_first(pred),
      'epoch_mean_loss': np.array(losses).reshape(-1, per_epoch).mean(1),
      **{k: v[:steps] for k, v in schedule_values(c, per_epoch).items()}}
  return Result(outputs, files={'weights_after.npz': after}, loss=losses[0], n_params=count,
                notes=weights.checkpoint_notes(case))


def run(case: Case) -> Result:
  """Runs a case by its kind and level."""
  if case.spec['kind'] == 'train_steps':
    return _train(case)
  runs = {'network': _network, 'rollout': _rollout}
  level = case.spec.get('level')
  if case.spec['kind'] != 'model' or level not in runs:
    raise Unsupported(f'{case.spec["kind"]} at level {level}')
  return runs[level](case)
