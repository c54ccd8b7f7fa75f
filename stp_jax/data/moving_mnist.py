"""Moving MNIST: handwritten digits that drift through a frame and bounce off its sides.

Made from the idx files of MNIST (plain or .gz; `train-images-idx3-ubyte`, `t10k-images-idx3-ubyte`)
in the folder or in `moving_mnist/` or `mnist/` below it. A clip follows from (seed, index) alone.
No digit image is in two splits: the test digits are those of t10k, validation is cut from the
training digits, by a hash of the image, so that copies stay together. With one idx file all three
splits are cut from it. Where `mnist_test_seq.npy` (the official 10,000 test clips) is there, it is
the test split; with which digits it was made, its file does not say.

  python -m stp_jax.prepare moving_mnist --in MNIST --out STORE

Motion (Srivastava et al. 2015, arXiv:1502.04681, as every original here draws it): position uniform
over the room, direction uniform, `step` of the room a frame; each frame first moves, then reflects,
and overlapping digits are joined by their maximum. `clamp`, the published rule, leaves a digit that
overshoots a side on it for that frame; `mirror` folds the path back, with no pause at the side.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from stp_jax.data import card as cards
from stp_jax.data import clip_writer, idx_files, npy_file, resize
from stp_jax.data.clip_store import ClipStore, StoreError, Stream

OPTIONS = {
    'size': (str, '64', 'of a frame: a side, or HEIGHTxWIDTH'),
    'length': (int, 20, 'frames of a clip'),
    'digits': (int, 2, 'in a clip'),
    'clips': (int, 10000, 'for training'),
    'validation_clips': (int, 1000, 'for validation'),
    'test_clips': (int, 1000, 'for test, where the official test file is not there'),
    'motion': (str, 'clamp', 'at the sides: clamp (as published) or mirror'),
    'step': (float, 0.1, 'of the room between the sides, that a digit moves in a frame'),
    'seed': (int, 0, 'clip i follows from (seed, i) alone'),
    'validation': (float, 0.1, 'share of the training digits kept for validation'),
    'test': (float, 0.1, 'share kept for test, where t10k is not there beside train'),
    'official': (bool, True, 'use mnist_test_seq.npy as test split, if it is there')}
# The splits' clips are numbered behind one another, so that more of one leave the others alone.
_FIRST = {'train': 0, 'validation': 1 << 30, 'test': 1 << 31}


@dataclasses.dataclass(frozen=True)
class Kind:
  """A set that is drawn like this one.

  Attributes:
    folders: below --in, that may hold the files. official: the published test file.
    channels: of a frame. licence, description: of the store. recipe: what else determines it.
    draw: `(frames [T, H, W, 1], split, index) -> [T, H, W, channels]`.
    jitter: `(split, index) -> [T, 2]`, added to a digit's velocity (rows, columns), or None.
  """
  name: str = 'moving_mnist'
  folders: tuple[str, ...] = ('moving_mnist', 'mnist')
  official: str = 'mnist_test_seq.npy'
  channels: int = 1
  licence: str = 'MNIST: Y. LeCun, C. Cortes, C. J. C. Burges (CC BY-SA 3.0)'
  description: str = 'Moving MNIST: real handwritten digits, generated motion.'
  recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  draw: Callable[[np.ndarray, str, int], np.ndarray] = lambda frames, split, index: frames
  jitter: Callable[[str, int], np.ndarray | None] = lambda split, index: None


def _by_hash(images: np.ndarray, without: set[bytes] = frozenset()
             ) -> tuple[np.ndarray, list[bytes]]:
  """Distinct images in the order of a hash of their pixels, those of `without` left out."""
  digests = {hashlib.blake2b(i.tobytes(), digest_size=16).digest(): n for n, i in enumerate(images)}
  kept = sorted(d for d in digests if d not in without)
  return images[[digests[d] for d in kept]], kept


def split_digits(
    train: np.ndarray | None, t10k: np.ndarray | None, validation: float, test: float,
) -> dict[str, np.ndarray]:
  """The digit images of each split, uint8 `[N, h, w]`; no image is in two.

  Args:
    train, t10k: images of the two files, one of them may be None.
    validation, test: shares (test only counts where one file must serve for all).
  """
  if train is not None and t10k is not None:
    learn, seen = _by_hash(train)
    tested, _ = _by_hash(t10k, set(seen))
    held = round(validation * len(learn))
    return dict(train=learn[held:], validation=learn[:held], test=tested)
  every, _ = _by_hash(t10k if train is None else train)
  a, b = (round(s * len(every)) for s in (validation, validation + test))
  return dict(train=every[b:], validation=every[:a], test=every[a:b])


def _bounce(start: float, velocity: float, length: int, motion: str, jitter=None) -> np.ndarray:
  """Positions in 0..1 of `length` frames, each after one more move."""
  if motion == 'mirror':
    path = (start + velocity * np.arange(1, length + 1)) % 2
    return np.minimum(path, 2 - path)
  path = np.empty(length)
  for i in range(length):
    start += velocity + (0.0 if jitter is None else jitter[i])
    if start <= 0 or start >= 1:
      start, velocity = min(max(start, 0.0), 1.0), -velocity
    path[i] = start
  return path


def clip(
    images: np.ndarray, seed: int, index: int, *, length: int = 20,
    size: tuple[int, int] = (64, 64), digits: int = 2, motion: str = 'clamp', step: float = 0.1,
    jitter: np.ndarray | None = None,
) -> np.ndarray:
  """Clip `index` of a set: uint8 `[length, H, W, 1]`, 0 is the background.

  Args:
    images: digits of the split, uint8 `[N, h, w]`, at most as large as a frame.
    jitter: `[length, 2]`, added to each digit's velocity (rows, columns); with `clamp` only.
  """
  rng = np.random.default_rng((seed, index))
  frames = np.zeros((length, *size), np.uint8)
  height, width = images.shape[1:]
  for _ in range(digits):
    x, y = rng.uniform(size=2)
    angle = rng.uniform(0, 2 * np.pi)
    digit = images[rng.integers(len(images))]
    # Truncated, as published: the far side is touched in the frame of the bounce alone.
    rows = ((size[0] - height) * _bounce(
        y, step * np.sin(angle), length, motion, None if jitter is None else step * jitter[:, 0])
    ).astype(int)
    columns = ((size[1] - width) * _bounce(
        x, step * np.cos(angle), length, motion, None if jitter is None else step * jitter[:, 1])
    ).astype(int)
    for frame, row, column in zip(frames, rows, columns):
      part = frame[row:row + height, column:column + width]
      np.maximum(part, digit, out=part)
  return frames[..., None]


def prepare(
    *, in_dir, out, size: str = '64', length: int = 20, digits: int = 2, clips: int = 10000,
    validation_clips: int = 1000, test_clips: int = 1000, motion: str = 'clamp', step: float = 0.1,
    seed: int = 0, validation: float = 0.1, test: float = 0.1, official: bool = True,
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[H, W, 1]`, physical 0 to 1, without a clock.

  Raises:
    StoreError: no idx file, one that is damaged, or an official test file of another shape.
    ValueError: an option out of range.
  """
  return make(Kind(), in_dir=in_dir, out=out, size=size, length=length, digits=digits, clips=clips,
              validation_clips=validation_clips, test_clips=test_clips, motion=motion, step=step,
              seed=seed, validation=validation, test=test, official=official)


