"""The stores of a run: those named, or a set that this package makes itself, once."""

import importlib
import pathlib
from collections.abc import Sequence

import jax

from stp_jax.data.clip_store import ClipStore

# Importers with a `prepare(*, in_dir, out, **options)`; `python -m stp_jax.prepare` runs them.
IMPORTERS = {
    'deepsense': 'deepsense', 'deepsense_scenes': 'deepsense_scenes',
    'embedded': 'embedded', 'folder': 'folder', 'ionex': 'ionex', 'iono_electron': 'iono_electron',
    'moving_mnist': 'moving_mnist', 'png_tree': 'png_tree', 'radar': 'radar',
    'synthetic': 'synthetic',
    'taxibj': 'taxibj', 'kth': 'kth', 'bair': 'bair', 'human': 'human',
    'kitticaltech': 'kitticaltech', 'kinetics': 'kinetics', 'weatherbench': 'weatherbench',
    'sevir': 'sevir', 'hko7': 'hko7', 'shanghai2020': 'shanghai2020',
    'moving_fmnist': 'moving_fmnist', 'noisy_mnist': 'noisy_mnist',
    'moving_mnist_cifar': 'moving_mnist_cifar', 'tfds': 'tfds_source',
    'examples': 'examples'}
_GENERATED = ('deepsense_scenes', 'embedded', 'synthetic')


def importer(name: str):
  """The module of an importer; an unknown name lists the known ones."""
  if name not in IMPORTERS:
    raise ValueError(f'dataset {name!r}: choose one of {" ".join(IMPORTERS)}')
  return importlib.import_module(f'stp_jax.data.{IMPORTERS[name]}')


def open_stores(config, paths: Sequence[str] = ()) -> list[ClipStore]:
  """Opens `paths`, else `config.data.stores`, else makes `config.data.dataset` in the cache.

  Raises:
    ValueError: neither a store nor a set that can be made here.
    StoreError: a store that is absent, damaged or of another version.
  """
  data = config.data
  paths = tuple(paths) or tuple(data.stores)
  if paths:
    return [ClipStore(p) for p in paths]
  if data.dataset not in _GENERATED:
    raise ValueError(
        f'no data: give --store=STORE, or data.dataset as one of {" ".join(_GENERATED)}')
  options = dict(data.dataset_options)
  name = '-'.join([data.dataset, *(f'{k}_{v}' for k, v in sorted(options.items()))])
  out = pathlib.Path(data.cache) / name
  if jax.process_index() == 0:
    importer(data.dataset).prepare(in_dir=None, out=out, **options)
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils
    multihost_utils.sync_global_devices('dataset')
  return [ClipStore(out)]
