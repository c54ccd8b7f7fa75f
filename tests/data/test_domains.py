"""Stores of different type, scale, size and channels as the domains of one run."""

import json
import pathlib
import subprocess
import sys

import grain
import ml_collections
import numpy as np
import pytest

from stp_jax.data import clip_table, domains, resize
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.clip_writer import StoreWriter
from tests import stores

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _store(path, stream, *, clips=6, length=5, splits=('train',), norm=(), grid=(), seed=0):
  rng = np.random.default_rng(seed)
  writer = StoreWriter(path, name=path.name, streams={'frames': stream}, cadence_hours=1.0,
                       recipe=dict(seed=seed), normalisation=dict(norm), grid=dict(grid),
                       licence=f'of {path.name}')
  for i in range(clips):
    high = np.iinfo(stream.dtype).max if stream.dtype != 'float32' else 9
    frames = rng.integers(0, high, (length, *stream.shape)).astype(stream.dtype)
    if stream.missing is not None:
      frames[0, 0, 0] = stream.missing
    writer.add(str(i), {'frames': frames}, split=splits[i % len(splits)], source=f'c{i}')
  return writer.finish()


_GREY = Stream((8, 10, 1), 'uint8', '1', 1 / 255)
_COLOUR = Stream((8, 10, 3), 'uint8', '1', 1 / 255)
_RAIN = Stream((6, 6, 1), 'uint16', 'mm', 0.01, missing=65535)


@pytest.fixture
def text(tmp_path):
  _store(tmp_path / 'grey', _GREY, seed=1)
  _store(tmp_path / 'colour', _COLOUR, clips=3, seed=2)
  _store(tmp_path / 'rain', _RAIN, clips=2, norm=dict(divisor=5.0, maximum=5.0), seed=3)
  stores.make(tmp_path / 'tec', days=(1, 1), splits=('train', 'test'), size=12)
  return '+'.join(f'{n}:{tmp_path / n}' for n in ('grey', 'colour', 'rain', 'tec'))


def _model(item, spec):
  """The model's values, as a task computes them; NaN where there is none."""
  value = item['frames'].astype(np.float64) * item['scale'] + item['offset']
  return np.where(item['frames'] == item['missing'], np.nan, np.minimum(value, spec.maximum))


def test_everything_mixes_in_one_batch(text):
  named = domains.open_domains(text)
  spec = domains.data_spec(named, size=(8, 10))
  assert spec.shape == (8, 10, 3) and spec.dtype == 'uint16' and spec.divisor == 1
  assert spec == type(spec).from_json(json.loads(json.dumps(spec.to_json())))
  found = domains.sources(named, spec, ['train'], 4)
  items = [s[0] for s in found]
  assert [int(i['domain']) for i in items] == [0, 1, 2, 3]
  assert {(i['frames'].shape, i['frames'].dtype.name) for i in items} == {
      ((4, 8, 10, 3), 'uint16')}
  grey, colour, rain, tec = (s for _, s in named)
  repeat = lambda x: np.repeat(x, 3, -1)
  np.testing.assert_allclose(_model(items[0], spec), repeat(grey.frames(0, 0, 4) / 255), rtol=1e-6)
  np.testing.assert_allclose(_model(items[1], spec), colour.frames(0, 0, 4) / 255, rtol=1e-6)
  raw = resize.frames(rain.frames(0, 0, 4), (8, 10), 65535)
  expected = np.where(raw == 65535, np.nan, np.minimum(raw * 0.01, 5) / 5)
  np.testing.assert_allclose(_model(items[2], spec), repeat(expected), rtol=1e-6)
  assert np.isnan(expected).any()
  # The padding row of the maps takes no part.
  raw = resize.frames(tec.frames(0, 0, 4)[:, :11], (8, 10), 65535)
  np.testing.assert_allclose(_model(items[3], spec), repeat(raw * 0.1 / 200), rtol=1e-6)
  assert str(found[3].times(1)[0]) == '2012-01-01T02:00' and found[0].times(0) is None
  np.testing.assert_array_equal(found[0].only(3)[0]['frames'], found[0][3]['frames'])


