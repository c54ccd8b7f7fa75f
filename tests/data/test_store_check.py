"""What a store says of itself: refused when it is opened, by file and field, or true."""

import json
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from stp_jax.data import clip_store, clip_writer, pipeline
from stp_jax.data.clip_store import ClipStore, Forcing, StoreError, Stream
from stp_jax.data.clip_writer import StoreWriter
from stp_jax.data.spec import DataSpec
from tests import stores

pytestmark = pytest.mark.xdist_group('store_check')
_quick = hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True,
                             suppress_health_check=list(hypothesis.HealthCheck))
_SETUP = dict(name='s', streams={'frames': Stream((2, 3, 1), 'uint16')}, cadence_hours=2.0,
              recipe={'a': 1}, forcings=(Forcing('kp'),))
_SPLITS = ('train', 'validation', 'test')


def _write(path, clips=6):
  """A store of shards of two clips each; clip i has 3 + i frames, all of them different."""
  rng = np.random.default_rng(0)
  with pytest.MonkeyPatch.context() as patch, StoreWriter(path, **_SETUP) as writer:
    patch.setattr(clip_writer, '_SHARD_BYTES', 4100)
    for i in range(clips):
      frames = rng.integers(0, 9000, (3 + i, 2, 3, 1)).astype(np.uint16)
      forcings = rng.random((3 + i, 1)).astype(np.float32)
      if not writer.has(f'c{i}'):
        writer.add(f'c{i}', {'frames': frames}, split=_SPLITS[i % 3], source=f'f{i}',
                   time=f'2012-01-0{i + 1}T00:00', forcings=forcings)
    return writer.finish()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  store = _write(tmp_path_factory.mktemp('whole') / 's')
  assert [c.shard for c in store.clips] == [0, 0, 1, 1, 2, 2]
  return store


@pytest.fixture(scope='module')
def copied(whole, tmp_path_factory):
  """Copies the store, with rows of clips.json or meta.json changed."""
  path = tmp_path_factory.mktemp('copied') / 's'

  def copy(name, change):
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole.path, path)
    tree = json.loads((path / name).read_text())
    change(tree)
    (path / name).write_text(json.dumps(tree))
    return path

  return copy


_NUMBERS = st.one_of(st.integers(-60, 60), st.sampled_from(
    [10**8, 10**9, 10**12, 2**62, -2**62, 2**63 - 1, -2**63, 2**63]))


@_quick
@hypothesis.given(st.lists(st.tuples(
    st.integers(0, 5), st.sampled_from(['start', 'length', 'offset', 'shard']), _NUMBERS),
    min_size=1, max_size=3))
def test_no_clip_reads_what_is_not_its_own(whole, copied, changes):
  """Whatever clips.json says: each frame and row belongs to one clip at most."""
  def change(rows):
    for clip, field, value in changes:
      rows[clip][field] = value
  path = copied('clips.json', change)
  try:
    store = ClipStore(path)
  except StoreError as error:
    assert str(error).startswith(f'{path}/clips.json: ') and '\n' not in str(error)
    assert 'prepare the store again' in str(error)
    return
  owners, frames = {}, []
  try:
    assert len(store.windows(_SPLITS, 1)) <= 33
    for i, clip in enumerate(store.clips):
      assert clip.length >= 1 and 0 <= clip.start <= 33 - clip.length
      for k in range(clip.length):
        assert owners.setdefault(clip.start + k, i) == i
      frames.extend(f.tobytes() for f in store.frames(i))
      assert len(store.frames(i)) == clip.length
  except StoreError as error:  # a shard without these frames
    assert 'prepare the store again' in str(error)
    return
  assert len(set(frames)) == len(frames)


@pytest.mark.parametrize('clip, change', [
    (0, dict(offset=-4, length=4)), (1, dict(start=-3)), (2, dict(start=10**9)),
    (3, dict(offset=10**9)), (4, dict(length=10**8)), (4, dict(length=10**12)),
    (5, dict(length=-5)), (5, dict(length=0)), (1, dict(shard=-1)), (0, dict(shard=1)),
    (1, dict(offset=4)), (0, dict(length=4)), (3, dict(time='yesterday')),
    (3, dict(time='today')), (3, dict(time='2012-02-31')), (3, dict(time='20120101')),
    (3, dict(time='2012-01-01T00:00Z')), (3, dict(split=7))])
