"""KTH actions: people walking, boxing, ..., 128x128 grey, 25 frames a second, 10 -> 20 (or 40).

`kth/<action>/person<NN>_.../image*<NNNN>.png` (or jpg): the frames in which somebody is seen, by
their numbers in the film; or the films as first published, `person<NN>_<action>_d<D>_uncomp.avi`
(in folders of the actions or not), beside `00sequences.txt`, which tells those frames.

  python -m stp_jax.prepare kth --in DIR --out STORE                 as published, 10 -> 20
  python -m stp_jax.prepare kth --in DIR --out STORE --length 50     10 -> 40
  python -m stp_jax.prepare kth --in DIR --out STORE --windows all   every unbroken run of frames

Persons 1 to 16 train, 17 to 25 test. The published windows are laid from the end of a run towards
its beginning: side by side, but every 3 frames in jogging and running. Channel 0 of an image;
resized by OpenCV's rule (bilinear, not antialiased), rounded to integers. Data: Schuldt, Laptev and
Caputo 2004, doi:10.1109/ICPR.2004.1334462.
"""

import functools
import itertools
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from stp_jax.data import resize, samples, video_file
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable, naming

ACTIONS = ('boxing', 'handclapping', 'handwaving', 'walking', 'jogging', 'running')
OPTIONS = {
    'windows': (str, 'published', 'published, or all: whole runs of frames, for windows of any '
                'length'),
    'length': (int, 30, 'frames of a published window, input and target'),
    'size': (str, '128', 'HEIGHTxWIDTH to resize to, or native'),
    'validation': (float, 0.0, 'share of the training persons, the last ones, for the split '
                   'validation; 0: none, as published'),
    'on_bad': samples.ON_BAD}
_DENSE = ('jogging', 'running')
_TEST = 17  # the first person of the test split


