"""The middle of SimVP, by name: `[B, h, w, T * hid_S]` -> the same shape.

A translator of the MetaFormer kind is a block class in a file of its own and a line here; one of
another build (without blocks) takes the same keywords as `MetaFormer` and has its line in NETWORKS.
"""

import flax.linen as nn

from stp_jax.models.simvp.translators.gsta import GSTABlock
from stp_jax.models.simvp.translators.metaformer import MetaFormer
from stp_jax.models.simvp.translators.tau import TAUBlock

BLOCKS: dict[str, type[nn.Module]] = dict(gsta=GSTABlock, tau=TAUBlock)
NETWORKS: dict[str, type[nn.Module]] = {}


def names() -> tuple[str, ...]:
  """All translators."""
  return tuple(sorted((*BLOCKS, *NETWORKS)))


def build(translator: str, **fields) -> nn.Module:
  """A translator; fields: hidden, depth, mlp_ratio, drop, drop_path, drop_path_floor,
  layer_scale_init, dtype, name. ValueError: unknown translator."""
  key = translator.lower()
  if key in NETWORKS:
    return NETWORKS[key](**fields)
  if key not in BLOCKS:
    raise ValueError(f'SimVP: translator {translator!r}: one of {" ".join(names())}')
  return MetaFormer(block=BLOCKS[key], **fields)
