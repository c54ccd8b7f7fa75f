"""Looks at an .npz archive before anything of it is unpacked: its sizes must be what they claim."""

import os
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from stp_jax.data.clip_store import StoreError

# DEFLATE packs zeros 1030 to 1; what claims more is no such stream.
_RATIO = 1100
_HEADER = 1 << 16


def check_npz(path: str | pathlib.Path) -> None:
  """Refuses a bomb: a member larger than memory, than its packing allows, or than it says.

  Raises:
    StoreError: names file and member; also where it is no zip archive.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
      for member in archive.infolist():
        where = f'{path} {member.filename!r}'
        if member.file_size > memory:
          raise StoreError(f'{where}: {member.file_size:,} bytes unpacked, more than the memory of '
                           'this machine; refused')
        if member.file_size > _RATIO * member.compress_size + _HEADER:
          raise StoreError(f'{where}: claims to unpack {member.compress_size:,} bytes to '
                           f'{member.file_size:,}; refused')
        with archive.open(member) as file:
          _check_header(file, member.file_size, where)
  except FileNotFoundError as error:
    raise StoreError(f'{path}: no such file') from error
  except StoreError:
    raise
  # What zipfile lets through of a damaged archive: seeks before the file's beginning, odd text.
  except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError,
          OverflowError, OSError, ValueError, zlib.error, struct.error) as error:
    raise StoreError(f'{path}: a damaged archive ({error}); copy it again') from error


def _check_header(file, size: int, where: str) -> None:
  """An array of more bytes than its member has would be allocated before it fails."""
  try:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    shape, _, dtype = read(file) if read else ((), False, np.dtype('u1'))
  except ValueError as error:
    raise StoreError(f'{where}: not an array ({str(error)[:80]}); refused') from error
  if dtype.hasobject:
    raise StoreError(f'{where}: holds Python objects, which could run code when read; refused')
  count = 1
  for n in shape:  # Python's integers: a product that overflows is the point of such a file
    count *= n
  if count * dtype.itemsize > size:
    raise StoreError(f'{where}: says that it holds {shape} {dtype}, which {size:,} bytes are not; '
                     'refused')
