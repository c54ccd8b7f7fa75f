"""Lidar frames of DeepSense6G without what stands still, in `lidar_data_filtered/`.

  python -m stp_jax.prepare deepsense_filter --in Dataset --out Dataset
  python -m stp_jax.prepare deepsense --in Dataset --out STORE --filtered

A point belongs to the background where a point of the background cloud is close to it in the plane;
how close grows with the range, as a lidar's precision falls. The background of a scenario is what
its largest frames have in common. Facts follow github.com/szy4017/DeepSense6G_TII.
"""

import os
import pathlib
from collections.abc import Iterable

import numpy as np

from stp_jax import files
from stp_jax.data import point_file
from stp_jax.data.clip_store import StoreError
from stp_jax.data.ordered_pool import ordered

# Points of a frame that is large enough to tell the background, as published.
LEAST = {31: 16_400, 32: 18_000, 33: 18_000, 34: 18_600}
OPTIONS = {
    'frames': (int, 50, 'at most so many large frames of a scenario make its background'),
    'least': (int, 0, 'points of a large frame; 0: as published, or the largest tenth where no '
                      'frame has as many'),
    'workers': (int, 0, 'processes; 0: one a core, at most 8')}


def threshold(points: np.ndarray) -> np.ndarray:
  """Metres `[N]` within which points `[N, 3]` are taken for the same, by their planar range."""
  return 0.3 + 4.7 * (np.hypot(points[:, 0], points[:, 1]) / 30) ** 4


def _nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The nearest of `others` (in space), and its distance in the plane."""
  import scipy.spatial

  _, index = scipy.spatial.cKDTree(others).query(points)
  found = others[index]
  return found, np.hypot(*(points - found)[:, :2].T)


def background(frames: Iterable[np.ndarray]) -> np.ndarray:
  """What all frames `[N, 3]` have in common, `[M, 3]`: points that stay, drawn to their mean.

  Raises:
    ValueError: no frame.
  """
  cloud = None
  for points in frames:
    if cloud is None:
      cloud = points
    elif len(cloud) and len(points):
      found, away = _nearest(cloud, points)
      stays = away < threshold(cloud)
      cloud = (cloud[stays] + found[stays]) / 2
  if cloud is None:
    raise ValueError('no frame to find the background in')
  return cloud


def foreground(points: np.ndarray, still: np.ndarray) -> np.ndarray:
  """The points `[N, 3]` that are not of the background `[M, 3]`."""
  if not len(points) or not len(still):
    return points
  return points[_nearest(points, still)[1] >= threshold(points)]


def _filter(source: str, target: str, still: np.ndarray) -> tuple[int, int]:
  points = point_file.read(source)
  kept = foreground(points, still)
  with files.whole(target) as partial:
    point_file.write(partial, kept)
  return len(points), len(kept)


def _large(folder: pathlib.Path, scenario: int, least: int, limit: int) -> list[pathlib.Path]:
  """Frames to find the background in, spread evenly over the drive-bys."""
  files = sorted(folder.glob('*.ply'))
  sizes = np.array([len(point_file.read(p)) for p in files])
  enough = sizes >= (least or LEAST.get(scenario, 0))
  if not enough.any():
    if least:
      raise StoreError(f'{folder}: no frame has {least} points, the largest {sizes.max()}; '
                       'choose a smaller --least')
    enough = sizes >= np.quantile(sizes, 0.9)
  found = np.flatnonzero(enough)
  return [files[i] for i in found[np.linspace(0, len(found) - 1, min(limit, len(found))).astype(
      int)]]


def prepare(*, in_dir: str | os.PathLike | None, out: str | os.PathLike, frames: int = 50,
            least: int = 0, workers: int = 0) -> list:
  """Writes the filtered frames of every scenario below `in_dir`; files that are there are kept.

  Raises:
    StoreError: no lidar frames, none large enough. ValueError: an unreadable file, named.
  """
  if not in_dir:
    raise StoreError('deepsense_filter: --in DIR names the folder that holds the set')
  root = pathlib.Path(in_dir)
  folders = sorted(p for p in root.rglob('lidar_data') if p.is_dir() and any(p.glob('*.ply')))
  if not folders:
    raise StoreError(f'{root}: no folder lidar_data with .ply files below; --in names the folder '
                     'that holds Multi_Modal and the others')
  for folder in folders:
    name = next((p for p in reversed(folder.parts) if p.startswith('scenario')), '')
    scenario = int(name.removeprefix('scenario')) if name[8:].isdigit() else 0
    target = pathlib.Path(out) / folder.relative_to(root).with_name('lidar_data_filtered')
    target.mkdir(parents=True, exist_ok=True)
    missing = [p for p in sorted(folder.glob('*.ply')) if not (target / p.name).exists()]
    if not missing:
      continue
    still = background(map(point_file.read, _large(folder, scenario, least, frames)))
    jobs = [(str(p), str(target / p.name), still) for p in missing]
    counts = np.array(list(ordered(
        _filter, jobs, workers or min(8, os.cpu_count() or 1), name or folder.name)))
    before, after = counts.mean(0)
    print(f'{folder.relative_to(root)}: background of {len(still)} points; '
          f'{before:.0f} -> {after:.0f} points a frame')
  return []
