"""Models by name. A new backbone is a module, a line in BACKBONES and a test."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from stp_jax.models.forecaster import Forecaster, combine_name
from stp_jax.models.fusion import Fusion
from stp_jax.models.globe import Globe
from stp_jax.models.gs2pm import GS2PM, MS2P
from stp_jax.models.recurrent.convlstm import ConvLSTM
from stp_jax.models.recurrent.convlstmnet import ConvLSTMNet
from stp_jax.models.recurrent.crevnet import CrevNet
from stp_jax.models.recurrent.dmvfn import DMVFN
from stp_jax.models.recurrent.e3dlstm import E3DLSTM
from stp_jax.models.recurrent.encoder_forecaster import EDConvGRU, EDConvLSTM
from stp_jax.models.recurrent.escl import ESCL
from stp_jax.models.recurrent.gs2pm_cuts import GS2PMPredRNN, GS2PMPredRNNPlusPlus
from stp_jax.models.recurrent.gs2pm_e3d import GS2PME3DLSTM
from stp_jax.models.recurrent.gs2pm_mim import GS2PMMIM
from stp_jax.models.recurrent.lmc import LMC
from stp_jax.models.recurrent.mau import MAU
from stp_jax.models.recurrent.mim import MIM
from stp_jax.models.recurrent.motionrnn import MotionRNN
from stp_jax.models.recurrent.peephole_convlstm import PeepholeConvLSTM
from stp_jax.models.recurrent.phydnet import PhyDNet
from stp_jax.models.recurrent.prednet import PredNet
from stp_jax.models.recurrent.predrnn import PredRNN
from stp_jax.models.recurrent.predrnnpp import PredRNNPlusPlus
from stp_jax.models.recurrent.predrnnv2 import PredRNNV2
from stp_jax.models.recurrent.trajgru import TrajGRU
from stp_jax.models.simvp.simvp import SimVP
from stp_jax.models.simvp.simvp_v1 import SimVPV1
from stp_jax.models.unet import UNet

BACKBONES: dict[str, type[nn.Module]] = dict(
    convlstm=ConvLSTM,
    convlstmnet=ConvLSTMNet,
    crevnet=CrevNet,
    dmvfn=DMVFN,
    e3dlstm=E3DLSTM,
    ed_convgru=EDConvGRU,
    ed_convlstm=EDConvLSTM,
    escl=ESCL,
    gs2pm=GS2PM,
    gs2pm_e3dlstm=GS2PME3DLSTM,
    gs2pm_mim=GS2PMMIM,
    gs2pm_predrnn=GS2PMPredRNN,
    gs2pm_predrnnpp=GS2PMPredRNNPlusPlus,
    lmc=LMC,
    mau=MAU,
    mim=MIM,
    motionrnn=MotionRNN,
    ms2p_v1=MS2P,
    peephole_convlstm=PeepholeConvLSTM,
    phydnet=PhyDNet,
    prednet=PredNet,
    predrnn=PredRNN,
    predrnnpp=PredRNNPlusPlus,
    predrnnv2=PredRNNV2,
    simvp=SimVP,
    simvp_v1=SimVPV1,
    trajgru=TrajGRU,
    unet=UNet,
)
# What `build` reads beside `name` and `backbone`; the rest of a Forecaster follows from the data.
_FIELDS = ('fusion', 'mix', 'patch', 'anchor', 'combine', 'lag', 'divisor', 'remat', 'unroll',
           'frame', 'padding')
_GIVEN = ('channels', 'dtype', 'parent', 'name')


def _make(cls: type[nn.Module], fields: Mapping[str, Any], **given) -> nn.Module:
  known = [k for k in cls.__dataclass_fields__ if k not in _GIVEN]
  unknown = sorted(set(fields) - set(known))
  if unknown:
    raise TypeError(f'{cls.__name__}: unknown field {unknown[0]!r}; it has {" ".join(known)}')
  fields = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in fields.items()}
  return cls(**given, **fields)


def build(
    config: Mapping[str, Any], *, shape: tuple[int, int, int], forcings: int = 0, t_in: int,
    t_out: int, frames_per_day: int = 1, dtype: Any = 'float32', divisor: float = 1.0,
    longitude: Sequence[float] | None = None,
) -> Forecaster:
  """Builds a forecaster.

  Args:
    config: `name` (a key of BACKBONES), `backbone` (its keywords), and fields of Forecaster and
      Fusion: fusion, mix, patch, anchor, combine, lag, divisor, remat, unroll; frame and padding,
      see `globe.Globe.of`. Or, without the key `backbone`, the backbone's keywords beside those.
    shape: (H, W, C) of the frames; any H and W run, they are padded to what the model needs.
    forcings: A, forcing planes.
    frames_per_day: lag of the persistence anchors, slots of the climatology.
    dtype: compute type, 'float32' or 'bfloat16'; parameters, norms and carries stay float32.
    divisor: physical value of a normalised 1 (climatology).
    longitude: of the columns [deg], for frame=sun and padding=circular.

  Raises:
    ValueError: unknown model; the known ones are listed. A setting out of range.
    TypeError: a keyword that the backbone does not have; its fields are listed.
  """
  config = dict(config)
  name = config.pop('name', None)
  if name not in BACKBONES:
    raise ValueError(f'model {name!r}: one of {" ".join(sorted(BACKBONES))}')
  fields = {k: config.pop(k) for k in _FIELDS if k in config}
  backbone = {**config.pop('backbone', {}), **config}
  fusion = Fusion(
      kind=fields.pop('fusion', 'none'), mode=fields.pop('mix', 'strict'),
      patch=fields.pop('patch', 1), channels=shape[2], forcings=forcings)
  combine = combine_name(fields.get('combine'), fields.get('anchor', 'none'))
  if BACKBONES[name].kind == 'window' and (fusion.kind, combine) != ('none', 'none'):
    raise ValueError(
        f'model {name} makes whole frames from frames alone: set fusion=none and anchor=none '
        f'(got fusion {fusion.kind}, combine {combine})')
  if combine != 'none':
    # A correction starts at zero: the untrained model is the anchor itself.
    backbone.setdefault('zero_readout', True)
  channels = fusion.patch ** 2 * shape[2] * (2 if combine == 'gated' else 1)
  # float32 is left to the types of inputs and parameters, so that float64 runs stay float64.
  compute = None if jnp.dtype(dtype) == jnp.float32 else jnp.dtype(dtype)
  module = _make(BACKBONES[name], backbone, channels=channels, dtype=compute)
  globe = Globe.of(longitude, fields.pop('frame', 'geographic'), fields.pop('padding', 'zero'))
  fields = {'lag': frames_per_day, 'divisor': divisor, **fields}
  return Forecaster(
      backbone=module, t_in=t_in, t_out=t_out, fusion=fusion, frames_per_day=frames_per_day,
      globe=globe, **fields)


__all__ = ['BACKBONES', 'Forecaster', 'Fusion', 'build']