def test_mixing_weights(text):
  named = domains.open_domains(text)[:2]
  spec = domains.data_spec(named)
  found = domains.sources(named, spec, ['train'], 5)
  assert domains.weights(found) == pytest.approx([2 / 3, 1 / 3])
  assert domains.weights(found, 'balanced') == [0.5, 0.5]
  assert domains.weights(found, (3, 1)) == [0.75, 0.25]
  parts = [grain.MapDataset.source(s).seed(0).shuffle().repeat() for s in found]
  for mixing, share in (('proportional', 1 / 3), ('balanced', 1 / 2)):
    mixed = grain.MapDataset.mix(parts, domains.weights(found, mixing))
    assert np.mean([mixed[i]['domain'] for i in range(60)]) == pytest.approx(share, abs=0.02)
  with pytest.raises(ValueError, match='proportional, balanced, or a number'):
    domains.weights(found, 'even')
  with pytest.raises(ValueError, match='2 numbers'):
    domains.weights(found, (1, 2, 3))


def test_colour_becomes_grey_and_bytes_stay_bytes(text):
  named = domains.open_domains(text)[:2]
  spec = domains.data_spec(named, channels=1)
  assert spec.dtype == 'uint8' and spec.shape == (8, 10, 1)
  grey, colour = (s[0]['frames'] for s in domains.sources(named, spec, ['train'], 3))
  np.testing.assert_array_equal(grey, named[0][1].frames(0, 0, 3))
  expected = named[1][1].frames(0, 0, 3) @ np.array([.299, .587, .114])
  assert abs(colour[..., 0] - expected).max() <= 0.501


def test_a_maximum_below_the_divisor_holds(tmp_path):
  store = _store(tmp_path / 's', _RAIN, norm=dict(divisor=10.0, maximum=4.0))
  named = [('s', store)]
  item = domains.sources(named, spec := domains.data_spec(named), ['train'], 2)[0][0]
  value = _model(item, spec)
  assert np.nanmax(value) == pytest.approx(0.4) and np.isnan(value[0, 0, 0]).all()


def test_stores_are_named_by_their_folder(text, tmp_path):
  assert [n for n, _ in domains.parse(str(tmp_path))] == ['colour', 'grey', 'rain', 'tec']
  assert [n for n, _ in domains.parse(f'{tmp_path / "rain"}+x:{tmp_path / "tec"}')] == [
      'rain', 'x']


@pytest.mark.parametrize('change, message', [
    (lambda t: t.replace('grey:', 'rain:'), r"'rain' is empty or stands twice"),
    (lambda t: '', 'name at least one'),
    (lambda t: t + '+kth:nowhere', r'domain kth: nowhere: no clip store'),
    (lambda t: 'nowhere', r'nowhere: neither a clip store nor a folder')])
def test_names_that_cannot_be_opened(text, change, message):
  with pytest.raises(ValueError, match=message):
    domains.open_domains(change(text))


def test_domains_that_do_not_go_together(text, tmp_path):
  named = domains.open_domains(text)
  with pytest.raises(StoreError, match=r'rain has frames of 6x6, domain grey at \S+ of 8x10'):
    domains.data_spec(named)
  spec = domains.data_spec(named, size=(8, 8))
  with pytest.raises(StoreError, match=r'domain grey: \S+ has no window of 5 frames in test: it '
                                       r'has the splits train; tec has some'):
    domains.sources(named, spec, ['test'], 5)
  some = domains.sources(named, spec, ['test'], 5, every=False)
  assert [s.domain.name for s in some] == ['tec']
  with pytest.raises(StoreError, match=r'no window of 9 frames in train: its longest clip there'):
    domains.sources(named[:1], spec, ['train'], 9, every=False)
  flow = _store(tmp_path / 'flow', Stream((8, 10, 2), 'uint8', '1', 1 / 255))
  with pytest.raises(StoreError, match=r'domain colour has 3 channels, 2 are wanted|domain flow'):
    domains.data_spec([*named[:2], ('flow', flow)])
  heat = _store(tmp_path / 'heat', Stream((8, 10, 1), 'float32', 'K'))
  with pytest.raises(StoreError, match=r'domain heat: \S+ holds float32 frames'):
    domains.data_spec([('heat', heat)])
  wild = _store(tmp_path / 'wild', Stream((8, 10, 1), 'uint16', 'mm', 0.01))
  with pytest.raises(StoreError, match=r'domain wild: \S+ reaches 655\.35 mm and states no norm'):
    domains.data_spec([('wild', wild)])


