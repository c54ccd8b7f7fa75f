"""The networks that GS2PM compares with and that are no cut of one of ours; a cell of TrajGRU.

Groups unet, motionrnn, trajgru, lmc and escl; of gs2pm_baselines, whose module calls this one,
convlstmnet.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import convert, models
from stp_jax.convert import rules
from stp_jax.convert.trajgru import CELL
from stp_jax.models.layers.warp import warp
from stp_jax.models.recurrent.trajgru import TrajGRUCell
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last
from stp_jax.typing import Array

GROUPS = ('unet', 'motionrnn', 'trajgru', 'lmc', 'escl')
Config = Mapping[str, Any]


def _unet(c: Config) -> dict[str, Any]:
  return dict(features=[c['base'] << i for i in range(4)], outputs=c['ol'])


def _motionrnn(c: Config) -> dict[str, Any]:
  # Upstream sets k to 3, whatever it is given.
  return dict(
      features=c['hidden_channels_list'], kernel_size=c['kernel_size_list'],
      forget_bias=c['forget_bias'], alpha=c['alpha'], highway='upstream', skipped=1)


def _trajgru(c: Config) -> dict[str, Any]:
  hidden = c['hidden']
  return dict(
      features=hidden, stems=(c['stem'], *hidden[1:]), kernels=c['kernel_enc'], links=c['L'],
      back_kernels=c['kernel_dec'], back_links=c['L'], widths=(hidden[2], hidden[1], c['stem']),
      flow_features=c['flow_hidden'], update_gate='upstream',
      outputs=0 if c['C_out'] == c['C'] else c['C_out'])


def _lmc(c: Config) -> dict[str, Any]:
  return dict(
      features=(c['w64'], c['w128']), motion=[c[f'w{n}'] for n in (64, 128, 256, 512)],
      memory_size=c['memory_size'], attention=c['attn_hidden'], phase=c['phase'])


def _net(c: Config) -> dict[str, Any]:
  if c.get('teacher_forcing') and c.get('scheduled_sampling_ratio'):
    raise Unsupported('teacher_forcing: its draws are not given')
  return dict(
      features=c['hidden_channels'], layers=c['layers_per_block'], skip=c['skip_stride'],
      kernel_size=c['kernel_size'], cell=c['cell'], squash=c['output_sigmoid'],
      use_bias=c.get('bias', True), **c['cell_params'])


# Model -> our backbone's keywords.
_BACKBONES: dict[str, Callable[[Config], dict[str, Any]]] = dict(
    unet=_unet, motionrnn=_motionrnn, trajgru=_trajgru, lmc=_lmc, convlstmnet=_net,
    escl=lambda c: dict(_net(c), states='shared'))


def read(case: Case, name: str) -> np.ndarray:
  """An input `[..., C, H, W]` -> `[..., H, W, C]`, in the case's precision."""
  return channels_last(case.input(name)).astype(np.float64 if case.double else np.float32)


def squares_and_sizes(error: Array) -> Array:
  """GS2PM's loss."""
  return jnp.mean(jnp.square(error)) + jnp.mean(jnp.abs(error))


