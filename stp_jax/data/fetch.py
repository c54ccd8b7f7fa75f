"""Fetches one file from an archive: resumable, checked, cached.

    fetch('https://host/codg3230.12i.Z', 'files/codg3230.12i.Z')

What was begun stays beside the target as `<name>.part` and is continued by HTTP ranges; the target
itself appears only when it is whole. A file that is there and right is not fetched again.
"""

import gzip
import hashlib
import http.client
import json
import pathlib
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping

from tqdm import tqdm

from stp_jax.data import unix_compress
from stp_jax.data.clip_store import StoreError

_CHUNK = 1 << 18
_HTML = (b'<!doctype', b'<html', b'<head', b'<?xml', b'<!--')
ATTEMPTS, TIMEOUT = 4, 60.0  # tries of a broken connection; seconds without a byte
PAUSE = 1.0  # seconds before the second try, doubled after each


class FetchError(StoreError):
  """A file that could not be fetched; the message names the address and the cure.

  Attributes:
    status: of HTTP, or 0. page: a web page came instead of the file.
  """

  def __init__(self, text: str, status: int = 0, page: bool = False):
    super().__init__(text)
    self.status, self.page = status, page


class NotThere(FetchError):
  """The archive answers, and has no such file."""


class Broken(Exception):
  """The connection broke, or the server is busy: worth another try."""

  def __init__(self, text: str, status: int = 0):
    super().__init__(text)
    self.status = status


def fetch(
    url: str, path: str | pathlib.Path, *, md5: str | None = None, sha256: str | None = None,
    size: int | None = None, headers: Mapping[str, str] | None = None, progress: bool = True,
) -> pathlib.Path:
  """Fetches `url` (http, https, ftp or file) into the file `path`.

  Args:
    url: the address. path: the file to make; folders are made.
    md5, sha256: hexadecimal; size: bytes. What is given is verified, also of a file that is there.
    headers: sent along, such as an Authorization; never to another host than that of `url`.
    progress: show a bar.

  Returns:
    path.

  Raises:
    NotThere: 404 and its like. FetchError: a web page in place of data (a login page is named as
      such), a refused login, a wrong checksum or length, a damaged .gz, .Z or .zip, a connection
      that broke too often; what was fetched so far is kept and continued by the next call.
  """
  path = pathlib.Path(path)
  if path.exists():
    if _wrong(path, md5, sha256, size) is None:
      return path
    path.unlink()  # an older version, or damaged on disk
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + '.part')
  for attempt in range(ATTEMPTS):
    try:
      load(url, part, size, headers or {}, progress)
      break
    except Broken as error:
      if attempt + 1 == ATTEMPTS:
        raise FetchError(f'{url}: {error}; tried {ATTEMPTS} times. Run the command again: it goes '
                         'on where it stopped') from None
      time.sleep(PAUSE * 2**attempt)
  problem = _wrong(part, md5, sha256, size) or _damage(part, path.name)
  if problem:
    forget(part)
    raise FetchError(f'{url}: {problem}; fetch it again')
  tag(part).unlink(missing_ok=True)
  part.replace(path)
  return path


def text(url: str) -> bytes:
  """A small answer, such as an archive's list of files: at most 16 MB.

  Raises:
    FetchError: see `fetch`.
  """
  for attempt in range(ATTEMPTS):
    try:
      with _open(url, {}) as answer:
        return answer.read(16 << 20)
    except (Broken, OSError, http.client.HTTPException) as error:
      if attempt + 1 == ATTEMPTS:
        raise FetchError(f'{url}: {error}; tried {ATTEMPTS} times') from None
      time.sleep(PAUSE * 2**attempt)
  raise AssertionError


