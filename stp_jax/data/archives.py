"""Looks at an .npz archive before anything of it is unpacked: its sizes must be what they claim."""

import os
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from stp_jax.data import npy_file, unpack
from stp_jax.data.clip_store import StoreError


class DamagedArchive(StoreError):
  """No zip archive, or one that was cut or changed; unlike one that is refused."""


def check_npz(path: str | pathlib.Path) -> None:
  """Refuses a bomb: a member larger than memory, than its packing allows, or than it says.

  Raises:
    DamagedArchive: it is no zip archive. StoreError: names file and member.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
      unpack.check_members(path, archive.infolist())
      for member in archive.infolist():
        where = f'{path} {member.filename!r}'
        if member.file_size > memory:
          raise StoreError(f'{where}: {member.file_size:,} bytes unpacked, more than the memory of '
                           'this machine; refused')
        with archive.open(member) as file:
          _check_header(file, member.file_size, where)
  except FileNotFoundError as error:
    raise StoreError(f'{path}: no such file') from error
  except StoreError:
    raise
  # What zipfile lets through of a damaged archive: seeks before the file's beginning, odd text.
  except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError,
          OverflowError, OSError, ValueError, zlib.error, struct.error) as error:
    raise DamagedArchive(f'{path}: a damaged archive ({error}); copy it again') from error


def _check_header(file, size: int, where: str) -> None:
  """An array of more bytes than its member has would be allocated before it fails."""
  try:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    shape, _, dtype = read(file) if read else ((), False, np.dtype('u1'))
  except (ValueError, *npy_file.HEADER_ERRORS) as error:
    raise StoreError(f'{where}: not an array ({str(error)[:80]}); refused') from error
  if dtype.hasobject:
    raise StoreError(f'{where}: holds Python objects, which could run code when read; refused')
  count = 1
  for n in shape:  # Python's integers: a product that overflows is the point of such a file
    count *= n
  if count * dtype.itemsize > size:
    raise StoreError(f'{where}: says that it holds {shape} {dtype}, which {size:,} bytes are not; '
                     'refused')
