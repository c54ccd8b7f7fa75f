"""What is written: nothing that no reader opens, and the same whatever a kill or a disk left."""

import json
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from stp_jax.data.clip_store import StoreError
from stp_jax.data.clip_writer import StoreWriter
from tests import stores
from tests.data.sharded_store import SETUP, write

pytestmark = pytest.mark.xdist_group('store_journal')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  store = write(tmp_path_factory.mktemp('whole') / 's')
  assert [c.shard for c in store.clips] == [0, 0, 1, 1, 2, 2]
  return store


@pytest.mark.parametrize('more, message', [
    (dict(cadence_hours=0), 'cadence_hours is 0'),
    (dict(normalisation=dict(divisor=0.0)), 'normalisation divisor is 0'),
    (dict(grid=dict(latitude=[float('nan')])), 'grid latitude')])
def test_a_store_that_none_could_open_is_not_begun(tmp_path, more, message):
  with pytest.raises(StoreError, match=message):
    StoreWriter(tmp_path / 's', **(SETUP | more))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('frames, time, message', [
    (0, None, 'without frames'), (2, 'now', "'now'")])
def test_a_clip_that_none_could_read_is_not_added(tmp_path, frames, time, message):
  writer = StoreWriter(tmp_path / 's', **SETUP)
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
      write(path)
  return path.with_name(path.name + '.partial')


def _bytes(path):
  return {p.name: p.read_bytes() for p in sorted(path.iterdir())}


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
  return _begun(tmp_path_factory.mktemp('begun') / 's')


@hypothesis.settings(max_examples=40, deadline=None, database=None, derandomize=True,
                     suppress_health_check=list(hypothesis.HealthCheck))
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
  assert _bytes(write(folder / 's').path) == _bytes(whole.path)


@pytest.mark.parametrize('name, kept', [
    ('frames-00000.npy', 0), ('frames-00001.npy', 2), ('forcings_delay-00002.npy', 4)])
def test_shards_before_the_damage_are_kept(begun, tmp_path, name, kept):
  shutil.copytree(begun, tmp_path / 's.partial')
  file = tmp_path / 's.partial' / name
  data = bytearray(file.read_bytes())
  data[-1] ^= 1
  file.write_bytes(data)
  writer = StoreWriter(tmp_path / 's', **SETUP)
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
  assert _bytes(write(tmp_path / 's').path) == _bytes(whole.path)


def test_a_journal_without_checksums_is_taken_over(begun, tmp_path):
  """A partial store that an older version began."""
  shutil.copytree(begun, tmp_path / 's.partial')
  file = tmp_path / 's.partial' / 'journal.jsonl'
  lines = [json.loads(line) for line in file.read_text().splitlines()]
  assert all(line.pop('crc') for line in lines)
  file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  assert StoreWriter(tmp_path / 's', **SETUP).clips == 6


def test_a_damaged_store_names_the_folder_to_delete(tmp_path):
  path = stores.make(tmp_path / 's', days=(1,), splits=('train',)).path
  (path / 'clips.json').write_text('[')
  with pytest.raises(StoreError, match=f'prepare the store again: delete {path} first'):
    stores.make(path, days=(1,), splits=('train',))
