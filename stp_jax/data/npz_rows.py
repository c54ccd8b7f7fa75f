"""Arrays of .npz and .npy files row by row: none of them is ever whole in memory."""

import contextlib
import math
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from stp_jax.data import archives, npy_file, unpack
from stp_jax.data.samples import Unreadable, naming


class Member:
  """An array inside an .npz, read from its beginning.

  Attributes:
    shape, dtype: of the whole array.
  """

  def __init__(self, archive: zipfile.ZipFile, path: pathlib.Path, name: str):
    self._path, self._name = path, name
    if f'{name}.npy' not in archive.namelist():
      there = ' '.join(n.removesuffix('.npy') for n in archive.namelist())
      raise Unreadable(f'{path}: no array {name}; it has {there or "none"}')
    with naming(path, 'an npz file'):
      self._file = archive.open(f'{name}.npy')
      self.shape, fortran, self.dtype = npy_file.read_header(self._file)
    claimed, size = math.prod(self.shape) * self.dtype.itemsize, archive.getinfo(f'{name}.npy')
    if claimed > size.file_size:
      raise Unreadable(f'{path}: array {name} says that it is {self.dtype}{list(self.shape)}, '
                       f'which {size.file_size:,} bytes are not; refused')
    if fortran or self.dtype.hasobject or not self.shape:
      raise Unreadable(f'{path}: array {name}: {self.dtype}{list(self.shape)} in C order expected')

  def __iter__(self) -> Iterator[np.ndarray]:
    size = math.prod(self.shape[1:]) * self.dtype.itemsize
    for i in range(self.shape[0]):
      with naming(self._path, f'an npz file, array {self._name} row {i}'):
        data = self._file.read(size)
      if len(data) != size:
        raise Unreadable(f'{self._path}: array {self._name} ends in row {i} of {self.shape[0]}; '
                         'fetch it again')
      yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])


@contextlib.contextmanager
def members(path: pathlib.Path, *names: str) -> Iterator[tuple[Member, ...]]:
  """Arrays of an .npz, side by side.

  Raises:
    Unreadable: names the file, and the arrays that it has instead.
  """
  with naming(path, 'an npz file'):
    try:
      archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
      raise Unreadable(f'{path}: no npz file, or damaged ({error})') from error
  with archive:
    unpack.check_members(path, archive.infolist())
    yield tuple(Member(archive, path, n) for n in names)


@contextlib.contextmanager
def opened(path: pathlib.Path, together: bool = False) -> Iterator[np.lib.npyio.NpzFile]:
  """An .npz of which arrays are read whole, once its sizes were looked at.

  Args:
    together: all of them, at once.

  Raises:
    Unreadable: it is absent or damaged. StoreError: it claims more than it holds.
  """
  with naming(path, 'an npz file'):
    if not path.exists():
      raise FileNotFoundError
    try:
      archives.check_npz(path, together)
    except archives.DamagedArchive as error:
      raise Unreadable(f'{path}: unreadable as an npz file ({error.__cause__})') from error
    with np.load(path, allow_pickle=False) as file:
      yield file


def array(path: pathlib.Path) -> np.ndarray:
  """A memory map of an .npy file."""
  with naming(path, 'an npy file'):
    return npy_file.load(path)
