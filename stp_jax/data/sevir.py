"""SEVIR: storms, vertically integrated liquid or satellite images, every 5 minutes, 13 -> 18.

`sevir/CATALOG.csv` (columns id, file_name, file_index, img_type, time_utc) and
`sevir/data/<file_name>`: HDF5 whose dataset `vil` (or `vis`, ...) is `[events, L, L, 49]`.

  python -m stp_jax.prepare sevir --in DIR --out STORE                            128x128
  python -m stp_jax.prepare sevir --in DIR --out STORE --size native --split date

Events that have all five kinds of images, in the order of their ids, are divided 60 / 20 / 20, as
GS2PM does: these share hours. `--split date` keeps those from 2019-06-01 on for test, as published,
and the last days before them, about a tenth, for validation; events of the last 4 hours before
either border, which last into the next split, are left out and counted. An event is a clip of 49
frames, of which GS2PM sees the first t_in + t_out alone:
strides of 49, which `configs/video.py:dataset=sevir` sets. Values are the file's integers: vil 0 to
254 of 255 (255 is missing), vis reflectance in 0.0001, ir069 and ir107 in 0.01 degrees C. No clock
in the store: events share hours. Data: Veillette et al. 2020.
"""

import csv
import functools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data import resize, samples
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable, naming

OPTIONS = {
    'type': (str, 'vil', 'vil, vis, ir069 or ir107'),
    'size': (str, '128', 'HEIGHTxWIDTH to resize to (bilinear, as GS2PM has it), or native (vil: '
             '384)'),
    'frames': (int, 49, 'the first frames of an event'),
    'split': (str, 'ids', 'ids (60, 20, 20 % in their order, as published: they share hours) or '
              'date (test from 2019-06-01 on; no shared hours)'),
    'on_bad': samples.ON_BAD}
TYPES = ('vis', 'ir069', 'ir107', 'vil', 'lght')
_STREAMS = {  # dtype, units, scale, missing; normalisation
    'vil': ('uint8', 'of full scale', 1 / 255, 255, {}),
    'vis': ('int16', 'reflectance', 1e-4, None, {}),
    'ir069': ('int16', 'degrees C', 0.01, None, dict(shift=-80.0, divisor=80.0)),
    'ir107': ('int16', 'degrees C', 0.01, None, dict(shift=-80.0, divisor=120.0))}
_COLUMNS = ('id', 'file_name', 'file_index', 'img_type', 'time_utc')
_TEST_FROM = '2019-06-01'
_LASTS = np.timedelta64(4, 'h')


def _catalog(path: pathlib.Path) -> dict[str, dict[str, tuple[str, int, str]]]:
  """id -> kind -> (file name, index, time); of a repeated kind, an event is left out."""
  events, repeated = {}, set()
  with naming(path, 'a csv catalog'), path.open(newline='') as file:
    reader = csv.DictReader(file)
    lacking = [c for c in _COLUMNS if c not in (reader.fieldnames or ())]
    if lacking:
      raise Unreadable(f'{path}: no column {" ".join(lacking)}; it has '
                       f'{" ".join(reader.fieldnames or ["none"])}')
    for number, row in enumerate(reader, 2):
      try:
        index = int(float(row['file_index']))
      except (TypeError, ValueError) as error:
        raise Unreadable(f'{path} line {number}: file_index {row["file_index"]!r}') from error
      kinds = events.setdefault(row['id'], {})
      if row['img_type'] in kinds:
        repeated.add(row['id'])
      kinds[row['img_type']] = (row['file_name'], index, row['time_utc'])
  return {k: v for k, v in events.items() if k not in repeated}


