"""PredNet and PhyDNet, which know neither patches nor forcings (groups prednet, phydnet)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import convert, models
from stp_jax.convert import rules
from stp_jax.models.recurrent import phydnet
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last
from stp_jax.typing import Array, PyTree

GROUPS = ('prednet', 'phydnet')


def _frames(case: Case, *names: str) -> np.ndarray:
  """The named inputs one after the other, `[B, T, H, W, C]`."""
  frames = np.concatenate([channels_last(case.input(n)) for n in names], 1)
  return frames.astype(np.float64 if case.double else np.float32)


def _build(name: str, frames: np.ndarray, t_in: int, **backbone: Any) -> models.Forecaster:
  return models.build(
      dict(name=name, backbone=backbone), shape=frames.shape[2:], t_in=t_in,
      t_out=max(frames.shape[1] - t_in, 1))


def _load(case: Case, model: models.Forecaster, frames: np.ndarray
          ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  family = convert.family_of(case.spec['model'])
  return weights.load(case, family, lambda: model.init(jax.random.key(0), frames[:, :model.t_in]))


def _teacher_forced(backbone: Any, params: PyTree, frames: Array) -> tuple[Array, Array]:
  """PredNet shown every frame, the last one too: predictions of all frames, errors `[B, T, L]`.

  A forecast never looks at its last frame, so this is a loop of its own.
  """
  call = lambda name, *args: backbone.apply({'params': params['backbone']}, *args, method=name)

  def step(carry, frame):
    errors = call('observe', carry, frame)
    means = jnp.stack(call('mean_errors', errors), -1)
    return call('expect', carry, errors)[0], (carry['ahat'], means)

  start = call('initial_carry', frames[:, 0], frames.shape[1])
  _, (images, errors) = jax.lax.scan(step, start, jnp.moveaxis(frames, 1, 0))
  return jnp.moveaxis(images, 0, 1), jnp.moveaxis(errors, 0, 1)


def _prednet(case: Case) -> Result:
  c, frames = case.config, _frames(case, 'frames')
  if c['weight_mode'] not in ('L_0', 'L_all'):
    raise Unsupported(f'weight_mode {c["weight_mode"]}')
  # Upstream extrapolates from the length in `in_shape` on.
  model = _build(
      'prednet', frames, c['in_shape'][0], features=c['stack_sizes'][1:],
      r_features=c['R_stack_sizes'], kernel_size=c['R_filt_sizes'],
      a_kernel_size=c['A_filt_sizes'], ahat_kernel_size=c['Ahat_filt_sizes'],
      pixel_max=c['pixel_max'], activation=c['A_activation'],
      error_activation=c['error_activation'].lower(), signed_error=True, extrapolation='previous')
  variables, unused = _load(case, model, frames)
  layers, total = len(c['stack_sizes']), frames.shape[1]
  by_layer = np.where(np.arange(layers) == 0, 1, 0.1 if c['weight_mode'] == 'L_all' else 0)
  by_time = np.where(np.arange(total) == 0, 0, 1 / max(total - 1, 1))

  def loss_of(params):
    images, errors = _teacher_forced(model.backbone, params, frames)
    weighted = errors * by_time[:, None].astype(errors.dtype) * by_layer.astype(errors.dtype)
    return jnp.mean(jnp.sum(weighted, (1, 2))), (images, errors)

  def forecast(params):
    out = model.apply({'params': params}, frames)
    return jnp.concatenate([out.context, out.prediction], 1)

  (loss, (images, errors)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  ahead = runtime.compiled(forecast)(variables['params'])
  # Frame 0 is expected before anything is seen, in both runs.
  ahead = jnp.concatenate([images[:, :1], ahead], 1)[:, :total]
  family = convert.family_of('prednet')
  return Result(
      {'pred': channels_first(ahead[:, c['pre_seq_length']:]),
       'pred_all_extrapolate': channels_first(ahead), 'pred_all_teacher': channels_first(images),
       'error_all': np.asarray(errors), 'loss': np.asarray(loss)},
      loss=float(loss), grads=weights.gradients(family, grads),
      n_params=rules.parameter_count(family, variables['params'], unused),
      notes=weights.checkpoint_notes(case))


def _phydnet(case: Case) -> Result:
  c, frames = case.config, _frames(case, 'x', 'y')
  t_in = case.input('x').shape[1]
  # Upstream reads any other patch size as 4.
  model = _build('phydnet', frames, t_in, downscale=2 if c['patch_size'] == 2 else 4)
  variables, unused = _load(case, model, frames)
  given = np.broadcast_to(np.arange(frames.shape[1]) < t_in, frames.shape[:2])

  def loss_of(params, use_true):
    out = model.apply({'params': params}, frames, None, use_true, train=True)
    every = jnp.concatenate([out.context, out.prediction], 1)
    squares = jnp.mean(jnp.square(every - frames[:, 1:]), (0, 2, 3, 4))
    return jnp.sum(squares) + jnp.mean(out.terms['moments']), out.prediction

  run = runtime.compiled(jax.value_and_grad(loss_of, has_aux=True))
  alone, forced = (run(variables['params'], use) for use in (given, np.ones_like(given)))
  (loss, _), grads = forced if c['teacher_forcing'] else alone
  family = convert.family_of('phydnet')
  return Result(
      {'pred': channels_first(alone[0][1]), 'loss': np.asarray(loss),
       'inference_loss': np.asarray(alone[0][0]), 'loss_teacher_forced': np.asarray(forced[0][0])},
      loss=float(loss), grads=weights.gradients(family, grads),
      n_params=rules.parameter_count(family, variables['params'], unused),
      notes=weights.checkpoint_notes(case))


def _part(prefix: str) -> rules.Family:
  return rules.Family(prefix, lambda path: f'{prefix}.{rules.spell(path)}')


def _phydnet_modules(case: Case) -> Result:
  """One step of each cell, and moments of filters."""
  c, outputs, n_params = case.config, {}, 0
  kind = np.float64 if case.double else np.float32
  read = lambda name: channels_last(case.input(name)).astype(kind)
  x, h, states = read('phycell_x'), read('phycell_h'), (read('convlstm_h'), read('convlstm_c'))
  phycell, cell = c['phycell'], c['convlstm']
  parts = {
      'phycell': (phydnet.PhyCellCell(
          phycell['F_hidden_dim'], tuple(phycell['kernel_size'])), (x, h), ('h',)),
      'convlstm': (phydnet.PhyConvLSTMCell(
          cell['hidden_dim'], tuple(cell['kernel_size'])), (x, *states), ('h', 'c'))}
  for name, (module, args, names) in parts.items():
    family = _part(f'{name}_cell')
    own = {k: v for k, v in case.weights.items() if k.startswith(f'{name}_cell.')}
    template = jax.eval_shape(lambda m=module, a=args: m.init(jax.random.key(0), *a))
    variables, unused = rules.to_flax(family, own, template)
    variables = jax.tree.map(lambda v: v.astype(kind), variables)
    n_params += rules.parameter_count(family, variables['params'], unused)
    result = runtime.compiled(module.apply)(variables, *args)
    results = result if isinstance(result, tuple) else (result,)
    outputs |= {f'{name}_{n}': channels_first(r) for n, r in zip(names, results)}
  for stored in case.io:
    if stored.startswith('input/k_'):
      size = stored.removeprefix('input/k_')
      moments = phydnet.kernel_to_moments(case.io[stored])
      outputs |= {f'k2m_{size}': moments,
                  f'm2k_of_k2m_{size}': phydnet.moments_to_kernel(moments)}
  return Result(outputs, n_params=n_params)


def run(case: Case) -> Result:
  """Runs a case by its kind and model."""
  runs = {('model', 'prednet'): _prednet, ('model', 'phydnet'): _phydnet,
          ('block', 'phydnet_modules'): _phydnet_modules}
  what = case.spec['kind'], case.spec['model']
  if what not in runs:
    raise Unsupported(' '.join(what))
  return runs[what](case)
