"""One sample folder of a PNG tree, and which domains and samples a tree has; see `png_tree`."""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from stp_jax.data import resize
from stp_jax.data.clip_store import StoreError

SPLITS = ('train', 'test')
_PARTS = ('input', 'ground_truth')
_FRAME = re.compile(r'(input|ground_truth)(\d+)\.png', re.I)
_ALIASES = {'hko': 'hko7'}
_GREY = ('1', 'L', 'LA')


class BadSample(StoreError):
  """A sample with a missing or unreadable frame; the message names it."""


@dataclasses.dataclass(frozen=True)
class Layout:
  """What every sample of a domain has.

  Attributes:
    first: number of the first frame. inputs, targets: frames of each kind.
    size: (H, W) of a result. native: (H, W) that every file must have, None where they are resized.
    channels: of a result. grey_only: a file in colour is refused.
    example: the sample that told size and colour.
  """
  first: int
  inputs: int
  targets: int
  size: tuple[int, int]
  native: tuple[int, int] | None
  channels: int
  grey_only: bool = False
  example: str = ''

  def files(self) -> list[str]:
    """Names of the frames in order of time, as they are told from one another: in small letters."""
    counts = zip(_PARTS, (self.inputs, self.targets))
    return [f'{part}{self.first + i}.png' for part, count in counts for i in range(count)]


def natural(name: str) -> list:
  """Key that sorts sample2 before sample10."""
  return [(int(word), '') if word.isdigit() else (-1, word) for word in re.split(r'(\d+)', name)]


def _folders(path: pathlib.Path) -> list[str]:
  with os.scandir(path) as entries:
    return sorted((e.name for e in entries if e.is_dir() and not e.name.startswith('.')),
                  key=natural)


def domains(in_dir) -> dict[str, dict[str, pathlib.Path]]:
  """{domain: {split: folder}} of a tree, with or without `pam` or `data/pam` above it.

  Raises:
    StoreError: no such folder, no train or test folder in it, or a domain under two names.
  """
  if in_dir is None:
    raise StoreError('--in: name the folder that holds train/ and test/')
  base = pathlib.Path(in_dir)
  if not base.is_dir():
    raise StoreError(f'{base}: no such folder')
  tried = [base, base / 'pam', base / 'data', base / 'data' / 'pam']
  root = next((p for p in tried if any((p / s).is_dir() for s in SPLITS)), None)
  if root is None:
    raise StoreError(f'{base}: holds neither train/ nor test/, nor do pam/, data/, data/pam/ in it')
  found: dict[str, dict[str, pathlib.Path]] = {}
  for split in SPLITS:
    for folder in _folders(root / split) if (root / split).is_dir() else ():
      name = _ALIASES.get(folder, folder)
      there = found.setdefault(name, {})
      if split in there:
        raise StoreError(f'{root / split}: {there[split].name} and {folder} are one domain; keep '
                         'one of them')
      there[split] = root / split / folder
  if not found:
    raise StoreError(f'{root}: no domain in train/ or test/; each is a folder of sample folders')
  return dict(sorted(found.items()))


def named(domain: str, found: dict, in_dir) -> str:
  """The domain called so; raises StoreError that lists those there."""
  name = _ALIASES.get(domain, domain)
  if name not in found:
    raise StoreError(f'{in_dir}: no domain {domain}; there are {" ".join(found)}')
  return name


def names(folder: pathlib.Path, found: dict | None = None) -> list[str]:
  """Names of the sample folders in natural order; raises StoreError where there is none."""
  result = _folders(folder)
  if not result:
    others = [d for d, there in (found or {}).items() if folder not in there.values()]
    beside = f'; beside it there are {" ".join(others)}' if others else ''
    raise StoreError(f'{folder}: this domain is empty, no sample folder in it{beside}; fill or '
                     'remove it, or choose with --domain')
  return result


def samples(folder) -> list[pathlib.Path]:
  """The sample folders of a domain's folder in natural order; see `names`."""
  return [pathlib.Path(folder) / name for name in names(pathlib.Path(folder))]


def _frames_in(folder: pathlib.Path) -> dict[str, str]:
  """{name in small letters: file name} of the frames of a sample."""
  if not folder.is_dir():
    raise BadSample(f'{folder}: no such sample folder')
  with os.scandir(folder) as entries:
    return {e.name.lower(): e.name for e in entries if _FRAME.fullmatch(e.name)}


