"""Published samples -> clip store: what the importers of known data sets have in common.

An importer lists `Sample`s in the order of its data set; `write` stores them clip by clip, so that
memory holds one shard however many there are, names what cannot be read, and prints the card.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from stp_jax.data import card as cards
from stp_jax.data import clip_writer, npy_file, resize
from stp_jax.data.clip_store import ClipStore, StoreError, Stream

VALIDATION = (float, 0.0, 'share of the training films, the last ones, for the split validation; '
              '0: none, as published')
ON_BAD = (str, 'error', 'a sample that is missing or unreadable: error (stop) or skip (named, left '
          'out, counted)')
NATIVE = 'native'
IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')
_SHOWN = 20  # skipped samples named on the card
_THREADS = 4
# What libraries raise on a file that is no such file, or a damaged one.
ERRORS = (OSError, EOFError, SyntaxError, ValueError, KeyError, IndexError, RuntimeError,
          AttributeError, zipfile.BadZipFile, zlib.error, *npy_file.HEADER_ERRORS)


class Unreadable(StoreError):
  """A sample or file that cannot be read; the message names it."""


@dataclasses.dataclass(frozen=True)
class Sample:
  """One clip. `source`: unique, where it comes from. `read()`: `[T, H, W, C]` as it is stored."""
  source: str
  split: str
  read: Callable[[], np.ndarray]
  time: str | None = None


@contextlib.contextmanager
def naming(path, kind: str) -> Iterator[None]:
  """Turns what a library raises into `Unreadable`, one line that names the file."""
  try:
    yield
  except StoreError:
    raise
  except FileNotFoundError as error:
    raise Unreadable(f'{path}: missing') from error
  except ERRORS as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), '')
    reason = reason.strip(" '\":") or type(error).__name__
    raise Unreadable(f'{path}: unreadable as {kind} ({reason})') from error


def module(name: str, what: str, extra: str):
  """A library that only some data sets need; a missing one is one line with the cure."""
  try:
    return __import__(name)
  except ImportError as error:
    raise StoreError(f'{what} needs {name}: pip install "stp_jax[{extra}]"') from error


def root(in_dir, names: Sequence[str], holds: Sequence[str], layout: str) -> pathlib.Path:
  """The folder of a data set: `in_dir`, or one of `names` in it or in its `data/`.

  Args:
    holds: patterns, one of which something in the folder must fit.
    layout: what is expected there, for the message.

  Raises:
    StoreError: no such folder, or nothing of that layout in it.
  """
  if in_dir is None or not pathlib.Path(in_dir).is_dir():
    raise StoreError(f'--in {in_dir}: no such folder; expected there: {layout}')
  base = pathlib.Path(in_dir)
  for folder in (base, *(base / n for n in names), *(base / 'data' / n for n in names)):
    if folder.is_dir() and any(next(folder.glob(h), None) for h in holds):
      return folder
  there = ' '.join(sorted(p.name for p in base.iterdir())[:12]) or 'nothing'
  raise StoreError(f'{base}: expected there: {layout}; it holds {there}')


def natural(text: str) -> list:
  """A sort key: sample2 before sample10."""
  return [int(w) if w.isdigit() else w for w in re.split(r'(\d+)', str(text))]


def lines(path: pathlib.Path) -> list[str]:
  """The lines of a list that are not empty."""
  with naming(path, 'a list'):
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def held_out(units: Sequence, share: float) -> set:
  """The last `share` of the training units: they become the split validation.

  Raises:
    ValueError: no share, or one that leaves nothing to train on.
  """
  if not 0 <= share < 1:
    raise ValueError(f'--validation {share:g}: a share of the training films, below 1')
  units = list(dict.fromkeys(units))
  count = min(max(1, round(share * len(units))), len(units) - 1) if share and units else 0
  return set(units[len(units) - count:])


def backward(count: int, length: int, hop: int) -> list[int]:
  """Starts of windows laid from the end of a film towards its beginning, rising."""
  return list(range(count - length, -1, -hop))[::-1]


def size_of(text: str, option: str = '--size') -> tuple[int, int] | None:
  """(H, W); None for 'native'."""
  return None if text in ('', NATIVE) else resize.size_of(text, option)


def fingerprint(base: pathlib.Path, paths: Iterable[pathlib.Path]) -> list[int]:
  """[files, CRC-32 of their names and sizes]: a recipe of files too many to read twice."""
  count = value = 0
  for path in paths:
    with naming(path, 'a file'):
      size = path.stat().st_size
    value = zlib.crc32(f'{path.relative_to(base)}\0{size}\n'.encode(), value)
    count += 1
  return [count, value]


def image(path: pathlib.Path, channels: int) -> np.ndarray:
  """uint8 `[H, W, C]` of an image file: grey (1) or RGB (3)."""
  with naming(path, 'an image'), resize.pillow().open(path) as picture:
    value = np.asarray(picture.convert('L' if channels == 1 else 'RGB'))
  return value.reshape(*value.shape[:2], channels)


def images(paths: Sequence[pathlib.Path], read: Callable[[pathlib.Path], np.ndarray]) -> np.ndarray:
  """`[T, H, W, C]` of image files, read by some threads; frames of one size."""
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    frames = list(pool.map(read, paths))
  for path, frame in zip(paths, frames):
    if frame.shape != frames[0].shape:
      raise Unreadable(f'{path}: {frame.shape[0]}x{frame.shape[1]} pixels, but {paths[0].name} has '
                       f'{frames[0].shape[0]}x{frames[0].shape[1]}')
  return np.stack(frames)


def write(
    out, samples: Iterable[Sample], *, name: str, recipe: Mapping, stream: Stream, total: int = 0,
    window: int, cadence_hours: float = 1.0, on_bad: str = 'error',
    normalisation: Mapping | None = None, grid: Mapping | None = None,
    licence: str = "of the data's producer", description: str = '',
    facts: Mapping | None = None, notes: Sequence[str] = (),
) -> ClipStore:
  """Stores samples and prints the card; a rerun goes on behind the last whole shard.

  Args:
    samples: in order; read one by one. total: how many, for the progress bar.
    stream: its shape may have a 0 for a side: the first sample then tells.
    cadence_hours: 1, where frames are seconds apart and have no clock: the card tells their rate.
    window: frames of a published sample; the card counts clips that are shorter.
    facts, notes: for the card.

  Raises:
    StoreError: names the sample that cannot be read (unless skipped), or has another shape.
    ValueError: `on_bad` is neither error nor skip.
  """
  if on_bad not in ('error', 'skip'):
    raise ValueError(f'--on-bad {on_bad}: error or skip')
  if done := cards.already_made(out, recipe):
    return done
  skipped, waiting = [], iter(samples)

  def attempt(sample: Sample) -> np.ndarray | None:
    try:
      return sample.read()
    except Unreadable as error:
      if on_bad == 'error':
        cure = '; repair it, or leave such samples out with --on-bad skip'
        raise StoreError(f'{error}{cure}') from error
      skipped.append(sample.source)
      tqdm.write(f'skipped: {error}', file=sys.stderr)

  ahead = collections.deque()
  if 0 in stream.shape:
    for sample in waiting:
      if (frames := attempt(sample)) is not None:
        ahead.append((sample, frames))
        stream = dataclasses.replace(stream, shape=frames.shape[1:])
        break
    else:
      raise StoreError(f'{out}: nothing to store: none of {len(skipped)} samples can be read')
  with clip_writer.StoreWriter(
      out, name=name, streams={'frames': stream}, cadence_hours=cadence_hours, recipe=recipe,
      normalisation=normalisation, grid=grid, licence=licence, description=description) as writer:
    with tqdm(total=total or None, desc=name, unit='clip') as bar:
      def rest() -> Iterator[tuple[Sample, np.ndarray | None]]:
        yield from ahead
        for sample in waiting:
          yield sample, None if writer.has(sample.source) else attempt(sample)
      for sample, frames in rest():
        if frames is not None and not writer.has(sample.source):
          writer.add(sample.source, {'frames': frames}, split=sample.split, source=sample.source,
                     time=sample.time)
        bar.update()
    store = writer.finish(lambda store: _card(store, window, facts or {}, notes, skipped))
  print(cards.text(store.meta['card']))
  return store


def _card(store: ClipStore, window: int, facts: Mapping, notes: Sequence[str], skipped: list[str]
          ) -> dict:
  spans = (dict(split=c.split, length=c.length) for c in store.clips)
  card = dict(name=store.name, **cards.clips(list(spans), window))
  height, width, channels = store.streams['frames'].shape
  card['facts'] = {'frames': f'{height} x {width}, {channels} channel{"s" * (channels > 1)}, '
                   f'{store.streams["frames"].dtype}', **facts, 'samples skipped': len(skipped)}
  card['statistics'] = cards.sampled(store)
  card['notes'] = list(notes)
  if 'validation' not in card['splits'] and 'train' in card['splits']:
    card['notes'].append('no split validation, as published; --validation SHARE holds some out'
                         if store.name != 'tfds' else 'no split validation')
  if skipped:
    more = f' and {len(skipped) - _SHOWN} more' if len(skipped) > _SHOWN else ''
    card['notes'].append(f'skipped: {" ".join(skipped[:_SHOWN])}{more}')
  card['skipped'] = len(skipped)
  return card