def test_a_clip_elsewhere_is_named(copied, clip, change):
  path = copied('clips.json', lambda rows: rows[clip].update(change))
  blamed = r'split 7' if 'split' in change else rf'clip [{clip}{min(clip + 1, 5)}]\b'
  with pytest.raises(StoreError, match=rf'clips\.json: .*{blamed}.*prepare the store again$'):
    ClipStore(path)


@pytest.mark.parametrize('field, by', [
    ('start', -3), ('start', 3), ('shard', -1), ('offset', -3), ('offset', 3)])
def test_clips_that_agree_on_what_is_not_there_are_refused(tmp_path, field, by):
  path = stores.make(tmp_path / 's', days=(1, 1, 1)).path
  rows = [dict(r, **{field: r[field] + by}) for r in json.loads((path / 'clips.json').read_text())]
  (path / 'clips.json').write_text(json.dumps(rows))
  with pytest.raises(StoreError, match=r"clips\.json: .*clip [02] .*inside the store's 36 frames"):
    ClipStore(path)


def test_a_store_without_clips_is_refused(copied):
  with pytest.raises(StoreError, match=r'clips\.json: .*no clip'):
    ClipStore(copied('clips.json', lambda rows: rows.clear()))


def test_clips_taken_out_by_hand_leave_a_store(copied, whole):
  path = copied('clips.json', lambda rows: (rows.pop(2), rows.reverse()))
  store = ClipStore(path)
  assert [c.source for c in store.clips] == ['f5', 'f4', 'f3', 'f1', 'f0']
  np.testing.assert_array_equal(store.frames(2), whole.frames(3))


_NAN = float('nan')
_ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.floats(), st.text(max_size=3),
    st.sampled_from([10**15, 10**400, -2, '0.1', '2', [], [1], {}, {'a': 1}, [0] * 99, ['x']]))
_FIELDS = [
    'name', 'description', 'licence', 'cadence_hours', 'frames', 'streams', 'streams frames',
    *(f'streams frames {k}' for k in ('shape', 'dtype', 'units', 'scale', 'offset', 'missing')),
    'forcings', 'forcings 0', 'forcings 0 name', 'forcings 0 known_ahead', 'normalisation',
    *(f'normalisation {k}' for k in ('divisor', 'shift', 'maximum')), 'grid', 'recipe', 'checksum',
    *(f'grid {k}' for k in ('latitude', 'longitude', 'rows'))]


def _set(tree, field, value):
  *parents, last = [int(k) if k.isdigit() else k for k in field.split()]
  for key in parents:
    tree = tree[key]
  tree[last] = value


@_quick
@hypothesis.given(st.sampled_from(_FIELDS), _ANY)
def test_meta_is_refused_or_serves_a_run(copied, field, value):
  path = copied('meta.json', lambda meta: _set(meta, field, value))
  try:
    store = ClipStore(path)
    spec = _spec(store)
    assert np.isfinite(spec.row_weights).all() and spec.frames_per_day >= 1
    clip_store.assert_disjoint([store], ['train'])
    [source] = pipeline.sources([store], spec, ['train'], 2)
    value = store.physical(source[0]['frames'])
    with np.errstate(over='ignore'):
      assert ((value - spec.shift) / spec.divisor).shape == (2, 2, 3, 1)
  except StoreError as error:
    assert str(path) in str(error) and '\n' not in str(error)


def _spec(store):
  stream, scaling = store.streams['frames'], store.meta['normalisation']
  return DataSpec(
      name=store.name, shape=stream.shape, divisor=scaling.get('divisor', 1.0),
      shift=scaling.get('shift', 0.0), cadence_hours=store.cadence_hours, grid=store.meta['grid'],
      columns=tuple(f.name for f in store.forcings))


