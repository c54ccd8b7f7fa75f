"""DeepSense6G's beam challenge (scenarios 31-34): camera, lidar, radar, position -> clip store.

  python -m stp_jax.prepare deepsense --in Dataset --out STORE
  python -m stp_jax.prepare deepsense --in Dataset/Multi_Modal --out STORE --size 64 --window 10to5

`--in` is a set (a CSV and its scenario folders) or the folder of several (Multi_Modal,
Adaptation_dataset_multi_modal, Multi_Modal_Test). Every frame is kept once, as `image` uint8
[s,s,3], `lidar` uint8 [s,s,1] (points counted from above, 0 to 5) and `radar` uint16 [s,s,2]
(range-angle, range-velocity; 65535 = 1). A sample belongs to the frame that it ends at: `window`
says how many frames of its clip back each of its T frames lies, -1 where no sample ends; `gps` are
the user's first two positions from the base station [m east, north]; `beam` 0 to 63 and `power` of
K predicted steps (-1 and NaN if unknown). `data.beam_windows` reads samples from these.

No real sample was at hand: everything was tried on scenes that `deepsense_scenes` generates in this
layout. Facts follow github.com/szy4017/DeepSense6G_TII.
"""

import contextlib
import dataclasses
import os
import re
import warnings
import zlib
from collections.abc import Mapping

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data import deepsense_csv, deepsense_files, deepsense_labels, deepsense_split
from stp_jax.data import deepsense_sensors as sensors
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.clip_writer import StoreWriter
from stp_jax.data.deepsense_csv import BEAMS, Row
from stp_jax.data.ordered_pool import ordered

OPTIONS = {
    'size': (int, 256, 'side of every picture and map, in pixels; 64 suits a CPU'),
    'window': (str, '', 'TtoK, as 10to5: windows of T frames and K beams made from rows of one '
               'beam; empty: as the CSV has them'),
    'stride': (int, 2, 'with window: frame numbers between the frames of a window'),
    'split': (str, 'time:0.8,0.1,0.1', "shares of train, validation, test: blocks of time of each "
              "scenario; or one name; or 'upstream' (random over samples: leaks)"),
    'scenarios': (str, '', 'such as 31+33; empty: all'),
    'csv': (str, '', 'names of the CSV files, joined by +; empty: those of the challenge'),
    'radar': (str, 'auto', "'cubes' (radar_data), 'maps' (radar_data_ang, radar_data_vel), 'auto': "
              'maps where they are'),
    'enhanced': (bool, True, 'night scenarios from camera_data (brightened), not camera_data_raw'),
    'mask': (bool, False, 'images of camera_data_mask'),
    'seg': (bool, False, 'brighten what camera_data_seg marks (scenarios 31 and 32)'),
    'filtered': (bool, False, 'lidar files of lidar_data_filtered'),
    'wide': (bool, False, 'one lidar field of view (50 m by 100 m) for all scenarios'),
    'max_step': (int, 0, 'largest step of the frame number in a sequence; 0: the usual one'),
    'max_seconds': (float, 3.0, 'longest time between frames of a sequence'),
    'skip_missing': (bool, False, 'leave out rows whose files are missing, instead of stopping'),
    'workers': (int, 0, 'processes; 0: one a core, at most 8')}
_VERSION = 1


def _rows(in_dir, scenarios, names, window, stride) -> tuple[list[Row], dict[str, int], int]:
  """All rows asked for, the tables' checksums, and rows that no longer window could be made of."""
  tables = deepsense_csv.discover(in_dir, names)
  rows = [r for path, root in tables for r in deepsense_csv.read(path, root)]
  if wanted := {int(s) for s in re.findall(r'\d+', scenarios)}:
    for number in sorted(wanted - {r.scenario for r in rows}):
      raise StoreError(f'scenario{number}: no row in {", ".join(str(p) for p, _ in tables)}; leave '
                       'it out of --scenarios')
    rows = [r for r in rows if r.scenario in wanted]
  sums = {f'{root.name}/{path.name}': zlib.crc32(path.read_bytes()) for path, root in tables}
  if not window:
    return rows, sums, 0
  found = re.fullmatch(r'(\d+)to(\d+)', window)
  if not found or min(map(int, found.groups())) < 1 or int(found[1]) < 2 or stride < 1:
    raise StoreError(f'--window {window}: TtoK as in 10to5, with T at least 2; --stride at least 1')
  rows, dropped = deepsense_csv.multistep(rows, int(found[1]), int(found[2]), stride)
  if not rows:
    raise StoreError(f'--window {window}: no row has {found[1]} frames behind it; take fewer')
  return rows, sums, dropped


