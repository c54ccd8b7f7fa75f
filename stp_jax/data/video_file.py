"""Frames of a video file, one after another: PyAV or imageio-ffmpeg; Norpix .seq of JPEGs."""

import io
import pathlib
import struct
from collections.abc import Iterator

import numpy as np

from stp_jax.data import resize
from stp_jax.data.clip_store import StoreError
from stp_jax.data.samples import Unreadable, naming

SUFFIXES = ('.avi', '.mp4', '.mov', '.mkv', '.webm', '.mpg', '.m4v')
_HEADER = 1024  # bytes of a .seq
_EXTRA = (8, 16, 6, 0, 4, 12)  # what versions of the format put behind a frame: its time, padding


def library() -> str:
  """'av' or 'imageio_ffmpeg', whichever is installed.

  Raises:
    StoreError: neither.
  """
  for name in ('av', 'imageio_ffmpeg'):
    try:
      __import__(name)
      return name
    except ImportError:
      pass
  raise StoreError('reading videos needs PyAV: pip install "stp_jax[video]" (or imageio-ffmpeg)')


def frames(path: pathlib.Path, channels: int = 3) -> Iterator[np.ndarray]:
  """uint8 `[H, W, C]`, grey (1) or RGB (3), in order; memory holds one.

  Raises:
    Unreadable: names the file, where it is missing, damaged or no video.
    StoreError: no library for videos is installed.
  """
  if not path.is_file():
    raise Unreadable(f'{path}: missing')
  reader = _seq if path.suffix.lower() == '.seq' else _av if library() == 'av' else _ffmpeg
  count = 0
  with naming(path, 'a video'):
    for frame in reader(path, channels):
      count += 1
      yield frame
  if not count:
    raise Unreadable(f'{path}: unreadable as a video (no frame)')


def _av(path: pathlib.Path, channels: int) -> Iterator[np.ndarray]:
  import av
  try:
    with av.open(str(path)) as container:
      if not container.streams.video:
        raise Unreadable(f'{path}: no picture in it')
      for frame in container.decode(video=0):
        value = frame.to_ndarray(format='gray' if channels == 1 else 'rgb24')
        yield value.reshape(*value.shape[:2], channels)
  except av.FFmpegError as error:
    raise Unreadable(f'{path}: unreadable as a video ({error.strerror})') from error


def _ffmpeg(path: pathlib.Path, channels: int) -> Iterator[np.ndarray]:
  import imageio_ffmpeg
  read = imageio_ffmpeg.read_frames(str(path), pix_fmt='gray' if channels == 1 else 'rgb24')
  try:
    width, height = next(read)['size']
    for data in read:
      yield np.frombuffer(data, np.uint8).reshape(height, width, channels)
  finally:
    read.close()


def _seq(path: pathlib.Path, channels: int) -> Iterator[np.ndarray]:
  """Norpix sequence of JPEGs: 1024 bytes, then size (of itself too), JPEG, time of each frame."""
  data = path.read_bytes()
  if len(data) < _HEADER or struct.unpack('<I', data[:4])[0] != 0xFEED:
    raise Unreadable(f'{path}: no Norpix sequence (it does not begin with FEED)')
  count = struct.unpack('<i', data[572:576])[0]
  at, extra, number = _HEADER, None, 0
  begins = lambda place: data[place + 4:place + 6] == b'\xff\xd8'
  while at + 6 <= len(data) and begins(at):
    size = struct.unpack('<I', data[at:at + 4])[0]
    if size <= 4 or at + size > len(data):
      raise Unreadable(f'{path}: ends inside frame {number}; copy it again')
    with resize.pillow().open(io.BytesIO(data[at + 4:at + size])) as picture:
      value = np.asarray(picture.convert('L' if channels == 1 else 'RGB'))
    yield value.reshape(*value.shape[:2], channels)
    number += 1
    if extra is None:
      extra = next((e for e in _EXTRA if begins(at + size + e)), _EXTRA[0])
    at += size + extra
  if number < count:
    raise Unreadable(f'{path}: {number} of {count} JPEG frames found; copy it again')
