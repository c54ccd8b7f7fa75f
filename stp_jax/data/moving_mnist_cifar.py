"""Moving MNIST before photographs: digits on CIFAR-10, 64x64 RGB, 10 -> 10; else as `moving_mnist`.

MNIST's idx files as `moving_mnist` wants them; CIFAR-10 below `cifar10/` or beside them, as
`cifar-10-batches-py/data_batch_1` to `5` and `test_batch`, or `cifar-10-batches-bin/*.bin`; and
`mnist_cifar_test_seq.npy`, the published test clips, where it is.

  python -m stp_jax.prepare moving_mnist_cifar --in DIR --out STORE

A clip's photograph stands still, enlarged by a bicubic filter; digit pixels above 1 are white and
cover it. Here the photographs of test clips are those of `test_batch`, which the originals mix with
the others. Photograph and digits follow from (seed, index) alone.
"""

import pathlib
import pickle

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data import idx_files, moving_mnist, resize
from stp_jax.data.clip_store import ClipStore, StoreError

OPTIONS = dict(moving_mnist.OPTIONS, official=(
    bool, True, 'use mnist_cifar_test_seq.npy as test split, if it is there'))
_FOLDERS = ('cifar10', 'cifar10/cifar-10-batches-py', 'cifar10/cifar-10-batches-bin',
            'cifar-10-batches-py', 'cifar-10-batches-bin')
_PARTS = dict(train=[f'data_batch_{i}' for i in range(1, 6)], test=['test_batch'])
_PIXELS = 3 * 32 * 32
_ALLOWED = {('numpy.core.multiarray', '_reconstruct'), ('numpy._core.multiarray', '_reconstruct'),
            ('numpy', 'ndarray'), ('numpy', 'dtype'), ('_codecs', 'encode')}


class _Arrays(pickle.Unpickler):
  """Loads arrays and plain Python values: a pickle may name any code, none of it is run."""

  def find_class(self, module, name):
    if (module, name) not in _ALLOWED:
      raise pickle.UnpicklingError(f'it asks for {module}.{name}')
    return super().find_class(module, name)


def _batch(path: pathlib.Path) -> np.ndarray:
  """uint8 `[N, 32, 32, 3]`."""
  try:
    if path.suffix == '.bin':
      flat = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 1 + _PIXELS)[:, 1:]
    else:
      with path.open('rb') as file:
        flat = _Arrays(file, encoding='bytes').load()[b'data']
    return flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, IndexError,
          ImportError, pickle.UnpicklingError) as error:
    raise StoreError(f'{path}: unreadable as a batch of CIFAR-10 ({error})') from error


def prepare(*, in_dir, seed: int = 0, size: str = '64', **options) -> ClipStore:
  """As `moving_mnist.prepare`, in colour.

  Raises:
    StoreError: also a batch of CIFAR-10 that is missing or unreadable.
  """
  found = {k: [idx_files.find(in_dir, _FOLDERS, n, f'{n}.bin') for n in names]
           for k, names in _PARTS.items()} if in_dir and pathlib.Path(in_dir).is_dir() else {}
  found = {k: [p for p in paths if p] for k, paths in found.items()}
  for part, paths in found.items():
    if not paths:
      raise StoreError(f'{in_dir}: no {_PARTS[part][0]} of CIFAR-10 in it, in cifar10/ or in '
                       'cifar-10-batches-py/')
  photographs = {k: np.concatenate([_batch(p) for p in paths]) for k, paths in found.items()}
  sides = resize.size_of(size, '--size')

  def draw(frames: np.ndarray, split: str, index: int) -> np.ndarray:
    pool = photographs['test' if split == 'test' else 'train']
    image = resize.pillow()
    picture = image.fromarray(pool[np.random.default_rng((seed, index, 1)).integers(len(pool))])
    picture = np.asarray(picture.resize(sides[::-1], image.Resampling.BICUBIC))
    return np.maximum(np.where(frames > 1, 255, 0).astype(np.uint8), picture)

  kind = moving_mnist.Kind(
      'moving_mnist_cifar', official='mnist_cifar_test_seq.npy', channels=3, draw=draw,
      recipe=dict(photographs=cards.checksums([p for v in found.values() for p in v])),
      licence='MNIST: CC BY-SA 3.0; CIFAR-10: A. Krizhevsky', description='Moving MNIST before '
      'photographs of CIFAR-10.')
  return moving_mnist.make(kind, in_dir=in_dir, seed=seed, size=size, **options)
