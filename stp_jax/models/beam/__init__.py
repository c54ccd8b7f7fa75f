"""Beam prediction: MambaFusion and TransFuser by name."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from stp_jax.models.beam.inputs import MODALITIES, normalize_image
from stp_jax.models.beam.network import BeamFusion

# Name -> what sets it apart; every field of BeamFusion may be given beside it.
MODELS: dict[str, dict[str, Any]] = dict(
    mambafusion=dict(ffm='mamba', tfm='on'),
    transfuser=dict(ffm='attention', tfm='off'),
)


def build(config: Mapping[str, Any], *, dtype: Any = 'float32') -> BeamFusion:
  """Builds a network.

  Args:
    config: `name` (a key of MODELS) and `backbone`, or beside the name, fields of BeamFusion.
      `modalities` may be one word, `image+gps`.
    dtype: compute type, 'float32' or 'bfloat16'.

  Raises:
    ValueError: an unknown model; the known ones are listed.
    TypeError: a field that BeamFusion does not have; its fields are listed.
  """
  config = dict(config)
  name = config.pop('name', None)
  if name not in MODELS:
    raise ValueError(f'model {name!r}: one of {" ".join(sorted(MODELS))}')
  fields = {**MODELS[name], **config.pop('backbone', {}), **config}
  known = [k for k in BeamFusion.__dataclass_fields__ if k not in ('dtype', 'parent', 'name')]
  unknown = sorted(set(fields) - set(known))
  if unknown:
    raise TypeError(f'BeamFusion: unknown field {unknown[0]!r}; it has {" ".join(known)}')
  if isinstance(fields.get('modalities'), str):
    fields['modalities'] = fields['modalities'].split('+')
  fields = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in fields.items()}
  # float32 is left to the types of inputs and parameters, so that float64 runs stay float64.
  compute = None if jnp.dtype(dtype) == jnp.float32 else jnp.dtype(dtype)
  return BeamFusion(dtype=compute, **fields)


__all__ = ['MODALITIES', 'MODELS', 'BeamFusion', 'build', 'normalize_image']
