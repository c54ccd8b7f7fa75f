"""What the published checkpoints assume, as config fields, and the data they were trained on."""

from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from stp_jax.data import forcings
from stp_jax.data.spec import DataSpec

UPSTREAMS = ('channel_mixer', 'openstl', 'gs2pm')
# Averages over a solar cycle; they stand in for the training mean where no store tells it.
_TYPICAL = dict(
    year=2010, f107=120, r=80, day=183, hour=11, month=6.5, date=15.7, kp=20, ap=12, dst=-15,
    plasma_speed=430, field_magnitude=6, sigma_b=3, proton_density=6, flow_pressure=2,
    electric_field=0, magnetosonic_mach=6)
_CALENDAR = ('year', 'day', 'hour', 'month', 'date')


def published_fields(config: Mapping[str, Any], upstream: str = 'channel_mixer'
                     ) -> dict[str, Any]:
  """Dotted field -> value that makes a model behave as the published code did.

  Args:
    config: of a run; its model's name and fusion are read.
    upstream: 'channel_mixer' (the Channel Mixer Layer's fork), 'openstl' or 'gs2pm'. Files of the
      first two do not tell: keys and shapes are alike.

  Raises:
    ValueError: an unknown upstream.
  """
  if upstream not in UPSTREAMS:
    raise ValueError(f'--upstream={upstream}: choose one of {" ".join(UPSTREAMS)}')
  model = config['model']
  fields: dict[str, Any] = {'model.anchor': 'none'}
  if model['fusion'] == 'mix':
    fields['model.mix'] = 'upstream'
  if model['name'] in ('convlstm', 'predrnnpp'):
    fields['model.backbone.cell'] = {'openstl': model['name']}.get(upstream, upstream)
  if model['name'] == 'predrnnv2':
    fields['task.term_weights.decouple'] = 0.1  # matters only if it is trained further
  if model['name'] == 'e3dlstm':
    fields |= {'model.backbone.memory': 'upstream', 'model.backbone.attention': 'upstream'}
    fields['task.loss'] = 'mse+mae'  # matters only if it is trained further
  if model['name'] == 'mau':
    fields['model.backbone.head'] = 'pointwise' if upstream == 'openstl' else 'transposed'
  if model['name'] == 'prednet':
    fields['model.backbone.extrapolation'] = 'previous'
    fields['model.backbone.signed_error'] = True  # the same, unless error_activation is tanh
  if model['name'] == 'crevnet':
    fields['model.backbone.warm_up'] = False
  if model['name'] == 'dmvfn':
    fields |= {'model.backbone.routing': 'upstream', 'model.backbone.clip': True}
    fields['model.backbone.grid'] = 'upstream'  # matters only if it is trained further
  if model['name'].startswith('gs2pm_'):
    fields['model.backbone.skipped'] = 1
    fields['task.loss'] = 'mse+mae'  # matters only if it is trained further
  if model['name'] == 'motionrnn':
    fields |= {'model.backbone.highway': 'upstream', 'model.backbone.skipped': 1}
  if model['name'] == 'trajgru':
    fields['model.backbone.update_gate'] = 'upstream'
  if model['name'] in ('ed_convgru', 'ed_convlstm'):
    fields['model.backbone.output'] = 'upstream'
  if model['name'] == 'escl':
    fields['model.backbone.states'] = 'shared'
  if model['name'] in ('motionrnn', 'trajgru', 'convlstmnet', 'escl', 'lmc', 'unet'):
    fields['task.loss'] = 'mse+mae'  # matters only if it is trained further
  if model['name'] == 'gs2pm_mim':
    fields['model.backbone.difference'] = 'upstream'
  if model['name'] == 'gs2pm_e3dlstm':
    fields['model.backbone.attention'] = 'upstream'
  if model['name'] == 'peephole_convlstm':
    fields['model.backbone.peepholes'] = 'upstream'
  if model['name'] == 'simvp':
    fields['model.backbone.drop_path_floor'] = 0.01  # matters only if it is trained further
    backbone = model.get('backbone') or model
    if str(backbone.get('translator', '')).lower() == 'swin':
      fields['model.backbone.shift_mask'] = 'upstream'
  if model['name'] == 'ms2p_v1':
    fields['model.backbone.attention'] = 'upstream'
  if model['name'] in ('gs2pm', 'ms2p_v1'):
    # All of it matters only if it is trained further.
    fields['model.backbone.drop_path_floor'] = 0.01
    fields |= {'task.loss': 'mse+mae', 'optimizer.schedule': 'constant',
               'optimizer.learning_rate': 1e-4}
  return fields


def apply_fields(config: ml_collections.ConfigDict, fields: Mapping[str, Any]) -> None:
  """Sets dotted fields of a config, which may be locked."""
  with config.unlocked():
    for name, value in fields.items():
      *sections, field = name.split('.')
      target = config
      for section in sections:
        target = target[section]
      target[field] = value


def image_spec(name: str, shape: tuple[int, int, int]) -> DataSpec:
  """Frames `(H, W, C)` in 0..1 without a clock: what most sets of OpenSTL are to a network."""
  return DataSpec(name=name, shape=shape, dtype='float32', maximum=None, cadence_hours=1.0,
                  channels=('image',), description='frames as the network reads them')


def data_spec(channels: int | str, frame: tuple[int, int] | None = None) -> DataSpec:
  """The data set `iono_electron` (72 x 72 maps, 0.1 TECU, every 2 h), where no store is at hand.

  Args:
    frame: (H, W) of maps of another size, whose grid is not known.

  Raises:
    ValueError: unknown channels.
  """
  names = forcings.channel_names(channels)
  columns = tuple(n for n in forcings.CHANNELS
                  if n in _CALENDAR or n in forcings.scalars(names))
  latitude = np.arange(87.5, -88, -2.5).tolist()
  frame = frame or (72, 72)
  grid = {} if frame != (72, 72) else dict(
      latitude=latitude, longitude=np.arange(-180.0, 180, 5).tolist(), rows=len(latitude),
      columns=72)
  return DataSpec(
      name='iono_electron', shape=(*frame, 1), units='TECU', scale=0.1, divisor=200.0,
      maximum=200.0, cadence_hours=2.0, channels=names, columns=columns,
      grid=grid,
      known_ahead=tuple(n in _CALENDAR for n in columns),
      training_mean=tuple(float(_TYPICAL[n]) for n in columns),
      description='vertical TEC; scaling of the Channel Mixer Layer')
