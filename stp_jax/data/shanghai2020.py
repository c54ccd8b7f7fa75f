"""Shanghai2020: radar of Shanghai, 128x128, every 6 minutes, 10 -> 10.

  shanghai2020/train/data/*.png
  shanghai2020/train/examples/<id>/<id>-inputs-train.txt    and <id>-targets-train.txt: file
                                                            names, 10 and 10
  shanghai2020/Shanghai_2020_{train,valid,test}_examples.txt   ids or their folders; optional

  python -m stp_jax.prepare shanghai2020 --in DIR --out STORE

An example is a clip of 20 frames. Without the three lists the examples, in natural order, are
shuffled by Python's random with seed 42 and divided 33,000 / 2,000 / the rest, as GS2PM does
(`--counts`); its own order before the shuffle is that of a directory, so its members differ. A
pixel p of 255 is 70 p dBZ in GS2PM's scores; a model sees p.
"""

import functools
import pathlib
import random
from collections.abc import Iterator

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data import hko7, samples
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable

OPTIONS = {
    'size': (str, '128', 'HEIGHTxWIDTH to resize to (bilinear), or native'),
    'counts': (str, '33000,2000', 'examples for training and validation, where no lists are there'),
    'on_bad': samples.ON_BAD}
_LISTS = dict(train='train', valid='validation', test='test')
_SEED = 42


def prepare(
    *, in_dir, out, size: str = '128', counts: str = '33000,2000', on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[H, W, 1]` in dBZ.

  Raises:
    StoreError: names the example, list or frame that is missing or unreadable.
    ValueError: an option out of range.
  """
  sides = samples.size_of(size)
  try:
    trained, held = (int(n) for n in counts.split(','))
    if trained < 1 or held < 0:
      raise ValueError
  except ValueError:
    raise ValueError(f'--counts {counts}: two numbers, training and validation') from None
  base = samples.root(in_dir, ['shanghai2020', 'Shanghai2020'], ['train/examples'],
                      'train/data/*.png and train/examples/<id>/')
  lists = {split: base / f'Shanghai_2020_{name}_examples.txt' for name, split in _LISTS.items()}
  there = {split: path for split, path in lists.items() if path.is_file()}
  if there and len(there) < 3:
    raise StoreError(f'{base}: {next(p.name for s, p in lists.items() if s not in there)} is '
                     'missing beside the other lists; all three, or none')
  if there:
    found = {s: [pathlib.PurePath(line.replace('\\', '/')).name for line in samples.lines(p)]
             for s, p in there.items()}
    rule = 'the three lists'
  else:
    ids = sorted((p.name for p in (base / 'train/examples').iterdir() if p.is_dir()),
                 key=samples.natural)
    random.Random(_SEED).shuffle(ids)
    found = dict(train=ids[:trained], validation=ids[trained:trained + held],
                 test=ids[trained + held:])
    rule = f'shuffled with seed {_SEED}: {trained}, {held}, the rest'
  owner = {}
  for split, ids in found.items():
    for name in ids:
      if owner.setdefault(name, split) != split:
        raise StoreError(f'{base}: example {name} is in the lists of {owner[name]} and {split}')
  total = sum(map(len, found.values()))
  if not total:
    raise StoreError(f'{base / "train/examples"}: no example')
  recipe = dict(importer='shanghai2020', version=1, size=sides, counts=counts, on_bad=on_bad,
                lists=cards.checksums(list(there.values())), examples=found if total < 100 else {
                    k: [len(v), v[0] if v else '', v[-1] if v else ''] for k, v in found.items()})
  return samples.write(
      out, _read(base / 'train', found, sides), name='shanghai2020', recipe=recipe, total=total,
      window=20, stream=Stream((*(sides or (0, 0)), 1), 'uint8', 'dBZ', 70 / 255),
      normalisation=dict(divisor=70.0), cadence_hours=0.1, on_bad=on_bad,
      description='Shanghai2020 radar', facts={'cadence': '6 min', 'split': rule})


def _read(base: pathlib.Path, found: dict[str, list[str]], sides) -> Iterator[Sample]:
  for split, ids in found.items():
    for name in ids:
      yield Sample(f'{split}/{name}', split, functools.partial(_example, base, name, sides))


def _example(base: pathlib.Path, name: str, sides) -> np.ndarray:
  paths = []
  for part in ('inputs', 'targets'):
    path = base / 'examples' / name / f'{name}-{part}-train.txt'
    files = samples.lines(path)
    if not files:
      raise Unreadable(f'{path}: empty; a file name a line is expected')
    paths += [base / 'data' / pathlib.PurePath(f.replace('\\', '/')).name for f in files]
  for path in paths:
    if not path.is_file():
      raise Unreadable(f'{path}: missing (example {name})')
  return hko7.frames(paths, sides)
