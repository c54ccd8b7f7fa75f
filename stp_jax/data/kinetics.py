"""Kinetics 400, 600 or 700: human actions, 256x256 RGB, every 2nd frame, 4 -> 4.

`kinetics400/annotations/{train,val,test}.csv` with the columns label, id, start, end, split, and
`kinetics400/<split>/<id>_<start>_<end>.mp4`, start and end in seconds with six digits.

  python -m stp_jax.prepare kinetics --in DIR --out STORE

A video gives one clip of 8 frames: in training and validation from a place that follows from
(`--seed`, the row of the list) alone, where the original draws a new one each time; in test from
its beginning. `--length 0` stores whole videos. The shorter side becomes 256 (bilinear), the middle
is kept. Values are 0 to 1: the original's ImageNet mean and deviation are not applied. Lists name
videos that no longer exist: such are skipped and counted unless `--on-bad error`. Data: Kay et al.
2017, arXiv:1705.06950.
"""

import csv
import functools
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data import resize, samples, video_file
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable

OPTIONS = {
    'length': (int, 8, 'frames of a clip; 0: the whole video'),
    'step': (int, 2, 'frames of the video from one to the next'),
    'size': (int, 256, 'side of the square frames'),
    'seed': (int, 0, 'where a clip begins follows from (seed, row of the list)'),
    'on_bad': (str, 'skip', samples.ON_BAD[2])}
_SETS = ('kinetics400', 'kinetics600', 'kinetics700', 'kinetics')
_COLUMNS = 5


def square(frame: np.ndarray, side: int) -> np.ndarray:
  """uint8 `[side, side, 3]`: the shorter side resized, the middle kept."""
  height, width = frame.shape[:2]
  factor = side / min(height, width)
  size = max(side, round(height * factor)), max(side, round(width * factor))
  frame = resize.frames(frame[None], size)[0]
  top, left = (size[0] - side) // 2, (size[1] - side) // 2
  return frame[top:top + side, left:left + side]


def prepare(
    *, in_dir, out, length: int = 8, step: int = 2, size: int = 256, seed: int = 0,
    on_bad: str = 'skip',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[size, size, 3]`, physical 0 to 1.

  Raises:
    StoreError: a list's row that cannot be read, no video at all, no library for videos.
    ValueError: an option out of range.
  """
  if length < 0 or length == 1 or step < 1 or size < 16 or seed < 0:
    raise ValueError(f'--length {length} (0, or 2 and more), --step {step} (1 and more), --size '
                     f'{size} (16 and more), --seed {seed} (0 and more)')
  base = samples.root(in_dir, _SETS, ['annotations/*.csv'],
                      'annotations/{train,val,test}.csv and folders of .mp4')
  paths = sorted((base / 'annotations').glob('*.csv'))
  lists = {p.stem: _list(p) for p in paths if p.stem in ('train', 'val', 'validate', 'test')}
  if not lists:
    raise StoreError(f'{base / "annotations"}: no train.csv, val.csv or test.csv')
  video_file.library()
  recipe = dict(importer='kinetics', version=1, length=length, step=step, size=size, seed=seed,
                on_bad=on_bad, files=cards.checksums(paths))
  order = [k for k in ('train', 'val', 'validate', 'test') if k in lists]
  return samples.write(
      out, _read(base, {k: lists[k] for k in order}, length, step, size, seed),
      name='kinetics', recipe=recipe, stream=Stream((size, size, 3), 'uint8', 'of full scale',
                                                    1 / 255),
      total=sum(map(len, lists.values())), window=length or 8,
      on_bad=on_bad, licence='Kinetics lists: CC BY 4.0; videos: of their makers',
      description='Kinetics', facts={'cadence': f'every {step} frames, of mostly 30 a second'})


def _list(path: pathlib.Path) -> list[tuple[str, str]]:
  """(folder, file name) of each row."""
  found = []
  with samples.naming(path, 'a csv list'), path.open(newline='') as file:
    for number, row in enumerate(csv.reader(file), 1):
      if not row or (number == 1 and row[0].strip() == 'label'):
        continue
      if len(row) < _COLUMNS or not (row[2].isdigit() and row[3].isdigit()):
        raise StoreError(f'{path} line {number}: {",".join(row)[:60]!r} is not '
                         'label,id,start,end,split')
      found.append((row[4].strip(), f'{row[1].strip()}_{int(row[2]):06d}_{int(row[3]):06d}.mp4'))
  return found


def _read(base, lists, length: int, step: int, size: int, seed: int) -> Iterator[Sample]:
  names = {'val': 'validation', 'validate': 'validation'}
  for number, (stem, rows) in enumerate(lists.items()):
    split = names.get(stem, stem)
    for i, (folder, name) in enumerate(rows):
      # A row's place in its list, whatever the other lists are.
      rng = None if split == 'test' else np.random.default_rng((seed, number, i))
      yield Sample(f'{folder}/{name}', split, functools.partial(
          _clip, base / folder / name, length, step, size, rng))


def _clip(path: pathlib.Path, length: int, step: int, size: int, rng) -> np.ndarray:
  taken = lambda first: (square(f, size) for f in itertools.islice(
      video_file.frames(path), first, None, step))
  if not length or rng is None:
    found = list(itertools.islice(taken(0), length or None))
  else:
    # Counted first: one pass decodes, and holds no more than the clip.
    count = sum(1 for _ in video_file.frames(path))
    room = count - ((length - 1) * step + 1)
    found = list(itertools.islice(taken(int(rng.integers(room + 1)) if room > 0 else 0), length))
  if len(found) < max(length, 2):
    raise Unreadable(f'{path}: {len(found)} frames at every {step}, {max(length, 2)} are needed')
  return np.stack(found)
