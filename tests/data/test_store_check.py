"""What a store says of itself: refused when it is opened, by file and field, or true."""

import json
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from stp_jax.data import clip_store, pipeline
from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.data.spec import DataSpec
from tests import stores
from tests.data.sharded_store import SPLITS, write

pytestmark = pytest.mark.xdist_group('store_check')
_quick = hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True,
                             suppress_health_check=list(hypothesis.HealthCheck))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  store = write(tmp_path_factory.mktemp('whole') / 's')
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
    assert len(store.windows(SPLITS, 1)) <= 33
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
