"""Folders of image files, and videos, as clips; see `folder`."""

import collections
import concurrent.futures
import functools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from stp_jax.data import folder_clips as clips
from stp_jax.data import resize, video_file
from stp_jax.data.clip_store import StoreError
from stp_jax.data.folder_clips import Bad, BadFrame, Clip, Found

_GREY = ('1', 'L', 'LA', 'I', 'F')
_DEEP = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N')
_ERRORS = (OSError, SyntaxError, ValueError, EOFError)  # what Pillow raises on damaged files
_THREADS = 4


def _bad(path: pathlib.Path, error: Exception, frame: int | None = None) -> BadFrame:
  reason = (str(error).replace(str(path), '').splitlines() or [''])[0].strip(" '\":")
  where = '' if frame is None else f' frame {frame}'
  return BadFrame(f'{path}:{where} unreadable ({reason or type(error).__name__})')


def _look(path: pathlib.Path) -> tuple[tuple[int, int], str]:
  """((H, W), mode) from an image's header."""
  with resize.pillow().open(path) as image:
    return (image.height, image.width), image.mode


def _pixels(image, channels: int, dtype: str) -> np.ndarray:
  """`[H, W, C]` of a decoded image."""
  if dtype == 'uint16':
    if image.mode in _DEEP:
      return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)[..., None]
    return np.asarray(image.convert('L')).astype(np.uint16)[..., None] * np.uint16(257)
  if image.mode in _DEEP:  # Pillow would cut them off at 255
    value = np.clip(np.asarray(image), 0, 65535)
    return np.repeat(np.rint(value / 257).astype(np.uint8)[..., None], channels, -1)
  value = np.asarray(image.convert('L' if channels == 1 else 'RGB'))
  return value.reshape(*value.shape[:2], channels)


def _decode(path: pathlib.Path, channels: int, dtype: str) -> np.ndarray | BadFrame:
  try:
    with resize.pillow().open(path) as image:
      return _pixels(image, channels, dtype)
  except _ERRORS as error:
    return _bad(path, error)


def _read_files(paths: Sequence[pathlib.Path], channels: int, dtype: str, start: int, stop: int
                ) -> Iterator[np.ndarray | BadFrame]:
  """Frames in order, some of them decoded ahead of their turn."""
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    waiting = collections.deque()
    try:
      for path in paths[start:stop]:
        waiting.append(pool.submit(_decode, path, channels, dtype))
        if len(waiting) > 2 * _THREADS:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()


def images(base: pathlib.Path, paths: Sequence[pathlib.Path], channels: int, bad: Bad) -> Found:
  """A clip a folder. All headers are read: sizes and colours that differ are found here.

  Args:
    channels: 1, 3, or 0: 3 where some image is in colour. bad: told of unreadable headers.
  """
  sizes, modes, unreadable = {}, collections.Counter(), set()
  for path in tqdm(paths, desc='reading headers', unit='image', leave=False):
    try:
      size, mode = _look(path)
    except _ERRORS as error:
      bad(_bad(path, error), clips.below(base, path))
      bad.names.pop()  # counted when its pixels are wanted
      unreadable.add(path)
      continue
    sizes.setdefault(size, path)
    modes[mode] += 1
  if not sizes:
    raise StoreError(f'{paths[0]}: none of the {len(paths)} images can be read')
  colour = [m for m in modes if m not in _GREY and m not in _DEEP]
  channels = channels or (3 if colour else 1)
  deep = channels == 1 and not colour and any(m in _DEEP for m in modes)
  dtype = 'uint16' if deep else 'uint8'
  shape = (*next(iter(sizes)), channels)
  made = []
  for name, group in clips.folders(base, paths):
    times = clips.times_of([p.name for p in group])
    if times is not None:
      order = np.argsort(times, kind='stable')
      group, times = [group[i] for i in order], times[order]
    made.append(Clip(name, len(group), shape, dtype,
                     functools.partial(_read_files, group, channels, dtype), times,
                     clips.number_gaps([p.name for p in group]) if times is None else {}))
  listed = ' '.join(f'{n} {m}' for m, n in modes.most_common())
  found = Found('images', made, f'a folder a clip; image modes {listed}', picture=True)
  found.sizes = {size: str(path) for size, path in sizes.items()}
  return found


