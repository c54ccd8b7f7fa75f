"""How the values of one's own frames are stored, and what a model sees of them; see `folder`."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from stp_jax.data import resize
from stp_jax.data.clip_store import StoreError, Stream
from stp_jax.data.folder_clips import Bad, BadFrame, Clip, Found

MISSING = 65535
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as image libraries do


@dataclasses.dataclass
class Looked:
  """What all values are like, physical: extremes, how many are missing or outside a range."""
  low: float = np.inf
  high: float = -np.inf
  count: int = 0
  missing: int = 0
  outside: int = 0
  where: str = ''
  frames: int = 0


def grey(frame: np.ndarray) -> np.ndarray:
  """`[H, W, 1]` of a frame in colour."""
  if frame.shape[-1] == 1:
    return frame
  value = frame.astype(np.float32) @ _LUMA
  return (np.rint(value) if frame.dtype.kind in 'ui' else value).astype(frame.dtype)[..., None]


def physical(frame: np.ndarray, found: Found) -> np.ndarray:
  """float64 in units, NaN where there is no value."""
  value = frame.astype(np.float64)
  if found.missing is not None:
    value = np.where(frame == np.asarray(found.missing).astype(frame.dtype), np.nan, value)
  return value * found.scale + found.offset


def stated(text: str) -> tuple[float, float] | None:
  """`LOW,HIGH` as numbers; ValueError unless they rise."""
  if not text:
    return None
  try:
    low, high = (float(x) for x in text.split(','))
    if not (np.isfinite([low, high]).all() and low < high):
      raise ValueError
  except ValueError:
    raise ValueError(f'--range {text}: LOW,HIGH, two numbers that rise, such as 0,1') from None
  return low, high


def stated_missing(text: str) -> float | None:
  """`--missing` as a number; '' as None."""
  try:
    return float(text) if text else None
  except ValueError:
    raise ValueError(f'--missing {text}: a number') from None


def survey(found: Found, limits: tuple[float, float] | None, bad: Bad) -> Looked:
  """Reads every frame once. Memory holds one.

  Raises:
    StoreError: no value at all, or values outside `limits`: how many, and the extremes.
  """
  seen = Looked()
  total = sum(c.length for c in found.clips)
  with tqdm(total=total, desc='looking at values', unit='frame', leave=False) as bar:
    for clip in found.clips:
      for i, frame in enumerate(_frames(clip, bad)):
        bar.update()
        if frame is None:
          continue
        value = physical(frame, found)
        valid = value[np.isfinite(value)]
        seen.frames += 1
        seen.count += value.size
        seen.missing += value.size - valid.size
        if not valid.size:
          continue
        seen.low, seen.high = min(seen.low, valid.min()), max(seen.high, valid.max())
        if limits:
          count = int(((valid < limits[0]) | (valid > limits[1])).sum())
          if count and not seen.where:
            seen.where = f'{clip.name} frame {i}'
          seen.outside += count
  if not np.isfinite(seen.low):
    raise StoreError(f'{found.clips[0].name}: no value in {total} frames of {len(found.clips)} '
                     'clips; is --missing right?')
  if seen.outside:
    raise StoreError(
        f'{seen.where} and others: {seen.outside} of {seen.count} values lie outside --range '
        f'{limits[0]:g},{limits[1]:g}: they go from {seen.low:g} to {seen.high:g}; state that '
        'range, or repair them')
  return seen


def complete(clip: Clip, start: int, stop: int) -> Iterator[np.ndarray | BadFrame]:
  """Frames of a clip, a BadFrame for each that its file does not give: it is damaged, or ends."""
  at = start
  for frame in clip.read(start, stop):
    yield frame
    at += 1
  for i in range(at, stop):
    yield BadFrame(f'{clip.name}: frame {i} of {clip.length} is lost: the file is damaged before '
                   'it, or ends')


def _frames(clip: Clip, bad: Bad) -> Iterator[np.ndarray | None]:
  for i, frame in enumerate(complete(clip, 0, clip.length)):
    if isinstance(frame, BadFrame):
      bad(frame, f'{clip.name}[{i}]')
      yield None
    else:
      yield frame


@dataclasses.dataclass(frozen=True)
class Coding:
  """Frames as files have them -> frames as the store holds them.

  Attributes:
    native: type of the files' frames. stream: of the store, with the final size.
    normalisation: of the store. text: for the card. base, step: physical = base + code * step.
  """
  native: str
  stream: Stream
  normalisation: dict[str, float]
  text: str
  grey: bool
  base: float | None = None
  step: float = 1.0

  def __call__(self, frame: np.ndarray, found: Found, name: str) -> np.ndarray:
    """`[H, W, C]` of the store's type and size."""
    frame = grey(frame) if self.grey else frame
    if frame.shape[-1] != self.stream.shape[-1] or frame.dtype.name != self.native:
      raise StoreError(
          f'{name}: frames of {frame.shape[-1]} channels, {frame.dtype}; others have '
          f'{self.stream.shape[-1]}, {self.native}; convert them, or prepare them apart')
    if self.base is None:
      code = frame.astype(self.stream.dtype)
    else:
      value = physical(frame, found)
      if self.stream.dtype == 'float32':
        code = value.astype(np.float32)
      else:
        code = np.where(np.isfinite(value), np.clip(np.rint((value - self.base) / self.step), 0,
                                                    MISSING - 1), MISSING).astype(np.uint16)
    return resize.frames(code[None], self.stream.shape[:2], self.stream.missing)[0]


