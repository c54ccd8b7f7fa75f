"""Columns that go round the globe: turned with the sun, and without a wall at 180 degrees.

In the geographic frame the bulge of electrons under the sun crosses a map once a day, and a
network spends itself on moving it. In the sun-fixed frame every map is turned until local noon
stands in the middle column: what a column sees is then one local time, at every hour.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from stp_jax.typing import Array

FRAMES, PADDINGS = ('geographic', 'sun'), ('zero', 'circular')


@dataclasses.dataclass(frozen=True)
class Globe:
  """How the columns of a map lie, and how a network is to see them.

  Attributes:
    columns: N, those that differ. Later ones, such as 180 degrees behind -180, repeat the first.
    zero: the column of longitude 0, counted from 0; a fraction between two columns.
    direction: 1 where columns go east, -1 where they go west.
    sun: maps are turned until local noon is in column N // 2.
    circular: convolutions wrap at the left and the right edge, see `layers.periodic`.
  """
  columns: int
  zero: float = 0.0
  direction: int = 1
  sun: bool = False
  circular: bool = False

  @classmethod
  def of(cls, longitude: Sequence[float] | None, frame: str = 'geographic',
         padding: str = 'zero') -> 'Globe | None':
    """The globe of equally spaced longitudes [deg], the closing one included or not.

    Args:
      longitude: of every column but padding ones; None: not known.
      frame: of FRAMES. padding: of PADDINGS. Without the second word of either nothing goes round,
        and the result is None.

    Raises:
      ValueError: an unknown word, uneven steps, or columns that do not go round the globe.
    """
    for name, word, known in (('frame', frame, FRAMES), ('padding', padding, PADDINGS)):
      if word not in known:
        raise ValueError(f'model.{name}={word!r}: one of {" ".join(known)}')
    asked = f'model.frame={frame}' if frame == 'sun' else f'model.padding={padding}'
    if (frame, padding) == ('geographic', 'zero'):
      return None
    if longitude is None:
      raise ValueError(f'{asked} needs frames whose longitudes are known; these have none')
    values = np.asarray(longitude, np.float64)
    steps = np.diff(values)
    count = 360 / abs(steps[0]) if len(steps) and steps[0] else 0.0
    columns = round(count)
    even = len(steps) > 0 and np.abs(steps - steps[0]).max() <= 1e-3 * abs(steps[0])
    if not even or abs(count - columns) > 1e-3 * columns or len(values) < columns:
      ends = f'{values[0]:g} to {values[-1]:g} degrees in ' if len(values) else ''
      raise ValueError(f'{asked} needs columns that go round the globe in equal steps; these are '
                       f'{ends}{len(values)} columns')
    return cls(columns, float(-values[0] / steps[0]), 1 if steps[0] > 0 else -1,
               frame == 'sun', padding == 'circular')

  def shift(self, calendar: Array | None) -> Array | None:
    """Columns by which frames are turned, int32 `[B, T]`; None: they are not.

    Exact where an hour (15 degrees) is a whole number of columns; else to the nearest column.

    Args:
      calendar: `[B, T, 2]`, see `anchor.calendar`; the hour UT is read.

    Raises:
      ValueError: the sun's frame without a calendar.
    """
    if not self.sun:
      return None
    if calendar is None:
      raise ValueError('frame=sun needs the calendar [B, T, 2] of the frames')
    noon = self.zero + self.direction * (12 - calendar[..., 1]) * (self.columns / 24)
    return self.columns // 2 - jnp.floor(noon + 0.5).astype(jnp.int32)

  def turn(self, x: Array, shift: Array) -> Array:
    """`[B, T, H, N, C]` with column j moved to (j + shift) mod N; `shift` int `[B, T]`."""
    column = (jnp.arange(self.columns) - shift[..., None]) % self.columns
    return jnp.take_along_axis(x, column[:, :, None, :, None], 3)

  def seen(self, x: Array, shift: Array | None) -> Array:
    """Maps `[B, T, H, W, C]` -> what the network sees, `[B, T, H, N, C]`."""
    x = x[..., :self.columns, :]
    return x if shift is None else self.turn(x, shift)

  def geographic(self, x: Array, shift: Array | None, width: int) -> Array:
    """The inverse of `seen`: `[B, T, H, N, C]` -> `[B, T, H, W, C]`, repeated columns repeated."""
    x = x if shift is None else self.turn(x, -shift)
    return x if width == self.columns else x[..., jnp.arange(width) % self.columns, :]