def _check_lengths(rows: list[Row]) -> tuple[int, int]:
  length = len(rows[0].frames)
  steps = max(len(r.beams) for r in rows) or 1
  for row in rows:
    if len(row.frames) != length or len(row.beams) not in (0, steps):
      raise StoreError(f'{row.where}: {len(row.frames)} frames and {len(row.beams)} beams, others '
                       f'have {length} and {steps}; prepare them as stores of their own')
  return length, steps


def prepare(
    *, in_dir, out, size: int = 256, window: str = '', stride: int = 2,
    split: str = 'time:0.8,0.1,0.1', scenarios: str = '', csv: str = '', radar: str = 'auto',
    enhanced: bool = True, mask: bool = False, seg: bool = False, filtered: bool = False,
    wide: bool = False, max_step: int = 0, max_seconds: float = 3.0, skip_missing: bool = False,
    workers: int = 0, description: str = '', generated: Mapping | None = None,
) -> ClipStore:
  """Writes the store and prints its data card; see OPTIONS and the module.

  Args:
    description, generated: of a set that was generated: what it is, and from which options.

  Raises:
    StoreError, CsvError, ValueError: one line that names the file or row and the cure.
  """
  if not 8 <= size <= 4096 or radar not in ('auto', 'cubes', 'maps'):
    raise StoreError(f'--size {size} --radar {radar}: 8 to 4096; auto, cubes or maps')
  reading = sensors.Reading(size, enhanced, mask, seg, filtered, wide, radar)
  rows, sums, short = _rows(in_dir, scenarios, csv, window, stride)
  length, steps = _check_lengths(rows)
  recipe = dict(importer='deepsense', version=_VERSION, tables=sums, options=dict(
      dataclasses.asdict(reading), window=window, stride=stride, split=split, scenarios=scenarios,
      max_step=max_step, max_seconds=max_seconds, skip_missing=skip_missing),
      **(dict(generated=dict(generated)) if generated else {}))
  if done := cards.already_made(out, recipe):
    return done
  folders, files = deepsense_files.Folders(), {}
  for row in rows:
    for frame in deepsense_split.frames_of(row):
      if frame not in files:
        files[frame] = deepsense_files.locate(frame, row.scenario, reading, folders)
  complete = deepsense_files.present(rows, files, folders, skip_missing)
  if split == 'upstream':
    warnings.warn('--split upstream is random over samples: neighbours in time and copies of one '
                  'sample are on both sides, so its validation scores are far too good',
                  stacklevel=2)
  plan = deepsense_split.arrange(
      complete, split=split, max_step=max_step, max_seconds=max_seconds)
  copies = {}
  if split == 'upstream':
    sides = deepsense_split.upstream_copies([r.adaptation for r in complete])
    copies = {r: tuple(c) for r, c in zip(complete, sides.tolist())}
  plan.counts |= dict(rows_without_files=len(rows) - len(complete), rows_too_short=short)
  deepsense_files.expect_cubes(plan, files)
  streams = dict(
      image=Stream((size, size, 3), 'uint8'), lidar=Stream((size, size, 1), 'uint8', scale=0.2),
      radar=Stream((size, size, 2), 'uint16', scale=1 / 65535),
      window=Stream((1, 1, length), 'int16', 'frames back', missing=-1),
      beam=Stream((1, 1, steps), 'int16', missing=-1), gps=Stream((1, 2, 2), 'float32', 'm'),
      power=Stream((1, steps, BEAMS), 'float32'))
  labels = deepsense_labels.Labels(length, steps)
  with StoreWriter(
      out, name='deepsense', streams=streams, cadence_hours=0.1 / 3600, recipe=recipe,
      forcings=deepsense_labels.COLUMNS, grid=dict(
          length=length, steps=steps, beams=BEAMS, field_of_view={
              str(s): sensors.field_of_view(s, wide) for s in {r.scenario for r in complete}}),
      licence='DeepSense 6G: see deepsense6g.net', description=description or
      'DeepSense 6G beam prediction: camera, lidar, radar, position') as writer:
    todo = [c for c in plan.clips if not writer.has(c.key)]
    jobs = [(files[f], size, wide) for c in todo for f in c.frames]
    with contextlib.closing(ordered(
        sensors.read_frame, jobs, workers or min(8, os.cpu_count() or 1))) as frames:
      for clip in plan.clips:
        small = labels(clip)
        if not writer.has(clip.key):
          read = [next(frames) for _ in clip.frames]
          big = {k: np.stack([f[k] for f in read]) for k in read[0]}
          writer.add(clip.key, big | small, split=clip.split, source=clip.key,
                     forcings=deepsense_labels.columns(clip, files, copies))
    store = writer.finish(deepsense_labels.card(plan, length, labels.counts))
  print(cards.text(store.meta['card']))
  return store
