"""TFRecord files and tf.train.Example messages in plain Python, without TensorFlow.

A record is u64 length, masked CRC-32C of the length, payload, masked CRC-32C of the payload, all
little-endian. An Example is a protocol buffer that maps names to lists of bytes, floats or int64.
"""

import array
import functools
import os
import pathlib
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from stp_jax.data.clip_store import StoreError

MAX_RECORD = 1 << 30
# Entries of one Example that are looked at one by one; besides, one in 64 of its bytes.
MAX_ENTRIES = 1 << 20
_POLYNOMIAL = 0x82f63b78  # CRC-32C (Castagnoli), reflected
_LANE = 1024


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
  """Byte table `[256]`, and `[4, 256]` that advance a CRC over _LANE zero bytes."""
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
  shift = np.arange(256, dtype=np.uint32)[None] << np.array([[0], [8], [16], [24]], np.uint32)
  for _ in range(_LANE):
    shift = table[shift & 0xff] ^ (shift >> 8)
  return table, shift


def crc32c(data: bytes) -> int:
  """CRC-32C. Lanes of 1 KiB go side by side and are joined by the linearity of CRCs: 100 MB/s."""
  table, shift = _tables()
  lanes = len(data) // _LANE
  state = np.zeros(lanes, np.uint32)
  columns = np.frombuffer(data, np.uint8, lanes * _LANE).reshape(lanes, _LANE).T.astype(np.uint32)
  for column in columns:
    state = table[(state ^ column) & 0xff] ^ (state >> 8)
  value = 0xffffffff
  a, b, c, d = shift.tolist() if lanes else ([], [], [], [])
  for lane in state.tolist():
    value = (a[value & 255] ^ b[value >> 8 & 255] ^ c[value >> 16 & 255] ^ d[value >> 24]) ^ lane
  plain = _plain()
  for byte in data[lanes * _LANE:]:
    value = plain[(value ^ byte) & 0xff] ^ (value >> 8)
  return value ^ 0xffffffff


@functools.cache
def _plain() -> list[int]:
  return _tables()[0].tolist()


def masked(crc: int) -> int:
  """The rotation and offset that TFRecord applies to a CRC, so that CRCs of CRCs stay good."""
  return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


def _take(file: BinaryIO, size: int, left: int, where: str) -> bytes:
  if size > left:
    raise StoreError(f'{where}: the file ends inside the record; copy it again')
  return file.read(size)


def records(path: str | pathlib.Path, payload: bool = True) -> Iterator[bytes]:
  """The payloads of a file, checked; with `payload=False` only counts them (yields b'').

  Raises:
    StoreError: names file and record (from 0): truncated, damaged, or no TFRecord file at all.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    left, number = os.fstat(file.fileno()).st_size, 0
    while left:
      where = f'{path} record {number}'
      head = _take(file, 12, left, where)
      size, check = struct.unpack('<QI', head)
      if masked(crc32c(head[:8])) != check:
        hint = ' (it is gzip-packed: unpack it)' if head[:2] == b'\x1f\x8b' else ''
        raise StoreError(f'{where}: no TFRecord file, or damaged: the length does not match its '
                         f'checksum{hint}')
      if size > MAX_RECORD:
        raise StoreError(f'{where}: {size} bytes; at most {MAX_RECORD} are read')
      if payload:
        data = _take(file, size + 4, left - 12, where)
        if masked(crc32c(data[:-4])) != struct.unpack('<I', data[-4:])[0]:
          raise StoreError(f'{where}: damaged: the data do not match their checksum')
        yield data[:-4]
      else:
        if size + 4 > left - 12:
          raise StoreError(f'{where}: the file ends inside the record; copy it again')
        file.seek(size + 4, os.SEEK_CUR)
        yield b''
      left -= 16 + size
      number += 1


def _varint(data: memoryview, at: int) -> tuple[int, int]:
  value = 0
  for i in range(10):
    if at + i >= len(data):
      break
    byte = data[at + i]
    value |= (byte & 0x7f) << 7 * i
    if byte < 0x80:
      return value & (1 << 64) - 1, at + i + 1
  raise ValueError('a number does not end')


def _fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
  """(field number, wire type, value) of one message."""
  at = 0
  while at < len(data):
    key, at = _varint(data, at)
    kind = key & 7
    if kind == 0:
      value, at = _varint(data, at)
    elif kind in (1, 2, 5):
      size, at = _varint(data, at) if kind == 2 else (8 if kind == 1 else 4, at)
      if size > len(data) - at:
        raise ValueError('a field is longer than its message')
      value, at = data[at:at + size], at + size
    else:
      raise ValueError(f'unknown wire type {kind}')
    yield key >> 3, kind, value


_Fields = Callable[[memoryview], Iterator[tuple[int, int, Any]]]
_Items = Callable[[memoryview], Iterator[tuple[int, Any]]]


def _message(value, kind: int) -> memoryview:
  if kind != 2:
    raise ValueError('a number where a message belongs')
  return value


def _floats(message: memoryview, items: _Items) -> np.ndarray:
  """float32 `[n]` of a float list: packed, or one by one."""
  data = np.frombuffer(message, np.uint8)
  if len(data) % 5 == 0 and (data[::5] == 0x0d).all():  # one by one and nothing else: a whole map
    return data.reshape(-1, 5)[:, 1:].copy().view('<f4')[:, 0]
  joined = bytearray()
  for kind, value in items(message):
    if kind not in (2, 5) or len(value) % 4:
      raise ValueError('a float list is no floats')
    joined += value
  return np.frombuffer(joined, '<f4')


def _integers(message: memoryview, items: _Items) -> np.ndarray:
  """int64 `[n]` of an int64 list: packed, or one by one."""
  numbers = array.array('Q')
  for kind, value in items(message):
    if kind == 0:
      numbers.append(value)
    elif kind == 2:
      at = 0
      while at < len(value):
        one, at = _varint(value, at)
        numbers.append(one)
  return np.array(numbers, np.uint64).view(np.int64)


def _list(feature: memoryview, fields: _Fields) -> list[bytes] | np.ndarray:
  """bytes_list -> list of bytes; float_list -> float32 `[n]`; int64_list -> int64 `[n]`."""
  result = []
  items = lambda message: ((k, v) for n, k, v in fields(message) if n == 1)
  for number, kind, value in fields(feature):  # of a oneof, the last one counts
    message = _message(value, kind)
    if number == 1:
      result = [bytes(_message(v, k)) for k, v in items(message)]
    elif number == 2:
      result = _floats(message, items)
    elif number == 3:
      result = _integers(message, items)
  return result


def example(payload: bytes) -> dict[str, list[bytes] | np.ndarray]:
  """A tf.train.Example as `{name: values}`.

  Raises:
    ValueError: not an Example; the message says what is wrong with it, not where it stands.
  """
  result, left = {}, MAX_ENTRIES + len(payload) // 64

  def fields(message):  # each costs many times its bytes, which may be two
    nonlocal left
    for field in _fields(message):
      left -= 1
      if left < 0:
        raise ValueError(f'more than {MAX_ENTRIES + len(payload) // 64:,} entries; refused')
      yield field

  for number, kind, value in fields(memoryview(payload)):
    if number != 1:
      continue
    for inner, kind_inner, entry in fields(_message(value, kind)):
      if inner != 1:
        continue
      name, feature = '', memoryview(b'')
      for part, kind_part, content in fields(_message(entry, kind_inner)):
        if part == 1:
          name = bytes(_message(content, kind_part)).decode('utf-8')
        elif part == 2:
          feature = _message(content, kind_part)
      result[name] = _list(feature, fields)
  return result
