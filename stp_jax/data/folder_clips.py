"""Clips of a user's own files, found and described but not yet read; see `folder`."""

import collections
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from stp_jax.data.clip_store import StoreError
from stp_jax.data.folder_times import number_gaps, times_of
from stp_jax.data.png_samples import natural

KINDS = {
    'images': ('.png', '.jpg', '.jpeg', '.bmp', '.webp'),
    'videos': ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg', '.m4v', '.gif'),
    'arrays': ('.npy', '.npz'),
    'hdf5': ('.h5', '.hdf5', '.hdf', '.he5'),
    'fields': ('.nc', '.nc4', '.cdf', '.zarr'),
    'geotiff': ('.tif', '.tiff')}


class BadFrame(StoreError):
  """A file or frame that cannot be read; the message names it."""


@dataclasses.dataclass(frozen=True)
class Clip:
  """Frames in order of time.

  Attributes:
    name: where they come from, below the folder that was given.
    shape: (H, W, C) of a frame. dtype: as the file has it.
    read: (first, behind the last) -> frames `[H, W, C]` one by one, a BadFrame in place of one that
      cannot be read; fewer where the file ends early.
    times: datetime64[s] `[length]`, of milliseconds where frames are closer; or None.
    cuts: {index: how many are missing before it} where the files' numbers jump, of clips without
      times.
  """
  name: str
  length: int
  shape: tuple[int, int, int]
  dtype: str
  read: Callable[[int, int], Iterator[np.ndarray | BadFrame]]
  times: np.ndarray | None = None
  cuts: dict[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Found:
  """Clips, and what their files tell of the values: physical = value * scale + offset.

  Attributes:
    kind: of KINDS, or the importer. layout: of an array or image, in words.
    picture: values are brightness, from 0 to full scale.
    missing: the value that stands for none. skipped: what could not be read.
    sizes: (H, W) -> the file that was the first to have it. notes: for the card.
    files: a `folder_packing.Files`, of kinds whose files say how values are packed.
    stored: types of the values in the files, where they are decoded when they are read.
  """
  kind: str
  clips: list[Clip]
  layout: str
  picture: bool = False
  scale: float = 1.0
  offset: float = 0.0
  missing: float | None = None
  units: str = ''
  grid: dict[str, Any] = dataclasses.field(default_factory=dict)
  skipped: list[str] = dataclasses.field(default_factory=list)
  sizes: dict[tuple[int, int], str] = dataclasses.field(default_factory=dict)
  notes: list[str] = dataclasses.field(default_factory=list)
  files: Any = None
  stored: str = ''


class Bad:
  """What is done with a frame or file that cannot be read: stop, or remember and go on."""

  def __init__(self, stop: bool):
    self.stop, self.names, self._errors = stop, [], {}

  def __call__(self, error: BadFrame, name: str) -> None:
    if self.stop:
      raise StoreError(f'{error}; repair or remove it, or --on-bad skip') from error
    if id(error) not in self._errors:  # else met before, in place of a file
      self._errors[id(error)] = error  # kept, or another may get its id
      self.names.append(name)


def module(name: str, what: str, extra: str):
  """An optional module; one that is not installed is one line with the cure."""
  try:
    return __import__(name)
  except ImportError as error:
    raise StoreError(f'{what} needs {name}: pip install {extra}') from error


def _is_zarr(path: pathlib.Path) -> bool:
  return path.suffix == '.zarr' or any(
      (path / n).exists() for n in ('zarr.json', '.zgroup', '.zmetadata'))


def _walk(base: pathlib.Path) -> Iterator[pathlib.Path]:
  with os.scandir(base) as entries:
    listed = sorted((e for e in entries if not e.name.startswith('.')),
                    key=lambda e: natural(e.name))
  for entry in listed:
    path = base / entry.name
    if not entry.is_dir():
      yield path
    elif _is_zarr(path):
      yield path
    else:
      yield from _walk(path)


def files(in_dir, pattern: str = '', every: bool = False
          ) -> tuple[pathlib.Path, str, list[pathlib.Path]]:
  """The folder, the kind of its files and these files, in natural order.

  Args:
    in_dir: a folder, or one file. pattern: such as '*.png'; others are left out.
    every: all files, whatever their suffix.

  Raises:
    StoreError: no such folder, nothing that can be read, or files of several kinds.
  """
  if in_dir is None or not pathlib.Path(in_dir).exists():
    raise StoreError(f'--in {in_dir}: no such folder; name the one that holds the frames')
  base = pathlib.Path(in_dir)
  one = base.is_file() or _is_zarr(base)
  there = [base] if one else list(_walk(base))
  there = [p for p in there if not pattern or p.match(pattern)]
  base = base.parent if one else base
  if every and there:
    return base, 'every', there
  kinds = {k: [p for p in there if p.suffix.lower() in s or (k == 'fields' and p.is_dir())]
           for k, s in KINDS.items()}
  kinds = {k: p for k, p in kinds.items() if p}
  if not kinds:
    others = collections.Counter(p.suffix or p.name for p in there)
    what = ' '.join(f'{n} {s}' for s, n in others.most_common(3)) or 'it is empty'
    raise StoreError(
        f'{in_dir}: no frames{" like " + pattern if pattern else ""} in it ({what}); it takes '
        f'{" ".join(s for k in KINDS.values() for s in k)}')
  if len(kinds) > 1:
    listed = ', '.join(f'{len(p)} {k} ({p[0].name})' for k, p in kinds.items())
    raise StoreError(f"{in_dir}: holds {listed}; choose with --pattern, such as --pattern "
                     f"'*{next(iter(kinds.values()))[0].suffix}'")
  kind, paths = next(iter(kinds.items()))
  return base, kind, paths


def below(base: pathlib.Path, path: pathlib.Path) -> str:
  """A path as clips are called."""
  name = path.relative_to(base).as_posix()
  return base.resolve().name if name == '.' else name


def folders(base: pathlib.Path, paths: Sequence[pathlib.Path]
            ) -> Iterator[tuple[str, list[pathlib.Path]]]:
  """(name, its files) of every folder, in order."""
  for parent, group in itertools.groupby(paths, key=lambda p: p.parent):
    yield below(base, parent), list(group)


def gap(name: str, error: BadFrame) -> Clip:
  """Stands for a file that cannot be read, so that its neighbours are not joined."""
  return Clip(name, 1, (0, 0, 0), '', lambda start, stop: iter([error][start:stop]))


def joined(name: str, parts: Sequence[Clip]) -> list[Clip]:
  """Files of one folder as clips: those with times, or of one frame each, make one.

  Raises:
    StoreError: two frames of one time, or frames of different shapes; names both files.
  """
  read_ = [p for p in parts if p.dtype]
  single = all(p.length == 1 for p in read_)
  if not single or any(p.times is not None for p in read_):
    parts = read_  # times tell where one is missing
  if not read_ or (len(read_) < 2 and not single):
    return read_
  if single and any(p.times is None for p in parts):
    times = times_of([pathlib.PurePath(p.name).name for p in parts])
    parts = [dataclasses.replace(p, times=None if times is None else times[i:i + 1])
             for i, p in enumerate(parts)]
  timed = all(p.times is not None for p in parts)
  if len(read_) < 2:
    return [p for p in parts if p.dtype]
  if not single and not timed:
    return list(parts)
  if timed:
    parts = sorted(parts, key=lambda p: p.times[0])
    for one, other in itertools.pairwise(parts):
      if other.times[0] <= one.times[-1]:
        raise StoreError(f'{other.name}: begins at {other.times[0]}, {one.name} ends at '
                         f'{one.times[-1]}; keep each time once')
  ends = np.cumsum([p.length for p in parts]).tolist()

  def read(start: int, stop: int) -> Iterator[np.ndarray | BadFrame]:
    for part, end in zip(parts, ends):
      first = end - part.length
      if first < stop and end > start:
        count = 0
        for frame in part.read(max(start - first, 0), min(stop - first, part.length)):
          count += 1
          yield frame
        # A part that ends early must not move what follows it to another time.
        for _ in range(min(stop, end) - max(start, first) - count):
          yield BadFrame(f'{part.name}: ends before frame {part.length}')

  first = read_[0]
  cuts = {} if timed else number_gaps([p.name for p in parts])
  return [Clip(name, ends[-1], first.shape, first.dtype, read,
               np.concatenate([p.times for p in parts]) if timed else None, cuts)]
