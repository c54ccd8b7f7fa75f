"""Networks of github.com/dreaming-coder/Spatiotemporal-Prediction (group stpred).

The peephole ConvLSTM and TrajGRU, their cells, and the patches.
"""

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.convert import peephole_convlstm, rules
from stp_jax.models.layers.patches import patchify, unpatchify
from stp_jax.models.recurrent.peephole_convlstm import PeepholeConvLSTMCell
from stp_jax.parity import gs2pm_models, gs2pm_recurrent, runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last
from stp_jax.typing import Array

GROUPS = ('stpred',)
_CLIPS = {'0..1': 'unit', 'negative -> 0': 'positive', 'none': 'none'}


def _squares(error: Array) -> Array:
  return jnp.mean(jnp.square(error))


def _peephole_convlstm(case: Case) -> Result:
  c = case.config
  backbone = dict(gs2pm_recurrent.stack(c), peepholes='upstream',
                  clip=_CLIPS[c.get('clip') or 'none'])
  return gs2pm_recurrent.forecast(
      case, dict(name='peephole_convlstm', patch=c['patch'], backbone=backbone), _squares)


def _trajgru(case: Case) -> Result:
  there, back = case.config['encoder'], case.config['forecast']
  backbone = dict(
      features=there['hidden'], stems=there['conv'], kernels=there['kernel'], links=there['L'],
      back_kernels=back['kernel'], back_links=back['L'], widths=back['deconv'],
      update_gate='upstream', clip=_CLIPS[case.config.get('clip') or 'none'],
      # Two of upstream's three files keep single convolutions in lists.
      listed='encoder.conv1.weight' not in case.weights)
  return gs2pm_recurrent.forecast(case, dict(name='trajgru', backbone=backbone), _squares)


def _cell(case: Case) -> Result:
  """One step of a peephole cell."""
  c, kind = case.config, np.float64 if case.double else np.float32
  x, h, memory, target = (
      channels_last(case.input(k)).astype(kind) for k in ('x', 'h', 'c', 'target'))
  cell = PeepholeConvLSTMCell(
      c['hidden_channels'], c['kernel_size'], c['forget_bias'], peepholes='upstream')
  family = rules.Family(
      'peephole_convlstm_cell', rules.spell, unused=('w_cf',),
      layouts=peephole_convlstm.FAMILY.layouts)
  variables, unused = weights.load(
      case, family, lambda: cell.init(jax.random.key(0), x, h, memory))

  def loss_of(params):
    new = cell.apply({'params': params}, x, h, memory)
    return sum(_squares(value - target) for value in new), new

  (loss, new), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  return Result(
      {k: channels_first(v) for k, v in zip(('h', 'c'), new)}, loss=float(loss),
      # Nothing reads it: its gradient, which is stored, is zero.
      grads={**weights.gradients(family, grads), **{k: 0 * v for k, v in unused.items()}},
      n_params=rules.parameter_count(family, variables['params'], unused))


def _patches(case: Case) -> Result:
  patched = patchify(channels_last(case.input('x')), case.config['patch'])
  return Result({'patched': channels_first(patched),
                 'unpatched': channels_first(unpatchify(patched, case.config['patch']))})


def run(case: Case) -> Result:
  """Runs a case by its kind and model."""
  what = case.spec['kind'], case.spec['model']
  if what == ('model', 'peephole_convlstm'):
    return _peephole_convlstm(case)
  if what == ('model', 'trajgru'):
    return _trajgru(case)
  if what == ('block', 'peephole_convlstm_cell'):
    return _cell(case)
  if what == ('op', 'patchify'):
    return _patches(case)
  if what == ('block', 'trajgru_cell'):
    return gs2pm_models.cell(case, 'h', _squares)
  raise Unsupported(f'{case.spec["kind"]} {case.spec["model"]} {case.spec["variant"]}')
