"""Numbered lines of a text file that may be gzip'ed or compress'ed, with bounded memory."""

import gzip
import pathlib
import zlib

from stp_jax.data import unix_compress
from stp_jax.data.clip_store import StoreError

_MAX_LINE = 1000
_MAX_BYTES = 2 << 30
_HTML = (b'<!doctype', b'<html', b'<head', b'<?xml', b'<!--')


class TextFile:
  """Reads one line after another and knows where it is.

  The packing is told by the content, not by the name: servers unpack files on the way. Errors are
  StoreErrors that begin with `file:line`.

  `lines`: how many it may have, where blank ones and comments are skipped: they pack a
  thousandfold.

    with TextFile(path) as text:
      while (line := text.next()) is not None:
        raise text.error('what is wrong')
  """

  def __init__(self, path, lines: int | None = None):
    self.path, self.number, self._bytes = pathlib.Path(path), 0, 0
    self._lines = lines
    raw = self.path.open('rb')
    magic = raw.read(2)
    raw.seek(0)
    if magic == b'\x1f\x8b':
      self._file = gzip.GzipFile(fileobj=raw)
    elif magic == unix_compress.MAGIC:
      self._file = unix_compress.open_compressed(raw)
    else:
      self._file = raw
    self._raw = raw
    try:
      self._first = self._read()
      self._refuse_pages()
    except StoreError:
      self.close()
      raise

  def _refuse_pages(self) -> None:
    if self._first is None:
      raise StoreError(f'{self.path}: empty file; download it again')
    if self._first.lstrip(b'\xef\xbb\xbf \t').lower().startswith(_HTML):
      raise StoreError(
          f'{self.path}: a web page (a login or error page of the archive?), not data; download it '
          'again, logged in (CDDIS needs an Earthdata account)')

  def error(self, message: str, line: int | None = None) -> StoreError:
    """A StoreError that names this file and the current (or the given) line."""
    return StoreError(f'{self.path}:{self.number if line is None else line}: {message}')

  def _read(self) -> bytes | None:
    try:
      line = self._file.readline(_MAX_LINE + 1)
    except EOFError as error:
      raise self.error('the packed file ends early; download it again') from error
    except (gzip.BadGzipFile, zlib.error, ValueError) as error:
      raise self.error(f'damaged packed file ({error}); download it again') from error
    self._bytes += len(line)
    if len(line) > _MAX_LINE:
      raise self.error(f'a line of more than {_MAX_LINE} characters; this is no such text file')
    if self._bytes > _MAX_BYTES:
      raise self.error(f'more than {_MAX_BYTES >> 30} GiB of text; refused')
    return line.rstrip(b'\r\n') if line else None

  def next(self) -> bytes | None:
    """The next line without its line end, None behind the last one."""
    if self.number == 0:
      line = self._first
    else:
      line = self._read()
    if line is not None:
      self.number += 1
      if self._lines is not None and self.number > self._lines:
        raise self.error(f'more than {self._lines:,} lines; refused')
    return line

  def close(self) -> None:
    self._file.close()
    self._raw.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()
