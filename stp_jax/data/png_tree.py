"""Folders of PNG frames: `{train,test}/<domain>/<sample>/{input,ground_truth}<k>.png`.

The pretraining pool of GS2PM, also below `pam/` or `data/pam/`; the folder `hko` is the domain
`hko7`. Samples are taken in natural order (sample2 before sample10), frames by their number.

  python -m stp_jax.prepare png_tree --in data --out STORES          one store a domain
  python -m stp_jax.prepare png_tree --in data --out STORE --domain hko7

A store per domain, `STORES/<domain>`: sizes and channels stay each domain's own (128x128 RGB for
all would take 4 to 12 times the disk; a run resizes as it reads), a domain can be added, weighted,
tuned on and scored alone, and a kill costs one domain's last shard. Every clip is a sample; its
`source` is <domain>/<split>/<sample>.

Memory does not grow with the number of samples but for some 100 bytes each; a rerun goes on behind
the last whole shard. Which samples there are makes the store's recipe, not their pixels: after
changing a PNG in place, delete the store.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from stp_jax.data import card as cards
from stp_jax.data import clip_writer, png_samples, resize
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.png_samples import BadSample, Layout, read_sample, samples

__all__ = ['OPTIONS', 'prepare', 'read_sample', 'samples']

OPTIONS = {
    'domain': (str, 'all', 'one domain (--out is its store), several joined by +, or all (a store '
               'per domain below --out)'),
    'size': (str, '', 'HEIGHTxWIDTH to resize to (bilinear, antialiased); empty: as they are'),
    'channels': (int, 0, '1 (grey) or 3 (RGB); 0: as the domain has them'),
    'validation': (float, 0.0, 'share of the training samples for the split validation: the last '
                   'ones, since neighbours may be overlapping windows of one film'),
    'on_bad': (str, 'error', 'a sample with a missing or unreadable frame: error (stop) or skip '
               '(name, leave out, count)'),
    'threads': (int, 4, 'that read files')}
_SHOWN = 20  # skipped samples named on the card


def prepare(
    *, in_dir, out, domain: str = 'all', size: str = '', channels: int = 0,
    validation: float = 0.0, on_bad: str = 'error', threads: int = 4,
) -> ClipStore | list[ClipStore]:
  """Writes a store per domain, and prints their cards; see OPTIONS and the module.

  Frames are uint8 `[H, W, C]`, physical 0 to 1, without a clock.

  Returns:
    The store, with one domain named; else the stores.

  Raises:
    StoreError: names the sample and frame that is missing, unreadable or of another size, or the
      domain that is missing or empty beside those that are there.
    ValueError: an option that cannot be read.
  """
  if channels not in (0, 1, 3):
    raise ValueError(f'--channels {channels}: 1 (grey), 3 (RGB) or 0 (as the files)')
  if on_bad not in ('error', 'skip'):
    raise ValueError(f'--on-bad {on_bad}: error or skip')
  if not 0 <= validation < 1:
    raise ValueError(f'--validation {validation:g}: a share of the training samples, below 1')
  sides = resize.size_of(size, '--size')
  found = png_samples.domains(in_dir)
  chosen = list(found) if domain == 'all' else [
      png_samples.named(d, found, in_dir) for d in domain.split('+')]
  alone = domain != 'all' and len(chosen) == 1
  # Every folder is looked at before the first store is written: a typo must not cost a night.
  listed = {name: {split: png_samples.names(path, found)
                   for split, path in found[name].items()} for name in chosen}
  options = dict(size=sides, channels=channels, validation=validation, on_bad=on_bad)
  stores = [_domain(name, found[name], listed[name], pathlib.Path(out) / ('' if alone else name),
                    options, max(1, threads)) for name in chosen]
  if alone:
    return stores[0]
  print('next: domains=' + '+'.join(f'{n}:{s.path}' for n, s in zip(chosen, stores)))
  return stores


def _labelled(listed: dict[str, list[str]], share: float) -> Iterator[tuple[str, str, str]]:
  """(folder's split, split of the run, sample) of every sample, in order."""
  for split, names in listed.items():
    held = round(share * len(names)) if split == 'train' else 0
    for i, name in enumerate(names):
      yield split, 'validation' if i >= len(names) - held else split, name


def _ahead(read: Callable, rows: Iterable, threads: int) -> Iterator:
  """`read(row)` for every row in order, some of them ahead of their turn: (row, future)."""
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    waiting = collections.deque()
    try:
      for row in rows:
        waiting.append((row, pool.submit(read, row)))
        if len(waiting) > 2 * threads:
          yield waiting.popleft()
      while waiting:
        yield waiting.popleft()
    finally:
      for _, future in waiting:
        future.cancel()


def _domain(name: str, folders: dict, listed: dict, out: pathlib.Path, options: dict,
            threads: int) -> ClipStore:
  # Made anew whenever they are walked through: half a million of them need not stand in memory.
  rows = lambda: _labelled(listed, options['validation'])
  count, checksum = sum(map(len, listed.values())), 0
  for row in rows():
    checksum = zlib.crc32('/'.join(row).encode(), checksum)
  recipe = dict(importer='png_tree', version=1, domain=name, options=options, samples=count,
                names=checksum)
  if done := cards.already_made(out, recipe):
    return done
  path_of = lambda row: folders[row[0]] / row[2]
  layout = png_samples.common([path_of(r) for r in itertools.islice(rows(), 25)], options['size'],
                              options['channels'])
  read = lambda row: read_sample(path_of(row), layout=layout)
  out.parent.mkdir(parents=True, exist_ok=True)
  skipped = []
  with clip_writer.StoreWriter(
      out, name=name, cadence_hours=1.0, recipe=recipe, licence="of the data's producer",
      streams={'frames': Stream((*layout.size, layout.channels), 'uint8', 'of full scale',
                                1 / 255)},
      description=f'PNG frames of the domain {name}') as writer:
    todo = (r for r in rows() if not writer.has('/'.join(r)))
    with (tqdm(total=count, initial=writer.clips, desc=name, unit='sample') as bar,
          contextlib.closing(_ahead(read, todo, threads)) as results):
      for row, future in results:
        try:
          frames = future.result()
        except BadSample as error:
          if options['on_bad'] == 'error':
            raise StoreError(f'{error}; repair it, or leave such samples out with --on-bad skip'
                             ) from error
          skipped.append(f'{row[0]}/{row[2]}')
          bar.write(f'skipped: {error}', file=sys.stderr)
        else:
          writer.add('/'.join(row), {'frames': frames}, split=row[1],
                     source=f'{name}/{row[0]}/{row[2]}')
        bar.update()
    if len(skipped) == count:
      raise StoreError(f'{next(iter(folders.values()))}: no whole sample among {count}; they '
                       'are named above')
    store = writer.finish(lambda store: _card(store, layout, skipped, options['validation']))
  print(cards.text(store.meta['card']))
  return store


def _card(store: ClipStore, layout: Layout, skipped: list[str], validation: float) -> dict:
  length = layout.inputs + layout.targets
  card = dict(name=store.name, **cards.equal_clips(store, length))
  height, width, channels = store.streams['frames'].shape
  card['facts'] = {
      'frames': f'{layout.inputs} input and {layout.targets} ground truth a sample, '
                f'{height} x {width}, {channels} channel{"s" if channels > 1 else ""}',
      'samples skipped': len(skipped)}
  card['statistics'] = cards.sampled(store)
  card['notes'] = [f'skipped: {" ".join(skipped[:_SHOWN])}' + (
      f' and {len(skipped) - _SHOWN} more' if len(skipped) > _SHOWN else '')] if skipped else []
  if validation:
    card['notes'].append('validation is the last training samples; where samples are overlapping '
                         'windows of one film, those at the border share frames')
  card['skipped'] = len(skipped)
  return card
