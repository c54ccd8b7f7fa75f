"""SIMULATED scenes in the folders and files of DeepSense6G's beam challenge.

  python -m stp_jax.prepare deepsense_scenes --out Dataset
  python -m stp_jax.prepare deepsense --in Dataset --out STORE --size 64
  python -m stp_jax.prepare deepsense_scenes --as-store --out STORE     both at once, for a CPU

A vehicle drives past a base station and is seen by camera, lidar, radar and its own GPS; the best
of 64 beams follows from its bearing. The GPS is off by metres and only the first two positions of a
window are given, so it alone is imprecise. Scenarios 31 and 32 are in daylight, 33 and 34 at night.

Only the layout (folders, names, columns, array shapes and ranges) follows the real set, of which no
sample was at hand: what is learnt here, and every score here, says nothing about it.
"""

import csv
import json
import math
import os
import pathlib
import re
import shutil

import numpy as np

from stp_jax.data import deepsense_world as world
from stp_jax.data import point_file
from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.data.clip_writer import write_json
from stp_jax.data.ordered_pool import ordered

OPTIONS = {
    'samples': (int, 600, 'labelled samples of the development set (scenarios 32, 33, 34)'),
    'adaptation': (int, 96, 'of the adaptation set (31, 32, 33); 0: no such set'),
    'test': (int, 64, 'of the test set (31 to 34), without labels; 0: no such set'),
    'length': (int, 12, 'frames of a drive; a sample ends at each from the fifth on'),
    'camera': (str, '160x90', 'WIDTHxHEIGHT of the pictures; the real ones have 960x540'),
    'cube': (str, '4x64x16', 'antennas x samples x chirps of the radar; real ones: 4x256x250'),
    'points': (int, 600, 'of a lidar frame, about'),
    'gps_noise': (float, 2.5, 'standard deviation of a drive\'s position error, metres'),
    'seed': (int, 0, 'drive i follows from (seed, i) alone'),
    'as_store': (bool, False, 'write a clip store instead of the folders'),
    'size': (int, 64, 'with as_store: side of pictures and maps'),
    'window': (str, '', 'with as_store: see prepare deepsense'),
    'stride': (int, 2, 'with as_store: see prepare deepsense'),
    'workers': (int, 0, 'processes; 0: one a core, at most 8')}
SETS = {
    'Multi_Modal': ('ml_challenge_dev_multi_modal.csv', (32, 33, 34)),
    'Adaptation_dataset_multi_modal': (
        'ml_challenge_data_adaptation_multi_modal.csv', (31, 32, 33)),
    'Multi_Modal_Test': ('ml_challenge_test_multi_modal.csv', (31, 32, 33, 34))}
WINDOW = 5
_VERSION = 1
_GAP = 40  # frame numbers and ticks between two drives
DESCRIPTION = ('SIMULATED scenes of one moving transmitter in the layout of DeepSense 6G; not '
               'measured')


def _numbers(text: str, count: int, name: str, least: tuple[int, ...]) -> tuple[int, ...]:
  found = tuple(int(n) for n in re.findall(r'\d+', text))
  if len(found) != count or any(n < m for n, m in zip(found, least)):
    raise StoreError(f'--{name} {text}: {count} numbers joined by x, at least '
                     f'{"x".join(map(str, least))}')
  return found


def _clock(number: int, begin: int) -> str:
  seconds = begin + int(number * world.STEP)
  return f'{seconds // 3600 % 24:02d}_{seconds // 60 % 60:02d}_{seconds % 60:02d}'


def write_drive(
    folder: str, scenario: int, first: int, index: int, seed: int, length: int, camera, cube,
    points: int, gps_noise: float,
) -> list[dict[str, str]]:
  """Writes the files of one drive below `folder`; its frames' paths and beams, as in the CSV."""
  import PIL.Image

  rng = np.random.default_rng((seed, index))
  boxes = world.background(seed, scenario)
  drive = world.drive(rng, scenario, length, gps_noise)
  night = world.is_night(scenario)
  root = pathlib.Path(folder)
  frames = []
  for t in range(length):
    n = first + t
    stamp = _clock(n, 3600 * (20 if night else 10))
    unit = f'./scenario{scenario}/unit1'
    paths = dict(
        rgb=f'{unit}/camera_data/image_BS1_{n}_{stamp}.jpg',
        radar=f'{unit}/radar_data/radar_data_{n}.npy',
        lidar=f'{unit}/lidar_data/lidar_data_{n}.ply',
        fix=f'./scenario{scenario}/unit2/GPS_data/gps_location_{n}.txt',
        power=f'{unit}/mmWave_data/mmWave_power_{n}.txt')
    car = drive.car(t)
    image = world.picture(rng, boxes, car, camera, night)
    if night:
      raw = paths['rgb'].replace('/camera_data/', '/camera_data_raw/')
      PIL.Image.fromarray(image).save(root / raw, quality=92)
      image = world.enhanced(image)
    PIL.Image.fromarray(image).save(root / paths['rgb'], quality=92)
    np.save(root / paths['radar'], world.radar(rng, boxes, drive, t, cube))
    point_file.write(root / paths['lidar'], world.cloud(rng, boxes, car, points))
    fix = world.position(rng, drive, t, gps_noise)
    (root / paths['fix']).write_text(f'{fix[0]:.8f}\n{fix[1]:.8f}\n')
    power = world.beams(rng, *drive.where(t))
    (root / paths['power']).write_text('\n'.join(f'{p:.8f}' for p in power) + '\n')
    frames.append(paths | dict(beam=str(int(power.argmax()) + 1)))
  return frames