def make(
    kind: Kind, *, in_dir, out, size: str = '64', length: int = 20, digits: int = 2,
    clips: int = 10000, validation_clips: int = 1000, test_clips: int = 1000,
    motion: str = 'clamp', step: float = 0.1,
    seed: int = 0, validation: float = 0.1, test: float = 0.1, official: bool = True,
) -> ClipStore:
  """`prepare` of a set of this kind."""
  if in_dir is None or not pathlib.Path(in_dir).is_dir():
    raise StoreError(f'--in {in_dir}: name the folder of train-images-idx3-ubyte(.gz) and '
                     't10k-images-idx3-ubyte(.gz)')
  if motion not in ('clamp', 'mirror'):
    raise ValueError(f'--motion {motion}: clamp or mirror')
  if not (0 <= validation and 0 <= test and validation + test < 1):
    raise ValueError(f'--validation {validation:g} --test {test:g}: shares that sum to less than 1')
  least = dict(length=(length, 2), digits=(digits, 1), clips=(clips, 1),
               validation_clips=(validation_clips, 0), test_clips=(test_clips, 0))
  for name, (value, low) in least.items():
    if not low <= value <= 10 ** 8:
      raise ValueError(f'--{name.replace("_", "-")} {value}: at least {low}')
  found = {part: idx_files.images(in_dir, kind.folders, part) for part in ('train', 't10k')}
  paths = [path for _, path in found.values() if path]
  if not paths:
    raise StoreError(f'{in_dir}: neither train-images-idx3-ubyte nor t10k-images-idx3-ubyte '
                     f'(plain or .gz) in it, in {"/ or in ".join(kind.folders)}/')
  sides = resize.size_of(size, '--size')
  pools = split_digits(found['train'][0], found['t10k'][0], validation, test)
  digit = pools['train'].shape[1:]
  if sides is None or min(np.subtract(sides, digit)) < 0:
    raise ValueError(f'--size {size}: at least the size of a digit, {digit[0]}x{digit[1]}')
  test_file = idx_files.find(in_dir, kind.folders, kind.official) if official else None
  fixed = None if test_file is None else _official(test_file, kind, length, sides, digits)
  counts = dict(train=clips, validation=validation_clips,
                test=test_clips if fixed is None else fixed.shape[1])
  for split, count in counts.items():
    if count and not len(pools[split]) and not (split == 'test' and fixed is not None):
      raise ValueError(f'--{split.replace("train", "validation")}: no digit image is left for the '
                       f'split {split}; change the shares, or ask for no clip of it')
  drawn = dict(size=sides, length=length, digits=digits, motion=motion, step=step)
  recipe = dict(kind.recipe, importer=kind.name, version=1, seed=seed, counts=counts, **drawn,
                shares=[validation, test],
                files=cards.checksums(paths + ([test_file] if test_file else [])))
  if done := cards.already_made(out, recipe):
    return done
  with clip_writer.StoreWriter(
      out, name=kind.name, cadence_hours=1.0, recipe=recipe,
      streams={'frames': Stream((*sides, kind.channels), 'uint8', 'of full scale', 1 / 255)},
      licence=kind.licence, description=kind.description) as writer:
    total = sum(counts.values())
    with tqdm(total=total, initial=writer.clips, desc='moving digits', unit='clip') as bar:
      for split, count in counts.items():
        for i in range(count):
          if writer.has(f'{split}-{i}'):
            continue
          if split == 'test' and fixed is not None:
            frames = np.asarray(fixed[:length, i]).reshape(length, *sides, kind.channels)
          else:
            number = _FIRST[split] + i
            frames = kind.draw(clip(pools[split], seed, number, **drawn,
                                    jitter=kind.jitter(split, number)), split, number)
          writer.add(f'{split}-{i}', {'frames': frames}, split=split,
                     source=f'{kind.name}/{split}/{i}')
          bar.update()
    store = writer.finish(lambda store: _card(store, pools, found, test_file, length, kind.notes))
  print(cards.text(store.meta['card']))
  return store


