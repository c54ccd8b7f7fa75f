"""DMVFN with given routing draws: the blocks' images and losses, a rollout, the warp."""

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.dmvfn import FAMILY
from stp_jax.models.layers.warp import warp
from stp_jax.models.recurrent.dmvfn import DMVFN
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last

GROUPS = ('dmvfn',)


def run(case: Case) -> Result:
  """The first frame is predicted with `ref_train`, the rollout uses `ref_infer` at each step."""
  if case.spec['kind'] != 'model' or case.spec['model'] != 'dmvfn':
    raise Unsupported(f'{case.spec["kind"]} {case.spec["model"]}')
  c, dtype = case.config, np.float64 if case.double else np.float32
  read = lambda name: case.input(name).astype(dtype)
  frames = channels_last(read('frames'))
  if len(c['num_features']) != c['num_block'] or len(c['scale']) != c['num_block']:
    raise Unsupported(f'num_block {c["num_block"]} with {len(c["num_features"])} num_features')
  model = DMVFN(
      channels=frames.shape[-1], features=tuple(c['num_features']), scales=tuple(c['scale']),
      routing_features=c['routing_out_channels'], beta=c['beta'], gamma=c['gamma'],
      levels=c['lap_max_levels'], routing='upstream', grid='upstream',
      clip=True)
  use = np.ones(frames.shape[:2])
  variables, unused = weights.load(
      case, FAMILY, lambda: model.init(jax.random.key(0), frames, use, t_in=2))

  def loss_of(params):
    variables = {'params': params}
    _, merged = model.apply(
        variables, frames[:, 0], frames[:, 1], True, read('ref_train'), method='predict_next')
    distances = model.apply(variables, merged, frames[:, 2], method='distances')
    loss = model.apply(variables, distances, method='loss')
    return jnp.mean(loss), (merged, jnp.mean(jnp.stack(distances), 1))

  draws = read('ref_infer')
  given = np.concatenate([frames[:, :2], np.zeros_like(frames[:, :1]).repeat(len(draws), 1)], 1)
  pred = runtime.compiled(lambda v: model.apply(
      v, given, np.zeros(given.shape[:2]), t_in=2, draws=draws)[0])(variables)
  (loss, (merged, distances)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  outputs = {f'merged_train_{i}': channels_first(m) for i, m in enumerate(merged)}
  outputs |= {'lap_per_block': np.asarray(distances), 'loss': np.asarray(loss),
              'pred': channels_first(pred)}
  if case.wants('warp'):
    flow = np.moveaxis(read('warp_flow'), 1, -1)
    outputs['warp'] = channels_first(warp(jnp.asarray(frames[:, 0]), jnp.asarray(flow)))
  return Result(
      outputs, loss=float(loss), grads=weights.gradients(FAMILY, grads),
      n_params=rules.parameter_count(FAMILY, variables['params'], unused),
      notes=weights.checkpoint_notes(case))
