"""Which files the frames of a DeepSense6G set are read from, and whether they are all there."""

import dataclasses
import os
import pathlib

import numpy as np

from stp_jax.data import deepsense_sensors as sensors
from stp_jax.data import deepsense_split
from stp_jax.data.clip_store import StoreError
from stp_jax.data.deepsense_csv import Row


class Folders:
  """Which files exist, a directory listing each."""

  def __init__(self):
    self._names: dict[str, set[str]] = {}

  def has(self, path: str) -> bool:
    folder, name = os.path.split(path)
    if folder not in self._names:
      try:
        self._names[folder] = set(os.listdir(folder))
      except OSError:
        self._names[folder] = set()
    return name in self._names[folder]


def _radar_paths(path: str, kind: str, folders: Folders) -> tuple[str, ...]:
  """The cube, or both maps computed before."""
  if kind == 'cubes':
    return (path,)
  stem = os.path.splitext(path)[0] + '.npy'
  maps = tuple(stem.replace('/radar_data/', f'/radar_data_{m}/', 1) for m in ('ang', 'vel'))
  return maps if kind == 'maps' or folders.has(maps[0]) else (path,)


def locate(frame, scenario: int, reading: sensors.Reading, folders: Folders) -> sensors.Files:
  root, image, radar, lidar = frame
  full = lambda path: os.path.normpath(os.path.join(root, path))
  chosen = sensors.image_path(image, scenario, reading)
  seg = None
  if reading.seg and scenario not in sensors.NIGHT:
    seg = full(sensors.image_path(image, scenario, reading, '_seg'))
  if reading.filtered:
    lidar = lidar.replace('/lidar_data/', '/lidar_data_filtered/', 1)
  return sensors.Files(
      scenario, full(chosen), full(lidar), _radar_paths(full(radar), reading.radar, folders), seg)


def present(rows, files, folders: Folders, skip: bool) -> list[Row]:
  """Rows whose files are all there; stops at the first that is missing, unless `skip`."""
  kept = []
  for row in rows:
    needed = [p for f in deepsense_split.frames_of(row) for p in files[f].all()]
    needed += [os.path.normpath(os.path.join(row.root, p)) for p in (row.station, *row.fixes)]
    missing = next((p for p in needed if not folders.has(p)), None)
    if missing and not skip:
      raise StoreError(f'{row.where}: {missing} is missing; copy it there, or leave such rows out '
                       'with --skip-missing')
    if not missing:
      kept.append(row)
  if not kept:
    raise StoreError(f'{rows[0].root}: no row has all of its files')
  return kept


def _shape(path: str) -> tuple[int, ...]:
  """Of a radar cube, from the header alone where the file has one that tells."""
  if path.endswith('.npy'):
    try:
      return np.load(path, mmap_mode='r').shape
    except (OSError, EOFError, ValueError):
      pass  # read_cube says what is wrong with it
  return sensors.read_cube(pathlib.Path(path)).shape


def expect_cubes(plan: deepsense_split.Plan, files: dict) -> None:
  """Notes, for every frame read from a cube, the shape of its scenario's first cube."""
  shapes: dict[int, tuple[int, ...]] = {}
  for clip in plan.clips:
    for frame in clip.frames:
      found = files[frame]
      if len(found.radar) == 1:
        if found.scenario not in shapes:
          shapes[found.scenario] = _shape(found.radar[0])
        files[frame] = dataclasses.replace(found, shape=shapes[found.scenario])
