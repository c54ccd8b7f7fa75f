"""Unpacks archives from elsewhere: nothing outside the folder, nothing larger than it can be."""

import contextlib
import os
import pathlib
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
_ERRORS = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile,
           NotImplementedError, RuntimeError, ValueError, OverflowError, zlib.error)


def check_members(path, members: Sequence[zipfile.ZipInfo]) -> None:
  """Refuses members of a zip file that claim more than their packing allows, or share bytes.

  Raises:
    StoreError: names the archive and the member.
  """
  for member in members:
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
    raise StoreError(f'{path}: cannot be unpacked, damaged ({error}); delete it and fetch it again'
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


def unpack_tar(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Unpacks a tar file, packed or not: files, folders and links that stay inside.

  Raises:
    StoreError: a member that leaves the folder, claims absurd sizes, or is damaged.
  """
  folder.mkdir(parents=True, exist_ok=True)
  inside, most = folder.resolve(), RATIO * path.stat().st_size + SLACK
  total = 0
  with _naming(path), tarfile.open(path) as archive, tqdm(
      desc=f'unpacking {path.name}', unit='file') as bar:
    # One by one: a packed tar would have to be read twice to know all of its members first.
    for member in archive:
      total += member.size if member.isfile() else 0
      if total > most:
        raise StoreError(f'{path} {member.name!r}: claims to unpack to {total:,} bytes and more; '
                         'refused')
      _fits(path, member.size, inside)
      archive.extract(member, inside, filter='data')
      bar.update()
