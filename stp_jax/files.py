"""Files that are whole or not there, and how to see that they still are."""

import contextlib
import errno
import fcntl
import os
import pathlib
import zlib
from collections.abc import Iterator

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextlib.contextmanager
def whole(path: str | os.PathLike, *, sync: bool = False) -> Iterator[pathlib.Path]:
  """A place beside `path` to write to; what stands there takes its name when the block ends well.

      with files.whole(folder / 'tables.npz') as partial, partial.open('wb') as file:
        np.savez(file, **tables)

  A reader sees the old file or the new one, never half of it, and an error leaves nothing behind.

  Args:
    path: what is written beside it ends with `.partial`, so that no importer takes what a kill
      left behind for a file of its own; a writer that looks at endings wants an open file.
    sync: waits until the disk has it.

  Raises:
    OSError: with the path, where the disk is full or broken.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'.{path.name}.partial')
  try:
    with naming(path):
      yield partial
      if sync:
        with partial.open('rb+') as file:
          os.fsync(file.fileno())
      partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Says which file could not be written, and the cure; the system leaves the name out."""
  try:
    yield
  except OSError as error:
    if error.filename is None and error.errno in _DISK:
      raise OSError(error.errno, f'{error.strerror} (make room and run the same command)',
                    str(path)) from error
    raise


@contextlib.contextmanager
def only_one(path: str | os.PathLike) -> Iterator[None]:
  """Holds a lock while the block runs; it ends with the process, however that ends.

  Raises:
    OSError: another process, here or on another machine, holds it.
  """
  # Not flock(2): its locks live on in forked children, loader workers for instance.
  with open(path, 'a') as file:
    try:
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EACCES, errno.EAGAIN):
        raise OSError(f'{path}: held by another process, which writes here; wait for it or choose '
                      'another folder (if its machine died: delete this file)') from error
      # A file system without locks: nothing is known, as before.
    yield


def write_text(path: str | os.PathLike, text: str) -> pathlib.Path:
  """Writes UTF-8 text; returns the path."""
  with whole(path) as partial:
    partial.write_text(text, encoding='utf-8')
  return pathlib.Path(path)


def checksum(path: pathlib.Path) -> int:
  """CRC-32 of a file of any size."""
  value = 0
  with path.open('rb') as file:
    while chunk := file.read(1 << 24):
      value = zlib.crc32(chunk, value)
  return value
