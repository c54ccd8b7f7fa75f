"""Networks of github.com/jhhuang96/ConvLSTM-PyTorch (group convrnn), and their cells."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.encoder_forecaster import FAMILIES, key
from stp_jax.models.layers.stage import Layer
from stp_jax.models.recurrent import normed_cells
from stp_jax.parity import gs2pm_recurrent, runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last
from stp_jax.typing import Array

GROUPS = ('convrnn',)
_CELLS = dict(clstm_cell=(normed_cells.NormedLSTMCell, ('h', 'c')),
              cgru_cell=(normed_cells.NormedGRUCell, ('h',)))


def _squares(error: Array) -> Array:
  return jnp.mean(jnp.square(error))


def _stages(stages: Sequence[Mapping[str, Sequence[int]]]) -> list[list[Layer]]:
  """Layers by name: [in, out, kernel, stride, padding], a pool's [kernel, stride, padding]."""
  layer = lambda name, values: (name, 0 if 'pool' in name else values[-4], *values[-3:])
  return [[layer(*item) for item in stage.items()] for stage in stages]


def _network(case: Case) -> Result:
  c = case.config
  backbone = dict(
      features=tuple(cell['num_features'] for cell in c['encoder_cells']),
      kernel_size=c['filter_size'], inputs=c['decoder_cells'][0]['input_channels'],
      down=_stages(c['encoder_stages']), up=_stages(c['decoder_stages']), output='upstream')
  return gs2pm_recurrent.forecast(
      case, dict(name=case.spec['model'], backbone=backbone), _squares)


def _cell(case: Case) -> Result:
  """A cell over all its steps; frames or a state that are not stored are zeros."""
  c, kind = case.config, np.float64 if case.double else np.float32
  read = lambda name: channels_last(case.input(name)).astype(kind)
  cls, names = _CELLS[case.spec['model']]
  cell = cls(c['num_features'], c['filter_size'])
  zeros = lambda *lead: np.zeros((*lead[:-1], c['B'], c['H'], c['W'], lead[-1]), kind)
  x = read('x')[:c['T']] if 'input/x' in case.io else zeros(c['T'], c['input_channels'])
  start: Any = cls.start(zeros(c['num_features']))
  if 'input/h0' in case.io:
    start = tuple(read(f'{n}0') for n in names)
    start = start if len(names) > 1 else start[0]
  family = rules.Family(case.spec['model'], _key)
  variables, unused = weights.load(case, family, lambda: cell.init(jax.random.key(0), start, x[0]))
  target = read('target')

  def loss_of(params):
    end, y = jax.lax.scan(lambda s, frame: cell.apply({'params': params}, s, frame), start, x)
    return _squares(y - target), (end, y)

  (loss, (end, y)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  end = dict(zip(names, end if len(names) > 1 else (end,)))
  return Result(
      {k: channels_first(v) for k, v in {'y': y, **end}.items()}, loss=float(loss),
      grads=weights.gradients(family, grads),
      n_params=rules.parameter_count(family, variables['params'], unused))


def _key(path: rules.Path) -> str:
  """Of a cell alone."""
  return key(('', 'rnn', *path)).removeprefix('.rnn.')


def run(case: Case) -> Result:
  """Runs a case by its kind and model."""
  kind, name = case.spec['kind'], case.spec['model']
  if kind == 'model' and name in FAMILIES:
    return _network(case)
  if kind == 'block' and name in _CELLS:
    return _cell(case)
  raise Unsupported(f'{kind} {name} {case.spec["variant"]}')
