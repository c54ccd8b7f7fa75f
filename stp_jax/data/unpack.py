"""Unpacks archives from elsewhere: nothing outside the folder, nothing larger than it can be."""

import contextlib
import lzma
import os
import pathlib
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from stp_jax import files
from stp_jax.data.clip_store import StoreError

# DEFLATE packs zeros 1030 to 1; what claims more is no such stream. Other packings of zip and tar
# files are refused beyond this as well: data are not that empty.
RATIO = 1100
SLACK = 1 << 16
MAX_HEADER = 1 << 16  # bytes of a tar member's long names and attributes, which are read whole
# zipfile unpacks these two piece by piece; of BZIP2 and LZMA it unpacks whatever a piece holds.
_PACKINGS = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_ERRORS = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile,
           NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError, MemoryError,
           zlib.error, lzma.LZMAError)


def check_members(path, members: Sequence[zipfile.ZipInfo]) -> None:
  """Refuses members of a zip file that claim more than their packing allows, or share bytes.

  So are those of another packing than DEFLATE: what they claim binds nobody.

  Raises:
    StoreError: names the archive and the member.
  """
  for member in members:
    if member.compress_type not in _PACKINGS:
      name = zipfile.compressor_names.get(member.compress_type, f'method {member.compress_type}')
      raise StoreError(f'{path} {member.filename!r}: packed with {name}; refused: pack it again '
                       'with deflate')
    if member.file_size > RATIO * member.compress_size + SLACK:
      raise StoreError(f'{path} {member.filename!r}: claims to unpack {member.compress_size:,} '
                       f'bytes to {member.file_size:,}; refused')
  packed = sum(m.compress_size for m in members)
  if packed > os.stat(path).st_size:
    raise StoreError(f'{path}: its members claim {packed:,} packed bytes, more than the file has; '
                     'refused')


def _fits(path, size: int, folder: pathlib.Path) -> None:
  if size > shutil.disk_usage(folder).free:
    raise StoreError(f'{path}: {size:,} bytes unpacked do not fit on the disk of {folder}')


def _inside(path, name: str, folder: pathlib.Path) -> pathlib.Path:
  target = (folder / name).resolve()
  if '\0' in name or not target.is_relative_to(folder) or target == folder:
    raise StoreError(f'{path}: {name!r} leads outside the folder; refused')
  return target


@contextlib.contextmanager
def _naming(path) -> Iterator[None]:
  try:
    yield
  except StoreError:
    raise
  except tarfile.FilterError as error:
    raise StoreError(f'{path}: {error}; refused') from error
  except _ERRORS as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(':')
    raise StoreError(f'{path}: cannot be unpacked, damaged ({reason}); delete it and fetch it again'
                     ) from error


