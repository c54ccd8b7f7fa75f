"""Files that are whole or not there."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: str | os.PathLike, *, sync: bool = False) -> Iterator[pathlib.Path]:
  """A place beside `path` to write to; what stands there takes its name when the block ends well.

      with files.whole(folder / 'tables.npz') as partial:
        np.savez(partial, **tables)

  A reader sees the old file or the new one, never half of it, and an error leaves nothing behind.

  Args:
    path: with the ending that the writer wants to see. sync: waits until the disk has it.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'.{path.stem}.partial{path.suffix}')
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