def _official(path: pathlib.Path, kind: Kind, length: int, size: tuple[int, int], digits: int
              ) -> np.ndarray:
  try:
    clips = npy_file.load(path)
  except (OSError, ValueError, EOFError) as error:
    raise StoreError(f'{path}: unreadable ({error}); fetch it again') from error
  wanted = (3,) if kind.channels == 3 else ()
  if clips.ndim != 4 + len(wanted) or clips.shape[4:] != wanted or clips.dtype != np.uint8:
    raise StoreError(f'{path}: {clips.dtype}{list(clips.shape)}; expected uint8 '
                     f'{[20, "N", 64, 64, *wanted]}'.replace("'", ''))
  if clips.shape[0] < length or clips.shape[2:4] != size or digits != 2:
    raise StoreError(f'{path}: {clips.shape[0]} frames of {clips.shape[2]}x{clips.shape[3]} with 2 '
                     'digits; ask for no more frames and that size, or leave it out with '
                     '--official no')
  return clips


def _card(store: ClipStore, pools: dict, found: dict, test_file, length: int, notes) -> dict:
  counts = store.clips.by_split()
  card = dict(name=store.name, **cards.equal_clips(store, length))
  used = [s for s in pools if s in counts and not (s == 'test' and test_file)]
  digits = ', '.join(f'{s} {len(pools[s])}' for s in used)
  card['facts'] = {
      'digit images': f'{digits}; none is in two splits',
      'read': ' '.join(p.name for _, p in found.values() if p)}
  card['statistics'] = cards.sampled(store)
  card['notes'] = [*notes] + [
      f'{part}-images is not there: all digits are of {other}-images, split by digit image'
      for part, other in (('train', 't10k'), ('t10k', 'train')) if found[part][0] is None]
  if test_file:
    card['notes'].append(f'split test is {test_file.name}; its digits may be training digits')
  return card
