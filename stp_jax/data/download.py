"""Files of published data sets: fetched by `fetch`, kept where a user may have put some by hand.

Unlike `fetch.fetch`, a file that is there with another checksum is never replaced.
"""

import hashlib
import pathlib
import re
import time

from stp_jax.data import fetch as connection
from stp_jax.data.clip_store import StoreError

_CHUNK = 1 << 18
_LOOK = 1024  # bytes in which an HTML page shows
_CURES = {401: 'it wants a login', 403: 'it wants a login, or refuses', 404: 'not found',
          410: 'gone'}
_HASHES = {32: 'md5', 40: 'sha1', 64: 'sha256'}  # by the length of their hexadecimal digits


class DownloadError(StoreError):
  """A file that cannot be fetched; the message names its address and the cure."""


def checksum(path: pathlib.Path, like: str) -> str:
  """The md5, sha1 or sha256 of a file, whichever has as many digits as `like`."""
  if len(like) not in _HASHES:
    raise ValueError(f'checksum {like!r}: an md5, sha1 or sha256 in hexadecimal')
  digest = hashlib.new(_HASHES[len(like)])
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      digest.update(chunk)
  return digest.hexdigest()


def looks_like_html(head: bytes) -> bool:
  """Whether a file begins as a web page does."""
  return bool(re.match(rb'(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b',
                       head, re.IGNORECASE | re.DOTALL))


def fetch(
    url: str, path: pathlib.Path, *, expected: str = '', attempts: int = 5, wait: float = 1.0,
    timeout: float = 60.0,
) -> pathlib.Path:
  """Downloads `url` to `path`; a file that is there already, and right, is left alone.

  Args:
    expected: md5, sha1 or sha256; '': only the length that the server tells is compared.
    attempts: connections, each going on where the last was cut. wait: seconds between, doubled.

  Raises:
    DownloadError: not found, refused, a web page (such as a login) in its place, another checksum,
      or cut again and again; in the last case the part is kept.
  """
  path = pathlib.Path(path)
  if path.exists():
    if not expected or checksum(path, expected) == expected.lower():
      return path
    raise DownloadError(f'{path}: its checksum is not {expected}; delete it to fetch it anew')
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + '.part')
  for attempt in range(attempts):
    if attempt:
      time.sleep(wait * 2 ** (attempt - 1))
    try:
      connection.load(url, part, timeout=timeout)
      break
    except connection.Broken as error:
      reason = f'HTTP {error.status}' if error.status else error
    except connection.FetchError as error:
      raise DownloadError(_words(url, path, error)) from error
  else:
    kept = part.stat().st_size if part.exists() else 0
    raise DownloadError(f'{url}: cut {attempts} times ({reason}); {kept} bytes are kept: run it '
                        'again to continue')
  with part.open('rb') as file:
    page = looks_like_html(file.read(_LOOK))
  if page and path.suffix.lower() not in ('.html', '.htm'):
    connection.forget(part)
    raise DownloadError(_page(url, path))
  if expected and (found := checksum(part, expected)) != expected.lower():
    connection.forget(part)
    raise DownloadError(f'{url}: its checksum is {found}, {expected} is expected; it was deleted: '
                        'run it again, or the file has changed')
  connection.tag(part).unlink(missing_ok=True)
  part.replace(path)
  return path


def _page(url: str, path: pathlib.Path) -> str:
  return (f'{url}: a web page came instead of the file (a login, or a notice?); open it in a '
          f'browser, fetch the file by hand and put it at {path}')


def _words(url: str, path: pathlib.Path, error: connection.FetchError) -> str:
  if error.page:
    return _page(url, path)
  if not error.status:
    return str(error)
  return (f'{url}: HTTP {error.status}, {_CURES.get(error.status, "it cannot be had")}; fetch the '
          f'file by hand to {path}')
