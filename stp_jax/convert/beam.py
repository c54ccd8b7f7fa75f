"""MambaFusion and TransFuser: `encoder.mambafusion1.mambablocks.3.fc1.weight` is layer 3 of
mambafusion1/mambablocks/fc1/kernel.

Which of the four published networks a file holds, its keys tell: `encoder.transformer1` is the TII
entry; `decoder` the multi-step one; `encoder.time_mamba.mlp` the last, `encoder.time_mamba.A_log`
the first MambaFusion.
"""

from stp_jax.convert import rules
from stp_jax.convert.shapes import BACKBONE, Fields, Weights, kernels, numbers
from stp_jax.data.spec import DataSpec
from stp_jax.models.beam.maps import SENSORS

_LISTS = (*(f'layer{i}' for i in range(1, 9)), 'downsample', 'join', 'mlp', 'mlp_gps')
# A trunk stands below another name in its encoder.
TRUNKS = dict(image='encoder.image_encoder.features', lidar='encoder.lidar_encoder._model',
              radar='encoder.radar_encoder._model')
MODELS = ('mambafusion', 'transfuser')
VARIANTS = ('mambafuser', 'mambafuser_v1', 'mamba_30to5', 'transfuser_tii')


def key(path: rules.Path) -> str:
  """Trunks, embeddings, fusions and TimeMamba below `encoder`, the head at the top."""
  first, *rest = path
  if first == 'head':
    return rules.spell(tuple(p for p in rest if p != 'decode'), _LISTS)
  sensor = first.removesuffix('_encoder')
  if sensor in TRUNKS:
    return f'{TRUNKS[sensor]}.{rules.spell(tuple(rest), _LISTS)}'
  if rest[0] in ('mambablocks', 'blocks'):
    rest = [rest[0], '{}', *rest[1:]]
  return f'encoder.{rules.spell((first, *rest), _LISTS)}'


LAYOUTS = (
    (r'(.*\.)?pos_emb', 'same'), (r'(.*\.)?decoder\.weight_[ih]h', 'linear'))
# A network without fusion over time may have been built with its layers all the same.
FAMILY = rules.Family(
    'beam', key, layouts=LAYOUTS, unused=(r'encoder\.time_mamba\..*',))
FAMILIES = dict.fromkeys(MODELS, FAMILY)


def variant_of(weights: Weights) -> str | None:
  """One of VARIANTS; None: the keys of another model."""
  if 'encoder.vel_emb1.weight' not in weights and 'join.0.weight' not in weights:
    return None
  if any(k.startswith('encoder.transformer1.') for k in weights):
    return 'transfuser_tii'
  if not any(k.startswith('encoder.mambafusion1.') for k in weights):
    return None
  if 'decoder.weight_ih' in weights:
    return 'mamba_30to5'
  return 'mambafuser_v1' if 'encoder.time_mamba.A_log' in weights else 'mambafuser'


def model_of(weights: Weights) -> str | None:
  """Our name of the model whose weights these are, or None."""
  variant = variant_of(weights)
  return variant and ('transfuser' if variant == 'transfuser_tii' else 'mambafusion')


def variant_fields(variant: str) -> Fields:
  """What the variant alone says of `BeamFusion`'s fields, upstream's quirks included."""
  if variant == 'transfuser_tii':
    return dict(ffm='attention', tfm='off')
  quirks = dict(ffm='mamba', tfm='on', align='upstream', residual=False)
  if variant == 'mambafuser':
    return quirks | dict(channel_swap=True, tfm_weights='attention')
  return quirks | dict(channel_swap=False, tfm_weights='sum')


def _depths(weights: Weights, sensor: str) -> tuple[int, ...]:
  trunk = TRUNKS[sensor].replace('.', r'\.')
  return tuple(len(numbers(weights, rf'{trunk}\.layer{i}\.(\d+)\.conv1\.weight$'))
               for i in numbers(weights, rf'{trunk}\.layer(\d+)\.'))