def _read_gif(path, channels, start, stop) -> Iterator[np.ndarray | BadFrame]:
  i = start
  try:
    with resize.pillow().open(path) as image:
      for i in range(start, stop):
        image.seek(i)
        yield _pixels(image, channels, 'uint8')
  except _ERRORS as error:
    yield _bad(path, error, i)


def _read_av(path, channels, start, stop) -> Iterator[np.ndarray | BadFrame]:
  import av
  i = 0
  try:
    with av.open(str(path)) as container:
      for frame in container.decode(video=0):
        if i >= stop:
          return
        if i >= start:
          value = frame.to_ndarray(format='gray' if channels == 1 else 'rgb24')
          yield value.reshape(*value.shape[:2], channels)
        i += 1
  except (av.FFmpegError, OSError, ValueError) as error:
    yield _bad(path, error, i)


def _read_ffmpeg(path, channels, start, stop) -> Iterator[np.ndarray | BadFrame]:
  import imageio_ffmpeg
  frames = imageio_ffmpeg.read_frames(
      str(path), pix_fmt='gray' if channels == 1 else 'rgb24')
  i = 0
  try:
    width, height = next(frames)['size']
    for data in frames:
      if i >= stop:
        return
      if i >= start:
        yield np.frombuffer(data, np.uint8).reshape(height, width, channels)
      i += 1
  except (OSError, RuntimeError, ValueError) as error:
    yield _bad(path, error, i)
  finally:
    frames.close()


def _describe(path: pathlib.Path) -> tuple[int, tuple[int, int], float]:
  """Frames, (H, W) and frames per second of a video."""
  if path.suffix.lower() == '.gif':
    with resize.pillow().open(path) as image:
      milliseconds = image.info.get('duration', 0)
      return image.n_frames, (image.height, image.width), 1000 / milliseconds if milliseconds else 0
  if video_file.library() == 'av':
    import av
    with av.open(str(path)) as container:
      stream = container.streams.video[0]
      # What the header says is often 0 or wrong; packets are counted without decoding them.
      count = sum(1 for packet in container.demux(stream)
                  if packet.size and not getattr(packet, 'is_discard', False))
      return count, (stream.height, stream.width), float(stream.average_rate or 0)
  import imageio_ffmpeg
  frames = imageio_ffmpeg.read_frames(str(path))
  told = next(frames)
  frames.close()
  return imageio_ffmpeg.count_frames_and_secs(str(path))[0], told['size'][::-1], told['fps']


def videos(base: pathlib.Path, paths: Sequence[pathlib.Path], channels: int, bad: Bad) -> Found:
  """A clip a video, in colour unless `channels` is 1."""
  channels = channels or 3
  made, rates = [], set()
  found = Found('videos', made, 'a video a clip', picture=True)
  for path in tqdm(paths, desc='reading headers', unit='video', leave=False):
    gif = path.suffix.lower() == '.gif'
    name = clips.below(base, path)
    try:
      length, size, rate = _describe(path)
    except StoreError:
      raise
    except (*_ERRORS, IndexError, RuntimeError) as error:
      bad(_bad(path, error), name)
      continue
    read = _read_gif if gif else _read_av if video_file.library() == 'av' else _read_ffmpeg
    found.sizes.setdefault(size, str(path))
    rates.add(round(rate, 3))
    made.append(Clip(name, length, (*size, channels), 'uint8',
                     functools.partial(read, path, channels)))
  if not made:
    raise StoreError(f'{paths[0]}: none of the {len(paths)} videos can be read')
  found.layout += f', {" or ".join(f"{r:g}" for r in sorted(rates))} frames per second'
  return found
