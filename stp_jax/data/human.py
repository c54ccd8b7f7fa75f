"""Human3.6M as a video data set: 256x256 RGB, every 5th of 50 frames a second, 4 -> 4.

`human/train.txt` and `test.txt` with lines `prefix,begin,end`; frames are `<prefix><NNNNNN>.jpg`
below that folder (`images/S1_Walking.60457274_000026.jpg`). A line is a sample: frames begin,
begin + 5, ..., 8 of them; what the third number says does not matter, as published.

  python -m stp_jax.prepare human --in DIR --out STORE
  python -m stp_jax.prepare human --in DIR --out STORE --length 20     10 -> 10

Published: 73,404 training and 8,582 test samples, of the same films: the published split shares
films, and frames, between both. Other sizes than `--size` are resized (bicubic). RGB, where OpenSTL
reads BGR. Data: Ionescu et al. 2014, doi:10.1109/TPAMI.2013.248.
"""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data import resize, samples
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable

OPTIONS = {
    'length': (int, 8, 'frames of a sample, input and target'),
    'step': (int, 5, 'frames of the film from one to the next'),
    'size': (str, '256', 'HEIGHTxWIDTH to resize to, or native'),
    'validation': (float, 0.0, 'share of the training films, the last ones of the list, for the '
                   'split validation; 0: none, as published'),
    'on_bad': samples.ON_BAD}


def cubic(path: pathlib.Path, size: tuple[int, int] | None) -> np.ndarray:
  """uint8 `[H, W, 3]` of an image file, bicubic where it has another size."""
  frame = samples.image(path, 3)
  if size is None or frame.shape[:2] == size:
    return frame
  image = resize.pillow()
  return np.asarray(image.fromarray(frame).resize(size[::-1], image.Resampling.BICUBIC))


def prepare(
    *, in_dir, out, length: int = 8, step: int = 5, size: str = '256', validation: float = 0.0,
    on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[H, W, 3]`, physical 0 to 1.

  Raises:
    StoreError: names the list's line that cannot be read, or the frame that is missing.
    ValueError: an option out of range.
  """
  if length < 2 or step < 1:
    raise ValueError(f'--length {length} (at least 2), --step {step} (at least 1)')
  sides = samples.size_of(size)
  base = samples.root(in_dir, ['human'], ['train.txt'], 'train.txt, test.txt and images/')
  lists = {s: _list(base / f'{s}.txt') for s in ('train', 'test')}
  held = samples.held_out([prefix for prefix, _ in lists['train']], validation)
  recipe = dict(
      importer='human', version=1, length=length, step=step, size=sides, validation=validation,
      on_bad=on_bad, files=cards.checksums([base / 'train.txt', base / 'test.txt']))
  return samples.write(
      out, _read(base, lists, held, length, step, sides), name='human', recipe=recipe,
      stream=Stream((*(sides or (0, 0)), 3), 'uint8', 'of full scale', 1 / 255), window=length,
      total=sum(map(len, lists.values())), on_bad=on_bad,
      licence='Human3.6M: for academic use, on registration', description='Human3.6M',
      facts={'cadence': f'every {step} frames of 50 a second'})


def _list(path: pathlib.Path) -> list[tuple[str, int]]:
  found = []
  for number, line in enumerate(samples.lines(path), 1):
    parts = [p.strip() for p in line.split(',')]
    if len(parts) < 2 or not parts[0] or not parts[1].isdigit():
      raise StoreError(f'{path} line {number}: {line[:60]!r} is not prefix,begin,end')
    found.append((parts[0], int(parts[1])))
  if not found:
    raise StoreError(f'{path}: empty; lines prefix,begin,end are expected')
  return found


def _read(base, lists, held, length: int, step: int, sides) -> Iterator[Sample]:
  for split, rows in lists.items():
    seen = set()
    for prefix, begin in rows:
      if (prefix, begin) in seen:
        continue
      seen.add((prefix, begin))
      paths = [base / f'{prefix}{n:06d}.jpg' for n in range(begin, begin + length * step, step)]
      name = 'validation' if split == 'train' and prefix in held else split
      yield Sample(f'{split}/{prefix}@{begin}', name, functools.partial(_frames, paths, sides))


def _frames(paths: list[pathlib.Path], sides) -> np.ndarray:
  for path in paths:  # before any is decoded
    if not path.is_file():
      raise Unreadable(f'{path}: missing')
  return samples.images(paths, functools.partial(cubic, size=sides))
