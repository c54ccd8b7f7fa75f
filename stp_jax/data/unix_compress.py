"""Unix `compress` (.Z) streams: LZW with codes of 9 to 16 bits, as old IONEX archives use them.

The dictionary is kept as two arrays (prefix code, last byte), so that a hostile file cannot make it
grow: memory is bounded by 2^16 entries and one output chunk, whatever the input.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO

MAGIC = b'\x1f\x9d'
_CLEAR = 256


def _chunks(file: BinaryIO) -> Iterator[bytes]:
  head = file.read(3)
  if len(head) < 3 or head[:2] != MAGIC:
    raise ValueError('no compress (.Z) stream')
  most, block = head[2] & 0x1f, bool(head[2] & 0x80)
  if not 10 <= most <= 16 or head[2] & 0x60:  # programs disagree on what a limit of 9 means
    raise ValueError('compress (.Z) header asks for an unknown variant')
  first = _CLEAR + 1 if block else _CLEAR
  prefix, suffix = [0] * (1 << most), bytearray(1 << most)
  suffix[:256] = bytes(range(256))
  width, free, previous, last = 9, first, -1, 0
  # Codes come in groups of eight, `width` bytes each; a change of width drops the group's rest.
  while group := file.read(width):
    bits, out, now = int.from_bytes(group, 'little'), bytearray(), width
    for i in range(8 * len(group) // now):
      code = (bits >> (i * now)) & ((1 << now) - 1)
      if block and code == _CLEAR:
        width, free, previous = 9, first, -1
        break
      if code > free or (previous < 0 and code > 255) or (code == free and previous < 0):
        raise ValueError('damaged compress (.Z) stream')
      # A code that is about to be defined stands for the previous string and its first byte.
      text, walk = bytearray(), code
      if code == free:
        text.append(last)
        walk = previous
      while walk > 255:
        text.append(suffix[walk])
        walk = prefix[walk]
      text.append(walk)
      last = walk
      text.reverse()
      out += text
      if previous >= 0 and free < 1 << most:
        prefix[free], suffix[free] = previous, last
        free += 1
      previous = code
      if free > (1 << now) - 1 and now < most:
        width = now + 1
        break
    if out:
      yield bytes(out)


class _Stream(io.RawIOBase):
  def __init__(self, file: BinaryIO):
    self._file, self._chunks, self._rest = file, _chunks(file), b''

  def readable(self) -> bool:
    return True

  def readinto(self, buffer) -> int:
    if not self._rest:
      self._rest = next(self._chunks, b'')
    size = min(len(buffer), len(self._rest))
    buffer[:size], self._rest = self._rest[:size], self._rest[size:]
    return size

  def close(self) -> None:
    self._file.close()
    super().close()


def open_compressed(file: BinaryIO) -> io.BufferedReader:
  """A buffered reader of the decompressed bytes; ValueError while reading a damaged stream."""
  return io.BufferedReader(_Stream(file), 1 << 16)