def unpack_zip(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Unpacks a zip file; members that are there in full length are left alone.

  Raises:
    StoreError: a member that leaves the folder, claims absurd sizes, or is damaged.
  """
  folder.mkdir(parents=True, exist_ok=True)
  inside = folder.resolve()
  with _naming(path), zipfile.ZipFile(path) as archive:
    members = [m for m in archive.infolist() if not m.is_dir()]
    targets = [_inside(path, m.filename, inside) for m in members]
    check_members(path, members)
    _fits(path, sum(m.file_size for m in members), inside)
    with tqdm(total=len(members), desc=f'unpacking {path.name}', unit='file') as bar:
      for member, target in zip(members, targets):
        if not target.exists() or target.stat().st_size != member.file_size:
          _extract(archive, member, target)
        bar.update()


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: pathlib.Path) -> None:
  target.parent.mkdir(parents=True, exist_ok=True)
  with (files.whole(target) as partial, archive.open(member) as source,
        partial.open('wb') as sink):
    shutil.copyfileobj(source, sink, 1 << 20)


class _Refused(tarfile.FilterError):
  """A member that is not looked at any further."""

  def __init__(self, member: tarfile.TarInfo, what: str):
    self.tarinfo = member
    Exception.__init__(self, f'{member.name[:80]!r}: {what}')


def _is_pax(data: bytes, size: int) -> bool:
  """Whether a header is lines of `length name=value` and nothing else.

  Of others, older versions of tarfile take a time and a memory that grow with the square of their
  size; so they do for digits in a row, of which no name has that many.
  """
  at = 0
  while at < size:
    found = re.compile(rb'(\d{1,9}) [^=\n]+=').match(data, at, size)
    length = int(found[1]) if found else 0
    if not found or at + length > size or found.end() >= at + length:
      return False
    at += length
    if data[at - 1] != 0x0a:
      return False
  return not data[size:].strip(b'\0') and not re.search(rb'\d{300}', data)


class _Again:
  """Stands for the file of an archive until what was read of it has been read once more."""

  def __init__(self, archive: tarfile.TarFile, data: bytes):
    self._archive, self._file, self._data = archive, archive.fileobj, data

  def read(self, _: int) -> bytes:
    self._archive.fileobj = self._file
    return self._data

  def close(self) -> None:
    self._file.close()


class _Member(tarfile.TarInfo):
  """A member whose headers are not read whatever their size.

  tarfile reads long names and attributes whole, and one header from within the other.
  """

  @classmethod
  def frombuf(cls, buf, encoding, errors):
    try:
      return super().frombuf(buf, encoding, errors)
    except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):
      raise
    except tarfile.HeaderError as error:  # which would pass for the archive's end
      raise tarfile.ReadError(f'a header: {error}') from error

  def _proc_member(self, archive):
    if self.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE,
                     tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
      # Those of one member together; those of the archive stay.
      if self.type == tarfile.XGLTYPE:
        archive.shared += self.size
      else:
        archive.own += self.size
      size = max(archive.shared, archive.own)
      if self.size < 0 or size > MAX_HEADER:
        raise _Refused(self, f'{size:,} bytes of names and attributes; at most {MAX_HEADER:,} are '
                             'read')
      if self.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
        data = archive.fileobj.read(self._block(self.size))
        if len(data) < self.size:
          raise tarfile.ReadError('unexpected end of data')
        if not _is_pax(data, self.size):
          raise _Refused(self, 'names and attributes that are none')
        archive.fileobj = _Again(archive, data)
    elif self.type == tarfile.GNUTYPE_SPARSE:
      self._sparse()
    else:
      archive.own = 0
    return super()._proc_member(archive)

  def _sparse(self, *_):
    raise _Refused(self, 'a sparse file; pack it again without --sparse')

  _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


class _Archive(tarfile.TarFile):
  """`shared`, `own`: bytes of the headers of all its members, and of the one being read."""
  tarinfo = _Member
  shared = own = 0


def is_tar(path: pathlib.Path) -> bool:
  """Whether it begins as a tar file does, packed or not; one that `unpack_tar` refuses does."""
  try:
    with _Archive.open(path):
      return True
  except _Refused:
    return True
  except _ERRORS:
    return False


def unpack_tar(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Unpacks a tar file, packed or not: files, folders and links that stay inside.

  Raises:
    StoreError: a member that leaves the folder, claims absurd sizes, or is damaged.
  """
  folder.mkdir(parents=True, exist_ok=True)
  inside, most = folder.resolve(), RATIO * path.stat().st_size + SLACK
  total = 0
  with _naming(path), _Archive.open(path) as archive, tqdm(
      desc=f'unpacking {path.name}', unit='file') as bar:
    # One by one: a packed tar would have to be read twice to know all of its members first.
    for member in archive:
      total += member.size if member.isfile() else 0
      if max(total, archive.offset) > most:  # offset: where the next one is said to begin
        raise StoreError(f'{path} {member.name!r}: claims to unpack to {total:,} bytes and more; '
                         'refused')
      if member.size < 0:
        raise _Refused(member, f'{member.size} bytes')
      _fits(path, member.size, inside)
      if member.islnk() and not os.path.exists(inside / member.linkname):
        raise _Refused(member, f'a link to {member.linkname[:80]!r}, which is not before it')
      archive.extract(member, inside, filter='data')
      archive.members.clear()  # each holds what the headers of all say
      bar.update()
