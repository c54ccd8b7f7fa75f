"""The middle of SimVP, by name: `[B, h, w, T * hid_S]` -> the same shape.

A translator of the MetaFormer kind is a block class in a file of its own and a line here; one of
another build (without blocks) takes the same keywords as `MetaFormer` and has its line in NETWORKS.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from stp_jax.models.simvp.translators.convmixer import ConvMixerBlock
from stp_jax.models.simvp.translators.convnext import ConvNeXtBlock
from stp_jax.models.simvp.translators.gsta import GSTABlock
from stp_jax.models.simvp.translators.hornet import HorNetBlock
from stp_jax.models.simvp.translators.incepu import IncepU
from stp_jax.models.simvp.translators.metaformer import Block, MetaFormer
from stp_jax.models.simvp.translators.mlpmixer import MLPMixerBlock
from stp_jax.models.simvp.translators.moga import MogaBlock
from stp_jax.models.simvp.translators.poolformer import PoolFormerBlock
from stp_jax.models.simvp.translators.swin import SwinBlock
from stp_jax.models.simvp.translators.tau import TAUBlock
from stp_jax.models.simvp.translators.uniformer import UniFormerBlock
from stp_jax.models.simvp.translators.van import VANBlock
from stp_jax.models.simvp.translators.vit import ViTBlock

BLOCKS: dict[str, type[Block]] = dict(
    convmixer=ConvMixerBlock,
    convnext=ConvNeXtBlock,
    gsta=GSTABlock,
    hornet=HorNetBlock,
    mlp=MLPMixerBlock,
    mlpmixer=MLPMixerBlock,
    moga=MogaBlock,
    poolformer=PoolFormerBlock,
    swin=SwinBlock,
    tau=TAUBlock,
    uniformer=UniFormerBlock,
    van=VANBlock,
    vit=ViTBlock,
)
NETWORKS: dict[str, type[nn.Module]] = dict(incepu=IncepU)


def names() -> tuple[str, ...]:
  """All translators."""
  return tuple(sorted((*BLOCKS, *NETWORKS)))


def build(translator: str, options: Mapping[str, Any], **fields) -> nn.Module:
  """A translator.

  Args:
    options: settings that only some translators have: layer_scale_init, window_size, shift_mask.
    **fields: hidden, depth, mlp_ratio, drop, drop_path, drop_path_floor, dtype, name.

  Raises:
    ValueError: an unknown translator, or a setting that it has no use for.
  """
  key = translator.lower()
  cls = NETWORKS.get(key) or BLOCKS.get(key)
  if cls is None:
    raise ValueError(f'SimVP: translator {translator!r}: one of {" ".join(names())}')
  unread = [k for k in options if k not in cls.__dataclass_fields__]
  unread += [k for k in cls.ignores if fields.get(k)]
  if unread:
    raise ValueError(f'SimVP: translator {key} has no use for {unread[0]}; leave it out')
  if key in NETWORKS:
    return cls(**fields, **options)
  return MetaFormer(block=cls, options=dict(options), **fields)
