"""The clip store: round trip, resume after a kill, damage, leaks."""

import json

import numpy as np
import pytest

from stp_jax.data import clip_store, clip_writer
from stp_jax.data.clip_store import ClipStore, Forcing, StoreError, Stream
from stp_jax.data.clip_writer import StoreWriter
from tests import stores

_SMALL = dict(name='s', streams={'frames': Stream((4, 5, 1), 'uint16')}, cadence_hours=2.0,
              recipe={'a': 1}, forcings=(Forcing('month', known_ahead=True), Forcing('kp')))


def _clip(seed, length=7):
  rng = np.random.default_rng(seed)
  return ({'frames': rng.integers(0, 9000, (length, 4, 5, 1)).astype(np.uint16)},
          rng.random((length, 2)).astype(np.float32))


def _add(writer, i, split='train', **kwargs):
  frames, forcings = _clip(i)
  writer.add(f'c{i}', frames, split=split, source=f'f{i}', time=f'2012-01-{i + 1:02d}T00:00',
             forcings=forcings, **kwargs)


def test_round_trip(tmp_path):
  writer = StoreWriter(tmp_path / 's', **_SMALL)
  for i in range(3):
    _add(writer, i, known=_clip(i)[1] + 1, delay=_clip(i)[1] + 2)
  store = writer.finish(card={'clips': 3})
  for i in range(3):
    frames, forcings = _clip(i)
    np.testing.assert_array_equal(store.frames(i), frames['frames'])
    rows = slice(store.clips[i].start, store.clips[i].start + 7)
    np.testing.assert_array_equal(store.column('forcings')[rows], forcings)
    # A calendar value is known ahead: its known value is its value, without delay.
    np.testing.assert_array_equal(store.column('forcings_known')[rows][:, 0], forcings[:, 0])
    np.testing.assert_array_equal(store.column('forcings_delay')[rows][:, 0], 0)
    np.testing.assert_array_equal(store.column('forcings_known')[rows][:, 1], forcings[:, 1] + 1)
  assert store.meta['card'] == {'clips': 3}
  assert str(store.clips[2].times(2.0)[3]) == '2012-01-03T06:00'
  clip_store.verify(tmp_path / 's')
  assert not list(tmp_path.glob('*.partial'))


def test_a_killed_writer_continues_behind_its_last_shard(tmp_path, monkeypatch):
  monkeypatch.setattr(clip_writer, '_SHARD_BYTES', 1)
  first = StoreWriter(tmp_path / 's', **_SMALL)
  _add(first, 0)
  _add(first, 1)  # then the process dies: no finish
  again = StoreWriter(tmp_path / 's', **_SMALL)
  assert [again.has(f'c{i}') for i in range(3)] == [True, True, False]
  _add(again, 2)
  store = again.finish()
  whole = StoreWriter(tmp_path / 'w', **_SMALL)
  for i in range(3):
    _add(whole, i)
  for a, b in zip(store.clips, whole.finish().clips):
    assert a == b
  for i in range(3):
    np.testing.assert_array_equal(store.frames(i), _clip(i)[0]['frames'])
  assert StoreWriter(tmp_path / 's', **_SMALL).complete


def test_another_recipe_starts_over_and_never_overwrites(tmp_path, monkeypatch):
  monkeypatch.setattr(clip_writer, '_SHARD_BYTES', 1)
  _add(StoreWriter(tmp_path / 's', **_SMALL), 0)
  other = StoreWriter(tmp_path / 's', **(_SMALL | {'recipe': {'a': 2}}))
  assert not other.has('c0')
  _add(other, 1)
  other.finish()
  with pytest.raises(StoreError, match='other inputs or options'):
    StoreWriter(tmp_path / 's', **_SMALL)


def test_an_error_before_the_first_shard_leaves_nothing(tmp_path):
  with pytest.raises(StoreError, match='nothing to store'):
    with StoreWriter(tmp_path / 's', **_SMALL) as writer:
      writer.finish()
  assert not list(tmp_path.iterdir())


def test_full_disk_leaves_no_store_and_a_rerun_works(tmp_path, monkeypatch):
  def full(path, array):
    raise OSError(28, 'No space left on device', str(path))
  with monkeypatch.context() as patch:
    patch.setattr(clip_writer, '_write_npy', full)
    with pytest.raises(OSError, match='No space left'), StoreWriter(tmp_path / 's', **_SMALL) as w:
      _add(w, 0)
      w.finish()
  assert not (tmp_path / 's').exists()
  writer = StoreWriter(tmp_path / 's', **_SMALL)
  _add(writer, 0)
  assert len(writer.finish().clips) == 1


@pytest.mark.parametrize('change, message', [
    (lambda m: m.update(version=99), 'store version 99'),
    (lambda m: m.pop('version'), 'unreadable')])
def test_foreign_meta_is_refused(tmp_path, change, message):
  path = stores.make(tmp_path / 's', days=(1,), splits=('train',)).path
  meta = json.loads((path / 'meta.json').read_text())
  change(meta)
  (path / 'meta.json').write_text(json.dumps(meta))
  with pytest.raises(StoreError, match=message):
    ClipStore(path)


def test_damage_is_found_and_named(tmp_path):
  path = stores.make(tmp_path / 's', days=(1,), splits=('train',)).path
  file = path / 'frames-00000.npy'
  data = bytearray(file.read_bytes())
  data[-1] ^= 1
  file.write_bytes(data)
  with pytest.raises(StoreError, match=r'frames-00000\.npy: damaged'):
    clip_store.verify(path)
  file.write_bytes(data[:200])
  with pytest.raises(StoreError, match=r'frames-00000\.npy'):
    ClipStore(path).frames(0)


def test_wrong_shapes_name_the_source(tmp_path):
  writer = StoreWriter(tmp_path / 's', **_SMALL)
  with pytest.raises(StoreError, match=r'bad\.12i: stream frames is uint16\[3, 9, 5, 1\]'):
    writer.add('x', {'frames': np.zeros((3, 9, 5, 1), np.uint16)}, split='t', source='bad.12i')


def test_windows_stay_inside_clips(tmp_path):
  store = stores.make(tmp_path / 's', days=(2, 1), splits=('train', 'test'))
  windows = store.windows(['train'], 10, 3)
  assert windows.tolist() == [[0, s] for s in range(0, 15, 3)]
  assert len(store.windows(['train', 'test'], 13)) == 12
  assert len(store.windows(['nothing'], 2)) == 0


def test_leaks_between_splits_are_found(tmp_path):
  train = stores.make(tmp_path / 'a', days=(3,), splits=('train',), start='2012-01-01')
  later = stores.make(tmp_path / 'b', days=(3,), splits=('test',), start='2012-01-04')
  inside = stores.make(tmp_path / 'c', days=(1,), splits=('test',), start='2012-01-03')
  clip_store.assert_disjoint([train, later], ['train'])
  with pytest.raises(StoreError, match=r'leak: .*overlaps in time'):
    clip_store.assert_disjoint([train, inside], ['train'])
