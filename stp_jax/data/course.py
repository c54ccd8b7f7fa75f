"""The video folders of the course that adapted ConvLSTM-PyTorch (DS-GA 1008), as a clip store.

  python -m stp_jax.prepare course --in data --out STORE

data/{train,val,unlabeled,hidden}/video_XXXX/image_N.png: 22 frames a video (N = 0 .. 21), in hidden
only the first 11. Videos are taken in natural order and frames by their number; other files there
(.DS_Store, mask.npy, cached arrays) are left alone. Splits: train, unlabeled (also of unlabeled_1,
unlabeled_2), validation, hidden. A video that lacks a frame stops it, named; one whose frame cannot
be read too, unless --on-bad skip.
"""

import os
import pathlib
import re

from tqdm import tqdm

from stp_jax.data import folder, resize
from stp_jax.data.clip_store import ClipStore, StoreError

OPTIONS = {
    'size': folder.OPTIONS['size'],
    'on_bad': (str, 'error', 'an unreadable frame: error (stop) or skip (named, counted; its video '
               'is cut there)'),
    'check': folder.OPTIONS['check']}
_IMAGE = re.compile(r'image_(\d+)\.png')
_SPLITS = {'train': 'train', 'val': 'validation', 'unlabeled': 'unlabeled', 'hidden': 'hidden'}
LENGTH = 22  # frames of a video that is given whole


def prepare(*, in_dir, out=None, size: str = '', on_bad: str = 'error', check: bool = False
            ) -> ClipStore | None:
  """Writes the store and prints its card, see the module.

  Frames are uint8 `[H, W, 3]`, physical 0 to 1, without a clock.

  Returns:
    The store; None with `check`.

  Raises:
    StoreError: no such folders, or names the video and frame that is missing or unreadable.
    ValueError: an option that cannot be read.
  """
  if in_dir is None or not pathlib.Path(in_dir).is_dir():
    raise StoreError(f'--in {in_dir}: no such folder; name the one that holds train/ and val/')
  root = pathlib.Path(in_dir)
  if not _parts(root) and _parts(root / 'data'):
    root = root / 'data'
  parts = _parts(root)
  if 'train' not in parts.values():
    there = ' '.join(sorted(p.name for p in root.iterdir() if p.is_dir())) or 'nothing'
    raise StoreError(f'{root}: no folder train in it (there is {there}); it holds '
                     'train/video_00000/image_0.png and so on')
  for name in parts:
    _check_numbers(root / name)
  resize.size_of(size, '--size')
  split = 'folders:' + ','.join(f'{name}={split}' for name, split in parts.items())
  return folder.prepare(
      in_dir=root, out=out, check=check, size=size, channels=3, split=split, window=LENGTH,
      on_bad=on_bad, pattern='*/video_*/image_*.png', times='none', config='course')


def _parts(root: pathlib.Path) -> dict[str, str]:
  """{folder: split} of those there."""
  found = {}
  for path in sorted(root.iterdir()) if root.is_dir() else ():
    split = _SPLITS.get(re.sub(r'_\d+$', '', path.name))
    if split and path.is_dir():
      found[path.name] = split
  return found


def _check_numbers(part: pathlib.Path) -> None:
  """StoreError names a video without frames, or the first frame that one lacks."""
  videos = sorted(p for p in part.iterdir() if p.name.startswith('video_') and p.is_dir())
  if not videos:
    raise StoreError(f'{part}: no folder video_* in it; fill or remove it')
  for video in tqdm(videos, desc=f'listing {part.name}', unit='video', leave=False):
    with os.scandir(video) as entries:
      numbers = sorted(int(m[1]) for e in entries if (m := _IMAGE.fullmatch(e.name)))
    lacking = next((i for i, n in enumerate(numbers) if i != n), None)
    if lacking is not None or not numbers:
      raise StoreError(f'{video / f"image_{lacking or 0}.png"}: missing; restore it, or move this '
                       'video out of the folder')