def _mamba(weights: Weights, name: str) -> Fields:
  inner, states = weights[f'{name}.A_log'].shape
  return dict(d_state=states, d_conv=weights[f'{name}.conv1d.weight'].shape[-1],
              expand=inner // weights[f'{name}.out_proj.weight'].shape[0])


def network_fields(weights: Weights, frames: int = 0) -> Fields:
  """`BeamFusion`'s fields that the shapes of `weights` tell; heads of attention they do not.

  Args:
    frames: T; 0: what TimeMamba's shapes tell, else that of 8 x 8 anchors.
  """
  variant = variant_of(weights)
  sensors = [s for s in SENSORS if f'{TRUNKS[s]}.conv1.weight' in weights]
  found = variant_fields(variant)
  scales = numbers(weights, r'encoder\.(?:mambafusion|transformer)(\d+)\.')
  fusion = 'transformer' if variant == 'transfuser_tii' else 'mambafusion'
  blocks = 'blocks' if variant == 'transfuser_tii' else 'mambablocks'
  found['modalities'] = (*sensors, *(['gps'] if 'encoder.vel_emb1.weight' in weights else []))
  positions = [weights[f'encoder.{fusion}{i}.pos_emb'] for i in scales]
  found['widths'] = tuple(int(p.shape[-1]) for p in positions)
  found['n_layer'] = len(numbers(weights, rf'encoder\.{fusion}1\.{blocks}\.(\d+)\.'))
  if 'image' in sensors:
    found['image_depths'] = _depths(weights, 'image')
  if other := [s for s in sensors if s != 'image']:
    found['depths'] = _depths(weights, other[0])
  *hidden, beams = (int(w.shape[0]) for w in kernels(weights, 'join.{}.weight'))
  found |= dict(hidden=tuple(hidden), beams=beams)
  if variant == 'mamba_30to5':
    found['steps'] = 5  # no shape tells
  if variant == 'transfuser_tii':
    up = weights['encoder.transformer1.blocks.0.mlp.0.weight']
    found['block_exp'] = int(up.shape[0] // up.shape[1])
  else:
    name = 'encoder.mambafusion1.mambablocks.0.forward_mamba'
    found |= {k: int(v) for k, v in _mamba(weights, name).items()}
  pool = weights.get('encoder.time_mamba.mlp.0.weight')
  places = (positions[0].shape[1] - 2) // 3
  frames = frames or (int(pool.shape[0]) if pool is not None else places // 64)
  side = round((places / max(frames, 1)) ** 0.5)
  if side * side * frames == places:
    found['anchors'] = (side, side)
  return found


def fields(weights: Weights) -> Fields:
  """Dotted config field -> value, from keys and shapes; {} for another model's weights."""
  if variant_of(weights) is None:
    return {}
  found = network_fields(weights)
  steps = found.pop('steps', 1)
  rows, columns = found.get('anchors', (8, 8))
  tokens = weights[next(k for k in weights if k.endswith('1.pos_emb'))].shape[1]
  return {'task.name': 'beam', 'task.loss': 'focal', 'model.fusion': 'none',
          'data.t_in': (tokens - 2) // (3 * rows * columns), 'data.t_out': steps,
          **{f'{BACKBONE}{k}': v for k, v in found.items()}}


def data_spec(frame: tuple[int, int], t_in: int, t_out: int) -> DataSpec:
  """What `prepare deepsense` writes, where no store is at hand; sensors of `frame` pixels."""
  stream = lambda shape, dtype, scale=1.0: dict(
      shape=list(shape), dtype=dtype, scale=scale, offset=0.0)
  return DataSpec(
      name='deepsense', shape=(*frame, 3), cadence_hours=0.1 / 3600, streams=dict(
          image=stream((*frame, 3), 'uint8'), lidar=stream((*frame, 1), 'uint8', 0.2),
          radar=stream((*frame, 2), 'uint16', 1 / 65535), gps=stream((1, 2, 2), 'float32'),
          window=stream((1, 1, t_in), 'int16'), beam=stream((1, 1, t_out), 'int16')))