def needs_survey(found: Found, limits: tuple[float, float] | None) -> bool:
  """Whether values must be looked at before they can be stored."""
  return bool(limits) or not found.picture or found.clips[0].dtype not in ('uint8', 'uint16')


def coding(
    found: Found, seen: Looked | None, limits: tuple[float, float] | None, size: tuple[int, int],
    channels: int, keep_float: bool,
) -> Coding:
  """Decides: images as they are; 8- and 16-bit integers as they are; others as 16-bit codes."""
  first = found.clips[0]
  native = first.dtype
  made_grey = channels == 1 and first.shape[2] > 1
  if made_grey and first.shape[2] != 3:
    raise ValueError(f'{first.name}: has {first.shape[2]} channels; only 3 can be made grey')
  if channels == 3 and first.shape[2] == 1:
    raise ValueError(f'{first.name}: has one channel; --channels 3 is for images')
  shape = (*size, 1 if made_grey else first.shape[2])
  text = lambda how: f'{found.stored or native} of the files, {how}'
  if found.picture and native in ('uint8', 'uint16'):
    low, high = limits or (0.0, float(np.iinfo(native).max))
    stream = Stream(shape, native, 'of full scale', 1 / (high - low), -low / (high - low) or 0.0,
                    found.missing)
    return Coding(native, stream, {}, text(f'kept; full scale is {low:g} to {high:g}'), made_grey)
  low, high = limits or _range(found, seen)
  units = found.units or ('of full scale' if (low, high) == (0, 1) else '1')
  normalisation = dict(shift=low, divisor=high - low)
  named = '' if units == '1' else f' {units}'
  seen_as = f'a model sees {low:g} to {high:g}{named} as 0 to 1'
  if native in ('uint8', 'uint16'):
    stream = Stream(shape, native, units, found.scale, found.offset, found.missing)
    return Coding(native, stream, normalisation, text(f'kept; {seen_as}'), made_grey)
  if keep_float:
    stream = Stream(shape, 'float32', units)
    return Coding(native, stream, normalisation, text(f'kept as float32; {seen_as}'), made_grey,
                  0.0)
  # Integers keep their own steps where 16 bits hold them.
  span = (seen.high - seen.low) / abs(found.scale)
  exact = np.dtype(native).kind != 'f' and span <= MISSING - 1
  base = seen.low if exact else low
  step = abs(found.scale) if exact else (high - low) / (MISSING - 1)
  stream = Stream(shape, 'uint16', units, step, base, MISSING)
  how = (f'stored as uint16, {base:g} + code * {step:.3g} '
         f'{"(exact)" if exact else f"(off by at most {step / 2:.2g})"}; {seen_as}')
  return Coding(native, stream, normalisation, text(how), made_grey, base, step)


def _range(found: Found, seen: Looked) -> tuple[float, float]:
  """A range from the extremes; one that begins near 0 begins there: no rain stays 0."""
  low, high = float(seen.low), float(seen.high)
  if 0 <= low and 0.5 < high <= 1 and not found.units:
    return 0.0, 1.0
  if 0 <= low < 0.2 * high:
    low = 0.0
  return (low, high) if high > low else (low, low + 1.0)
