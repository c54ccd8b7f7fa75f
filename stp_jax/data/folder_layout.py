"""Which axis of an array is what: guessed from its shape and values, or told.

Letters: N clips, T time, H rows, W columns, C channels; `THWC` is time, rows, columns, channels.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stp_jax.data.clip_store import StoreError

_FEW = 4  # so many channels, or fewer, are told from rows and columns by their number
_MORE = 16  # so many where no other axis can be the channels
_BLOCK = 16 << 20
_LOOK = 1 << 18  # values looked at


def checked(layout: str, shape: tuple[int, ...], name: str) -> str:
  """A layout in capitals; raises ValueError unless it fits the array."""
  letters = layout.upper()
  if (len(set(letters)) != len(letters) or set(letters) - set('NTHWC')
      or not {'H', 'W'} <= set(letters) or ('N' in letters and 'T' not in letters)):
    raise ValueError(f'--layout {layout}: letters of N T H W C, each once, with H and W, and T if '
                     'there is N')
  if len(letters) != len(shape):
    raise StoreError(f'{name}: has {len(shape)} axes {list(shape)}; --layout {layout} names '
                     f'{len(letters)}')
  return letters


def _smoother(array, rest: str) -> str:
  """'NT' or 'TN' of the two leading axes: frames change least along time."""
  n, t = array.shape[:2]
  if min(n, t) < 2:
    return 'NT' if t > 1 or n == 1 else 'TN'
  changes = []
  for axis in (0, 1):
    total = []
    for k in range(4):
      i, j = (round(k / 3 * (size - 2)) for size in (n, t))
      other = (i + 1, j) if axis == 0 else (i, j + 1)
      one, two = (np.asarray(array[index], np.float64) for index in ((i, j), other))
      total.append(np.nanmean(abs(one - two)) if np.isfinite(one - two).any() else 0.0)
    changes.append(sum(total))
  return 'TN' if changes[0] < 0.8 * changes[1] else 'NT'


def _changes(array) -> list[float]:
  """Mean change from one element to the next along each axis, of some blocks of an array."""
  shape = array.shape
  side = max(shape) if math.prod(shape) <= _LOOK else max(2, int(_LOOK ** (1 / len(shape)) / 2))
  totals = np.zeros((2, len(shape)))
  for part in (0.0, 0.5, 1.0, 0.25, 0.75) if side < max(shape) else (0.0,):
    starts = [round(part * max(0, n - side)) for n in shape]
    block = np.asarray(array[tuple(slice(i, i + side) for i in starts)], np.float64)
    for axis in range(len(shape)):
      change = abs(np.diff(block, axis=axis))
      change = change[np.isfinite(change)]
      totals[:, axis] += change.sum(), change.size
  return (totals[0] / np.maximum(totals[1], 1)).tolist()


def _square(array, name: str) -> str:
  """The layout of an array whose first two of three, or middle two of four, sides are equal.

  Either they are rows and columns and time is last, or time is before columns of another length.
  Frames change least along time, or, where they move fast, otherwise than along both of the equal
  sides. Nothing is guessed where neither is clear.
  """
  *lead, a, b, last = _changes(array)
  # Some channels of frames over time look like it, but for clips that are as different as pixels.
  sure = array.shape[-1] > _MORE or not lead or lead[0] >= 0.8 * min(a, b)
  if last < 0.8 * min(a, b, *lead) and sure:
    return 'N' * len(lead) + 'HWT'
  if a < 0.5 * min(b, last) and a < 0.8 * min(lead, default=np.inf):
    return 'N' * len(lead) + 'THW'
  if lead and lead[0] < 0.5 * min(b, last) and b < 0.8 * a:
    return 'TNHW'
  # Fast frames change more along time than along rows and columns, which are alike.
  if max(a, b) < 1.2 * min(a, b) and last > 1.5 * max(a, b) and (not lead or lead[0] > 1.5 * last):
    return 'N' * len(lead) + 'HWT'
  told = 'NHWT, NTHW or THWC' if lead else 'HWT or THW'
  raise StoreError(f'{name}: an array {list(array.shape)}, of which time may be the last axis or '
                   f'another; tell with --layout {told}')


def guess(array: Any, name: str) -> str:
  """The most likely layout of an array; see the module.

  Raises:
    StoreError: more axes than that, none that can be the channels, or several that can be time.
  """
  shape = array.shape
  few = lambda axis, limit=_FEW: shape[axis] <= limit
  if len(shape) == 2:
    return 'HW'
  if len(shape) == 3:
    if few(2) and min(shape[:2]) > _MORE:
      return 'HWC'
    if few(0):
      return 'CHW'
    return _square(array, name) if shape[0] == shape[1] != shape[2] else 'THW'
  if len(shape) == 4:
    if few(3):
      return 'THWC'
    if few(1):
      return 'TCHW'
    if shape[1] == shape[2] != shape[3]:
      return _square(array, name)
    return _smoother(array, 'HW') + 'HW'
  if len(shape) == 5:
    for limit in (_FEW, _MORE):
      for axis, rest in ((4, 'HWC'), (2, 'CHW')):
        if few(axis, limit):
          return _smoother(array, rest) + rest
  raise StoreError(f'{name}: an array {list(shape)}, of which the axes cannot be told; name them '
                   'with --layout, such as NTHWC')


def series(layout: str, shape: tuple[int, ...]) -> tuple[int, int, tuple[int, int, int]]:
  """(clips, frames of each, (H, W, C)) of an array; a layout without T is one frame."""
  size = dict(zip(layout, shape))
  return (size.get('N', 1), size.get('T', 1), (size['H'], size['W'], size.get('C', 1)))


def reader(opened: Callable[[], Any], layout: str, clip: int
           ) -> Callable[[int, int], Iterator[np.ndarray]]:
  """Reads the frames `[H, W, C]` of clip number `clip`, some megabytes at a time.

  Args:
    opened: a context manager of the array; what it gives is indexed, never read whole.
  """
  letters = [x for x in layout if x != 'N']
  order = [letters.index(x) for x in 'THWC' if x in letters]

  def read(start: int, stop: int) -> Iterator[np.ndarray]:
    with opened() as array:
      size = dict(zip(layout, array.shape))
      frame = math.prod(size[x] for x in 'HWC' if x in size) * np.dtype(array.dtype).itemsize
      step = max(1, _BLOCK // frame)
      for first in range(start, stop, step):
        where = {'N': clip, 'T': slice(first, min(first + step, stop))}
        block = np.asarray(array[tuple(where.get(x, slice(None)) for x in layout)])
        block = block.transpose(order)
        block = block if 'T' in layout else block[None]
        yield from block if 'C' in layout else block[..., None]

  return read
