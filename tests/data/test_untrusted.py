"""Files that nobody vouches for: an error, never a crash, a hang or memory without bound."""

import contextlib
import gzip
import io
import json
import os
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
from stp_jax.convert import torch_checkpoint
from stp_jax.data import (
    archives,
    clip_store,
    folder_arrays,
    index_files,
    ionex_file,
    npy_file,
    npz_rows,
    omni,
    pipeline,
    samples,
    spec,
    tfrecord,
    unpack,
)
from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.metrics import lpips
from stp_jax.models.beam import pretrained
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
  with npz_rows.opened(path) as file:
    for name in file.files:
      file[name]


def _read_weights(path):
  torch_checkpoint.load(path)


def _noise() -> dict:
  """Numbers whose packed bytes are the most of their file: damage reaches them."""
  return dict(noise=np.random.default_rng(0).integers(0, 50, 4000).astype(np.uint16))


def _seeds(kind) -> bytes:
  if kind == 'ionex':
    return ionex_text.text().encode() if isinstance(ionex_text.text(), str) else ionex_text.text()
  if kind == 'records':
    return tfrecord_bytes.record(_payload())
  if kind == 'example':
    return _payload()
  if kind == 'npz':
    file = io.BytesIO()
    np.savez_compressed(file, x=np.arange(60, dtype=np.uint16).reshape(3, 4, 5), **_noise())
    return file.getvalue()
  if kind == 'weights.npz':
    file = io.BytesIO()
    np.savez_compressed(file, **_noise())
    return file.getvalue()
  if kind == 'pth':
    torch = pytest.importorskip('torch')
    file = io.BytesIO()
    torch.save({'epoch': 3, 'optimizer': {'state': {0: [torch.ones(2)]}},
                'state_dict': {'a.weight': torch.ones(2, 3), 'b': torch.ones(1).bfloat16()}}, file)
    return file.getvalue()
  return _CSV


_READERS = dict(ionex=_read_ionex, records=_read_records, example=_read_example, index=_read_index,
                npz=_read_npz, **{'weights.npz': _read_weights}, pth=_read_weights)