@pytest.mark.parametrize('field, value', [
    ('cadence_hours', 0), ('cadence_hours', '2'), ('cadence_hours', []), ('cadence_hours', _NAN),
    ('cadence_hours', -2), ('frames', 10**15), ('frames', -1), ('frames', None), ('frames', 2.5),
    ('normalisation', 'x'), ('normalisation divisor', 0), ('normalisation divisor', _NAN),
    ('normalisation maximum', '9'), ('streams frames scale', '0.1'),
    ('streams frames scale', _NAN), ('streams frames missing', 'x'), ('streams frames offset', [1]),
    ('streams frames shape', [2, 3]), ('streams frames dtype', 'O'), ('grid', [1]),
    ('grid latitude', 'abc'), ('grid latitude', [0] * 9), ('grid rows', 3), ('forcings 0', 'kp')])
def test_a_field_that_is_wrong_is_named(copied, field, value):
  path = copied('meta.json', lambda meta: _set(meta, field, value))
  name = field.replace('streams', 'stream')
  with pytest.raises(StoreError, match=rf'meta\.json: .*{name} is .*prepare the store again$'):
    ClipStore(path)


@pytest.mark.parametrize('field', ['frames', 'grid', 'normalisation', 'cadence_hours', 'licence'])
def test_a_field_that_is_absent_is_named(copied, field):
  with pytest.raises(StoreError, match=rf'meta\.json: .*{field} is (missing|None)'):
    ClipStore(copied('meta.json', lambda meta: meta.pop(field)))


@pytest.mark.parametrize('change', [
    lambda a: a[:, 0], lambda a: a[:, :0], lambda a: a[:20], lambda a: a.astype('S4'),
    lambda a: a.astype('M8[s]')])
@pytest.mark.parametrize('name', ['forcings', 'forcings_known'])
def test_forcings_of_another_shape_are_named(copied, name, change):
  path = copied('meta.json', lambda meta: None)
  np.save(path / f'{name}.npy', change(np.load(path / f'{name}.npy')))
  store = ClipStore(path)
  for reading in (lambda: store.column('forcings'),
                  lambda: pipeline.sources([store], DataSpec('s', (2, 3, 1)), ['train'], 2)):
    with pytest.raises(StoreError, match=rf'{path}.* {name}\.npy holds .*prepare the store again'):
      reading()


def test_a_shard_that_ends_early_is_named(copied):
  path = copied('meta.json', lambda meta: None)
  for name, kept in (('frames-00001.npy', -2), ('frames-00002.npy', 3)):
    np.save(path / name, np.load(path / name)[:kept])
  store = ClipStore(path)
  assert len(store.frames(2)) == 5
  with pytest.raises(StoreError, match=r'frames-00001\.npy: ends before clip 3; prepare the store'):
    store.frames(3)
  with pytest.raises(StoreError, match=r'frames-00002\.npy has .* clip 5 .*prepare the store'):
    store.windows(['train'], 2)


def test_a_header_longer_than_numpy_reads_is_one_line(copied):
  path = copied('meta.json', lambda meta: None)
  header = b"{'descr': '<u2', 'fortran_order': False, 'shape': (9,)}".ljust(20_000) + b'\n'
  (path / 'frames-00000.npy').write_bytes(b'\x93NUMPY\x02\x00!N\x00\x00' + header)
  with pytest.raises(StoreError, match=r'frames-00000\.npy: .*; prepare the store') as error:
    ClipStore(path).frames(0)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('start, length', [(-1, 2), (2, 2), (4, None), (0, 4), (0, -1)])
def test_frames_outside_a_clip_are_another_clips(whole, start, length):
  with pytest.raises(StoreError, match='of clip 0, which has 3'):
    whole.frames(0, start, length)


@pytest.mark.parametrize('more, message', [
    (dict(cadence_hours=0), 'cadence_hours is 0'),
    (dict(normalisation=dict(divisor=0.0)), 'normalisation divisor is 0'),
    (dict(grid=dict(latitude=[_NAN])), 'grid latitude')])
def test_a_store_that_none_could_open_is_not_begun(tmp_path, more, message):
  with pytest.raises(StoreError, match=message):
    StoreWriter(tmp_path / 's', **(_SETUP | more))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('frames, time, message', [
    (0, None, 'without frames'), (2, 'now', "'now'")])
