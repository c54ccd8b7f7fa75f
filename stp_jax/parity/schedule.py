"""Learning-rate schedules and scheduled sampling (groups schedule, sampling)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import optimizers, sampling
from stp_jax.convert import hyperparameters
from stp_jax.convert.rules import ConversionError
from stp_jax.parity.case import Case, Result, Unsupported

GROUPS = ('schedule', 'sampling')


def optimizer_config(c: Mapping[str, Any], steps_per_epoch: int) -> tuple[dict[str, Any], int, int]:
  """Upstream's optimizer fields as ours, the steps of the whole run and those of an epoch."""
  try:
    fields = hyperparameters.optimizer(c)
  except ConversionError as error:
    raise Unsupported(str(error)) from error
  return fields, c['epoch'] * steps_per_epoch, steps_per_epoch


def schedule_values(c: Mapping[str, Any], steps_per_epoch: int) -> dict[str, np.ndarray]:
  """`lr` and `beta1` in force at every step of the run, float64."""
  config, total, per_epoch = optimizer_config(c, steps_per_epoch)
  with jax.enable_x64(True):  # stored to 1e-12; float32 has 1e-11 at a rate of 1e-4
    _, at = optimizers.make(config, total, per_epoch)
    values = jax.jit(jax.vmap(at))(jnp.arange(total))
  return {'lr': np.asarray(values['learning_rate']), 'beta1': np.asarray(values['b1'])}


def _sampling_config(c: Mapping[str, Any], name: str) -> dict[str, Any]:
  return dict(name=name, rate=c['sampling_changing_rate'], stop_step=c['sampling_stop_iter'],
              step_1=c['r_sampling_step_1'], step_2=c['r_sampling_step_2'], alpha=c['r_exp_alpha'])


def _masks(config: Mapping[str, Any], step: int, context: np.ndarray | None, forecast: np.ndarray,
           t_in: int) -> np.ndarray:
  """Our mask `[B, T]` cut to the steps of upstream's, float32."""
  batch, t_out = forecast.shape[0], forecast.shape[1] + 1
  if context is None:
    context = np.zeros((batch, t_in - 1))
  draws = jnp.asarray(np.concatenate([context, forecast], 1))
  use = np.asarray(sampling.mask(config, step, draws, batch, t_in, t_out), np.float32)
  # The reverse mask starts at frame 1, the other after the input; both leave out the last frame.
  return use[:, 1 if config['name'] == 'reverse' else t_in:-1]


def _calls(case: Case) -> dict[str, np.ndarray]:
  """Masks of consecutive or listed iterations."""
  c, name = case.config, case.spec['variant']
  t_in, batch = c['pre_seq_length'], c['batch_size']
  config = _sampling_config(c, name)
  if name == 'off':
    steps = range(c.get('start_iter', 0), c.get('start_iter', 0) + c['calls'])
    uniform = np.zeros((len(steps), batch, c['aft_seq_length'] - 1))  # no draw can be below 0
  else:
    steps, uniform = case.input('iteration').tolist(), case.input('uniform')
  if name == 'standard':
    # Upstream carries eta from call to call; here it is a line, laid through where they started.
    config['start'] = c['eta_start'] + steps[0] * config['rate']
  context = case.input('uniform_r') if name == 'reverse' else [None] * len(steps)
  etas = [sampling.probabilities(config, k) for k in steps]
  masks = [_masks(config, k, r, u, t_in) for k, r, u in zip(steps, context, uniform)]
  return {'r_eta': np.array([float(e[0]) for e in etas]),
          'eta': np.array([float(e[1]) for e in etas]), 'mask': np.stack(masks)}


def _single_calls(case: Case) -> dict[str, np.ndarray]:
  """Masks of separate iterations, of both kinds."""
  c, outputs = case.config, {}
  t_in = c['pre_seq_length']
  for k in c.get('reverse_iterations', []):
    outputs[f'reverse_mask_{k}'] = _masks(
        _sampling_config(c, 'reverse'), k, case.input(f'reverse_uniform_r_{k}'),
        case.input(f'reverse_uniform_{k}'), t_in)
  for k in c.get('standard_iterations', []):
    config = _sampling_config(c, 'standard')
    config['start'] = float(case.input(f'standard_eta_{k}')) + k * config['rate']
    outputs[f'standard_eta_{k}'] = np.asarray(sampling.probabilities(config, k)[1])
    outputs[f'standard_mask_{k}'] = _masks(
        config, k, None, case.input(f'standard_uniform_{k}'), t_in)
  return outputs


def run(case: Case) -> Result:
  """Evaluates a schedule, or masks from given uniforms, in float64."""
  kind, variant = case.spec['kind'], case.spec['variant']
  if kind == 'schedule':
    return Result(schedule_values(case.config, case.config['steps_per_epoch']))
  if kind != 'sampling':
    raise Unsupported(f'kind {kind} in group {case.spec["group"]}')
  with jax.enable_x64(True):
    return Result(_calls(case) if variant in sampling.KINDS else _single_calls(case))