def _counts(folder: pathlib.Path) -> tuple[int, int, int]:
  """(first number, inputs, targets), up to the highest number of each kind."""
  numbers = collections.defaultdict(list)
  for name in _frames_in(folder):
    part, number = _FRAME.fullmatch(name).groups()
    numbers[part].append(int(number))
  if not numbers:
    raise BadSample(f'{folder}: no frame in it, input1.png and so on')
  first = 0 if any(0 in n for n in numbers.values()) else 1
  return first, *(max(numbers[p], default=first - 1) - first + 1 for p in _PARTS)


def _open(path: pathlib.Path):
  """A decoded image; BadSample names what is wrong with the file."""
  image = resize.pillow()
  try:
    with image.open(path) as opened:
      opened.load()
      if opened.mode[:2] in ('I', 'I;', 'F'):
        raise BadSample(f'{path}: {opened.mode} pixels of more than 8 bits; write 8-bit PNG')
      return opened.copy()
  except FileNotFoundError as error:
    raise BadSample(f'{path}: missing') from error
  except (OSError, SyntaxError, ValueError, EOFError) as error:
    if isinstance(error, StoreError):
      raise
    reason = str(error).replace(str(path), '').splitlines() or ['']
    raise BadSample(f'{path}: unreadable ({reason[0].strip() or type(error).__name__})'
                    ) from error


def common(
    folders: Sequence[pathlib.Path], size: tuple[int, int] | None = None, channels: int = 0,
) -> Layout:
  """The layout that most of these samples have; size and channels where they are not given.

  Raises:
    BadSample: none of them has a frame that can be read.
  """
  votes, last = collections.Counter(), None
  for folder in folders:
    try:
      votes[_counts(folder)] += 1
    except BadSample as error:
      last = last or error
  if not votes:
    raise last
  # Of equally many, the longer: a sample that lacks its last frame looks like a shorter one.
  counts = max(votes, key=lambda c: (votes[c], c))
  looks, example = collections.Counter(), {}
  for folder in folders:
    try:
      there = _frames_in(folder)
      one = _open(folder / there[min(there, key=natural)])
    except (BadSample, ValueError) as error:
      last = error
      continue
    look = (one.height, one.width), 1 if one.mode in _GREY else 3
    looks[look] += 1
    example.setdefault(look, folder.name)
  if not looks:
    raise last
  (native, seen), _ = max(looks.items(), key=lambda item: item[1])
  return Layout(*counts, size=size or native, native=None if size else native,
                channels=channels or seen, grey_only=not channels and seen == 1,
                example=example[native, seen])


def read_sample(
    folder, size: tuple[int, int] | None = None, channels: int = 3, *,
    layout: Layout | None = None,
) -> np.ndarray:
  """The frames of one sample, inputs and then ground truths.

  Args:
    folder: of the sample. size: (H, W) to resize to, after the conversion to grey or RGB.
    channels: 3, as published; 1, or 0: as the first frame.
    layout: of its domain, instead of the two above; without it this sample alone tells.

  Returns:
    uint8 `[T, H, W, C]`.

  Raises:
    BadSample: names the frame that is missing, unreadable, or not expected.
    StoreError: a frame of another size than the domain's, or a colour one among grey ones.
  """
  folder = pathlib.Path(folder)
  layout = layout or common([folder], size, channels)
  there = _frames_in(folder)
  expected = layout.files()
  missing = [name for name in expected if name not in there]
  if missing:
    more = f' and {len(missing) - 1} more frames' if len(missing) > 1 else ''
    raise BadSample(f'{folder / missing[0]}: missing{more}')
  extra = sorted(set(there) - set(expected), key=natural)
  if extra:
    raise BadSample(f'{folder / there[extra[0]]}: not expected, samples have {layout.inputs} input '
                    f'and {layout.targets} ground truth frames')
  frames = np.empty((len(expected), *layout.size, layout.channels), np.uint8)
  for i, name in enumerate(expected):
    path = folder / there[name]
    one = _open(path)
    if layout.native and (one.height, one.width) != layout.native:
      raise StoreError(
          f'{path}: {one.height}x{one.width}, but {layout.example} has '
          f'{layout.native[0]}x{layout.native[1]}; give --size HEIGHTxWIDTH to resize all')
    if layout.grey_only and one.mode not in _GREY:
      raise StoreError(f'{path}: in colour, but {layout.example} is grey; give --channels 3 or 1')
    one = one.convert('L' if layout.channels == 1 else 'RGB')
    if one.size != layout.size[::-1]:
      one = one.resize(layout.size[::-1], resize.pillow().Resampling.BILINEAR)
    frames[i] = np.asarray(one).reshape(frames.shape[1:])
  return frames
