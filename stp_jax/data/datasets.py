"""The stores of a run: those named, or a set that this package makes itself, once."""

import importlib
import pathlib
import zlib
from collections.abc import Sequence

import jax

from stp_jax.data.clip_store import ClipStore, StoreError

# Importers with a `prepare(*, in_dir, out, **options)`; `python -m stp_jax.prepare` runs them.
IMPORTERS = {
    'bair': 'bair',
    'course': 'course',
    'deepsense': 'deepsense',
    'deepsense_filter': 'deepsense_filter',
    'deepsense_scenes': 'deepsense_scenes',
    'embedded': 'embedded',
    'examples': 'examples',
    'folder': 'folder',
    'hko7': 'hko7',
    'human': 'human',
    'ionex': 'ionex',
    'iono_electron': 'iono_electron',
    'kinetics': 'kinetics',
    'kitticaltech': 'kitticaltech',
    'kth': 'kth',
    'moving_fmnist': 'moving_fmnist',
    'moving_mnist': 'moving_mnist',
    'moving_mnist_cifar': 'moving_mnist_cifar',
    'noisy_mnist': 'noisy_mnist',
    'png_tree': 'png_tree',
    'radar': 'radar',
    'sevir': 'sevir',
    'shanghai2020': 'shanghai2020',
    'synthetic': 'synthetic',
    'taxibj': 'taxibj',
    'tfds': 'tfds_source',
    'weatherbench': 'weatherbench',
}
_GENERATED = ('deepsense_scenes', 'embedded', 'synthetic')


def importer(name: str):
  """The module of an importer; an unknown name lists the known ones."""
  if name not in IMPORTERS:
    raise ValueError(f'dataset {name!r}: choose one of {" ".join(IMPORTERS)}')
  return importlib.import_module(f'stp_jax.data.{IMPORTERS[name]}')


def open_stores(config, paths: Sequence[str] = ()) -> list[ClipStore]:
  """Opens `paths`, else `config.data.stores`, else makes `config.data.dataset` in the cache.

  Its `dataset_options` may name original files with `in_dir`; a store that was made of them is
  opened again.

  Raises:
    ValueError: neither a store nor a set that can be made here.
    StoreError: a store that is absent, damaged or of another version.
  """
  data = config.data
  paths = tuple(paths) or tuple(data.stores)
  if paths:
    return [ClipStore(p) for p in paths]
  out, in_dir, options = _made(data)
  if data.dataset not in _GENERATED and not in_dir:
    raise ValueError(
        f'no data: give --store=STORE, or data.dataset as one of {" ".join(_GENERATED)}')
  if jax.process_index() == 0:
    importer(data.dataset).prepare(in_dir=in_dir, out=out, **options)
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils
    multihost_utils.sync_global_devices('dataset')
  return [ClipStore(out)]


def _made(data) -> tuple[pathlib.Path, str | None, dict]:
  """Where a set that is made here stands in the cache; its original files; the other options."""
  options = dict(data.dataset_options)
  in_dir = options.pop('in_dir', None)  # the original files of a set that we cannot make
  name = '-'.join([data.dataset, *(f'{k}_{v}' for k, v in sorted(options.items()) if v != '')])
  if in_dir:
    where = str(pathlib.Path(in_dir).resolve()).encode()
    name += f'-{zlib.crc32(where):08x}'
  return pathlib.Path(data.cache) / name, in_dir, options


def existing_stores(config, opened: Sequence[ClipStore] = ()) -> list[ClipStore]:
  """Those stores of `config.data` that are there; nothing is made, nothing raised.

  `opened`: stores that need not be opened again.
  """
  data, found = config.data, []
  known = {s.path.resolve(): s for s in opened}
  for path in tuple(data.stores) or ([_made(data)[0]] if data.dataset else []):
    try:
      found.append(known.get(pathlib.Path(path).resolve()) or ClipStore(path))
    except (StoreError, OSError):
      continue
  return found


def chosen_splits(
    config, stores: Sequence[ClipStore], split: Sequence[str] = ()) -> tuple[str, ...]:
  """The splits to score: those asked for, else the config's test splits that some store has.

  Raises:
    ValueError: none of the test splits is there; names those that are.
  """
  there = dict.fromkeys(name for s in stores for name in s.splits)
  splits = tuple(split) or tuple(s for s in config.data.test_splits if s in there)
  if not splits:
    raise ValueError(f'{" ".join(str(s.path) for s in stores)}: none of the test splits '
                     f'{" ".join(config.data.test_splits)}; choose --split from {" ".join(there)}')
  return splits