def test_stores_have_names_of_their_own(tmp_path):
  made = [stores.make(tmp_path / p, days=(1, 1, 1)) for p in ('a/x', 'b/x', 'y')]
  data = lambda *names: ml_collections.ConfigDict(dict(domains=names))
  assert list(domains.named(data('one', 'two'), made[1:])) == ['one', 'two']
  assert list(domains.named(data(), made[1:])) == ['x', 'y']
  assert list(domains.named(data(), made[:1])) == ['frames']
  with pytest.raises(ValueError, match='two stores are called x'):
    domains.named(data(), made)


def test_leaks_are_looked_for_inside_a_domain(tmp_path):
  one = stores.make(tmp_path / 'a', days=(2,), splits=('train',))
  other = stores.make(tmp_path / 'b', days=(2,), splits=('test',))  # the same days, another thing
  domains.assert_disjoint([('a', one), ('b', other)], ['train'])
  writer = StoreWriter(tmp_path / 'c', name='c', streams={'frames': _GREY}, cadence_hours=1.0,
                       recipe={})
  for i, split in enumerate(('train', 'test')):
    writer.add(str(i), {'frames': np.zeros((3, 8, 10, 1), np.uint8)}, split=split, source='film')
  with pytest.raises(StoreError, match='domain c: leak'):
    domains.assert_disjoint([('c', writer.finish())], ['train'])


def test_the_clip_table_is_a_list_of_clips(tmp_path):
  rows = [dict(start=5 * i, length=5 + i, split='ab'[i % 2], source=f'söurce {i}', shard=i,
               time=None if i else '2012-01-01', offset=2) for i in range(4)]
  for name, text in (('lines', None), ('block', json.dumps(rows, indent=1))):
    path = tmp_path / name
    if text is None:
      with path.open('w') as file:
        clip_table.write(file, rows)
    else:
      path.write_text(text)
    clips = clip_table.read(path)
    assert list(clips) == [clip_table.Clip(**r) for r in rows] and len(clips) == 4
    assert clips[-1] == clips[3] and clips[1:3] == [clips[1], clips[2]]
    assert clips.index(clips[2]) == 2 and clips.by_split() == {'a': 2, 'b': 2}
    with pytest.raises(IndexError):
      clips[4]
    assert clips.windows(['b'], 6, 2).tolist() == [[1, 0], [3, 0], [3, 2]]
  assert len(clip_table.read(tmp_path / 'block').windows([], 2, 1)) == 0


def test_no_more_shards_are_open_than_files_may_be(tmp_path, monkeypatch):
  monkeypatch.setattr('stp_jax.data.clip_writer._SHARD_BYTES', 1)
  monkeypatch.setattr('stp_jax.data.clip_store._OPEN_SHARDS', 2)
  store = _store(tmp_path / 's', _GREY, clips=5)
  first = np.array(store.frames(0))
  for i in (0, 3, 1, 4, 2, 0):
    store.frames(i)
  assert len(store._maps) == 2
  np.testing.assert_array_equal(store.frames(0), first)
  assert ClipStore(tmp_path / 's').__getstate__()['_maps'] == {}


@pytest.mark.soak
def test_memory_stays_flat_over_200000_clips(tmp_path):
  done = subprocess.run([sys.executable, '-m', 'tests.data.soak_domains', str(tmp_path)], cwd=_ROOT,
                        capture_output=True, text=True, check=True)
  print(done.stdout)
  grown = json.loads(done.stdout)
  assert grown['windows read'] == 200_000
  # Writing holds one shard of 64 MiB (twice: as it is joined, as it is read back).
  assert grown['writing'] < 250 and grown['opening'] < 100
  assert grown['reading the first tenth'] < 100 + grown['frames on disk']
  assert grown['reading the rest'] < 20 + grown['frames on disk']
  assert grown['reading the rest, without mapped files'] < 10