def _rows(frames: list[dict[str, str]], scenario: int, labelled: bool) -> list[dict[str, str]]:
  rows = []
  for end in range(WINDOW, len(frames) + 1):
    part = frames[end - WINDOW:end]
    row = {f'unit1_{s}_{t}': f[s] for s in ('rgb', 'radar', 'lidar') for t, f in enumerate(part, 1)}
    row['unit1_loc'] = f'./scenario{scenario}/unit1/GPS_data/gps_location.txt'
    row |= dict(unit2_loc_1=part[0]['fix'], unit2_loc_2=part[1]['fix'])
    if labelled:
      row |= dict(unit1_pwr_60ghz=part[-1]['power'], unit1_beam=part[-1]['beam'])
    rows.append(row)
  return rows


def write_scenes(
    out: str | os.PathLike, *, samples: int, adaptation: int, test: int, length: int,
    camera: str, cube: str, points: int, gps_noise: float, seed: int, workers: int,
) -> int:
  """Writes the folders at `out`, whole or not at all; the number of frames.

  Raises:
    StoreError: an option out of range, or something else stands at `out`.
  """
  sizes = _numbers(camera, 2, 'camera', (16, 16))
  shape = _numbers(cube, 3, 'cube', (2, 8, 4))
  if not WINDOW <= length <= _GAP * 50 or samples < 1 or min(adaptation, test, gps_noise) < 0:
    raise StoreError(f'--length {length} --samples {samples}: at least {WINDOW} frames and 1 '
                     'sample; the others 0 or more')
  out = pathlib.Path(out)
  recipe = dict(version=_VERSION, samples=samples, adaptation=adaptation, test=test, length=length,
                camera=sizes, cube=shape, points=points, gps_noise=gps_noise, seed=seed)
  note = out / 'scenes.json'
  if out.exists():
    if note.exists() and json.loads(note.read_text())['recipe'] == json.loads(json.dumps(recipe)):
      return json.loads(note.read_text())['frames']
    raise StoreError(f'{out}: exists and holds other scenes or files; choose another --out')
  partial = out.with_name(out.name + '.partial')
  shutil.rmtree(partial, ignore_errors=True)
  jobs, plan = [], []
  for s, (name, wanted) in enumerate(zip(SETS, (samples, adaptation, test))):
    for scenario in SETS[name][1] if wanted else ():
      folder = partial / name
      for sub in ('unit1/camera_data', 'unit1/radar_data', 'unit1/lidar_data', 'unit1/GPS_data',
                  'unit1/mmWave_data', 'unit2/GPS_data', 'unit1/camera_data_raw'):
        if not (sub.endswith('raw') and not world.is_night(scenario)):
          (folder / f'scenario{scenario}' / sub).mkdir(parents=True)
      station = folder / f'scenario{scenario}/unit1/GPS_data/gps_location.txt'
      station.write_text('{:.8f}\n{:.8f}\n'.format(*world.STATION[scenario]))
      drives = math.ceil(wanted / len(SETS[name][1]) / (length - WINDOW + 1))
      for k in range(drives):
        jobs.append((str(folder), scenario, 1 + k * (length + _GAP),
                     s * 10**7 + scenario * 10**5 + k, seed, length, sizes, shape, points,
                     gps_noise))
        plan.append((name, scenario))
  try:
    made = ordered(write_drive, jobs, workers or min(8, os.cpu_count() or 1), 'drawing', 'drive')
    rows: dict[str, list] = {}
    for (name, scenario), frames in zip(plan, made):
      rows.setdefault(name, []).extend(_rows(frames, scenario, name != 'Multi_Modal_Test'))
    for name, table in rows.items():
      with (partial / name / SETS[name][0]).open('w', newline='') as file:
        writer = csv.DictWriter(file, ['index', *table[0]])
        writer.writeheader()
        writer.writerows(dict(index=i, **row) for i, row in enumerate(table))
    write_json(partial / 'scenes.json', dict(recipe=recipe, frames=len(jobs) * length,
                                             description=DESCRIPTION))
    partial.replace(out)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise
  return len(jobs) * length


def prepare(
    *, out: str | os.PathLike, in_dir: str | os.PathLike | None = None, samples: int = 600,
    adaptation: int = 96, test: int = 64, length: int = 12, camera: str = '160x90',
    cube: str = '4x64x16', points: int = 600, gps_noise: float = 2.5, seed: int = 0,
    as_store: bool = False, size: int = 64, window: str = '', stride: int = 2, workers: int = 0,
) -> ClipStore | list:
  """Writes the folders, or with `as_store` the clip store made from them; see OPTIONS.

  Returns:
    The store; without one, an empty list.

  Raises:
    StoreError: an option out of range, or something else stands at `out`.
  """
  if in_dir:
    raise StoreError('generated scenes read no files: leave --in out')
  options = dict(samples=samples, adaptation=adaptation, test=test, length=length, camera=camera,
                 cube=cube, points=points, gps_noise=gps_noise, seed=seed)
  if not as_store:
    print(f'{out}: {write_scenes(out, workers=workers, **options)} frames, SIMULATED')
    return []
  from stp_jax.data import deepsense

  generated = dict(options, version=_VERSION)
  out = pathlib.Path(out)
  if (out / 'meta.json').exists():
    recipe = ClipStore(out).meta['recipe']
    same = dict(size=size, window=window, stride=stride)
    if recipe.get('generated') == generated and same.items() <= recipe['options'].items():
      return ClipStore(out)
    raise StoreError(f'{out}: holds a store made from other inputs or options; delete it or choose '
                     'another --out')
  scenes = out.with_name(out.name + '.scenes')
  write_scenes(scenes, workers=workers, **options)
  store = deepsense.prepare(
      in_dir=scenes, out=out, size=size, window=window, stride=stride, workers=workers,
      generated=generated, description=DESCRIPTION)
  shutil.rmtree(scenes)
  return store