def test_a_clip_that_none_could_read_is_not_added(tmp_path, frames, time, message):
  writer = StoreWriter(tmp_path / 's', **_SETUP)
  with pytest.raises(StoreError, match=f'a.gif: .*{message}'):
    writer.add('a', {'frames': np.zeros((frames, 2, 3, 1), np.uint16)}, split='train',
               source='a.gif', time=time)


def _begun(path):
  """A partial store of three shards, whose process died before it could finish."""
  with pytest.MonkeyPatch.context() as patch:
    def die(self, *_):
      self._flush()
      raise KeyboardInterrupt
    patch.setattr(StoreWriter, 'finish', die)
    with pytest.raises(KeyboardInterrupt):
      _write(path)
  return path.with_name(path.name + '.partial')


def _bytes(path):
  return {p.name: p.read_bytes() for p in sorted(path.iterdir())}


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
  return _begun(tmp_path_factory.mktemp('begun') / 's')


@hypothesis.settings(_quick, max_examples=40)
@hypothesis.given(st.data())
def test_a_damaged_partial_store_is_cured_by_a_rerun(whole, begun, tmp_path_factory, data):
  """Any byte changed, any file cut, gone or NULs: what comes out is what no kill would give."""
  folder = tmp_path_factory.getbasetemp() / 'cured'
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(begun, folder / 's.partial')
  for name in data.draw(st.lists(st.sampled_from(sorted(_bytes(begun))), min_size=1, max_size=2)):
    file = folder / 's.partial' / name
    content = bytearray(file.read_bytes() if file.exists() else b'') or bytearray(1)
    at = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(['flip', 'cut', 'gone', 'nul', 'more']))
    if kind == 'gone':
      file.unlink(missing_ok=True)
      continue
    if kind == 'flip':
      content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == 'nul':
      content[at:at + 50] = bytes(len(content[at:at + 50]))
    elif kind == 'cut':
      del content[at:]
    else:
      content += bytes(50) + b'\n'
    file.write_bytes(content)
  assert _bytes(_write(folder / 's').path) == _bytes(whole.path)


@pytest.mark.parametrize('name, kept', [
    ('frames-00000.npy', 0), ('frames-00001.npy', 2), ('forcings_delay-00002.npy', 4)])
def test_shards_before_the_damage_are_kept(begun, tmp_path, name, kept):
  shutil.copytree(begun, tmp_path / 's.partial')
  file = tmp_path / 's.partial' / name
  data = bytearray(file.read_bytes())
  data[-1] ^= 1
  file.write_bytes(data)
  writer = StoreWriter(tmp_path / 's', **_SETUP)
  assert [writer.has(f'c{i}') for i in range(6)] == [i < kept for i in range(6)]
  assert writer.clips == kept
  assert len(list((tmp_path / 's.partial').glob('frames-*'))) == kept // 2


@pytest.mark.parametrize('change', [
    lambda text: text.replace('"train"', '"trbin"'), lambda text: text.replace('T00:00', 'T01:00'),
    lambda text: text[:-9], lambda text: ''.join(text.splitlines(True)[:3])[:-1]],
    ids=['split', 'time', 'cut', 'end of line'])
def test_a_journal_that_reads_well_and_is_wrong(whole, begun, tmp_path, change):
  shutil.copytree(begun, tmp_path / 's.partial')
  file = tmp_path / 's.partial' / 'journal.jsonl'
  file.write_text(change(file.read_text()))
  assert _bytes(_write(tmp_path / 's').path) == _bytes(whole.path)


def test_a_journal_without_checksums_is_taken_over(begun, tmp_path):
  """A partial store that an older version began."""
  shutil.copytree(begun, tmp_path / 's.partial')
  file = tmp_path / 's.partial' / 'journal.jsonl'
  lines = [json.loads(line) for line in file.read_text().splitlines()]
  assert all(line.pop('crc') for line in lines)
  file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  assert StoreWriter(tmp_path / 's', **_SETUP).clips == 6


def test_a_damaged_store_names_the_folder_to_delete(tmp_path):
  path = stores.make(tmp_path / 's', days=(1,), splits=('train',)).path
  (path / 'clips.json').write_text('[')
  with pytest.raises(StoreError, match=f'prepare the store again: delete {path} first'):
    stores.make(path, days=(1,), splits=('train',))
