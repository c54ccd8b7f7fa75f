"""How a store's numbers become those of a run over several stores; see `domains`."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.data.spec import DataSpec

NO_MISSING = -1


@dataclasses.dataclass(frozen=True)
class Domain:
  """How the numbers of a store become the model's.

  Attributes:
    scale, offset: raw -> model value. missing: code of a missing value, -1 where there is none.
    ceiling: raw values above it are lowered to it on the host, where the store's maximum is not
      the model's 1; else None.
    rows, columns: of a frame that are no padding. units, divisor: model value * divisor is in
      these units.
  """
  name: str
  number: int
  scale: float
  offset: float
  missing: int
  ceiling: int | None
  rows: int
  columns: int
  units: str
  divisor: float


def describe(name: str, number: int, store: ClipStore) -> Domain:
  """A store as a domain.

  Raises:
    StoreError: frames that are no 8- or 16-bit integers, or a range that cannot be scaled to 0..1.
  """
  stream, norm = store.streams['frames'], store.meta['normalisation']
  if stream.dtype not in ('uint8', 'uint16'):
    raise StoreError(f'domain {name}: {store.path} holds {stream.dtype} frames; domains mix uint8 '
                     'and uint16: prepare it as such')
  divisor, shift = float(norm.get('divisor', 1.0)), float(norm.get('shift', 0.0))
  maximum = float(norm.get('maximum') or divisor + shift)
  top = (np.iinfo(stream.dtype).max * stream.scale + stream.offset - shift) / divisor
  if 'divisor' not in norm and not top <= 1 + 1e-6:
    raise StoreError(f'domain {name}: {store.path} reaches {top:g} {stream.units} and states no '
                     'normalisation; prepare it with one')
  ceiling = None if maximum == divisor + shift else int(
      (maximum - stream.offset) / stream.scale + 1e-6)
  return Domain(
      name, number, stream.scale / divisor, (stream.offset - shift) / divisor,
      NO_MISSING if stream.missing is None else int(stream.missing), ceiling,
      store.meta['grid'].get('rows', stream.shape[0]),
      store.meta['grid'].get('columns', stream.shape[1]), stream.units, divisor)


def data_spec(
    named: Sequence[tuple[str, ClipStore]], size: tuple[int, int] | None = None, channels: int = 0,
) -> DataSpec:
  """What a run over these domains is: one size, type and range (0 to 1) for all.

  `grid['domains']` keeps what is each domain's own (see `Domain`).

  Args:
    named: the domains. size: (H, W) to resize to; None: all must have one size.
    channels: 1 or 3; 0: the largest that a domain has. Grey is repeated, colour made grey.

  Raises:
    StoreError: sizes that differ and no `size`, channels that cannot be mixed; names both domains.
  """
  first_name, first = named[0]
  shapes = {name: store.streams['frames'].shape for name, store in named}
  for name, store in named:
    if size is None and shapes[name][:2] != shapes[first_name][:2]:
      sides = lambda n: 'x'.join(map(str, shapes[n][:2]))
      raise StoreError(f'{store.path}: domain {name} has frames of {sides(name)}, domain '
                       f'{first_name} at {first.path} of {sides(first_name)}; give a common size')
  most = max(shapes, key=lambda n: shapes[n][2])
  channels = channels or shapes[most][2]
  for name, store in named:
    if shapes[name][2] != channels and {shapes[name][2], channels} != {1, 3}:
      raise StoreError(f'{store.path}: domain {name} has {shapes[name][2]} channels, {channels} '
                       f'are wanted (domain {most} has {shapes[most][2]}); only 1 and 3 mix')
  wide = any(store.streams['frames'].dtype != 'uint8' for _, store in named)
  described = [describe(name, i, store) for i, (name, store) in enumerate(named)]
  return DataSpec(
      name='+'.join(name for name, _ in named), shape=(*(size or shapes[first_name][:2]), channels),
      dtype='uint16' if wide else 'uint8', units='of full scale',
      # Of frames that a caller gives in 0..1; items of the sources bring their own.
      scale=1 / 65534 if wide else 1 / 255, missing=65535 if wide else None,
      divisor=1.0, maximum=1.0, grid=dict(domains=[dataclasses.asdict(d) for d in described]),
      description='; '.join(dict.fromkeys(s.meta['description'] for _, s in named)),
      licence='; '.join(dict.fromkeys(s.meta['licence'] for _, s in named)),
      cadence_hours=first.cadence_hours)
