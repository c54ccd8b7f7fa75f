"""PNG pictures of an array of forecasts, a folder a clip: the course's image_21.png by default.

    python -m stp_jax.report.frames --array=OUT/video_arrays_result_hidden.npy --out=OUT/hidden

writes `OUT/hidden/<name>/image_<number>.png` of the last frame of every clip; `--frame=all` writes
them all. The numbers go on from the frames that were given: of 11 -> 11 the last is 21. Names are
those of dir_arrays_<split>.json beside the array. Needs Pillow (extra `plots`).
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from stp_jax import files
from stp_jax.data import npy_file
from stp_jax.report import png_tree

_PREFIX = 'video_arrays_result_'


def names_of(array: pathlib.Path, path: str | None, count: int) -> list[str]:
  """The names of an array's clips.

  Raises:
    ValueError: another number of names than of clips, one twice, or one that leads elsewhere.
    FileNotFoundError: no file of names.
  """
  file = pathlib.Path(path) if path else array.with_name(
      f'dir_arrays_{array.stem.removeprefix(_PREFIX)}.json')
  if not file.is_file():
    raise FileNotFoundError(f'{file}: no such file of names; give --names')
  try:
    names = json.loads(file.read_text())
  except ValueError as error:
    raise ValueError(f'{file}: not JSON: {error}') from error
  if not isinstance(names, list) or len(names) != count:
    what = f'{len(names)} names' if isinstance(names, list) else 'no list'
    raise ValueError(f'{file}: {what}, but {array} holds {count} clips')
  for name in names:
    if not isinstance(name, str) or not name or pathlib.PurePath(name).is_absolute() or (
        '..' in pathlib.PurePath(name).parts):
      raise ValueError(f'{file}: {name!r} is no name of a folder')
  if len(set(names)) != count:
    twice = next(n for n in names if names.count(n) > 1)
    raise ValueError(f'{file}: {twice} is there twice')
  return names


def write(array, out, *, names: str | None = None, frame: str = 'last', first: int | None = None
          ) -> list[pathlib.Path]:
  """Writes the pictures, each whole or not at all.

  Args:
    array: `.npy`, `[N, T, H, W, 1 or 3]`, uint8, or floats in 0..1 that are clipped and rounded.
    names: JSON list of N names; None: beside the array. frame: 'last', 'all' or a number from 0.
    first: number of frame 0 in the files' names; None: T, as many as were given.

  Raises:
    ValueError: an array of another shape or type, or a frame that is not there.
  """
  array = pathlib.Path(array)
  try:
    values = npy_file.load(array)
  except (ValueError, EOFError) as error:
    raise ValueError(f'{array}: not a .npy array ({error})') from error
  if values.ndim != 5 or values.shape[-1] not in (1, 3) or (
      values.dtype != np.uint8 and values.dtype.kind != 'f'):
    raise ValueError(f'{array}: {values.dtype}{list(values.shape)}; pictures are made of uint8 (or '
                     'floats in 0..1) [N, T, H, W, 1 or 3]')
  count, length = values.shape[:2]
  if frame == 'all':
    chosen = range(length)
  else:
    number = length - 1 if frame == 'last' else int(frame) if frame.isdigit() else -1
    if not 0 <= number < length:
      raise ValueError(f'--frame {frame}: last, all, or 0 to {length - 1}')
    chosen = [number]
  first = length if first is None else first
  written = []
  for name, clip in tqdm(list(zip(names_of(array, names, count), values)), desc='pictures',
                         unit='clip'):
    folder = pathlib.Path(out) / name
    folder.mkdir(parents=True, exist_ok=True)
    for j in chosen:
      picture = clip[j] if clip.dtype == np.uint8 else png_tree.to_uint8(clip[j])
      path = folder / f'image_{first + j}.png'
      with files.whole(path) as partial:
        png_tree.image(np.asarray(picture)).save(partial, format='PNG')
      written.append(path)
  return written


def main(argv: Sequence[str] | None = None) -> int:
  """Writes the pictures; a bad input is one line on stderr and exit code 1."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.report.frames', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--array', required=True, help='of stp_jax.predict --format=npy')
  add('--out', required=True, help='folder to write')
  add('--names', help='JSON list of names; default dir_arrays_<split>.json beside the array')
  add('--frame', default='last', help='last, all, or a number from 0')
  add('--first', type=int, help='number of frame 0 in the names of files; default: the count')
  args = parser.parse_args(argv)
  try:
    written = write(args.array, args.out, names=args.names, frame=args.frame, first=args.first)
  except (ValueError, OSError) as error:
    print(f'frames: {error}', file=sys.stderr)
    return 1
  print(f'{args.out}: {len(written)} pictures, {written[0]} to {written[-1]}' if written else
        f'{args.out}: no clip in the array')
  return 0


if __name__ == '__main__':
  sys.exit(main())
