"""Images of MNIST and its like: idx files, plain or gzipped, and where they lie."""

import gzip
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np

from stp_jax.data.clip_store import StoreError


def read_idx(path: pathlib.Path) -> np.ndarray:
  """Images of an idx file, plain or gzipped: uint8 `[N, h, w]`.

  Raises:
    StoreError: names the file: not idx images, damaged, or cut off.
  """
  try:
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b'\x1f\x8b' else data
  except (OSError, EOFError, zlib.error) as error:
    raise StoreError(f'{path}: unreadable ({error}); fetch it again') from error
  head = np.frombuffer(data[:16], '>u4') if len(data) >= 16 else np.zeros(4, int)
  if head[0] != 0x803:
    raise StoreError(f'{path}: no idx file of images (magic number {int(head[0]):#x}, not 0x803)')
  shape = tuple(int(n) for n in head[1:])
  if len(data) != 16 + np.prod(shape):
    raise StoreError(f'{path}: {len(data)} bytes, its header tells {16 + np.prod(shape)}; fetch it '
                     'again')
  return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def find(in_dir, folders: Sequence[str], *names: str) -> pathlib.Path | None:
  """The first of these files in `in_dir` or one of `folders` below it."""
  base = pathlib.Path(in_dir)
  for folder in (base, *(base / f for f in folders)):
    for name in names:
      if (folder / name).is_file():
        return folder / name
  return None


def images(in_dir, folders: Sequence[str], part: str
           ) -> tuple[np.ndarray | None, pathlib.Path | None]:
  """Images and file of 'train' or 't10k'; None where there is none."""
  names = [f'{part}-images{dot}idx3-ubyte{end}' for dot in '-.' for end in ('', '.gz')]
  path = find(in_dir, folders, *names)
  return (None, None) if path is None else (read_idx(path), path)
