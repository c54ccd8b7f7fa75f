"""How each file packs its values and where its pixels lie; see `folder`.

Files of one data set may differ: a reanalysis packs every year by numbers of its own, and rows go
north in some files and south in others. Values are decoded by their own file's numbers, frames are
turned as the first file has them, and pixels that lie elsewhere are refused.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stp_jax.data.clip_store import StoreError
from stp_jax.data.folder_clips import BadFrame, Found

_NEAR = 0.01  # of a pixel: coordinates that differ by less are the same


@dataclasses.dataclass(frozen=True)
class Packing:
  """physical = value * scale + offset, but for the values `missing`; by the CF conventions.

  Of values of their true type, see `folder_packed`.
  """
  scale: float = 1.0
  offset: float = 0.0
  missing: tuple[float, ...] = ()

  def __str__(self) -> str:
    none = f', missing {" ".join(f"{m:g}" for m in self.missing)}' if self.missing else ''
    return f'scale_factor {self.scale:g}, add_offset {self.offset:g}{none}'

  def decoded(self, frame: np.ndarray) -> np.ndarray:
    """float64 in units, NaN where there is no value."""
    value = frame.astype(np.float64)
    for code in self.missing:
      value[frame == (np.asarray(code, frame.dtype) if frame.dtype.kind == 'f' else code)] = np.nan
    return value * self.scale + self.offset


def _numbers(value) -> list[float]:
  try:
    return [] if value is None else [float(v) for v in np.ravel(value)]
  except (TypeError, ValueError):
    return []


def packing(attributes: Mapping[str, Any]) -> Packing:
  """What attributes of a variable say of its values; NaN always is a missing value."""
  first = lambda name: next(iter(_numbers(attributes.get(name))), 0.0)
  missing = _numbers(attributes.get('_FillValue')) + _numbers(attributes.get('missing_value'))
  return Packing(first('scale_factor') or 1.0, first('add_offset'),
                 tuple(dict.fromkeys(m for m in missing if not np.isnan(m))))


def text(value) -> str:
  """An attribute in words; '' where there is none."""
  if value is None:
    return ''
  return value.decode(errors='replace') if isinstance(value, bytes) else str(value)


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the pixels of a file lie.

  Attributes:
    axes: coordinates of its rows and of its columns; None where it tells none.
    degrees: of longitude, for which a turn is nothing. system: what they are coordinates of.
  """
  axes: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
  degrees: bool = False
  system: str = ''


def _same(one: np.ndarray, other: np.ndarray, turns: bool) -> bool:
  apart = one - other
  if turns:
    apart = (apart + 180) % 360 - 180
  pixel = np.median(abs(np.diff(one))) if len(one) > 1 else 1e-4 * abs(one).max()
  return bool((abs(apart) <= _NEAR * pixel + 1e-9).all())


class Files:
  """What the files tell, the first of them being the measure of the others.

  Attributes:
    unplaced: names of files that tell no coordinates where others do.
  """

  def __init__(self):
    self._packings: dict[Packing, str] = {}  # the first file of each
    self._units: tuple[str, str] | None = None
    self._axes: list[tuple[str, np.ndarray] | None] = [None, None]
    self._systems: tuple[str, str] | None = None
    self._decode, self._code = False, None
    self.unplaced: list[str] = []

  def reading(self, name: str, read: Callable, told: Packing, units: str = '',
              place: Place | None = None) -> Callable[[int, int], Iterator[np.ndarray | BadFrame]]:
    """Takes note of a file; its `read`, with frames turned and, where files differ, decoded.

    Raises:
      StoreError: units or pixels that are not those of the files before.
    """
    self._packings.setdefault(told, name)
    if units:
      self._units = self._units or (units, name)
      if units != self._units[0]:
        raise StoreError(f'{name}: values in {units}, but {self._units[1]} has {self._units[0]}; '
                         'convert them, or prepare them apart')
    down, right = self._turns(name, place or Place())

    def go(start: int, stop: int) -> Iterator[np.ndarray | BadFrame]:
      for frame in read(start, stop):
        if not isinstance(frame, BadFrame):
          frame = frame[::-1 if down else 1, ::-1 if right else 1]
          if self._decode:
            frame = self._stated(told).decoded(frame)
        yield frame

    return go

  def _turns(self, name: str, place: Place) -> list[bool]:
    if place.system:
      self._systems = self._systems or (place.system, name)
      if place.system != self._systems[0]:
        raise StoreError(f'{name}: lies in {place.system}, but {self._systems[1]} in '
                         f'{self._systems[0]}; bring them to one grid, or prepare them apart')
    turned = []
    for k, (what, values) in enumerate(zip(('rows', 'columns'), place.axes)):
      if values is None or not np.isfinite(values).all():
        turned.append(False)
        if k == 0:
          self.unplaced.append(name)
        continue
      if self._axes[k] is None:
        self._axes[k] = name, values
      first, measure = self._axes[k]
      turns = place.degrees and k == 1
      if len(values) != len(measure):  # one size is asked for, or all are resized
        turned.append(bool((values[-1] - values[0]) * (measure[-1] - measure[0]) < 0))
        continue
      turned.append(not _same(measure, values, turns))
      if turned[-1] and not _same(measure, values[::-1], turns):
        raise StoreError(
            f'{name}: {what} lie at {values[0]:g} to {values[-1]:g}, those of {first} at '
            f'{measure[0]:g} to {measure[-1]:g}: another grid; bring them to one, or prepare them '
            'apart')
    return turned

  def _stated(self, told: Packing) -> Packing:
    return told if self._code is None else dataclasses.replace(told, missing=(self._code,))

  def settle(self, found: Found, code: float | None) -> None:
    """Says in `found` how values are packed, once all files are known: as all, or decoded.

    Args:
      code: the value that was told to mean none, in place of what files say.
    """
    self._code = code
    packings = {self._stated(p): n for p, n in reversed(self._packings.items())}
    one = next(iter(packings), Packing())
    self._decode = len(packings) > 1 or len(one.missing) > 1
    found.units = self._units[0] if self._units else ''
    if any(a is not None for a in self._axes) and self.unplaced:
      found.notes.append(f'{len(self.unplaced)} files tell no coordinates ({self.unplaced[0]}): '
                         'taken to lie as the others')
    if not self._decode:
      found.scale, found.offset = one.scale, one.offset
      found.missing = one.missing[0] if one.missing else None
      return
    listed = '; '.join(f'{n}: {p}' for p, n in list(packings.items())[::-1][:2])
    more = '; ...' if len(packings) > 2 else ''
    found.notes.append(f'packed in {len(packings)} ways ({listed}{more}): each file is decoded by '
                       'its own' if len(packings) > 1 else f'decoded ({listed})')
    found.stored = ' '.join(sorted({c.dtype for c in found.clips if c.dtype}))
    found.scale, found.offset, found.missing, found.picture = 1.0, 0.0, None, False
    found.clips = [dataclasses.replace(c, dtype='float64') if c.dtype else c for c in found.clips]
