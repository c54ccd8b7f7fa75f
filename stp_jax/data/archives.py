"""Looks at an .npz archive before anything of it is unpacked: its sizes must be what they claim."""

import os
import pathlib
import struct
import zipfile
import zlib

from stp_jax.data import npy_file, unpack
from stp_jax.data.clip_store import StoreError


class DamagedArchive(StoreError):
  """No zip archive, or one that was cut or changed; unlike one that is refused."""


# What reading an array of a damaged archive raises.
ERRORS = (OSError, EOFError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile,
          zipfile.LargeZipFile, zlib.error, struct.error, *npy_file.HEADER_ERRORS)


def check_sizes(path: str | pathlib.Path, archive: zipfile.ZipFile, together: bool = True) -> None:
  """Refuses members that claim more than their packing allows, or than this machine has memory.

  Args:
    together: all of them are read at once; else one at a time.

  Raises:
    StoreError: names file and member.
  """
  unpack.check_members(path, archive.infolist())
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  total = 0
  for member in archive.infolist():
    total = total + member.file_size if together else member.file_size
    if total > memory:
      before = ' with those before it' if total > member.file_size else ''
      raise StoreError(f'{path} {member.filename!r}: {total:,} bytes unpacked{before}, more than '
                       'the memory of this machine; refused')


def check_npz(path: str | pathlib.Path, together: bool = True) -> None:
  """Refuses a bomb: a member larger than memory, than its packing allows, or than it says.

  Args:
    together: its arrays are read all at once; else one at a time.

  Raises:
    DamagedArchive: it is no zip archive. StoreError: names file and member.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      check_sizes(path, archive, together)
      for member in archive.infolist():
        with archive.open(member) as file:
          _check_header(file, member.file_size, f'{path} {member.filename!r}')
  except FileNotFoundError as error:
    raise StoreError(f'{path}: no such file') from error
  except StoreError:
    raise
  # What zipfile lets through of a damaged archive: seeks before the file's beginning, odd text.
  except ERRORS as error:
    raise DamagedArchive(f'{path}: a damaged archive ({error}); copy it again') from error


def _check_header(file, size: int, where: str) -> None:
  """An array of more bytes than its member has would be allocated before it fails."""
  try:
    shape, _, dtype = npy_file.read_header(file)
  except (ValueError, *npy_file.HEADER_ERRORS) as error:
    raise StoreError(f'{where}: not an array ({str(error)[:80]}); refused') from error
  if dtype.hasobject:
    raise StoreError(f'{where}: holds Python objects, which could run code when read; refused')
  count = 1
  for n in shape:  # Python's integers: a product that overflows is the point of such a file
    count *= n
  if dtype.itemsize == 0 and count > size:
    raise StoreError(f'{where}: says that it holds {shape} values of no size; refused')
  if count * dtype.itemsize > size:
    raise StoreError(f'{where}: says that it holds {shape} {dtype}, which {size:,} bytes are not; '
                     'refused')