def finish(case: Case, family: rules.Family, variables: Any, unused: Mapping[str, np.ndarray],
           apply: Callable[[Any], Any], target: np.ndarray,
           loss_of_error: Callable[[Array], Array] = squares_and_sizes, output: str = 'y'
           ) -> Result:
  """Outputs, loss, gradients and buffers, from one call.

  Args:
    apply: variables -> (`output`, further outputs by name, new buffers or None).
  """
  def loss_of(params):
    y, more, updated = apply({**variables, 'params': params})
    return loss_of_error(y - target), (y, more, updated)

  (loss, (y, more, updated)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  outputs = {k: channels_first(v) for k, v in {output: y, **more}.items()}
  if updated:
    outputs |= {f'running/{k}': v for k, v in rules.to_torch(family, updated).items()}
  return Result(
      outputs | {'loss': np.asarray(loss)}, loss=float(loss),
      grads=weights.gradients(family, grads),
      n_params=rules.parameter_count(family, variables['params'], unused),
      notes=weights.checkpoint_notes(case))


def _every(name: str, case: Case, model: models.Forecaster, frames: np.ndarray, variables: Any
           ) -> tuple[Array, dict[str, Array]]:
  """Frames 1 to T - 1, and what an ESCL returns beside them."""
  if name == 'convlstmnet':
    out = model.apply(variables, frames)
    return jnp.concatenate([out.context, out.prediction], 1), {}
  padded = np.concatenate([frames, np.zeros_like(frames[:, :1]).repeat(model.t_out, 1)], 1)
  predictions, seen = model.backbone.apply(
      {'params': variables['params']['backbone']}, padded, np.zeros(padded.shape[:2]),
      t_in=model.t_in, method='roll')
  return predictions[:, -case.config['output_frames']:], {'f1': seen[0], 'f2': seen[1]}


def network(case: Case, name: str, backbone: Mapping[str, Any]) -> tuple[Any, ...]:
  """Model, frames, target, family, variables and unused tensors of a forecast."""
  frames, target, c = read(case, 'x'), read(case, 'target'), case.config
  model = models.build(
      dict(name=name, backbone=dict(backbone)), shape=frames.shape[2:], t_in=frames.shape[1],
      t_out=c['T_out'])
  family = convert.family_of(name)
  variables, unused = weights.load(case, family, lambda: model.init(jax.random.key(0), frames))
  return model, frames, target, family, variables, unused


def _forecast(case: Case) -> Result:
  name, c = case.spec['model'], case.config
  model, frames, target, family, variables, unused = network(case, name, _BACKBONES[name](c))
  train = case.spec['loss']['mode'] == 'train'

  def apply(variables):
    if name in ('convlstmnet', 'escl'):
      return *_every(name, case, model, frames, variables), None
    if name == 'lmc':
      # The clip that the memory is asked with need not be the input.
      padded = np.concatenate([frames, np.zeros_like(frames[:, :1]).repeat(model.t_out, 1)], 1)
      long = read(case, 'long_x') if c['phase'] == 1 else frames
      y, _, _ = model.backbone.apply(
          {'params': variables['params']['backbone']}, padded, np.zeros(padded.shape[:2]),
          t_in=model.t_in, long=long)
      return y, {}, None
    out, updated = model.apply(variables, frames, train=train, mutable=['batch_stats'])
    # Where one channel stands for all of them, upstream emits it once.
    return out.prediction[..., :c.get('C_out')], {}, updated

  return finish(case, family, variables, unused, apply, target)


def cell(case: Case, output: str, loss_of_error: Callable[[Array], Array]) -> Result:
  """One step of a TrajGRU cell; an input that is not stored is absent."""
  c = case.config
  stored = {k: read(case, k) for k in ('x', 'h') if f'input/{k}' in case.io}
  target, size = read(case, 'target'), (c['B'], c['H'], c['W'])
  module = TrajGRUCell(
      c['hidden_channels'], c['kernel_size'], c['L'], c['in_channels'], c.get('flow_hidden', 32),
      'upstream')
  zeros = lambda n: np.zeros((*size, n), target.dtype)
  h = stored.get('h', zeros(c['hidden_channels']))
  # Zeros, and not None: all tensors have to be there.
  variables, unused = weights.load(
      case, CELL, lambda: module.init(jax.random.key(0), zeros(c['in_channels']), h))
  step = lambda variables, x, h: module.apply(
      variables, zeros(c['in_channels']) if x is None else x, h)
  result = finish(
      case, CELL, variables, unused, lambda v: (step(v, stored.get('x'), h), {}, None), target,
      loss_of_error, output)
  more = {}
  if case.wants('y_no_h'):
    more['y_no_h'] = step(variables, stored['x'], jnp.zeros_like(h))
  if case.wants('y_no_x'):
    more['y_no_x'] = step(variables, None, h)
  if case.wants('warp'):
    more['warp'] = warp(jnp.asarray(h), jnp.asarray(read(case, 'flow')), 'zeros')
  result.outputs |= {k: channels_first(v) for k, v in more.items()}
  return result


def run(case: Case) -> Result:
  """Runs a case by its kind and model."""
  kind, name, variant = (case.spec.get(k) for k in ('kind', 'model', 'variant'))
  if variant not in (None, 'gs2pm'):
    raise Unsupported(f'{kind} {name} {variant}')
  if kind == 'block' and name == 'trajgru_cell':
    return cell(case, 'y', squares_and_sizes)
  if kind == 'model' and name in _BACKBONES:
    return _forecast(case)
  raise Unsupported(f'{kind} {name}')