def prepare(
    *, in_dir, out, type: str = 'vil', size: str = '128', frames: int = 49, split: str = 'ids',
    on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Raises:
    StoreError: names the catalog's line or the event's file that is missing or unreadable.
    ValueError: an option out of range.
  """
  if type not in _STREAMS or split not in ('ids', 'date') or not 2 <= frames <= 49:
    raise ValueError(f'--type {type} ({" ".join(_STREAMS)}), --split {split} (ids, date), --frames '
                     f'{frames} (2 to 49)')
  sides = samples.size_of(size)
  base = samples.root(in_dir, ['sevir', 'SEVIR'], ['CATALOG.csv'], 'CATALOG.csv and data/')
  catalog = base / 'CATALOG.csv'
  events = _catalog(catalog)
  every = sorted((k for k, v in events.items() if set(TYPES) <= set(v)), key=samples.natural)
  if not every:
    raise StoreError(f'{catalog}: no event among {len(events)} has all of {" ".join(TYPES)}')
  facts = {'cadence': '5 min', 'events': f'{len(every)} of {len(events)} have all of '
           f'{" ".join(TYPES)}'}
  if split == 'ids':
    borders = [int(0.6 * len(every)), int(0.8 * len(every))]
    labels = ['train' if i < borders[0] else 'validation' if i < borders[1] else 'test'
              for i in range(len(every))]
  else:
    every.sort(key=lambda k: (events[k][type][2], k))
    labels, text = by_date([events[k][type][2] for k in every], catalog)
    facts |= {'split': text, 'events left out': f'{labels.count("")}, 4 h or less before a border'}
    if not any(labels):
      raise StoreError(f'{catalog}: all {len(every)} events last across a border of --split date; '
                       'take --split ids')
    every, labels = zip(*((k, s) for k, s in zip(every, labels) if s))
  dtype, units, scale, missing, scaling = _STREAMS[type]
  recipe = dict(importer='sevir', version=2 if split == 'date' else 1, type=type, size=sides,
                frames=frames, split=split, on_bad=on_bad, files=cards.checksums([catalog]))
  return samples.write(
      out, _read(base / 'data', events, zip(every, labels), type, frames, sides, missing),
      name=f'sevir_{type}', recipe=recipe, total=len(every), window=min(31, frames),
      stream=Stream((*(sides or (0, 0)), 1), dtype, units, scale, missing=missing),
      normalisation=scaling, cadence_hours=5 / 60, on_bad=on_bad,
      licence='SEVIR: CC BY 4.0 (MIT Lincoln Laboratory)', description=f'SEVIR {type}',
      facts=facts)


def by_date(times: Sequence[str], path='the catalog') -> tuple[list[str], str]:
  """The split of each event, '' for those that last into the next one, and this in words.

  The first day of validation is the one behind which nearest to a tenth of the events before
  `_TEST_FROM` lie; there is none where that is no event, or all of one day.

  Args:
    times: that rise.

  Raises:
    StoreError: one that is no time.
  """
  try:
    begins = np.array([t.strip() for t in times], 'datetime64[s]')
  except ValueError as error:
    raise StoreError(f'{path}: time_utc that is no time ({error})') from error
  test = np.datetime64(_TEST_FROM)
  days = begins[begins < test].astype('datetime64[D]')
  first, index = np.unique(days, return_index=True)
  wanted = round(0.1 * len(days))
  borders = {'test': test}
  if wanted and len(first) > 1:
    borders['validation'] = first[1:][np.argmin(abs(len(days) - index[1:] - wanted))]
  labels = np.full(len(begins), 'train', object)
  for split in ('validation', 'test'):
    if split in borders:
      labels[begins >= borders[split]] = split
  for border in borders.values():
    labels[(begins < border) & (begins + _LASTS >= border)] = ''
  return labels.tolist(), ', '.join(f'{k} from {v} on' for k, v in reversed(borders.items()))


def _read(folder, events, labelled, kind: str, frames: int, sides, missing) -> Iterator[Sample]:
  for name, split in labelled:
    file, index, time = events[name][kind]
    yield Sample(f'{name} {time}', split, functools.partial(
        _event, folder / file, name, kind, index, frames, sides, missing))


def _event(path, name: str, kind: str, index: int, frames: int, sides, missing) -> np.ndarray:
  h5py = samples.module('h5py', 'reading SEVIR', 'data')
  if not path.is_file():
    raise Unreadable(f'{path}: missing (event {name})')
  with naming(path, f'SEVIR HDF5, event {name}'), h5py.File(path) as file:
    if kind not in file:
      raise Unreadable(f'{path}: no dataset {kind}; it has {" ".join(file) or "nothing"}')
    data = file[kind]
    if data.ndim != 4 or data.dtype != np.dtype(_STREAMS[kind][0]) or data.shape[3] < frames:
      raise Unreadable(f'{path}: {kind} is {data.dtype}{list(data.shape)}; '
                       f'{_STREAMS[kind][0]} [events, L, L, 49] expected')
    if not 0 <= index < data.shape[0]:
      raise Unreadable(f'{path}: event {name} has index {index}, the file {data.shape[0]} events')
    value = data[index, :, :, :frames].transpose(2, 0, 1)[..., None]
  return value if sides is None else resize.frames(value, sides, missing)