def tag(part: pathlib.Path) -> pathlib.Path:
  """What is known of the file that `part` is the beginning of."""
  return part.with_name(part.name + '.json')


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Drops what identifies the caller when a redirect leads to another host."""

  def redirect_request(self, request, file, code, message, headers, url):
    made = super().redirect_request(request, file, code, message, headers, url)
    if made is not None and urllib.parse.urlsplit(url).netloc != urllib.parse.urlsplit(
        request.full_url).netloc:
      made.headers.pop('Authorization', None)
    return made


def _open(url: str, headers: Mapping[str, str], timeout: float | None = None):
  """The answer; `Broken` where another try may help."""
  try:
    request = urllib.request.Request(url, headers={'User-Agent': 'stp_jax', **headers})
    return urllib.request.build_opener(_Redirects).open(
        request, timeout=timeout or TIMEOUT)
  except urllib.error.HTTPError as error:
    if error.code == 416:
      return error
    error.close()
    if error.code in (404, 410):
      raise NotThere(f'{url}: not there ({error.code})', error.code) from None
    if error.code in (401, 403):
      raise FetchError(f'{url}: the archive asks for a login ({error.code}); log in there, fetch '
                       'the file by hand and name its folder with --in', error.code) from None
    if error.code in (408, 425, 429) or error.code >= 500:
      raise Broken(f'the server answers {error.code} {error.reason}', error.code) from None
    raise FetchError(f'{url}: the server answers {error.code} {error.reason}',
                     error.code) from None
  except urllib.error.URLError as error:
    if isinstance(error.reason, FileNotFoundError) or '550' in str(error.reason):
      raise NotThere(f'{url}: not there') from None
    raise Broken(str(error.reason)) from None
  except ValueError as error:
    raise FetchError(f'{url}: no address ({error})') from None
  except (OSError, http.client.HTTPException) as error:
    raise Broken(str(error) or type(error).__name__) from None


def forget(part: pathlib.Path) -> None:
  """Removes what was fetched so far."""
  part.unlink(missing_ok=True)
  tag(part).unlink(missing_ok=True)


def load(url: str, part: pathlib.Path, size: int | None = None, headers: Mapping[str, str] = {},
         progress: bool = True, timeout: float | None = None) -> None:
  """One connection: makes `part` whole, going on where it ends if the server has the same file.

  Raises:
    Broken: another try may help. FetchError: none will; what was fetched before is kept.
  """
  headers = dict(headers)
  have = part.stat().st_size if part.exists() else 0
  kept = {}
  if have:
    try:
      kept = json.loads(tag(part).read_text())
    except (OSError, ValueError):
      pass
    kept = kept if isinstance(kept, dict) else {}
    if kept.get('url') != url or not kept.get('version'):
      have = 0  # nobody knows which file this is the beginning of
  if have:
    headers |= {'Range': f'bytes={have}-', 'If-Range': kept['version']}
  with _open(url, headers, timeout) as answer:
    status = getattr(answer, 'status', None) or getattr(answer, 'code', None)
    if status == 416:  # nothing behind what we have
      if have and kept.get('total') == have:
        return
      part.unlink(missing_ok=True)
      raise Broken('the beginning kept here does not fit the file there')
    found = answer.headers
    begins = f'bytes {have}-'
    if status != 206 or not (found.get('Content-Range') or '').startswith(begins):
      if status == 206:
        part.unlink(missing_ok=True)
        raise Broken('the server sent another range than was asked for')
      have = 0
    length = found.get('Content-Length')
    total = have + int(length) if length and length.isdigit() else None
    if total is not None and size is not None and total != size:
      raise FetchError(f'{url}: has {total} bytes, {size} are expected; has the archive changed?')
    if total is not None and shutil.disk_usage(part.parent).free < total - have:
      raise FetchError(f'{url}: {total:,} bytes do not fit on the disk of {part.parent}')
    _refuse_page(url, answer, b'')
    version = found.get('ETag') or found.get('Last-Modified')
    weak = (version or '').startswith('W/')
    if not have:  # before it is written down that the beginning is of this version
      part.unlink(missing_ok=True)
    tag(part).write_text(json.dumps(dict(url=url, version=None if weak else version, total=total)))
    name = part.name.removesuffix('.part')
    with part.open('ab' if have else 'wb') as file, tqdm(
        total=total, initial=have, desc=name, unit='B', unit_scale=True, unit_divisor=1024,
        disable=not progress, leave=False) as bar:
      first = not have
      while True:
        try:
          chunk = answer.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
          file.write(getattr(error, 'partial', b''))
          raise Broken(f'the connection broke ({type(error).__name__})') from None
        if not chunk:
          break
        if first:
          try:
            _refuse_page(url, answer, chunk)
          except FetchError:
            forget(part)
            raise
          first = False
        file.write(chunk)
        bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
      raise Broken(f'the connection ended after {part.stat().st_size:,} of {total:,} bytes')


def _refuse_page(url: str, answer, begin: bytes) -> None:
  """CDDIS and others answer 200 with a login page where a file was asked for."""
  kind = (answer.headers.get('Content-Type') or '').lower()
  looks = begin.lstrip(b'\xef\xbb\xbf \t\r\n').lower().startswith(_HTML)
  if not looks and not kind.startswith('text/html'):
    return
  final = answer.geturl() or url
  host = urllib.parse.urlsplit(final).netloc
  moved = host != urllib.parse.urlsplit(url).netloc
  login = moved or any(w in final.lower() for w in ('login', 'oauth', 'signin', 'urs.'))
  what = f'the login page of {host}' if login else f'a web page of {host}'
  raise FetchError(f'{url}: {what}, not data; log in there (CDDIS needs an Earthdata account), '
                   'fetch the file by hand and name its folder with --in, or choose another '
                   '--archive', page=True)


def _wrong(path: pathlib.Path, md5: str | None, sha256: str | None, size: int | None
           ) -> str | None:
  """What does not agree, or None."""
  have = path.stat().st_size
  if size is not None and have != size:
    return f'{have} bytes, {size} are expected'
  for name, expected in (('md5', md5), ('sha256', sha256)):
    if expected is not None:
      with path.open('rb') as file:
        found = hashlib.file_digest(file, name).hexdigest()
      if found != expected.lower():
        return f'{name} {found}, {expected.lower()} is expected'
  return None


def _damage(path: pathlib.Path, name: str) -> str | None:
  """What is wrong with a packed file, or None; the packing is told by the content."""
  with path.open('rb') as raw:
    magic = raw.read(4)
    raw.seek(0)
    try:
      if not magic:
        return 'an empty file'
      if magic[:2] == b'\x1f\x8b':
        opened = gzip.GzipFile(fileobj=raw)
      elif magic[:2] == unix_compress.MAGIC:
        opened = unix_compress.open_compressed(raw)
      elif name.lower().endswith('.zip'):
        return None if zipfile.is_zipfile(raw) else 'no zip file'
      elif name.lower().endswith(('.gz', '.z')):
        return None  # some servers unpack on the way; readers look at the content
      else:
        return None
      while opened.read(1 << 20):
        pass
    except (OSError, EOFError, ValueError, zlib.error) as error:
      return f'damaged packed file ({error})'
  return None
