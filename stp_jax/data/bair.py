"""BAIR robot pushing, small: TFRecords of 30 frames, 64x64 RGB, 4 -> 12, read without TensorFlow.

`softmotion30_44k/{train,test}/*.tfrecords` (also below `bair/`). A record is a film: frame t under
`<t>/image_aux1/encoded` (64*64*3 raw bytes), and `<t>/action` where there is such a frame.

  python -m stp_jax.prepare bair --in DIR --out STORE

A film is a clip, so that every start in it is a window, as published: 15 starts of 16 frames in
each of 43,264 training and 256 test films. Data: Ebert et al. 2017, arXiv:1710.05268.
"""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from stp_jax.data import samples, tfrecord
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable

OPTIONS = {
    'view': (str, 'image_aux1', 'camera: image_aux1 (as published) or image_main'),
    'validation': samples.VALIDATION, 'on_bad': samples.ON_BAD}
_SHAPE = (64, 64, 3)
_SUFFIXES = ('*.tfrecords', '*.tfrecord')


def _film(payload: bytes, where: str, view: str) -> np.ndarray:
  """uint8 `[T, 64, 64, 3]` of one record."""
  try:
    features = tfrecord.example(payload)
  except ValueError as error:
    raise Unreadable(f'{where}: no tf.train.Example ({error})') from error
  frames = []
  while f'{len(frames)}/action' in features or f'{len(frames)}/{view}/encoded' in features:
    key = f'{len(frames)}/{view}/encoded'
    value = features.get(key, ())
    if len(value) != 1 or not isinstance(value[0], bytes) or len(value[0]) != np.prod(_SHAPE):
      size = len(value[0]) if len(value) == 1 and isinstance(value[0], bytes) else 'no'
      raise Unreadable(f'{where}: {key}: {size} bytes, 64 x 64 x 3 raw ones expected')
    frames.append(np.frombuffer(value[0], np.uint8).reshape(_SHAPE))
  if not frames:
    raise Unreadable(f'{where}: no frame (the key 0/{view}/encoded is missing); it has '
                     f'{" ".join(sorted(features)[:4]) or "nothing"}')
  return np.stack(frames)


def prepare(
    *, in_dir, out, view: str = 'image_aux1', validation: float = 0.0, on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[64, 64, 3]`, physical 0 to 1.

  Raises:
    StoreError: names file, record (from 0) and key.
    ValueError: an option out of range.
  """
  base = samples.root(
      in_dir, ['softmotion30_44k', 'bair/softmotion30_44k', 'bair'],
      [f'{s}/{k}' for s in ('train', 'test') for k in _SUFFIXES],
      'softmotion30_44k/{train,test}/*.tfrecords')
  files = {s: sorted((p for k in _SUFFIXES for p in (base / s).glob(k)),
                     key=lambda p: samples.natural(p.name)) for s in ('train', 'test')}
  for split, paths in files.items():
    if not paths:
      raise StoreError(f'{base / split}: no *.tfrecords; both train/ and test/ are expected')
  every = [p for paths in files.values() for p in paths]
  counts = {p: sum(1 for _ in tfrecord.records(p, payload=False)) for p in every}
  films = [(p, i) for p in files['train'] for i in range(counts[p])]
  recipe = dict(importer='bair', version=1, view=view, validation=validation, on_bad=on_bad,
                files=samples.fingerprint(base, every))
  return samples.write(
      out, _read(files, view, samples.held_out(films, validation)), name='bair', recipe=recipe,
      stream=Stream(_SHAPE, 'uint8', 'of full scale', 1 / 255), total=sum(counts.values()),
      window=16, on_bad=on_bad, licence='BAIR: CC BY 4.0 (F. Ebert, C. Finn, A. Lee, S. Levine)',
      description='BAIR robot pushing, small', facts={'camera': view, 'files': len(every)})


def _read(files: dict[str, list[pathlib.Path]], view: str, held: set) -> Iterator[Sample]:
  for split, paths in files.items():
    for path in paths:
      for i, payload in enumerate(tfrecord.records(path)):
        name = 'validation' if split == 'train' and (path, i) in held else split
        yield Sample(f'{split}/{path.name}#{i}', name, functools.partial(
            _film, payload, f'{path} record {i}', view))
