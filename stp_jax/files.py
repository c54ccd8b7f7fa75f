"""Files that are whole or not there, and how to see that they still are."""

import contextlib
import os
import pathlib
import zlib
from collections.abc import Iterator


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
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'.{path.name}.partial')
  try:
    yield partial
    if sync:
      with partial.open('rb+') as file:
        os.fsync(file.fileno())
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


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
