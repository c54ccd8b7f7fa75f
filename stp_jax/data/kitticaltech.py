"""KITTI for training, Caltech pedestrians for test: driving, 128x160 RGB, 10 -> 1.

  kitti_hkl/X_train.hkl, sources_train.hkl   uint8 [N,128,160,3], their films
  kitti_hkl/X_val.hkl, sources_val.hkl       the split validation, where they are there
  caltech/set<NN>/*.seq (or .avi, .mp4)      every 3rd frame, 128 high, the middle 160 columns
or
  kitticaltech_npy/{train,test}_{data,idx}.npy     frames, and the first ones of the windows

  python -m stp_jax.prepare kitticaltech --in DIR --out STORE
  python -m stp_jax.prepare kitticaltech --in DIR --out STORE --windows all      whole films

The published windows lie side by side, from a film's end towards its beginning. RGB throughout;
OpenSTL reads Caltech as BGR. `.hkl` are HDF5 files of hickle. Data: Geiger et al. 2013,
doi:10.1177/0278364913491297; Dollar et al. 2009, doi:10.1109/CVPR.2009.5206631.
"""

import functools
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from stp_jax.data import npz_rows, resize, samples, video_file
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable, naming

OPTIONS = {
    'windows': (str, 'published', 'published, or all: whole films, for windows of any length'),
    'length': (int, 11, 'frames of a published window, input and target'),
    'on_bad': samples.ON_BAD}
_SIZE = (128, 160)
_EVERY = 3  # frames of Caltech


def _hickle(path: pathlib.Path):
  """The one object of a hickle file: (h5py file, dataset or group of its items)."""
  h5py = samples.module('h5py', 'reading .hkl', 'data')
  with naming(path, 'a hickle (HDF5) file'):
    file = h5py.File(path)
    key = next((k for k in ('data', 'data_0') if k in file), None)
    if key is None:
      raise Unreadable(f'{path}: no dataset data or data_0; it has {" ".join(file) or "nothing"}')
    return file, file[key]


def _names(path: pathlib.Path) -> list[str]:
  """The list of texts in a hickle file, whichever of its versions wrote it."""
  file, node = _hickle(path)
  h5py = samples.module('h5py', 'reading .hkl', 'data')

  def text(value) -> str:
    if isinstance(value, h5py.Reference):  # hickle 5 writes a text once, and then refers to it
      value = file[value][()]
    if isinstance(value, np.ndarray):  # of single characters
      value = value.tobytes()
    return value.decode() if isinstance(value, bytes) else str(value)

  with file, naming(path, 'a hickle list'):
    if hasattr(node, 'keys'):
      return [text(node[k][()]) for k in sorted(node, key=samples.natural)]
    return [text(v) for v in np.ravel(node[()])]


def _cropped(frame: np.ndarray) -> np.ndarray:
  """uint8 `[128, 160, 3]`: 128 high, the middle 160 columns."""
  width = round(frame.shape[1] * _SIZE[0] / frame.shape[0])
  if width < _SIZE[1]:
    raise Unreadable(f'a frame of {frame.shape[0]}x{frame.shape[1]} is too narrow for 128x160')
  frame = resize.frames(frame[None], (_SIZE[0], width))[0]
  left = (width - _SIZE[1]) // 2
  return frame[:, left:left + _SIZE[1]]


def _windows(count: int, length: int, whole: bool) -> list[tuple[int, int]]:
  return [(0, count)] if whole else [
      (s, s + length) for s in samples.backward(count, length, length)]


def _kitti(base: pathlib.Path, part: str, split: str, length: int, whole: bool
           ) -> Iterator[Sample]:
  path, listed = base / f'X_{part}.hkl', base / f'sources_{part}.hkl'
  names = _names(listed)
  file, data = _hickle(path)
  with file:
    if data.shape[1:] != (*_SIZE, 3) or data.dtype != np.uint8 or len(data) != len(names):
      raise Unreadable(f'{path}: {data.dtype}{list(data.shape)} with {len(names)} names in '
                       f'{listed.name}; uint8 [N, 128, 160, 3] and N names expected')
    first = 0
    for name, group in itertools.groupby(names):
      count = len(list(group))
      for start, stop in _windows(count, length, whole):
        def read(a=first + start, b=first + stop):
          with naming(path, f'a hickle file, frame {a}'):
            return data[a:b]
        yield Sample(f'kitti/{part}/{name}@{first + start}', split, read)
      first += count


