"""Rebuilding of a missing sensor: heads and translator, losses, and the whole objective."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import config as config_files
from stp_jax import tasks
from stp_jax.convert import beam, published, rules
from stp_jax.convert.beam_rebuild import BLOCK, FAMILY
from stp_jax.data import beam_windows
from stp_jax.data.spec import DataSpec
from stp_jax.models.beam.maps import SENSORS
from stp_jax.models.beam.rebuild import FeatureTranslator, ProjectHead
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.tasks import rebuild_losses

_COMMON = pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'common.py'


class _Pair(nn.Module):
  """One head and one translator, as the case names them."""
  head: tuple[int, int]
  translator: tuple[int, int]

  @nn.compact
  def __call__(self, x, shared, train):
    proj = ProjectHead(*self.head, name='proj')(x, train)
    features, hidden = self.translator
    return proj, FeatureTranslator(features, hidden, 0.0, name='trans')(shared, train)


def _positions_last(x) -> np.ndarray:
  return np.swapaxes(np.asarray(x), 1, 2)


def _heads(case: Case) -> Result:
  c = case.config
  inputs = {k: _positions_last(case.input(k)) for k in ('x', 'shared')}
  targets = {k: _positions_last(case.input(f'target_{k}')) for k in ('proj', 'trans')}
  model = _Pair((c['out_dim'], c['hidden']), (c['input_dim'], c['out_dim']))
  variables, unused = weights.load(
      case, BLOCK, lambda: model.init(jax.random.key(0), **inputs, train=False))
  train = bool(case.spec['train_mode'])

  def loss_of(params):
    (proj, trans), updated = model.apply(
        {**variables, 'params': params}, **inputs, train=train, mutable=['batch_stats'])
    outputs = dict(proj=proj, trans=trans)
    loss = sum(jnp.mean(jnp.square(outputs[k] - targets[k])) for k in targets)
    return loss, (outputs, updated)

  (loss, (outputs, updated)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  found = {k: _positions_last(v) for k, v in outputs.items()}
  found |= {f'after/{k}': v for k, v in rules.to_torch(BLOCK, updated).items()}
  return Result(found, loss=float(loss), grads=weights.gradients(BLOCK, grads),
                n_params=rules.parameter_count(BLOCK, variables['params'], unused))


def _losses(case: Case) -> Result:
  c = case.config

  def frames(x):  # [B T, C, P] -> [B, T, 1, P, C]
    return _positions_last(x).reshape(c['batch'], c['seq'], 1, c['P'], c['C'])

  functions = dict(
      contrast=lambda a, b: rebuild_losses.contrast(a, b, c['temperature']),
      distance=lambda a, b: rebuild_losses.distance(a, b, 'norm'),
      distance_mse=lambda a, b: rebuild_losses.distance(a, b, 'mse'),
      trans_mse=lambda a, b: rebuild_losses.translation({'x': a}, {'x': b}))
  pair = [frames(case.input(k)) for k in ('x1', 'x2')]

  @runtime.compiled
  def everything(a, b):
    return {k: jax.value_and_grad(f, argnums=(0, 1))(a, b) for k, f in functions.items()}

  results = everything(*pair)
  outputs = {k: np.asarray(v) for k, (v, _) in results.items()}
  flat = lambda g: _positions_last(np.asarray(g).reshape(c['batch'] * c['seq'], c['P'], c['C']))
  grads = {f'{k}/x{i + 1}': flat(g) for k, (_, both) in results.items()
           for i, g in enumerate(both)}
  return Result(outputs, grads=grads, n_params=0)


def _objective(case: Case) -> Result:
  c = case.config
  if c['missing_type'] != 'zerolike':
    raise Unsupported(f'missing_type {c["missing_type"]}: its noise is not given')
  backbone = dict(
      beam.variant_fields('mambafuser'), widths=c['widths'], image_depths=c['image_depths'],
      depths=c['lidar_radar_depths'], hidden=c['head'][:2], beams=c['head'][2],
      anchors=(c['vert_anchors'], c['horz_anchors']), n_layer=c['n_layer'], n_head=c['n_head'],
      block_exp=c['block_exp'], d_state=c['d_state'], d_conv=c['d_conv'], expand=c['expand'],
      dropout=0.0, tfm='on' if c['TFM'] else 'off')
  listed = lambda names: [names] if isinstance(names, str) else list(names)
  config = config_files.module(_COMMON).get_config()
  published.apply_fields(config, {
      'data.t_in': c['seq_len'], 'data.t_out': 1, 'model.name': 'mambafusion',
      'model.backbone': backbone, 'task.name': 'rebuild', 'task.loss': 'focal',
      'task.rebuild': dict(
          config.task.rebuild, sources=listed(c['source']), targets=listed(c['target']),
          features=c['proj_out'], distance='norm', image_twice=True, dropout=0.0,
          weights=dict(translation=c['alpha_trans'], contrast=c['alpha_contrast'],
                       distance=c['alpha_distance'], fusion=c['alpha_fusion']))})
  kind = np.float64 if case.double else np.float32
  inputs = {n: np.moveaxis(case.input(n), (0, 2), (1, -1)).astype(kind) for n in SENSORS}
  inputs['gps'] = case.input('gps').astype(kind)
  streams = {n: dict(shape=x.shape[2:] if n != 'gps' else (1, 1, 2), dtype=str(x.dtype))
             for n, x in inputs.items()}
  streams |= {n: dict(shape=(1, 1, 1), dtype='int16') for n in beam_windows.NEEDED}
  task = tasks.build(config, DataSpec('case', inputs['image'].shape[2:], streams=streams))
  lost = task.hidden(inputs, jax.random.key(0))
  variables, unused = weights.load(case, FAMILY, lambda: task.init(jax.random.key(0)))
  target = jnp.asarray(case.input('target'), kind)

  def loss_of(params):
    logits, features, projections, rebuilt = task.composite.apply(
        {**variables, 'params': params}, inputs, lost)
    parts = task.parts(logits, target, features, projections, rebuilt)
    loss = sum(task.rebuilding.weights[n] * v for n, v in parts.items())
    return loss, (parts, logits, rebuilt)

  # Not `runtime.compiled`: without its optimisations XLA's CPU backend gives this gradient NaNs.
  (loss, (parts, logits, rebuilt)), grads = jax.jit(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  names = dict(translation='trans')
  outputs = {f'loss_{names.get(n, n)}': np.asarray(v) for n, v in parts.items()}
  made = np.asarray(rebuilt[task.targets_of[0]])
  outputs |= dict(loss_total=np.asarray(loss), logits=np.asarray(logits),
                  s2t=_positions_last(made.reshape(-1, np.prod(made.shape[2:4]), made.shape[4])))
  return Result(outputs, loss=float(loss), grads=weights.gradients(FAMILY, grads),
                n_params=rules.parameter_count(FAMILY, variables['params'], unused))


def run(case: Case) -> Result:
  """Runs a case by its model."""
  model = case.spec['model']
  runs = dict(rebuild_heads=_heads, rebuild_losses=_losses, rebuild_objective=_objective)
  if model not in runs:
    raise Unsupported(f'{case.spec["kind"]} {model}')
  return runs[model](case)