def plain_bilinear(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """`[H, W]` at another size, float32: four neighbours of each pixel's centre, as OpenCV does."""
  value = frame.astype(np.float32)
  for axis, count in enumerate(size):
    old = value.shape[axis]
    if old == count:
      continue
    place = np.clip((np.arange(count) + 0.5) * old / count - 0.5, 0, old - 1)
    low = np.minimum(place.astype(int), old - 1)
    high = np.minimum(low + 1, old - 1)
    weight = (place - low).astype(np.float32).reshape([-1, 1] if axis == 0 else [1, -1])
    value = value.take(low, axis) * (1 - weight) + value.take(high, axis) * weight
  return value


def _shaped(frame: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
  """uint8 `[H, W, 1]`."""
  if size is not None and frame.shape != size:
    frame = np.rint(plain_bilinear(frame, size)).astype(np.uint8)
  return frame[..., None]


def _image(path: pathlib.Path, size) -> np.ndarray:
  with naming(path, 'an image'), resize.pillow().open(path) as picture:
    value = np.asarray(picture if picture.mode in ('L', 'RGB') else picture.convert('RGB'))
  return _shaped(value if value.ndim == 2 else value[..., 0], size)


def _sequences(base: pathlib.Path) -> dict[str, list[tuple[int, int]]]:
  """Film's name -> (first, last) frames in which somebody is seen, from 1; {} without the file."""
  found, path = {}, base / '00sequences.txt'
  for line in samples.lines(path) if path.is_file() else ():
    match = re.match(r'(person\d\d_\w+_d\d)\s+frames\s+(.*)', line)
    if match:
      found[match[1]] = [tuple(map(int, r)) for r in re.findall(r'(\d+)\s*-\s*(\d+)', match[2])]
  return found


class _Film:
  """A person's film: the numbers of its frames, and its pixels when they are asked for."""

  def __init__(self, path: pathlib.Path, action: str, seen: dict, size):
    self.path, self.action, self._size, self._seen = path, action, size, seen
    match = re.match(r'person(\d\d)', path.name)
    if match is None:
      raise StoreError(f'{path}: a name like person01_{action}_d1_uncomp is expected')
    self.person = int(match[1])
    self.name = f'{action}/{path.name if path.is_dir() else path.stem}'
    self.split = 'test' if self.person >= _TEST else 'train'

  def files(self) -> list[tuple[int, pathlib.Path]]:
    """(number, file) of its images, in order."""
    found = []
    for path in self.path.iterdir():
      digits = re.match(r'image\D*(\d+)', path.name)
      if digits and path.suffix.lower() in samples.IMAGES:
        found.append((int(digits[1]), path))
    return sorted(found)

  def read(self) -> tuple[list[int], np.ndarray]:
    """Numbers and frames uint8 `[T, H, W, 1]` of the whole film."""
    if self.path.is_dir():
      found = self.files()
      if not found:
        raise Unreadable(f'{self.path}: no image<NNNN>.png or .jpg in it')
      return [n for n, _ in found], samples.images(
          [p for _, p in found], functools.partial(_image, size=self._size))
    spans = self._seen.get(self.path.stem.removesuffix('_uncomp'))
    kept = [(i, _shaped(frame[..., 0], self._size))
            for i, frame in enumerate(video_file.frames(self.path, 1), 1)
            if spans is None or any(a <= i <= b for a, b in spans)]
    if not kept:
      raise Unreadable(f'{self.path}: none of its frames is one of 00sequences.txt')
    return [i for i, _ in kept], np.stack([f for _, f in kept])

  def windows(self, numbers: list[int], length: int) -> Iterator[tuple[int, int]]:
    """(first, behind the last) of each clip; `length` 0: whole runs."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    for start, stop in itertools.pairwise([0, *breaks.tolist(), len(numbers)]):
      if not length:
        yield start, stop
        continue
      for first in samples.backward(stop - start, length, 3 if self.action in _DENSE else length):
        yield start + first, start + first + length


def prepare(
    *, in_dir, out, windows: str = 'published', length: int = 30, size: str = '128',
    validation: float = 0.0, on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[H, W, 1]`, physical 0 to 1.

  Raises:
    StoreError: names the folder, film or image that is missing, unreadable or misnamed.
    ValueError: an option out of range.
  """
  if windows not in ('published', 'all') or length < 2:
    raise ValueError(f'--windows {windows} (published, all), --length {length} (at least 2)')
  sides = samples.size_of(size)
  base = samples.root(in_dir, ['kth', 'KTH'], [*ACTIONS, 'person*.avi'],
                      f'folders {" ".join(ACTIONS)}, or the films person*.avi')
  films = []
  for action in ACTIONS:
    folder = base / action
    paths = [*folder.iterdir()] if folder.is_dir() else []
    paths = [p for p in paths if p.is_dir() or p.suffix.lower() == '.avi']
    paths += [p for p in base.glob(f'person*_{action}_*.avi')]
    films += [_Film(p, action, _sequences(base), sides)
              for p in sorted(paths, key=lambda p: samples.natural(p.name))]
  if not films:
    raise StoreError(f'{base}: no person<NN>_... in the folders of the actions')
  held = samples.held_out(sorted({f.person for f in films if f.split == 'train'}), validation)
  every = (p for f in films for p in ([p for _, p in f.files()] if f.path.is_dir() else [f.path]))
  recipe = dict(importer='kth', version=1, windows=windows, length=length, size=sides,
                validation=validation, on_bad=on_bad, files=samples.fingerprint(base, every))
  absent = [a for a in ACTIONS if a not in {f.action for f in films}]
  return samples.write(
      out, _read(films, held, length if windows == 'published' else 0), name='kth', recipe=recipe,
      stream=Stream((*(sides or (0, 0)), 1), 'uint8', 'of full scale', 1 / 255), window=length,
      on_bad=on_bad, licence='KTH actions: for research, without charge',
      description='KTH actions', facts={'films': len(films), 'cadence': '25 frames a second'},
      notes=[f'no films of {" ".join(absent)}'] if absent else [])


def _read(films: list[_Film], held: set[int], length: int) -> Iterator[Sample]:
  for film in films:
    split = 'validation' if film.person in held else film.split
    try:
      numbers, frames = film.read()
    except Unreadable as error:  # said when the sample is asked for
      yield Sample(film.name, split, functools.partial(_again, error))
      continue
    for start, stop in film.windows(numbers, length):
      yield Sample(f'{film.name}@{numbers[start]}', split,
                   lambda frames=frames, start=start, stop=stop: frames[start:stop])


def _again(error: Unreadable) -> np.ndarray:
  raise error
