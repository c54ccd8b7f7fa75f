"""Your own frames, of almost any kind, as a clip store: look, decide, say what was decided, write.

  python -m stp_jax.prepare folder --in DIR --check            only looks
  python -m stp_jax.prepare folder --in DIR --out STORE

DIR holds one of: image files (png, jpg; a folder a clip, in natural order), videos (mp4, avi, gif),
npy or npz (axes are guessed; --layout tells), HDF5, NetCDF or zarr (--variable), GeoTIFF, or what
an importer of pysteps reads (--pysteps). A file a frame makes a clip a folder. Times are read from
NetCDF and from names like radar_202008260005; clips are cut where time jumps, and where the numbers
of files do that are regular otherwise (frame010 behind frame008). A frame that cannot
be read cuts its clip as well, with --on-bad skip; frames that a damaged film loses behind it count.

8- and 16-bit integers are kept. Other numbers become 16-bit codes over their range, found or told
by --range; --keep-float keeps them. Memory does not grow with the data (npz: with the largest
file); a rerun goes on behind the last whole shard.
"""

import collections
import dataclasses
import pathlib
import sys
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from stp_jax.data import card as cards
from stp_jax.data import (
    folder_arrays,
    folder_clips,
    folder_fields,
    folder_images,
    folder_maps,
    folder_report,
    folder_sheet,
    folder_split,
    folder_values,
    georeference,
    resize,
)
from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.data.clip_writer import StoreWriter
from stp_jax.data.folder_clips import Bad, BadFrame, Clip, Found
from stp_jax.data.folder_split import Span
from stp_jax.data.folder_values import Coding

OPTIONS = {
    'check': (bool, False, 'only look and report; write nothing'),
    'size': (str, '', 'HEIGHTxWIDTH to resize to (bilinear, antialiased); empty: as they are'),
    'grey': (bool, False, 'grey frames of colour ones; the same as --channels 1'),
    'channels': (int, 0, '1 (grey) or 3 (RGB); 0: as the files'),
    'split': (str, '', "'folders' (named train, validation, test, or as told: "
              "'folders:a=train,b=test'), 'clip' or 'time', with shares "
              "as in 'time:0.7,0.2,0.1', or one name for all; empty: folders where they are there, "
              'time where frames have times or clips are few, else clip'),
    'window': (int, 10, 'frames of a window; the data card counts clips that are shorter'),
    'on_bad': (str, 'error', 'an unreadable frame: error (stop) or skip (named, counted, a gap)'),
    'range': (str, '', 'LOW,HIGH that the values have, in units; what lies outside is an error'),
    'keep_float': (bool, False, 'store floats as float32, not as 16-bit codes'),
    'missing': (str, '', 'the value that means none; empty: as the files say'),
    'variable': (str, '', 'of npz, HDF5, NetCDF and zarr'),
    'layout': (str, '', 'axes of arrays: letters of N clips, T time, H, W, C; empty: guessed'),
    'pattern': (str, '', "names to read, such as '*.png'; empty: all"),
    'pysteps': (str, '', 'importer of pysteps, such as mch_gif or odim_hdf5'),
    'cadence': (float, 0.0, 'minutes between frames; 0: as their times'),
    'times': (str, 'auto', 'auto, or none: frames without a clock, whatever their names say')}
_SMALLEST = 16  # pixels of a side that every model takes
_CLIP_BYTES = 64 << 20  # a clip is in memory once: long ones are cut


