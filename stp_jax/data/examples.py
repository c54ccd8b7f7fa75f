"""Numbered examples of Spatiotemporal-Prediction (MovingMNIST, KTH, TaxiBJ), and PredRNN's npz.

`{train,validation,test}/`, in the folder or in `MovingMNIST/`, `KTH/` or `TaxiBJ/` below it, with

  exampleNNNNNN.npz     arrays inputs and labels, [T, C, H, W], 0 to 1
  exampleNNNNNN.npy     [T, C, H, W] counts; a model sees them divided by --full-scale (1292)
  exampleNNNNNN/        image files, in natural order; grey, or RGB with --channels 3

or `moving-mnist-{train,valid,test}.npz` with `clips`, `dims` and `input_raw_data`, the frames of
all clips behind one another.

  python -m stp_jax.prepare examples --in DIR --out STORE

An example is a clip, inputs before labels. Images are kept in 8 bits, arrays as float32.
"""

import functools
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from stp_jax.data import npz_rows, samples
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable

OPTIONS = {
    'full_scale': (float, 1292.0, 'counts of .npy that a model sees as 1'),
    'channels': (int, 1, 'of images: 1 (grey) or 3 (RGB)'),
    'on_bad': samples.ON_BAD}
_SPLITS = ('train', 'validation', 'test')
_FOLDERS = ('MovingMNIST', 'KTH', 'TaxiBJ')
_PACKED = dict(train='train', valid='validation', test='test')


def _pair(path: pathlib.Path) -> np.ndarray:
  with npz_rows.opened(path, together=True) as file:
    lacking = [k for k in ('inputs', 'labels') if k not in file]
    if lacking:
      raise Unreadable(f'{path}: no array {" ".join(lacking)}; it has {" ".join(file)}')
    clip = np.concatenate([file['inputs'], file['labels']])
  if not (clip.ndim == 4 and clip.min() >= 0 and clip.max() <= 1):  # NaN too
    raise Unreadable(f'{path}: {clip.dtype}{list(clip.shape)} from {clip.min():g} to '
                     f'{clip.max():g}; [T, C, H, W] from 0 to 1 expected')
  return clip.transpose(0, 2, 3, 1).astype(np.float32)


def _counts(path: pathlib.Path) -> np.ndarray:
  clip = npz_rows.array(path)
  if clip.ndim != 4 or clip.dtype.kind not in 'iuf' or not np.isfinite(clip).all():
    raise Unreadable(f'{path}: {clip.dtype}{list(clip.shape)}; finite [T, C, H, W] expected')
  return np.asarray(clip, np.float32).transpose(0, 2, 3, 1)


def _images(path: pathlib.Path, channels: int) -> np.ndarray:
  paths = sorted((p for p in path.iterdir() if p.suffix.lower() in samples.IMAGES),
                 key=lambda p: samples.natural(p.name))
  if not paths:
    raise Unreadable(f'{path}: no image in it')
  return samples.images(paths, lambda p: samples.image(p, channels))


def _packed(path: pathlib.Path) -> Iterator[np.ndarray]:
  """uint8 or float32 `[T, H, W, C]` of each clip of a PredRNN file."""
  with npz_rows.opened(path) as file:
    if 'clips' not in file:
      raise Unreadable(f'{path}: no array clips; it has {" ".join(file)}')
    clips = np.asarray(file['clips'])  # [2, N, 2]: first frame and length, of inputs and targets
  if clips.ndim != 3 or clips.shape[0] != 2 or clips.shape[2] != 2:
    raise Unreadable(f'{path}: clips {list(clips.shape)}; [2, N, 2] expected')
  spans = [(int(a[0]), int(b[0] + b[1])) for a, b in zip(*clips)]
  if any(a != end for (_, end), (a, _) in itertools.pairwise(spans)) or (spans and spans[0][0]):
    raise Unreadable(f'{path}: clips that do not follow one another')
  with npz_rows.members(path, 'input_raw_data') as (frames,):
    rows = iter(frames)
    for start, stop in spans:
      clip = np.stack(list(itertools.islice(rows, stop - start))).transpose(0, 2, 3, 1)
      if clip.dtype.kind == 'f' and not (clip.min() >= 0 and clip.max() <= 1):
        raise Unreadable(f'{path}: frames {start} to {stop - 1}: values outside 0 to 1')
      yield clip if clip.dtype == np.uint8 else clip.astype(np.float32)


def prepare(
    *, in_dir, out, full_scale: float = 1292.0, channels: int = 1, on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Raises:
    StoreError: names the example that is missing, unreadable or of another kind.
    ValueError: an option out of range.
  """
  if not full_scale > 0 or channels not in (1, 3):
    raise ValueError(f'--full-scale {full_scale:g} (above 0), --channels {channels} (1, 3)')
  base = samples.root(
      in_dir, _FOLDERS, [*(f'{s}/example*' for s in _SPLITS), 'moving-mnist-*.npz'],
      '{train,validation,test}/exampleNNNNNN.npz, .npy or folders; or moving-mnist-*.npz')
  packed = {s: base / f'moving-mnist-{n}.npz' for n, s in _PACKED.items()
            if (base / f'moving-mnist-{n}.npz').is_file()}
  found = {s: sorted((base / s).glob('example*'), key=lambda p: samples.natural(p.name))
           for s in _SPLITS if (base / s).is_dir() and not packed}
  every = [p for paths in found.values() for p in paths] + list(packed.values())
  kinds = {'folder' if p.is_dir() else p.suffix for p in every}
  if len(kinds) != 1 or not kinds <= {'folder', '.npz', '.npy'}:
    raise StoreError(f'{base}: examples of the kinds {" ".join(sorted(kinds)) or "none"}; one of '
                     '.npz, .npy or folders is expected')
  kind = kinds.pop()
  first = next(_packed(every[0])) if packed else None
  dtype = 'uint8' if kind == 'folder' else 'float32' if first is None else first.dtype.name
  counted = kind == '.npy'
  stream = Stream((0, 0, 0), dtype, 'counts' if counted else 'of full scale',
                  1 / 255 if dtype == 'uint8' else 1.0)
  read = {'folder': functools.partial(_images, channels=channels), '.npz': _pair,
          '.npy': _counts}[kind]
  sizes = [p for e in every for p in (sorted(e.iterdir()) if e.is_dir() else [e])]
  recipe = dict(importer='examples', version=1, full_scale=full_scale, channels=channels,
                on_bad=on_bad, files=samples.fingerprint(base, sizes))
  listed = (Sample(f'{s}/{p.name}', s, functools.partial(read, p))
            for s, paths in found.items() for p in paths)
  joined = (Sample(f'{s}/{i}', s, functools.partial(np.asarray, clip))
            for s, path in packed.items() for i, clip in enumerate(_packed(path)))
  return samples.write(
      out, joined if packed else listed, name='examples', recipe=recipe, stream=stream, window=20,
      total=0 if packed else len(every), on_bad=on_bad,
      normalisation=dict(divisor=full_scale) if counted else {},
      description='examples of Spatiotemporal-Prediction or PredRNN')
