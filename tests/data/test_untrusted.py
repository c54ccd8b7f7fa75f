"""Files that nobody vouches for: an error, never a crash, a hang or memory without bound."""

import io
import json
import pathlib
import pickle
import re
import resource
import shutil
import struct
import tarfile
import tracemalloc
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from stp_jax import config as config_files
from stp_jax import prepare
from stp_jax.data import (
    archives,
    clip_store,
    folder_arrays,
    index_files,
    ionex_file,
    npy_file,
    npz_rows,
    pipeline,
    samples,
    spec,
    tfrecord,
    unpack,
)
from stp_jax.data.clip_store import ClipStore, StoreError
from tests import stores
from tests.data import ionex_text, tfrecord_bytes

pytestmark = pytest.mark.xdist_group('untrusted')
_MEMORY = 64 << 20  # of Python and NumPy together, for inputs of a few kilobytes


class Evil:
  """Its pickle would write a file when read."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path(self.path),)


def _npz(path, *members):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in members:
      archive.writestr(name, data)
  return path


def _npy(array, **more):
  file = io.BytesIO()
  np.lib.format.write_array(file, array, **more)
  return file.getvalue()


def _header(shape):
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(file, dict(descr='<f4', fortran_order=False, shape=shape))
  return file.getvalue()


def test_an_npz_with_a_pickle_is_refused(tmp_path):
  data = _npy(np.array([Evil(tmp_path / 'ran')], object), allow_pickle=True)
  with pytest.raises(StoreError, match='Python objects, which could run code'):
    archives.check_npz(_npz(tmp_path / 'a.npz', ('x.npy', data)))
  np.save(tmp_path / 'b.npy', np.array([Evil(tmp_path / 'ran')], object), allow_pickle=True)
  with pytest.raises((StoreError, ValueError)):
    for opening in folder_arrays._npy(tmp_path / 'b.npy', '').values():
      with opening():
        pass
  assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('shape', [(1 << 40,), (1 << 33, 1 << 33), (1000, 1000, 1000)])
def test_an_array_larger_than_its_file_is_refused(tmp_path, shape):
  path = _npz(tmp_path / 'a.npz', ('x.npy', _header(shape) + bytes(100)))
  tracemalloc.start()
  with pytest.raises(StoreError, match='bytes are not'):
    archives.check_npz(path)
  assert tracemalloc.get_traced_memory()[1] < _MEMORY
  tracemalloc.stop()


def test_a_zip_that_claims_too_much_is_refused(tmp_path):
  path = _npz(tmp_path / 'a.npz', ('x.npy', _npy(np.zeros(1000, np.float32))))
  data = bytearray(path.read_bytes())
  at = data.rindex(b'PK\x01\x02')  # the size in the central directory
  data[at + 24:at + 28] = struct.pack('<I', 0xf0000000)
  path.write_bytes(data)
  with pytest.raises(StoreError, match=r'claims to unpack|more than the memory'):
    archives.check_npz(path)
  zeros = _npz(tmp_path / 'b.npz', ('x.npy', _npy(np.zeros((500, 64, 64), np.uint8))))
  archives.check_npz(zeros)  # a dry month of radar is no bomb


def test_members_that_share_bytes_are_refused(tmp_path):
  """Entries of the directory that all point at one packed member: a small file, a large sum."""
  data = bytearray(_npz(tmp_path / 'a.npz', ('x.npy', bytes(range(256)) * 40)).read_bytes())
  at = data.rindex(b'PK\x01\x02')
  end = data.rindex(b'PK\x05\x06')
  entry = bytes(data[at:end])
  for place in (8, 10):
    data[end + place:end + place + 2] = struct.pack('<H', 40)
  data[end + 12:end + 16] = struct.pack('<I', 40 * len(entry))
  path = tmp_path / 'b.npz'
  path.write_bytes(data[:at] + entry * 40 + data[end:])
  for opening in (archives.check_npz, lambda p: unpack.unpack_zip(p, tmp_path / 'out')):
    with pytest.raises(StoreError, match='more than the file has; refused'):
      opening(path)


def _claims(path, member):
  """A zip file of one member that says it unpacks to almost 2 GB."""
  data = bytearray(_npz(path, (member, bytes(5000))).read_bytes())
  at = data.rindex(b'PK\x01\x02')
  data[at + 24:at + 28] = struct.pack('<I', 0x70000000)
  path.write_bytes(data)


def _tar(path, *members, mode='w'):
  with tarfile.open(path, mode) as archive:
    for name, kind, link, data in members:
      info = tarfile.TarInfo(name)
      info.type, info.linkname, info.size = kind, link, len(data)
      archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize('name', ['../x', '/x', 'a/../../x', 'bomb', 'junk', 'tar ../x',
                                  'tar link', 'tar cut'])
def test_a_download_that_leaves_its_folder_or_claims_too_much_is_refused(tmp_path, name, capsys):
  """`prepare taxibj --download --mirror file://...`: one line, nothing outside, no half."""
  archive = tmp_path / 'mirror' / 'taxibj_dataset.zip'
  archive.parent.mkdir()
  kind, _, member = name.rpartition(' ')
  if kind == 'tar':
    link = member == 'link'
    _tar(archive, ('taxibj' if link else member, tarfile.SYMTYPE if link else tarfile.REGTYPE,
                   str(tmp_path) if link else '', b'' if link else bytes(5000)))
    if member == 'cut':
      archive.write_bytes(archive.read_bytes()[:2000])
  elif name == 'bomb':
    _claims(archive, 'taxibj/dataset.npz')
  elif name == 'junk':
    archive.write_bytes(b'PK junk')
  else:
    _npz(archive, ('taxibj/readme', b'x'), (name, b'x'))
  command = ['taxibj', '--download', '--mirror', archive.parent.as_uri(), '--in',
             str(tmp_path / 'deep' / 'in'), '--out', str(tmp_path / 's')]
  assert prepare.main(command) == 1
  lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith('prepare ')]
  assert len(lines) == 1 and 'taxibj_dataset.zip' in lines[0]
  assert ('refused' in lines[0]) == (member not in ('junk', 'cut')), lines
  assert [p.name for p in (tmp_path / 'deep' / 'in').iterdir()] == ['taxibj_dataset.zip']
  assert sorted(p.name for p in tmp_path.iterdir()) == ['deep', 'mirror']


def test_a_packed_tar_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(unpack, 'RATIO', 10)
  _tar(tmp_path / 'a.tar.gz', *((f'{i}', tarfile.REGTYPE, '', bytes(300_000)) for i in range(9)),
       mode='w:gz')
  with pytest.raises(StoreError, match=r'claims to unpack to .* bytes and more; refused'):
    unpack.unpack_tar(tmp_path / 'a.tar.gz', tmp_path / 'out')


def test_samples_in_npz_are_looked_at_first(tmp_path):
  bomb = _npz(tmp_path / 'a.npz', ('inputs.npy', _header((1 << 40,))))
  with pytest.raises(StoreError, match='bytes are not'), npz_rows.opened(bomb):
    pass
  with pytest.raises(StoreError, match='bytes are not'), npz_rows.members(bomb, 'inputs'):
    pass
  cut = tmp_path / 'b.npz'
  cut.write_bytes(_npz(tmp_path / 'c.npz', ('inputs.npy', _npy(np.zeros(900)))).read_bytes()[:-9])
  with pytest.raises(samples.Unreadable, match=r'b\.npz: unreadable as an npz file'):
    with npz_rows.opened(cut):
      pass


@pytest.mark.parametrize('header', [b"{'descr': (", b'{"' + b'""', b'\\', b'(' * 110, b'{1:[]}'])
def test_a_header_that_confuses_its_readers_is_one_line(tmp_path, header):
  store = stores.make(tmp_path / 's', days=(1, 1, 1))
  damaged = b'\x93NUMPY\x01\x00v\x00' + header.ljust(117) + b'\n' + bytes(80)
  (tmp_path / 'a.npy').write_bytes(damaged)
  with pytest.raises(ValueError) as error:
    npy_file.load(tmp_path / 'a.npy')
  assert '\n' not in str(error.value)
  for name in ('forcings.npy', 'frames-00000.npy'):
    (store.path / name).write_bytes(damaged)
  broken = ClipStore(store.path)
  for reading in (lambda: broken.column('forcings'), lambda: broken.frames(0)):
    with pytest.raises(StoreError, match='prepare the store again'):
      reading()
  with pytest.raises(StoreError, match='not an array'):
    archives.check_npz(_npz(tmp_path / 'a.npz', ('x.npy', damaged)))


def test_a_torch_file_that_runs_code_is_refused(tmp_path):
  pytest.importorskip('torch')
  from stp_jax.convert import torch_checkpoint
  path = tmp_path / 'a.pth'
  path.write_bytes(pickle.dumps({'state_dict': Evil(tmp_path / 'ran')}))
  with pytest.raises(ValueError, match='refused'):
    torch_checkpoint.load(path)
  bomb = _npz(tmp_path / 'a.npz', ('x.npy', _header((1 << 40,))))
  with pytest.raises(ValueError, match='refused'):
    torch_checkpoint.load(bomb)
  assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('name', ['../x', '/etc/x', 'a/b', '..', '.hidden', 'a\n', ''])
def test_a_store_that_points_elsewhere_is_refused(tmp_path, name):
  store = stores.make(tmp_path / 's', days=(1, 1, 1))
  meta = json.loads((store.path / 'meta.json').read_text())
  for field in ('streams', 'checksum'):
    changed = dict(meta, **{field: {**meta[field], name: next(iter(meta[field].values()))}})
    (store.path / 'meta.json').write_text(json.dumps(changed))
    with pytest.raises(StoreError, match='is no name of a stream or file'):
      ClipStore(store.path)


def test_a_store_of_an_unknown_type_is_refused(tmp_path):
  store = stores.make(tmp_path / 's', days=(1, 1, 1))
  path = store.path / 'meta.json'
  path.write_text(path.read_text().replace('uint16', 'uiot16'))  # found by the fuzzer
  with pytest.raises(StoreError, match=r"meta.json: not a store's .*uiot16"):
    ClipStore(store.path)


@pytest.mark.parametrize('size', [1 << 29, 1 << 31, 1 << 62, (1 << 64) - 1])
def test_a_record_of_absurd_length_is_refused(tmp_path, size):
  path = tmp_path / 'a.tfrecord'
  path.write_bytes(tfrecord_bytes.head(size) + bytes(64))
  tracemalloc.start()
  with pytest.raises(StoreError, match=r'at most|ends inside'):
    list(tfrecord.records(path))
  assert tracemalloc.get_traced_memory()[1] < _MEMORY
  tracemalloc.stop()


# What a fuzzer starts from, and what reads it.
_CSV = (b'DATE,BSRN,ND,KP1,KP2,KP3,KP4,KP5,KP6,KP7,KP8,KP_SUM,AP1,AP2,AP3,AP4,AP5,AP6,AP7,AP8,'
        b'AP_AVG,CP,C9,ISN,F10.7_OBS,F10.7_ADJ,F10.7_DATA_TYPE,F10.7_OBS_CENTER81,'
        b'F10.7_OBS_LAST81,F10.7_ADJ_CENTER81,F10.7_ADJ_LAST81\n'
        b'2012-01-01,2432,20,3,3,3,7,10,7,3,3,40,2,2,2,3,4,3,2,2,3,0.1,0,87,133.1,128.7,OBS,'
        b'140.1,141.2,135.9,137.0\n')


def _payload():
  return tfrecord_bytes.example(tfrecord_bytes.sequence('2012-01-01T00:00', 3))


def _read_ionex(path):
  ionex_file.read(path)


def _read_records(path):
  for payload in tfrecord.records(path):
    tfrecord.example(payload)


def _read_example(path):
  tfrecord.example(path.read_bytes())


def _read_index(path):
  index_files.read(path, 'observed')


def _read_npz(path):
  archives.check_npz(path)
  with np.load(path, allow_pickle=False) as file:
    for name in file.files:
      file[name]


def _seeds(kind) -> bytes:
  if kind == 'ionex':
    return ionex_text.text().encode() if isinstance(ionex_text.text(), str) else ionex_text.text()
  if kind == 'records':
    return tfrecord_bytes.record(_payload())
  if kind == 'example':
    return _payload()
  if kind == 'npz':
    file = io.BytesIO()
    np.savez_compressed(file, x=np.arange(60, dtype=np.uint16).reshape(3, 4, 5))
    return file.getvalue()
  return _CSV


_READERS = dict(ionex=_read_ionex, records=_read_records, example=_read_example, index=_read_index,
                npz=_read_npz)
_CHANGES = st.lists(st.tuples(
    st.sampled_from(['flip', 'cut', 'drop', 'repeat', 'insert', 'digits']),
    st.floats(0, 1), st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=0, max_size=5)


def _changed(data: bytes, changes) -> bytes:
  data = bytearray(data)
  for kind, where, length, new in changes:
    at = int(where * max(0, len(data) - 1))
    end = min(len(data), at + 1 + int(length * 40))
    if kind == 'flip' and data:
      data[at] ^= new[0] or 1
    elif kind == 'cut':
      del data[at:]
    elif kind == 'drop':
      del data[at:end]
    elif kind == 'repeat':
      data[at:at] = data[at:end] * (1 + new[0])
    elif kind == 'insert':
      data[at:at] = new
    elif kind == 'digits':  # numbers become absurd ones of the same width
      for i in range(at, end):
        if 48 <= data[i] <= 57:
          data[i] = 57
  return bytes(data)


def _fuzz(kind, folder, examples):
  seed, read, path = _seeds(kind), _READERS[kind], folder / f'fuzzed.{kind}'
  accepted = []

  @hypothesis.settings(max_examples=examples, deadline=5000, database=None, derandomize=True,
                       suppress_health_check=list(hypothesis.HealthCheck))
  @hypothesis.given(_CHANGES)
  def run(changes):
    path.write_bytes(_changed(seed, changes))
    try:
      read(path)
      accepted.append(1)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:  # StoreError is one
      assert '\n' not in str(error) or kind == 'npz'

  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  run()
  # KiB; what is allocated and never touched counts neither here nor in a container's limit.
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10
  # The seed itself is read: what is refused is refused for what was changed.
  assert accepted


@pytest.mark.parametrize('kind', _READERS)
def test_fuzzed_files_are_errors(kind, tmp_path):
  _fuzz(kind, tmp_path, 200 if kind == 'ionex' else 600)


@pytest.mark.soak
@pytest.mark.parametrize('kind', _READERS)
def test_fuzzed_files_are_errors_at_length(kind, tmp_path):
  _fuzz(kind, tmp_path, 20_000)


def _fuzz_store(tmp_path, examples):
  whole = stores.make(tmp_path / 's', days=(1, 1, 1)).path
  names = sorted(p.name for p in whole.iterdir())

  @hypothesis.settings(max_examples=examples, deadline=10000, database=None, derandomize=True,
                       suppress_health_check=list(hypothesis.HealthCheck))
  @hypothesis.given(st.sampled_from(names), _CHANGES)
  def run(name, changes):
    shutil.rmtree(tmp_path / 't', ignore_errors=True)
    shutil.copytree(whole, tmp_path / 't')
    (tmp_path / 't' / name).write_bytes(_changed((whole / name).read_bytes(), changes))
    try:
      store = ClipStore(tmp_path / 't')
      store.column('forcings')
      for i in range(min(len(store.clips), 5)):
        store.frames(i)
      _as_trained(store)
      accepted.append(1)
    except StoreError as error:
      assert '\n' not in str(error) and str(tmp_path / 't') in str(error)
    except ValueError as error:  # nothing is wrong with the store, but the run cannot use it
      assert re.search('zero windows|not known at issue time|no file gives', str(error))
      assert '\n' not in str(error)

  accepted = []
  run()
  assert accepted


def _as_trained(store):
  """What a run does with a store: its spec, a look for leaks, windows, a batch."""
  data = config_files.load('configs/iono_mixer.py:smoke', {}).data
  data.t_in, data.t_out, data.eval_batch_size = 4, 2, 2
  made = spec.make([store], data, ['train'])
  assert made.row_weights.shape == (16,) and made.frames_per_day > 0
  clip_store.assert_disjoint([store], ['train'])
  for split in ('train', 'test'):
    found = pipeline.sources([store], made, [split], 6, 1)
    batch = next(pipeline.eval_batches(found, made, data, 4))
    assert batch['frames'].shape == (2, 6, 16, 16, 1)


def test_fuzzed_stores_are_errors(tmp_path):
  _fuzz_store(tmp_path, 60)


@pytest.mark.soak
def test_fuzzed_stores_are_errors_at_length(tmp_path):
  _fuzz_store(tmp_path, 10_000)