def prepare(
    *, in_dir, out=None, check: bool = False, size: str = '', grey: bool = False,
    channels: int = 0, split: str = '', window: int = 10, on_bad: str = 'error', range: str = '',
    keep_float: bool = False, missing: str = '', variable: str = '', layout: str = '',
    pattern: str = '', pysteps: str = '', cadence: float = 0.0, times: str = 'auto',
    config: str = 'moving_frames',
) -> ClipStore | None:
  """Writes the store and prints its card; see OPTIONS and the module.

  Args:
    config: of the next command that is printed.

  Returns:
    The store; None with `check`.

  Raises:
    StoreError: nothing to read, or names the file, frame or value that does not fit.
    ValueError: an option that cannot be read.
  """
  channels = channels or int(grey)
  for option, value, known in [('on-bad', on_bad, ('error', 'skip')), ('times', times,
                                                                       ('auto', 'none')),
                               ('channels', channels, (0, 1, 3))]:
    if value not in known:
      raise ValueError(f'--{option} {value}: one of {" ".join(map(str, known))}')
  if window < 2 or not 0 <= cadence < np.inf:
    raise ValueError(f'--window {window}, --cadence {cadence:g}: at least 2 frames, 0 minutes')
  if not check and not out:
    raise ValueError('--out: name the clip store to write, or only --check')
  sides, limits = resize.size_of(size, '--size'), folder_values.stated(range)
  code = folder_values.stated_missing(missing)

  base, kind, paths = folder_clips.files(in_dir, pattern, every=bool(pysteps))
  given = pathlib.Path(in_dir).resolve()
  name = given.stem if given.is_file() or given.suffix == '.zarr' else given.name
  options = dict(size=sides, channels=channels, split=split, window=window, on_bad=on_bad,
                 range=limits, keep_float=keep_float, missing=code, variable=variable,
                 layout=layout, pysteps=pysteps, cadence=cadence, times=times)
  recipe = dict(importer='folder', version=2, options=options, files=len(paths),
                names=_checksum(base, paths))
  if not check and (done := cards.already_made(out, recipe)):
    print(folder_report.following(done.path, config))
    return done

  bad = Bad(stop=on_bad == 'error')
  found = _find(base, kind, paths, options, bad)
  if found.files:
    found.files.settle(found, code)
  elif code is not None:
    found.missing = code
  if times == 'none':
    found.clips = [_untimed(c) for c in found.clips]
  native = _one_size(found, sides)
  first = len(bad.names)  # those that are no clip at all; frames are counted when they are written
  seen = None
  if check or folder_values.needs_survey(found, limits):
    seen = folder_values.survey(found, limits, bad)
  coding = folder_values.coding(found, seen, limits, sides or native, channels, keep_float)
  clock = folder_split.clock(found.clips, cadence)
  if times == 'none':
    clock = dataclasses.replace(clock, note='no clock, no gaps of time looked for: --times none')
  spans, how = folder_split.plan(found.clips, clock, split, window)
  facts = folder_report.facts(found, coding, clock, how, seen)
  if min(coding.stream.shape[:2]) < _SMALLEST:
    facts['small'] = f'models take {_SMALLEST} x {_SMALLEST} pixels or more: enlarge with --size'
  if check:
    print(cards.text(folder_report.checked(name, found, spans, clock, facts, bad.names, window)))
    print(f'next: python -m stp_jax.prepare folder --in {in_dir} --out STORE (and these options)')
    return None
  del bad.names[first:]

  frame = int(np.prod(coding.stream.shape)) * np.dtype(coding.stream.dtype).itemsize
  spans = _shorter(spans, max(window, _CLIP_BYTES // frame))
  hours = (clock.step / 3600 if clock.step else cadence / 60) or 1.0
  pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
  with StoreWriter(
      out, name=name, cadence_hours=hours, recipe=recipe,
      streams={'frames': coding.stream}, normalisation=coding.normalisation,
      grid=georeference.shaped(found.grid, size=sides), licence="of the data's producer",
      description=f'frames of {found.kind}') as writer:
    with tqdm(total=sum(s.stop - s.start for s in spans), desc='writing', unit='frame') as bar:
      for number, clip in enumerate(found.clips):
        mine = [s for s in spans if s.clip == number]
        for span, frames in _pieces(clip, mine, found, coding, bad, writer, bar):
          moment = clip.times[span.start] if clock.step else None
          writer.add(_key(clip, span), {'frames': frames}, split=span.split,
                     source=f'{clip.name}[{span.start}:{span.stop}]',
                     time=None if moment is None else str(moment.astype('M8[m]')))

    def finished(store: ClipStore) -> dict:
      folder_sheet.write(store.path / folder_report.SHEET, store)
      return folder_report.card(store, facts, bad.names, window, clock)

    store = writer.finish(finished)
  print(cards.text(store.meta['card']))
  print(folder_report.following(store.path, config))
  return store


def _find(base, kind: str, paths: Sequence[pathlib.Path], options: dict, bad: Bad) -> Found:
  variable, layout = options['variable'], options['layout']
  if kind == 'every':
    return folder_maps.pysteps(base, paths, options['pysteps'], bad)
  if kind in ('images', 'videos'):
    return getattr(folder_images, kind)(base, paths, options['channels'], bad)
  if kind == 'fields':
    return folder_fields.netcdf(base, paths, variable, bad, options['missing'])
  if kind == 'geotiff':
    return folder_maps.geotiff(base, paths, layout, bad)
  return folder_arrays.find(base, paths, kind, variable, layout, bad, options['missing'])


def _untimed(clip: Clip) -> Clip:
  return dataclasses.replace(clip, times=None)


def _checksum(base: pathlib.Path, paths: Sequence[pathlib.Path]) -> int:
  """Of names and sizes: what there is to read, without reading it."""
  total = 0
  for path in paths:
    inside = sorted(p for p in path.rglob('*') if p.is_file()) if path.is_dir() else [path]
    for file in inside:
      text = f'{folder_clips.below(base, file)} {file.stat().st_size}'
      total = zlib.crc32(text.encode(), total)
  return total


def _one_size(found: Found, size: tuple[int, int] | None) -> tuple[int, int]:
  """The size of the first frame; others are refused unless all are resized."""
  sizes = list(found.sizes.items())
  if len(sizes) > 1 and not size:
    (one, path), (other, second) = sizes[:2]
    raise StoreError(f'{second}: {other[0]}x{other[1]}, but {path} has {one[0]}x{one[1]}; give '
                     '--size HEIGHTxWIDTH to resize all')
  if size and found.grid and len(sizes) > 1:
    found.grid = {}
  return sizes[0][0]


def _shorter(spans: Sequence[Span], longest: int) -> list[Span]:
  return [Span(s.clip, i, min(i + longest, s.stop), s.split) for s in spans
          for i in range(s.start, s.stop, longest)]


def _key(clip: Clip, span: Span) -> str:
  return f'{clip.name}[{span.start}:{span.stop}]'


def _pieces(clip: Clip, spans: Sequence[Span], found: Found, coding: Coding, bad: Bad, writer, bar
            ) -> Iterator[tuple[Span, np.ndarray]]:
  """The clip's frames, span by span, in one pass; a span is cut where a frame is unreadable."""
  todo = collections.deque(s for s in spans if not writer.has(_key(clip, s)))
  bar.update(sum(s.stop - s.start for s in spans) - sum(s.stop - s.start for s in todo))
  if not todo:
    return
  at, buffer = todo[0].start, []
  frames = folder_values.complete(clip, at, todo[-1].stop)
  for span in todo:
    for _ in range(at, span.start):  # written by a run that was killed
      next(frames)
    begin = at = span.start
    while at < span.stop:
      frame = next(frames)
      if isinstance(frame, BadFrame):
        bad(frame, f'{clip.name}[{at}]')
        bar.write(f'skipped: {frame}', file=sys.stderr)
        if buffer:
          yield Span(span.clip, begin, at, span.split), np.stack(buffer)
        begin, buffer = at + 1, []
      else:
        buffer.append(coding(frame, found, f'{clip.name}[{at}]'))
      at += 1
      bar.update()
    if buffer:
      yield Span(span.clip, begin, at, span.split), np.stack(buffer)
    buffer = []
