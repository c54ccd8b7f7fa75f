"""Synthetic clips: discs, boxes and rings that move through the frame and bounce off its sides.

Something to run every video model on where no data set is at hand. SIMULATED: what is learnt from
it says nothing about real video.

  python -m stp_jax.prepare synthetic --out STORE --size 64 --channels 3
"""

import os

import numpy as np

from stp_jax.data import clip_store, clip_writer
from stp_jax.data.spec import DataSpec

OPTIONS = {
    'size': (str, '64', 'of a frame: a side, or HEIGHTxWIDTH'),
    'channels': (int, 1, 'of a frame, 1 to 16; every shape has a colour of its own'),
    'length': (int, 20, 'frames of a clip'),
    'clips': (int, 256, 'training clips; a quarter as many for validation and for test'),
    'shapes': (int, 3, 'moving through a clip'),
    'seed': (int, 0, 'clip i follows from (seed, i) alone'),
}
_SCALE, _UNITS = 1 / 255, 'of full scale'
_VERSION = 1  # of the clips: raise it with any change of what is drawn
_DESCRIPTION = 'SIMULATED moving shapes; not measured.'


def _size(size: str | int) -> tuple[int, int]:
  height, _, width = str(size).partition('x')
  try:
    sides = int(height), int(width or height)
  except ValueError:
    sides = (0, 0)
  if min(sides) < 8:
    raise clip_store.StoreError(f'size={size}: a side or HEIGHTxWIDTH, in pixels, at least 8')
  return sides


def data_spec(size: str | int = '64', channels: int = 1, **_) -> DataSpec:
  """What a store with these options will be; the other options do not matter."""
  return DataSpec(
      name='synthetic', shape=(*_size(size), channels), dtype='uint8', units=_UNITS, scale=_SCALE,
      cadence_hours=1.0, description=_DESCRIPTION)


def clip(
    seed: int, index: int, *, length: int, height: int, width: int, channels: int = 1,
    shapes: int = 3,
) -> np.ndarray:
  """Clip `index` of a set, uint8 `[length, height, width, channels]`; 0 is the background."""
  rng = np.random.default_rng((seed, index))
  side = min(height, width)
  sides = np.array([height, width])
  y, x = np.mgrid[:height, :width]
  frames = np.zeros((length, height, width, channels))
  for _ in range(shapes):
    kind = rng.integers(3)
    radius = side * rng.uniform(0.1, 0.2)
    room = sides - 1 - 2 * radius  # of the centre
    start, direction = room * rng.uniform(size=2), rng.uniform(0, 2 * np.pi)
    speed = side * rng.uniform(0.02, 0.06) * np.array([np.sin(direction), np.cos(direction)])
    colour = rng.uniform(0.4, 1, channels) * 255
    # A bounce is a straight path folded back into the room.
    path = (start + speed * np.arange(length)[:, None]) % (2 * room)
    centre = radius + np.minimum(path, 2 * room - path)
    dy, dx = (np.abs(grid - c[:, None, None]) for grid, c in zip((y, x), centre.T))
    distance = np.maximum(dy, dx) if kind == 1 else np.hypot(dy, dx)
    # One pixel of soft edge, so that motion by a fraction of a pixel shows.
    cover = np.clip(radius + 0.5 - distance, 0, 1)
    if kind == 2:
      cover *= np.clip(distance - 0.5 * radius + 0.5, 0, 1)
    frames = np.maximum(frames, cover[..., None] * colour)
  return np.rint(frames).astype(np.uint8)


def prepare(
    *, out: str | os.PathLike, in_dir: str | os.PathLike | None = None, size: str | int = '64',
    channels: int = 1, length: int = 20, clips: int = 256, shapes: int = 3, seed: int = 0,
) -> clip_store.ClipStore:
  """Writes the store, or finishes it after a kill; a finished one is opened and left alone.

  Args:
    out: the store. in_dir: must be None: no files are read. Others: see OPTIONS.

  Returns:
    The store: frames uint8 `[H, W, C]`, physical 0 to 1, no clock and no forcings.

  Raises:
    StoreError: an option out of range, or a store made with other ones.
  """
  if in_dir:
    raise clip_store.StoreError('synthetic clips read no files: leave --in out')
  height, width = _size(size)
  limits = dict(channels=(channels, 1, 16), length=(length, 2, 10000), clips=(clips, 1, 10 ** 6),
                shapes=(shapes, 1, 100))
  for name, (value, least, most) in limits.items():
    if not least <= value <= most:
      raise clip_store.StoreError(f'{name}={value}: choose {least} to {most}')
  options = dict(size=[height, width], channels=channels, length=length, clips=clips,
                 shapes=shapes, seed=seed)
  some = max(1, clips // 4)
  splits = ['train'] * clips + ['validation'] * some + ['test'] * some
  with clip_writer.StoreWriter(
      out, name='synthetic', cadence_hours=1.0, description=_DESCRIPTION, licence='free',
      recipe=dict(importer='synthetic', version=_VERSION, **options),
      streams={'frames': clip_store.Stream(
          (height, width, channels), 'uint8', _UNITS, _SCALE)}) as writer:
    if writer.complete:
      return clip_store.ClipStore(out)
    for i, split in enumerate(splits):
      if not writer.has(str(i)):
        frames = clip(seed, i, length=length, height=height, width=width, channels=channels,
                      shapes=shapes)
        writer.add(str(i), {'frames': frames}, split=split, source=f'synthetic-{seed}-{i}')
    return writer.finish(card=dict(simulated=True, clips=len(splits), splits={
        s: splits.count(s) * length for s in ('train', 'validation', 'test')}))
