"""Fetching one file: resumable, checksummed, never half there under its own name.

A download grows in `<name>.part`; what a cut connection left is continued by an HTTP range, in a
later run too, if the server still has the same file (`If-Range`). The file gets its name when its
length and checksum are right.
"""

import hashlib
import http.client
import pathlib
import re
import time
import urllib.error
import urllib.request

from tqdm import tqdm

from stp_jax.data.clip_store import StoreError

_CHUNK = 1 << 18
_LOOK = 1024  # bytes in which an HTML page shows
_HASHES = {32: 'md5', 40: 'sha1', 64: 'sha256'}  # by the length of their hexadecimal digits


class DownloadError(StoreError):
  """A file that cannot be fetched; the message names its address and the cure."""


class _Cut(Exception):
  """The connection ended before the file did."""


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
      _more(url, part, timeout)
      break
    except _Cut as error:
      reason = error
  else:
    kept = part.stat().st_size if part.exists() else 0
    raise DownloadError(f'{url}: cut {attempts} times ({reason}); {kept} bytes are kept: run it '
                        'again to continue')
  tag = _tag_file(part)
  with part.open('rb') as file:
    page = looks_like_html(file.read(_LOOK))
  if page and path.suffix.lower() not in ('.html', '.htm'):
    part.unlink()
    tag.unlink(missing_ok=True)
    raise DownloadError(f'{url}: a web page came instead of the file (a login, or a notice?); open '
                        f'it in a browser, fetch the file by hand and put it at {path}')
  if expected and (found := checksum(part, expected)) != expected.lower():
    part.unlink()
    tag.unlink(missing_ok=True)
    raise DownloadError(f'{url}: its checksum is {found}, {expected} is expected; it was deleted: '
                        'run it again, or the file has changed')
  tag.unlink(missing_ok=True)
  part.replace(path)
  return path


def _tag_file(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(part.name + '.tag')


def _more(url: str, part: pathlib.Path, timeout: float) -> None:
  """One connection: goes on behind what `part` holds. Raises _Cut where another may help."""
  tag = _tag_file(part)
  have = part.stat().st_size if part.exists() else 0
  request = urllib.request.Request(url, headers={'User-Agent': 'stp_jax'})
  if have:
    request.add_header('Range', f'bytes={have}-')
    if tag.exists():
      request.add_header('If-Range', tag.read_text())
  try:
    response = urllib.request.urlopen(request, timeout=timeout)
  except urllib.error.HTTPError as error:
    error.close()
    if error.code == 416:  # nothing behind what is there
      told = re.fullmatch(r'bytes \*/(\d+)', error.headers.get('Content-Range', ''))
      if told and int(told[1]) == have:
        return
      part.unlink()
      raise _Cut('what was there did not fit the file') from error
    if error.code in (408, 429, 500, 502, 503, 504):
      raise _Cut(f'HTTP {error.code}') from error
    cure = {401: 'it wants a login', 403: 'it wants a login, or refuses', 404: 'not found',
            410: 'gone'}.get(error.code, error.reason)
    raise DownloadError(f'{url}: HTTP {error.code}, {cure}; fetch the file by hand to '
                        f'{part.with_suffix("")}') from error
  except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
    raise _Cut(str(getattr(error, 'reason', error)) or type(error).__name__) from error
  except ValueError as error:
    raise DownloadError(f'{url}: no address ({error})') from error
  with response:
    going_on = response.status == 206
    if going_on:
      place = re.match(r'bytes (\d+)-', response.headers.get('Content-Range', ''))
      if place is None or int(place[1]) != have:
        part.unlink()
        raise _Cut('the server began elsewhere')
    else:
      have = 0
    known = response.headers.get('ETag') or response.headers.get('Last-Modified')
    if known and not known.startswith('W/'):
      tag.write_text(known)
    else:
      tag.unlink(missing_ok=True)
    length = response.headers.get('Content-Length')
    total = have + int(length) if length is not None else None
    with part.open('ab' if going_on else 'wb') as file, tqdm(
        total=total, initial=have, desc=part.name.removesuffix('.part'), unit='B', unit_scale=True
    ) as bar:
      try:
        while chunk := response.read(_CHUNK):
          file.write(chunk)
          bar.update(len(chunk))
      except http.client.IncompleteRead as error:
        file.write(error.partial)
        raise _Cut('the connection ended') from error
      except (OSError, http.client.HTTPException) as error:
        raise _Cut(str(error) or type(error).__name__) from error
      end = file.tell()
  if total is not None and end < total:
    raise _Cut(f'{end} of {total} bytes')
