"""What a model must know about its data, as plain JSON: it travels in every checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stp_jax.data import clip_store, forcings, georeference


@dataclasses.dataclass(frozen=True)
class DataSpec:
  """The frames' shape, units and scaling, and the forcings a run uses.

  Attributes:
    name, description, licence: of the first store.
    shape: `(H, W, C)` of a stored frame. units: of its physical values.
    scale, offset, missing: physical = raw * scale + offset, unless raw equals `missing`.
    shift, divisor, maximum: model value = (min(physical, maximum) - shift) / divisor.
    signed: model values have both signs, as those of fields less their mean do.
    cadence_hours: hours between frames. grid: `latitude`, `longitude` [deg], `rows` and `columns`
      that count.
    channels: of the run, the image first. columns: forcings as the pipeline delivers them.
    known_ahead: per column. training_mean: per column, over the training clips.
    filled: columns that no file gives and that hold the same value everywhere.
    streams: of a store without `frames`, by name: shape, dtype, scale, offset.
  """
  name: str
  shape: tuple[int, int, int]
  dtype: str = 'uint16'
  description: str = ''
  licence: str = ''
  units: str = '1'
  scale: float = 1.0
  offset: float = 0.0
  missing: float | None = None
  divisor: float = 1.0
  maximum: float | None = None
  shift: float = 0.0
  signed: bool = False
  cadence_hours: float = 2.0
  grid: dict[str, Any] = dataclasses.field(default_factory=dict)
  channels: tuple[str, ...] = ('tec',)
  columns: tuple[str, ...] = ()
  known_ahead: tuple[bool, ...] = ()
  training_mean: tuple[float, ...] = ()
  filled: tuple[str, ...] = ()
  streams: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def frames_per_day(self) -> int:
    return max(1, round(24 / self.cadence_hours))

  @property
  def row_weights(self) -> np.ndarray:
    """cos(latitude) per row `[H]` float32, 0 in padding rows; ones without a grid."""
    weights = np.ones(self.shape[0], np.float32)
    if 'latitude' in self.grid:
      rows = len(self.grid['latitude'])
      # A pole keeps a tiny weight: 0 marks padding.
      weights[:rows] = np.maximum(np.cos(np.deg2rad(self.grid['latitude'])), 1e-6)
      weights[rows:] = 0
    return weights

  @property
  def grid_shape(self) -> tuple[int, int]:
    """Rows and columns that count; a stored frame may have padding ones behind them."""
    height, width, _ = self.shape
    return int(self.grid.get('rows', height)), int(self.grid.get('columns', width))

  @property
  def pixel_mask(self) -> np.ndarray:
    """1 in pixels that count, 0 in padding rows and columns, `[H, W]` float32."""
    mask = np.zeros(self.shape[:2], np.float32)
    rows, columns = self.grid_shape
    mask[:rows, :columns] = 1
    return mask

  def with_columns(self, columns: Sequence[str], known_ahead: Mapping[str, bool]) -> 'DataSpec':
    """The same data with these columns; ones it does not know have the training mean 0."""
    mean = dict(zip(self.columns, self.training_mean))
    ahead = {**known_ahead, **dict(zip(self.columns, self.known_ahead))}
    return dataclasses.replace(
        self, columns=tuple(columns), known_ahead=tuple(ahead[c] for c in columns),
        training_mean=tuple(mean.get(c, 0.0) for c in columns),
        filled=tuple(c for c in self.filled if c in columns))

  def to_json(self) -> dict:
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, tree: dict) -> 'DataSpec':
    tuples = {'shape', 'channels', 'columns', 'known_ahead', 'training_mean', 'filled'}
    return cls(**{k: tuple(v) if k in tuples else v for k, v in tree.items()})


def make(
    stores: Sequence[clip_store.ClipStore], config_data, train_splits: Sequence[str],
) -> DataSpec:
  """The spec of a run on `stores`; all stores must agree with the first.

  Raises:
    StoreError: stores of different shape, grid, cadence or scaling.
    ValueError: a channel whose driver no store gives, unless missing_drivers='fill'.
  """
  first = stores[0]
  stream = first.streams['frames']
  for store in stores[1:]:
    for field, one, other in [
        ('frames', stream, store.streams['frames']),
        ('cadence_hours', first.cadence_hours, store.cadence_hours),
        ('normalisation', first.meta['normalisation'], store.meta['normalisation'])]:
      if one != other:
        raise clip_store.StoreError(
            f'{store.path}: {field} {other} differs from {one} of {first.path}; prepare both alike')
    if not georeference.same_places(first.meta['grid'], store.meta['grid']):
      raise clip_store.StoreError(
          f'{store.path}: {georeference.places(store.meta["grid"])} are another grid than '
          f'{georeference.places(first.meta["grid"])} of {first.path}; prepare both of one region')
  names = forcings.channel_names(config_data.channels)
  # Every column that all stores have is delivered: calendars serve the climatology, Kp the strata.
  specs = [f for f in first.forcings
           if all(f.name in {g.name for g in s.forcings} for s in stores)]
  columns, ahead = [f.name for f in specs], [f.known_ahead for f in specs]
  lacking = [n for n in forcings.scalars(names) if n not in columns]
  if lacking and config_data.missing_drivers != 'fill':
    raise ValueError(
        f'{first.path}: no file gives {" ".join(lacking)}; choose other channels, or '
        'data.missing_drivers=fill to feed zeros')
  return DataSpec(
      name=first.name, shape=stream.shape, dtype=stream.dtype,
      description=first.meta['description'], licence=first.meta['licence'], units=stream.units,
      scale=stream.scale, offset=stream.offset, missing=stream.missing,
      divisor=first.meta['normalisation'].get('divisor', 1.0),
      maximum=first.meta['normalisation'].get('maximum'),
      shift=first.meta['normalisation'].get('shift', 0.0),
      signed=bool(first.meta['normalisation'].get('signed', False)),
      cadence_hours=first.cadence_hours, grid=first.meta['grid'], channels=names,
      columns=tuple(columns + lacking), known_ahead=tuple(ahead + [True] * len(lacking)),
      training_mean=tuple(_means(stores, columns, train_splits) + [0.0] * len(lacking)),
      filled=tuple(lacking))


def for_stores(
    spec: DataSpec, stores: Sequence[clip_store.ClipStore], required: Sequence[str], label='',
) -> DataSpec:
  """A trained run's spec on other stores: the columns it reads, and what else they offer.

  Args:
    spec: of the checkpoint. required: columns that its model reads. label: the checkpoint's name.

  Raises:
    StoreError: another grid, unit or cadence, or a column that a store does not have.
  """
  for store in stores:
    stream = store.streams['frames']
    if (stream.shape, stream.scale, stream.offset, stream.units, store.cadence_hours) != (
        spec.shape, spec.scale, spec.offset, spec.units, spec.cadence_hours):
      raise clip_store.StoreError(
          f'{store.path}: {list(stream.shape)} in {stream.scale} {stream.units} every '
          f'{store.cadence_hours} h; {label or spec.name} was trained on {list(spec.shape)} in '
          f'{spec.scale} {spec.units} every {spec.cadence_hours} h; prepare it alike')
    if not georeference.same_places(spec.grid, store.meta['grid']):
      raise clip_store.StoreError(
          f'{store.path}: {georeference.places(store.meta["grid"])}; {label or spec.name} was '
          f'trained on {georeference.places(spec.grid)}; prepare a store of that region, or train '
          'a run on this one')
    lacking = [c for c in required
               if c not in spec.filled and c not in {f.name for f in store.forcings}]
    if lacking:
      raise clip_store.StoreError(
          f'{store.path}: has no {" ".join(lacking)}, which {label or spec.name} reads; prepare it '
          'with --indices')
  common = [f for f in stores[0].forcings
            if all(f.name in {g.name for g in s.forcings} for s in stores)]
  names = [f.name for f in common]
  filled = [c for c in spec.filled if c in required and c not in names]
  # A missing value's code is the store's own: two importers may choose differently.
  spec = dataclasses.replace(
      spec, missing=stores[0].streams['frames'].missing, grid=stores[0].meta['grid'],
      filled=tuple(filled))
  return spec.with_columns(names + filled, {f.name: f.known_ahead for f in common})


def _means(stores, columns, splits) -> list[float]:
  total, count = np.zeros(len(columns)), np.zeros(len(columns))
  for store in stores:
    order = [[f.name for f in store.forcings].index(c) for c in columns]
    for clip in store.clips:
      if clip.split in splits and order:
        rows = store.column('forcings')[clip.start:clip.start + clip.length][:, order]
        total += np.nansum(rows, 0, dtype=np.float64)
        count += np.isfinite(rows).sum(0)
  return (total / np.maximum(count, 1)).tolist()
