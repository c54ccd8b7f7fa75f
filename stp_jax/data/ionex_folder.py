"""Which maps of a folder of IONEX files make up a series; see `ionex` for the decisions."""

import dataclasses
import pathlib
import re
import zlib
from typing import BinaryIO

import numpy as np

from stp_jax.data import ionex_file
from stp_jax.data.clip_store import StoreError

_NAME = re.compile(r'\.(\d\di|inx|ionex)(\.(gz|z))?$', re.I)
_LONG = re.compile(r'^\w{4}\w{3}(FIN|RAP|ULT|PRD|P[01]D)_', re.I)
_RANKS = {'FIN': 0, 'RAP': 1, 'ULT': 2, 'PRD': 3, 'P0D': 3, 'P1D': 4}


@dataclasses.dataclass(frozen=True)
class Map:
  """One map of one file; `place` counts the maps of the spool file."""
  epoch: np.datetime64
  closing: bool
  rank: int
  file: str
  checksum: int
  place: int


def centre_of(name: str) -> str:
  """The analysis centre of a file name, in small letters."""
  long = _LONG.match(name)
  prediction = long and long[1].upper().startswith('P')
  return name[:3].lower() + ('-prd' if prediction else '')


def files(in_dir, centre: str | None) -> tuple[list[pathlib.Path], str]:
  """The IONEX files of one centre below a folder (or the one file), sorted, and the centre.

  Raises:
    StoreError: no such folder, no IONEX file in it, or several centres and none chosen.
  """
  if in_dir is None:
    raise StoreError('--in: name the folder of the IONEX files')
  folder = pathlib.Path(in_dir)
  if not folder.exists():
    raise StoreError(f'{folder}: no such folder')
  every = sorted(p for p in folder.rglob('*') if p.is_file()) if folder.is_dir() else [folder]
  found = [p for p in every if _NAME.search(p.name)]
  if not found:
    raise StoreError(
        f'{folder}: no IONEX file (names like codg3230.12i.Z or COD0OPSFIN_20223230000_01D_01H_'
        f'GIM.INX.gz) among its {len(every)} files')
  centres = {}
  for path in found:
    centres.setdefault(centre_of(path.name), []).append(path)
  centre = next(iter(centres)) if centre is None and len(centres) == 1 else centre
  if centre is None or centre.lower() not in centres:
    listed = ', '.join(f'{k} ({len(v)} files)' for k, v in sorted(centres.items()))
    raise StoreError(f'{folder}: holds {listed}; choose one with --centre')
  return centres[centre.lower()], centre.lower()


def load(
    path: pathlib.Path, cadence: int, negative: str, spool: BinaryIO, grid: tuple | None,
    facts: dict[str, int],
) -> tuple[list[Map], tuple]:
  """Appends the wanted maps of one file (TEC and RMS, uint16) to `spool`.

  Args:
    cadence: minutes.
    grid: axes and path of the first file, None before it.
    facts: counts to add to.

  Returns:
    The maps, and `grid`.

  Raises:
    StoreError: an unreadable file, another grid, a file coarser than the cadence.
  """
  maps = ionex_file.read(path, negative)
  axes = maps.latitude, maps.longitude
  if grid is None:
    grid = axes, path
  if grid[0] != axes:
    describe = lambda a: (f'{len(a[0])} x {len(a[1])} (latitude {a[0][0]:g} to {a[0][-1]:g}, '
                          f'longitude {a[1][0]:g} to {a[1][-1]:g})')
    raise StoreError(f'{path}: grid {describe(axes)}, but {grid[1].name} has '
                     f'{describe(grid[0])}; put them into stores of their own')
  if maps.interval > cadence:
    raise StoreError(f'{path}: maps every {maps.interval / 60:g} h, coarser than the cadence of '
                     f'{cadence / 60:g} h; choose --cadence {maps.interval / 60:g}')
  minutes = maps.epochs.astype(np.int64)
  wanted = (minutes % cadence == 0) | (maps.interval == cadence)
  long = _LONG.match(path.name)
  rank = _RANKS[long[1].upper()] if long else 0
  found = []
  for i in np.flatnonzero(wanted):
    pair = np.stack([maps.tec[i], maps.rms[i]]).tobytes()
    closing = i == len(minutes) - 1 and i > 0 and (minutes[i] - minutes[0]) % 1440 == 0
    place = spool.tell() // len(pair)
    spool.write(pair)
    found.append(Map(maps.epochs[i], bool(closing), rank, path.name, zlib.crc32(pair), place))
  facts['thinned'] += int((~wanted).sum())
  return found, grid


def chosen(maps: list[Map], cadence: int, facts: dict[str, int]) -> list[Map]:
  """One map per epoch, in order of time; see the decisions in `ionex`.

  Raises:
    StoreError: two files of equal rank with different maps of one epoch.
  """
  best = {}
  for one in sorted(maps, key=lambda m: (m.epoch, m.closing, m.rank)):
    other = best.setdefault(one.epoch, one)
    if other is one:
      continue
    same = other.checksum == one.checksum
    if (other.closing, other.rank) == (one.closing, one.rank) and not same:
      raise StoreError(
          f'{one.file} and {other.file}: different maps of {one.epoch}; remove one of the files')
    facts['closing' if one.closing else 'duplicate'] += 1
  step = np.timedelta64(cadence, 'm')
  opens = {m.epoch for m in best.values() if not m.closing}
  kept = [m for m in best.values() if not m.closing or m.epoch + step in opens]
  facts['closing'] += len(best) - len(kept)
  return kept
