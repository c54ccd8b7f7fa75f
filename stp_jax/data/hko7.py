"""HKO-7: radar of the Hong Kong Observatory, every 6 minutes, 128x128 (480x480 native), 5 -> 15.

`hko7/radarPNG/YYYY/MM/DD/*.png` (8-bit grey, the time in the name: RAD090101000600.png or
200901010006), and `hko7/hko7_rainy_{train,valid,test}_days_statistics.txt` with lines
`YYYYMMDD, nonzero pixels, mean, mean of nonzero`.

  python -m stp_jax.prepare hko7 --in DIR --out STORE

Days of the three lists; of training only those with more than 6500 nonzero pixels. A clip is an
unbroken run of a day's frames; a name without a time, where others have one, is no frame's. The
published windows begin every 5 frames of a day:
`--config.data.stride=5 --config.data.eval_stride=5`, which `configs/video.py:dataset=hko7` sets.

A pixel p of 255 is 70 p dBZ as GS2PM reads it (`--lowest 0`); Shi et al. 2017, arXiv:1706.03458,
whose data they are, have 70 p - 10 (`--lowest -10`). A model sees p.
"""

import functools
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from stp_jax.data import card as cards
from stp_jax.data import resize, samples
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample, Unreadable

OPTIONS = {
    'size': (str, '128', 'HEIGHTxWIDTH to resize to (bilinear), or native'),
    'least': (int, 6500, 'nonzero pixels of a training day: more than so many'),
    'lowest': (float, 0.0, 'dBZ of a pixel of 0; 70 more of one of 255'),
    'on_bad': samples.ON_BAD}
_LISTS = dict(train='train', valid='validation', test='test')
_MINUTES = 6


def _days(path: pathlib.Path, least: int) -> list[str]:
  """YYYYMMDD of the list's days with more than `least` nonzero pixels (-1: all)."""
  found = []
  for number, line in enumerate(samples.lines(path), 1):
    parts = [p.strip() for p in line.split(',')]
    try:
      day, count = parts[0], float(parts[1]) if least >= 0 else 0.0
      if not re.fullmatch(r'\d{8}', day):
        raise ValueError
    except (IndexError, ValueError):
      raise StoreError(f'{path} line {number}: {line[:60]!r} is not YYYYMMDD, nonzero pixels, ...'
                       ) from None
    if count > least:
      found.append(day)
  return found


def minute(name: str, day: str) -> np.datetime64 | None:
  """The time that a frame's name tells, None without one of that day."""
  for digits in re.findall(r'\d{12,14}', name):
    for stamp in (digits[:12], f'20{digits[:10]}'):
      if stamp[:8] == day and int(stamp[8:10]) < 24 and int(stamp[10:12]) < 60:
        return np.datetime64(
            f'{day[:4]}-{day[4:6]}-{day[6:]}T{stamp[8:10]}:{stamp[10:12]}', 'm')
  return None


def prepare(
    *, in_dir, out, size: str = '128', least: int = 6500, lowest: float = 0.0,
    on_bad: str = 'error',
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are uint8 `[H, W, 1]` in dBZ, with the clock of their names.

  Raises:
    StoreError: names the list's line, the day without frames or the frame that is unreadable.
    ValueError: an option out of range.
  """
  sides = samples.size_of(size)
  base = samples.root(in_dir, ['hko7', 'HKO-7', 'hko'], ['hko7_rainy_*_days_statistics.txt'],
                      'hko7_rainy_{train,valid,test}_days_statistics.txt and radarPNG/')
  lists = [base / f'hko7_rainy_{k}_days_statistics.txt' for k in _LISTS]
  found = {s: _days(p, least if s == 'train' else -1) for p, s in zip(lists, _LISTS.values())}
  seen = {}
  for split, days in found.items():
    for day in days:
      if seen.setdefault(day, split) != split:
        raise StoreError(f'{base}: {day} is in the lists of {seen[day]} and of {split}; keep one')
  recipe = dict(importer='hko7', version=1, size=sides, least=least, lowest=lowest, on_bad=on_bad,
                files=cards.checksums(lists))
  return samples.write(
      out, _read(base / 'radarPNG', found, sides), name='hko7', recipe=recipe, window=20,
      stream=Stream((*(sides or (0, 0)), 1), 'uint8', 'dBZ', 70 / 255, lowest),
      normalisation=dict(shift=lowest, divisor=70.0), cadence_hours=_MINUTES / 60, on_bad=on_bad,
      licence='HKO-7: Hong Kong Observatory, on request', description='HKO-7 radar',
      facts={'cadence': '6 min', 'days': ', '.join(f'{k} {len(v)}' for k, v in found.items())})


def _read(folder: pathlib.Path, found: dict[str, list[str]], sides) -> Iterator[Sample]:
  for split, days in found.items():
    for day in days:
      here = folder / day[:4] / day[4:6] / day[6:]
      paths = sorted((p for p in here.glob('*.png')), key=lambda p: samples.natural(p.name))
      if not paths:
        yield Sample(f'{split}/{day}', split, functools.partial(_nothing, here))
        continue
      times = [minute(p.stem, day) for p in paths]
      clocked = any(t is not None for t in times)
      if clocked:  # a mask or a map among the frames
        for path in (p for p, t in zip(paths, times) if t is None):
          yield Sample(f'{split}/{day}/{path.name}', split, functools.partial(_timeless, path))
        paths, times = zip(*((p, t) for p, t in zip(paths, times) if t is not None))
      breaks = [] if not clocked else [
          i for i in range(1, len(times)) if (times[i] - times[i - 1]).astype(int) != _MINUTES]
      for start, stop in zip([0, *breaks], [*breaks, len(paths)]):
        yield Sample(f'{split}/{day}@{start}', split, functools.partial(
            frames, paths[start:stop], sides), str(times[start]) if clocked else None)


def frames(paths: list[pathlib.Path], sides) -> np.ndarray:
  """uint8 `[T, H, W, 1]` of grey images."""
  def one(path):
    frame = samples.image(path, 1)
    return frame if sides is None else resize.frames(frame[None], sides)[0]
  return samples.images(paths, one)


def _timeless(path: pathlib.Path) -> np.ndarray:
  raise Unreadable(f'{path}: no time of its day in its name, as the other files there have; remove '
                   'it if it is no frame')


def _nothing(folder: pathlib.Path) -> np.ndarray:
  raise Unreadable(f'{folder}: missing, or without a png')
