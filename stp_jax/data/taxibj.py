"""TaxiBJ: inflow and outflow of taxis over Beijing, every 30 minutes, 32x32, 4 -> 4.

`dataset.npz` (also in `taxibj/`) as OpenSTL publishes it: `X_train`, `Y_train`, `X_test`, `Y_test`,
float `[N, 4, 2, 32, 32]`, -1 to 1. A sample is a clip of 8 frames, X before Y.

  python -m stp_jax.prepare taxibj --in DIR --out STORE

A value is stored as it is; a model sees (v + 1) / 2, 0 to 1, as published. 1 is 1292 crossings of a
cell's border in half an hour. No clock: the file has no dates. Data: Zhang et al. 2017,
arXiv:1610.00081.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data import npz_rows, samples
from stp_jax.data.clip_store import ClipStore, Stream
from stp_jax.data.samples import Sample, Unreadable

OPTIONS = {'validation': samples.VALIDATION}
_FRAME = (2, 32, 32)


def prepare(*, in_dir, out, validation: float = 0.0) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are float32 `[32, 32, 2]` (in, out), physical 0 to 1, 8 a clip.

  Raises:
    StoreError: no dataset.npz, an array that is missing, of another shape or out of range.
  """
  base = samples.root(in_dir, ['taxibj', 'TaxiBJ'], ['dataset.npz'], 'dataset.npz, or taxibj/')
  path = base / 'dataset.npz'
  shapes = {}
  for split in ('train', 'test'):
    with npz_rows.members(path, f'X_{split}', f'Y_{split}') as pair:
      for name, member in zip('XY', pair):
        if len(member.shape) != 5 or member.shape[2:] != _FRAME or member.dtype.kind != 'f':
          raise Unreadable(f'{path}: {name}_{split} is {member.dtype}{list(member.shape)}; '
                           'floats [N, 4, 2, 32, 32] expected')
      if pair[0].shape[0] != pair[1].shape[0]:
        raise Unreadable(f'{path}: X_{split} has {pair[0].shape[0]} samples, Y_{split} '
                         f'{pair[1].shape[0]}')
      shapes[split] = (pair[0].shape[0], pair[0].shape[1] + pair[1].shape[1])
  held = samples.held_out(range(shapes['train'][0]), validation)
  recipe = dict(importer='taxibj', version=1, validation=validation, files=cards.checksums([path]))
  return samples.write(
      out, _read(path, held), name='taxibj', recipe=recipe,
      total=sum(n for n, _ in shapes.values()),
      stream=Stream((32, 32, 2), 'float32', 'of full scale', 0.5, 0.5), cadence_hours=0.5,
      window=shapes['test'][1], licence='TaxiBJ: Microsoft Research, for research',
      description='TaxiBJ: in- and outflow of taxis',
      facts={'cadence': '30 min', 'full scale': '1292 crossings in 30 min'})


def _read(path: pathlib.Path, held: set[int]) -> Iterator[Sample]:
  for split in ('train', 'test'):
    with npz_rows.members(path, f'X_{split}', f'Y_{split}') as pair:
      for i, (x, y) in enumerate(zip(*pair)):
        clip = np.concatenate([x, y]).astype(np.float32).transpose(0, 2, 3, 1)
        if not (np.abs(clip) <= 1.0001).all():  # NaN too
          raise Unreadable(f'{path}: {split} sample {i}: values outside -1 to 1 (or NaN)')
        name = 'validation' if split == 'train' and i in held else split
        yield Sample(f'{split}/{i}', name, lambda clip=clip: clip)