_CHANGES = st.lists(st.tuples(
    st.sampled_from(['flip', 'cut', 'drop', 'repeat', 'insert', 'digits']),
    st.floats(0, 1), st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=0, max_size=5)


# Same length, so that an archive's directory still tells where its members are.
_FILE_CHANGES = _CHANGES | st.lists(st.tuples(
    st.just('fill'), st.floats(0, 1), st.floats(0, 1), st.binary(min_size=1, max_size=3)),
    min_size=1, max_size=2)


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
    elif kind == 'fill':
      data[at:end] = (new * 41)[:end - at]
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
  @hypothesis.given(_FILE_CHANGES)
  def run(changes):
    path.write_bytes(_changed(seed, changes))
    try:
      read(path)
      accepted.append(1)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:  # StoreError is one
      assert '\n' not in str(error)
      assert kind not in ('npz', 'weights.npz', 'pth') or str(path) in str(error)

  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  run()
  # KiB; what is allocated and never touched counts neither here nor in a container's limit.
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10
  # The seed itself is read: what is refused is refused for what was changed.
  assert accepted


@pytest.mark.parametrize('kind', _READERS)
def test_fuzzed_files_are_errors(kind, tmp_path):
  _fuzz(kind, tmp_path, {'ionex': 200, 'weights.npz': 300, 'pth': 300}.get(kind, 600))


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


@contextlib.contextmanager
def _bounded(most=_MEMORY):
  tracemalloc.start()
  try:
    yield
    assert tracemalloc.get_traced_memory()[1] < most
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('packing', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_unpack_more_than_they_say_are_refused(tmp_path, packing):
  """zipfile unpacks a whole piece of these at once, whatever size the directory says."""
  path, begin = tmp_path / 'a.npz', _npy(np.zeros(10))
  with zipfile.ZipFile(path, 'w', packing) as archive:
    archive.writestr('x.npy', begin + bytes(16 << 20))
  data = bytearray(path.read_bytes())
  at = data.rindex(b'PK\x01\x02')
  data[at + 24:at + 28] = struct.pack('<I', len(begin))
  path.write_bytes(data)
  with _bounded(8 << 20):
    for opening in (archives.check_npz, lambda p: unpack.unpack_zip(p, tmp_path / 'out')):
      with pytest.raises(StoreError, match=r"a\.npz 'x\.npy': packed with .*again with deflate"):
        opening(path)
    with pytest.raises(StoreError, match='again with deflate'), npz_rows.members(path, 'x'):
      pass
  assert not list((tmp_path / 'out').iterdir())


def _headers(path, *blocks):
  """A packed tar: `(type, size that is said, data)` each."""
  with gzip.open(path, 'wb', compresslevel=1) as file:
    for kind, size, data in blocks:
      info = tarfile.TarInfo('x')
      info.type, info.size = kind, max(size, 0)
      block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
      if size < 0:
        block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
        block[148:156] = b'        '
        block[148:156] = b'%06o\0 ' % sum(block)
      file.write(block + data + bytes(-len(data) % 512))
    file.write(bytes(1024))
  return path


_PAX = b'22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n'
_LONG = b'20000 comment=' + b'x' * 19985 + b'\n'
_TARS = {
    **{f'long {kind.decode()}': ([(kind, 16 << 20, bytes(16 << 20))], 'names and attributes')
       for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME,
                    tarfile.GNUTYPE_LONGLINK, tarfile.SOLARIS_XHDTYPE)},
    'one in the other': ([(tarfile.XHDTYPE, len(_LONG), _LONG)] * 200, 'bytes of names and attr'),
    'shared': ([(tarfile.XGLTYPE, len(_LONG), _LONG), (tarfile.REGTYPE, 0, b'')] * 9,
               'bytes of names and attr'),
    # For these, Python 3.11.7 takes a gigabyte, a minute, or what belongs to the next header.
    **{f'no lines {i}': ([(tarfile.XHDTYPE, len(data), data)], 'names and attributes that are none')
       for i, data in enumerate((b'2 ' * 9999 + b'=', b'59999 x=' + b'1' * 59990 + b'\n',
                                 b'9999 x=1\n', b'8 x=1\n', b'0 x=1\n', b'7 xxx=1\n',
                                 b'6 x=1\n2'))},
    'behind its end': ([(tarfile.XHDTYPE, 6, b'6 x=1\n6 y=1\n')], 'attributes that are none'),
    'less than nothing': ([(tarfile.GNUTYPE_LONGNAME, -512, bytes(16 << 20))], 'names and attr'),
    'a negative file': ([(tarfile.REGTYPE, -512, b'')], '-512 bytes; refused'),
    'sparse': ([(tarfile.GNUTYPE_SPARSE, 0, b'')], 'a sparse file; pack it again'),
    'sparse, pax': ([(tarfile.XHDTYPE, len(_PAX), _PAX), (tarfile.REGTYPE, 512, b'9999\n')],
                    'a sparse file; pack it again'),
    'more than it says': ([(tarfile.REGTYPE, 9, bytes(512) + b'data' * 200)], 'a header: '),
    'less than it says': ([(tarfile.REGTYPE, 9000, b'data')], 'unexpected end of data'),
    'far away': ([(b'Z', (1 << 33) - 1, b'')], 'claims to unpack to')}


def test_a_tar_with_many_members_takes_no_memory(tmp_path):
  """Each is told what the header of all says."""
  said = b''.join(b'12 %05d=xx\n' % i for i in range(5000))
  path = _headers(tmp_path / 'a.tar.gz', (tarfile.XGLTYPE, len(said), said),
                  *[(tarfile.REGTYPE, 0, b'')] * 200)
  with _bounded(8 << 20):
    unpack.unpack_tar(path, tmp_path / 'out')


@pytest.mark.parametrize('case', _TARS)
def test_tar_headers_that_nobody_writes_are_refused(tmp_path, case):
  blocks, message = _TARS[case]
  path = _headers(tmp_path / 'a.tar.gz', *blocks)
  with _bounded(4 << 20):
    assert unpack.is_tar(path)
    with pytest.raises(StoreError, match=message) as error:
      unpack.unpack_tar(path, tmp_path / 'out')
  assert '\n' not in str(error.value) and str(path) in str(error.value)


def test_links_in_a_tar_lead_to_what_is_there(tmp_path):
  file, link = ('a', tarfile.REGTYPE, '', b'data'), ('b', tarfile.LNKTYPE, 'a', b'')
  _tar(tmp_path / 'good.tar', file, link)
  unpack.unpack_tar(tmp_path / 'good.tar', tmp_path / 'out')
  assert (tmp_path / 'out' / 'b').read_bytes() == b'data'
  _tar(tmp_path / 'bad.tar', link, file)
  with pytest.raises(StoreError, match=r"bad\.tar: 'b': a link to 'a', which is not before"):
    unpack.unpack_tar(tmp_path / 'bad.tar', tmp_path / 'other')


def test_a_tar_with_long_names_is_unpacked(tmp_path):
  for mode, form in (('w', tarfile.PAX_FORMAT), ('w:gz', tarfile.GNU_FORMAT)):
    names = [f'{"n" * 150}/{"m" * 90}-{i}' for i in range(300)]
    with tarfile.open(tmp_path / 'a.tar', mode, format=form, pax_headers={'comment': 'x'}) as made:
      for name in names:
        made.addfile(tarfile.TarInfo(name))
    out = tmp_path / mode.replace(':', '')
    unpack.unpack_tar(tmp_path / 'a.tar', out)
    assert len(list((out / ('n' * 150)).iterdir())) == 300


def _version_3(shape):
  header = bytearray(_header(shape))  # 1.0: a length of two bytes
  return bytes(header[:6] + b'\x03\0' + header[8:10] + b'\0\0' + header[10:])


@pytest.mark.filterwarnings('ignore:Stored array in format 3.0')
def test_every_version_of_a_header_is_looked_at(tmp_path):
  path = tmp_path / 'a.npz'
  for shape in ((1 << 45,), (1 << 33, 1 << 33)):
    with pytest.raises(StoreError, match='bytes are not'):
      archives.check_npz(_npz(path, ('x.npy', _version_3(shape) + bytes(100))))
    with pytest.raises(ValueError, match=r'a\.npz.*bytes are not'):
      torch_checkpoint.load(path)
    with pytest.raises(StoreError, match='bytes are not'), npz_rows.members(path, 'x'):
      pass
  with npz_rows.members(_npz(path, ('x.npy', _version_3((5,)) + bytes(20))), 'x') as (x,):
    assert x.shape == (5,) and [float(r) for r in x] == [0] * 5
  archives.check_npz(path)
  fields = np.zeros(2, [('größe', np.float32), ('Ω', np.int64)])  # what NumPy writes as 3.0
  archives.check_npz(_npz(path, ('x.npy', _npy(fields))))
  unknown = b'\x93NUMPY\x04' + _version_3((5,))[7:]
  with pytest.raises(StoreError, match=r"'x\.npy': not an array \(version 4\.0 of the format"):
    archives.check_npz(_npz(path, ('x.npy', unknown + bytes(20))))
  empty = _header((1 << 45,)).replace(b"'<f4'", b"'|V0'")
  with pytest.raises(StoreError, match='values of no size; refused'):
    archives.check_npz(_npz(path, ('x.npy', empty)))


def test_a_header_that_is_longer_than_any_is_not_read(tmp_path):
  data = b'\x93NUMPY\x02\0' + struct.pack('<I', 64 << 20) + b' ' * (64 << 20)
  path = _npz(tmp_path / 'a.npz', ('x.npy', data))
  with _bounded(4 << 20), pytest.raises(StoreError, match='a header of 67,108,864 bytes'):
    archives.check_npz(path)
  with _bounded(4 << 20), pytest.raises(StoreError, match='a header of 67,108,864 bytes'):
    with npz_rows.members(path, 'x'):
      pass


def test_arrays_read_together_fit_the_memory_together(tmp_path, monkeypatch):
  path = _npz(tmp_path / 'a.npz', *((f'x{i}.npy', _npy(np.zeros(50 << 10, np.uint8)))
                                    for i in range(6)))
  real = os.sysconf
  small = {'SC_PAGE_SIZE': 1 << 10, 'SC_PHYS_PAGES': 64}
  monkeypatch.setattr(os, 'sysconf', lambda name: small.get(name) or real(name))
  for reading in (archives.check_npz, torch_checkpoint.load,
                  lambda p: npz_rows.opened(p, together=True).__enter__()):
    with pytest.raises(ValueError, match=r"'x1\.npy': 102,656 bytes unpacked with those before it"):
      reading(path)
  with npz_rows.opened(path) as file:
    assert not file['x5'].any()  # one after the other
  small['SC_PHYS_PAGES'] = 49
  with pytest.raises(StoreError, match=r"'x0\.npy': 51,328 bytes unpacked, more than the memory"):
    archives.check_npz(path, together=False)


def test_an_example_of_many_empty_entries_takes_no_memory(monkeypatch):
  wrap = lambda *numbers: lambda data: tfrecord_bytes.field(1, tfrecord_bytes.field(
      1, tfrecord_bytes.field(1, b'x') + tfrecord_bytes.field(2, tfrecord_bytes.field(
          numbers[0], data))))
  many = 1 << 14
  for number, entry, most in ((1, b'\x0a\0', 24), (1, b'\x12\0', 9), (2, b'\x0a\0', 9),
                              (3, b'\x08\5', 24), (3, b'\x0a\0', 9)):
    payload = wrap(number)(entry * many)
    with _bounded(most * many):
      assert len(tfrecord.example(payload)['x']) in (0, many)
  monkeypatch.setattr(tfrecord, 'MAX_ENTRIES', 1000)
  for number, entry in ((1, b'\x0a\0'), (2, b'\x0a\4abcd'), (3, b'\x08\5'), (1, b'\x18\0')):
    assert len(tfrecord.example(wrap(number)(entry * 900))['x']) in (0, 900)
    with pytest.raises(ValueError, match=r'more than 1,\d\d\d entries; refused'):
      tfrecord.example(wrap(number)(entry * 1300))
  with pytest.raises(ValueError, match='entries; refused'):  # of features
    tfrecord.example(tfrecord_bytes.example({str(i): [1.0] for i in range(300)}))


def test_lists_of_floats_are_read_packed_or_not(monkeypatch):
  """A whole map one by one is no absurd list."""
  monkeypatch.setattr(tfrecord, 'MAX_ENTRIES', 10)
  values = np.random.default_rng(0).normal(size=9000).astype('<f4')
  single = b''.join(b'\x0d' + v.tobytes() for v in values)
  packed = tfrecord_bytes.field(1, values.tobytes())
  for data in (single, packed, packed + b'\x12\0', b'\x0d' + values[:1].tobytes()
               + tfrecord_bytes.field(1, values[1:].tobytes())):
    payload = tfrecord_bytes.field(1, tfrecord_bytes.field(
        1, tfrecord_bytes.field(1, b'x') + tfrecord_bytes.field(2, tfrecord_bytes.field(2, data))))
    np.testing.assert_array_equal(tfrecord.example(payload)['x'], values)


@pytest.mark.parametrize('begin, line', [
    (b'# gfz', b''), (b'# gfz', b'#'), (_CSV.strip(), b''), (b'DATATYPE CssiSpaceWeather', b''),
    (b'DATATYPE CssiSpaceWeather', b'#'),
    (b'DATATYPE CssiSpaceWeather', b'NUM_OBSERVED_POINTS 1')])
def test_lines_without_end_are_refused(tmp_path, monkeypatch, begin, line):
  monkeypatch.setattr(index_files, '_MAX_LINES', 500)
  path = tmp_path / 'sw.txt.gz'
  path.write_bytes(gzip.compress(begin + b'\n' + (line + b'\n') * 600))
  with pytest.raises(StoreError, match=r'sw\.txt\.gz:501: more than 500 lines; refused'):
    index_files.read(path, 'observed')


def test_blank_lines_of_omni_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(omni, '_MAX_HOURS', 100)
  (tmp_path / 'omni2_2012.dat').write_bytes(b'\n' * 300)
  with pytest.raises(StoreError, match=r'omni2_2012\.dat:201: more than 200 lines; refused'):
    omni.read([tmp_path / 'omni2_2012.dat'])


def test_promises_of_unknown_blocks_are_refused(tmp_path):
  path = tmp_path / 'sw.txt'
  path.write_bytes(b'DATATYPE CssiSpaceWeather\nNUM_1_POINTS 3\n')
  with pytest.raises(StoreError, match=r"sw\.txt:2: unknown block '1'"):
    index_files.read(path, 'observed')


def test_weights_damaged_in_their_middle_are_one_line(tmp_path):
  """Their headers are whole: what is wrong shows when an array is read."""
  path = tmp_path / 'a.npz'
  np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 50, 20_000).astype(np.int32))
  data = path.read_bytes()
  for at in range(len(data) // 4, len(data), 500):
    path.write_bytes(data[:at] + b'\xff' * 40 + data[at + 40:])
    try:
      _read_npz(path)
    except samples.Unreadable as error:
      if 'Error -3' in str(error):  # of zlib
        break
  for reading in (lpips.load, lambda p: pretrained.insert({'params': {'image_encoder': {'x': 1}}},
                                                          {'image': p})):
    with pytest.raises(ValueError, match=r'a\.npz: not an \.npz') as error:
      reading(path)
    assert '\n' not in str(error.value)
