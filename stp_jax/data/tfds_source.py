"""Videos of TensorFlow Datasets, read without TensorFlow: its `data_source` on array_record files.

  pip install "stp_jax[tfds]"
  python -m stp_jax.prepare tfds --in DATA_DIR --name bair_robot_pushing_small --out STORE

DATA_DIR holds the data set as tfds wrote it with `file_format='array_record'` (`DATA_DIR/<name>/
<version>/`, or that folder itself). `--feature` is the video: frames `[T, H, W, C]` of uint8 or
float (0 to 1), or an image in a sequence; parts of a nested name are joined by `/`. Splits keep
their names.
"""

import functools
import pathlib
import sys
from collections.abc import Iterator, Mapping

import numpy as np

from stp_jax.data import samples
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable, naming

OPTIONS = {
    'name': (str, '', 'of the data set, as tfds calls it, with a config: name/config; empty: --in '
             'is the folder of a version'),
    'feature': (str, '', 'the video; empty: the only feature that is one'),
    'splits': (str, '', 'tfds names joined by +, in this order; empty: all'),
    'validation': (float, 0.0, 'share of the training examples, the last ones, for the split '
                   'validation, where tfds has none'),
    'on_bad': samples.ON_BAD}
_NAMES = dict(val='validation', valid='validation')


def _builder(in_dir, name: str):
  # An import error inside tfds names the part that is lacking.
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise StoreError(f'the source tfds needs tensorflow_datasets: pip install "stp_jax[tfds]" '
                     f'({error})') from error
  base = pathlib.Path(in_dir)
  try:
    if name:
      versions = sorted((base / name).glob('*.*.*'), key=lambda p: samples.natural(p.name))
      if not versions:
        raise StoreError(f'{base / name}: no version of the data set in it; write it with tfds, '
                         "file_format='array_record'")
      base = versions[-1]
    return tfds.builder_from_directory(str(base)), base
  except samples.ERRORS as error:
    if isinstance(error, StoreError):
      raise
    raise StoreError(f'{base}: no data set of tfds ({(str(error).splitlines() or [""])[0]})'
                     ) from error


def _pick(example: Mapping, feature: str, where: str):
  """The value of `a/b` in nested examples; the only video without a name."""
  if not feature:
    found = {k: v for k, v in _leaves(example) if getattr(v, 'ndim', 0) == 4}
    if len(found) != 1:
      raise StoreError(f'{where}: choose the video with --feature: '
                       f'{", ".join(k for k, _ in _leaves(example))}')
    return next(iter(found.values()))
  value = example
  for part in feature.split('/'):
    if not isinstance(value, Mapping) or part not in value:
      raise StoreError(f'{where}: no feature {feature}; there are: '
                       f'{", ".join(k for k, _ in _leaves(example))}')
    value = value[part]
  return value


def _leaves(tree, prefix: str = '') -> Iterator[tuple[str, np.ndarray]]:
  if isinstance(tree, Mapping):
    for key, value in tree.items():
      yield from _leaves(value, f'{prefix}{key}/')
  else:
    yield prefix.rstrip('/'), tree


def _clip(source, index: int, feature: str, where: str) -> np.ndarray:
  with naming(where, 'an example of tfds'):
    value = _pick(source[index], feature, where)
    value = np.stack([np.asarray(v) for v in value]) if isinstance(value, list | tuple) else (
        np.asarray(value))
  if value.ndim == 3:
    value = value[..., None]
  if value.ndim != 4 or value.dtype.kind not in 'uf':
    raise Unreadable(f'{where}: {feature or "the video"} is {value.dtype}{list(value.shape)}; '
                     'uint8 or float [T, H, W, C] expected')
  if value.dtype.kind == 'f':
    if not (value.min() >= 0 and value.max() <= 1):
      raise Unreadable(f'{where}: floats outside 0 to 1 (or NaN)')
    value = np.rint(value * 255).astype(np.uint8)
  return value.astype(np.uint8) if value.dtype == np.uint8 else value


def prepare(
    *, in_dir, out, name: str = '', feature: str = '', splits: str = '', validation: float = 0.0,
    on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[H, W, C]`, physical 0 to 1.

  Raises:
    StoreError: no package, no such data set, no such feature or split; says what there is.
  """
  if in_dir is None or not pathlib.Path(in_dir).is_dir():
    raise StoreError(f'--in {in_dir}: no such folder; name the data_dir of tfds')
  had = 'tensorflow' in sys.modules
  builder, base = _builder(in_dir, name)
  there = list(builder.info.splits)
  chosen = splits.split('+') if splits else there
  if lacking := [s for s in chosen if s not in there]:
    raise StoreError(f'{base}: no split {" ".join(lacking)}; there are: {" ".join(there)}')
  try:
    sources = {s: builder.as_data_source(split=s) for s in chosen}
  except samples.ERRORS as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise StoreError(f"{base}: not readable at random ({reason}); write it with tfds, "
                     "file_format='array_record'") from error
  train = sources.get('train', ())
  held = samples.held_out(range(len(train)), validation)
  first = next((s for s in chosen if len(sources[s])), None)
  if first is None:
    raise StoreError(f'{base}: no example in {" ".join(chosen)}')
  channels = _clip(sources[first], 0, feature, f'{base} {first} 0').shape
  if not had and 'tensorflow' in sys.modules:
    print('note: tfds loaded TensorFlow for a feature of this data set', file=sys.stderr)
  recipe = dict(importer='tfds', version=1, data=builder.info.full_name, feature=feature,
                splits=chosen, validation=validation, on_bad=on_bad,
                counts=[len(sources[s]) for s in chosen])
  return samples.write(
      out, _read(base, sources, feature, held), name='tfds', recipe=recipe, window=channels[0],
      total=sum(map(len, sources.values())), on_bad=on_bad,
      stream=Stream(channels[1:], 'uint8', 'of full scale', 1 / 255),
      description=builder.info.full_name, facts={'data set': builder.info.full_name})


def _read(base, sources: Mapping, feature: str, held: set[int]) -> Iterator[Sample]:
  for split, source in sources.items():
    for i in range(len(source)):
      name = 'validation' if split == 'train' and i in held else _NAMES.get(split, split)
      yield Sample(f'{split}/{i}', name, functools.partial(
          _clip, source, i, feature, f'{base} {split} {i}'))