def _caltech(base: pathlib.Path, paths: list[pathlib.Path], length: int, whole: bool
             ) -> Iterator[Sample]:
  for path in paths:
    name = path.relative_to(base).as_posix()
    try:
      frames = [_cropped(f) for f in itertools.islice(
          video_file.frames(path), _EVERY - 1, None, _EVERY)]
    except Unreadable as error:
      message = str(error) if str(path) in str(error) else f'{path}: {error}'
      yield Sample(f'caltech/{name}', 'test', functools.partial(_again, message))
      continue
    for start, stop in _windows(len(frames), length, whole):
      yield Sample(f'caltech/{name}@{start}', 'test',
                   lambda frames=frames, a=start, b=stop: np.stack(frames[a:b]))


def _again(message: str) -> np.ndarray:
  raise Unreadable(message)


def _arrays(base: pathlib.Path, length: int) -> Iterator[Sample]:
  for split in ('train', 'test'):
    path = base / f'{split}_data.npy'
    data, starts = npz_rows.array(path), npz_rows.array(base / f'{split}_idx.npy')
    if data.ndim != 4 or data.shape[1:] != (*_SIZE, 3):
      raise Unreadable(f'{path}: {data.dtype}{list(data.shape)}; [N, 128, 160, 3] expected')
    scale = 1 if data.dtype == np.uint8 else 255  # floats from 0 to 1
    for start in np.sort(starts.ravel()).tolist():
      if not 0 <= start <= len(data) - length:
        raise Unreadable(f'{base / f"{split}_idx.npy"}: a window at {start} does not lie in the '
                         f'{len(data)} frames of {path.name}')
      def read(data=data, start=start, scale=scale, path=path):
        clip = np.asarray(data[start:start + length])
        if scale == 255 and not (clip.min() >= 0 and clip.max() <= 1):
          raise Unreadable(f'{path}: frames {start} to {start + length - 1}: values outside 0 to 1')
        return clip if scale == 1 else np.rint(clip * 255).astype(np.uint8)
      yield Sample(f'{split}/{start}', split, read)


def prepare(
    *, in_dir, out, windows: str = 'published', length: int = 11, on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[128, 160, 3]`, physical 0 to 1.

  Raises:
    StoreError: names the file that is missing, unreadable or of another shape.
    ValueError: an option out of range.
  """
  if windows not in ('published', 'all') or length < 2:
    raise ValueError(f'--windows {windows} (published, all), --length {length} (at least 2)')
  base = samples.root(
      in_dir, ['kitticaltech'], ['kitti_hkl', 'kitticaltech_npy'],
      'kitti_hkl/ and caltech/, or kitticaltech_npy/')
  whole, parts, paths = windows == 'all', [], []
  if (base / 'kitti_hkl').is_dir():
    kitti, caltech = base / 'kitti_hkl', base / 'caltech'
    for part, split in (('train', 'train'), ('val', 'validation')):
      if part == 'train' or (kitti / f'X_{part}.hkl').exists():
        paths += [kitti / f'X_{part}.hkl', kitti / f'sources_{part}.hkl']
        parts.append(_kitti(kitti, part, split, length, whole))
    films = sorted((p for p in caltech.glob('*/*') if p.suffix.lower() in (
        '.seq', *video_file.SUFFIXES)), key=lambda p: samples.natural(p.as_posix()))
    if not films:
      raise StoreError(f'{caltech}: no set<NN>/*.seq (or .avi, .mp4): the test split')
    paths += films
    parts.append(_caltech(caltech, films, length, whole))
  else:
    if whole:
      raise ValueError('--windows all: kitticaltech_npy does not tell films; leave it out')
    folder = base / 'kitticaltech_npy'
    paths = [folder / f'{s}_{k}.npy' for s in ('train', 'test') for k in ('data', 'idx')]
    parts = [_arrays(folder, length)]
  recipe = dict(importer='kitticaltech', version=1, windows=windows, length=length, on_bad=on_bad,
                files=samples.fingerprint(base, paths))
  return samples.write(
      out, itertools.chain(*parts), name='kitticaltech', recipe=recipe, window=length,
      stream=Stream((*_SIZE, 3), 'uint8', 'of full scale', 1 / 255),
      on_bad=on_bad, licence='KITTI: CC BY-NC-SA 3.0; Caltech pedestrians: see its page',
      description='KITTI (train) and Caltech pedestrians (test)',
      facts={'cadence': '10 frames a second'})
