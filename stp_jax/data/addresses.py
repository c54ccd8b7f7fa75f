"""Where data sets can be had: `python -m stp_jax.prepare DATASET --download --out STORE`.

Files come to `--in`, or to `stp_jax/data/<dataset>` in the user's cache. `--mirror URL` takes
them, by their names alone, from another place. Only addresses without a login stand here; checksums
where the publisher, or a library that many use, tells them.
"""

import os
import pathlib
import shutil
import zipfile
from typing import NamedTuple

from stp_jax.data import download, unpack
from stp_jax.data.clip_store import StoreError


class File(NamedTuple):
  """A file to fetch. `unpack`: the folder that an archive is unpacked into."""
  url: str
  checksum: str = ''
  unpack: str | None = None
  name: str = ''  # where the address does not end with one

  @property
  def file_name(self) -> str:
    return self.name or self.url.rpartition('/')[2]


_MNIST = 'https://ossci-datasets.s3.amazonaws.com/mnist/'
_FASHION = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'
_DIGITS = (
    File(_MNIST + 'train-images-idx3-ubyte.gz', 'f68b3c2dcbeaaa9fbdd348bbdeb94873'),
    File(_MNIST + 't10k-images-idx3-ubyte.gz', '9fb629c4189551a2d022fa330f9573f3'))
_WEATHER = ('https://dataserv.ub.tum.de/s/m1524895/download?path=%2F5.625deg%2F{0}'
            '&files={0}_5.625deg.zip')
SETS = {
    'moving_mnist': (*_DIGITS, File(
        'http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy',
        'be083ec986bfe91a449d63653c411eb2')),
    'noisy_mnist': _DIGITS,
    'moving_fmnist': (
        File(_FASHION + 'train-images-idx3-ubyte.gz', '8d4fb7e6c68d591d4c3dfef9ec88bf0d'),
        File(_FASHION + 't10k-images-idx3-ubyte.gz', 'bef4ecab320f06d8554ea6380940ec79')),
    'moving_mnist_cifar': (*_DIGITS, File(
        'https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz',
        'c58f30108f718f92721af3b95e74349a', 'cifar10')),
    'taxibj': (File(
        'https://github.com/chengtan9907/OpenSTL/releases/download/v0.1.0/taxibj_dataset.zip',
        unpack='taxibj'),),
    'kth': (File('https://github.com/chengtan9907/OpenSTL/releases/download/v0.1.0/kth_action.zip',
                 unpack='kth'),),
    'bair': (File('http://rail.eecs.berkeley.edu/datasets/bair_robot_pushing_dataset_v0.tar',
                  unpack='.'),),
    'weatherbench': (File(_WEATHER.format('2m_temperature'), unpack='weather/2m_temperature',
                          name='2m_temperature_5.625deg.zip'),)}


def folder(dataset: str) -> pathlib.Path:
  """Where a data set's files are kept without `--in`."""
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 'stp_jax' / 'data' / dataset


def fetch(dataset: str, in_dir=None, mirror: str = '') -> pathlib.Path:
  """Fetches and unpacks what is not there yet; the folder that `--in` would name.

  Raises:
    StoreError: a data set without a public address, a file that cannot be fetched or unpacked.
  """
  if dataset not in SETS:
    raise StoreError(f'--download: no public address of {dataset} is known here; those with one: '
                     f'{" ".join(SETS)}; fetch it by hand and name its folder with --in')
  base = pathlib.Path(in_dir) if in_dir else folder(dataset)
  for file in SETS[dataset]:
    done = base / f'.{file.file_name}.unpacked'
    if done.exists():
      shutil.rmtree(_moving(base, file.file_name), ignore_errors=True)
      continue
    url = f'{mirror.rstrip("/")}/{file.file_name}' if mirror else file.url
    path = download.fetch(url, base / file.file_name, expected=file.checksum)
    if file.unpack is not None:
      _unpack(path, base, file.unpack, done)
  return base


def _moving(base: pathlib.Path, name: str) -> pathlib.Path:
  """What an archive held, whole, while it is moved into place."""
  return base / f'{name}.moving'


def _unpack(path: pathlib.Path, base: pathlib.Path, into: str, done: pathlib.Path) -> None:
  """Unpacks into a folder beside it first: a kill leaves no half of a data set.

  What is unpacked whole takes another name before the first of it is moved away, so that the next
  run goes on with what is left there.

  Args:
    done: an empty file, made when all is in place.

  Raises:
    StoreError: see `unpack`; or something of that name is there already.
  """
  moving = _moving(base, path.name)
  begun = moving.exists()
  if not begun:
    _unpack_whole(path, base, into, moving)
  target = base / into
  target.mkdir(parents=True, exist_ok=True)
  inside = sorted(moving.iterdir())
  for item in inside:
    if os.path.lexists(target / item.name):
      if not begun:
        shutil.rmtree(moving, ignore_errors=True)
      raise StoreError(f'{target / item.name}: is there already, and {path.name} holds one too; '
                       'move it away')
  for item in inside:
    item.replace(target / item.name)
  done.touch()
  shutil.rmtree(moving, ignore_errors=True)


def _unpack_whole(path: pathlib.Path, base: pathlib.Path, into: str, moving: pathlib.Path) -> None:
  temporary = base / f'{path.name}.unpacking'
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir()
  try:
    if unpack.is_tar(path):
      unpack.unpack_tar(path, temporary)
    elif zipfile.is_zipfile(path):
      unpack.unpack_zip(path, temporary)
    else:
      raise StoreError(f'{path}: neither a zip nor a tar file; delete it and fetch it again')
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise
  # An archive that holds the data set's folder itself, or what is in it.
  inside, whole = sorted(temporary.iterdir()), temporary
  name = pathlib.PurePath(into).name
  if (name and len(inside) == 1 and inside[0].name.lower() == name.lower() and inside[0].is_dir()
      and not inside[0].is_symlink()):
    whole = inside[0]
  whole.replace(moving)
  shutil.rmtree(temporary, ignore_errors=True)
