"""The iono_electron importer: upstream's values, splits, availability, bad records."""

import pathlib

import numpy as np
import pytest

from stp_jax.data import iono_electron
from stp_jax.data.clip_store import StoreError, assert_disjoint, verify
from tests.data import tfrecord_bytes

_CASE = 'parity/iono_data/tfrecord'
_DIVISORS = np.array(
    [2500, 400, 400, 367, 24, 13, 32, 100, 400, 600, 1200, 70, 50, 140, 80, 100, 15])
_OFFSETS = np.array([0] * 9 + [500] + [0] * 5 + [50, 0])


def _write(folder, name, *sequences):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b''.join(
      tfrecord_bytes.record(tfrecord_bytes.example(s)) for s in sequences))


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / 'in'
  _write(path, 'train/b', tfrecord_bytes.sequence('2001-03-01', 5, 1),
         tfrecord_bytes.sequence('2001-04-01T01:00', 30, 2))
  _write(path, 'train/a.tfrecords', tfrecord_bytes.sequence('2001-01-01', 4, 3))
  _write(path, 'test/x', tfrecord_bytes.sequence('2002-01-01', 6, 4))
  return path


def test_records_become_clips_in_sorted_order(folder, tmp_path):
  store = iono_electron.prepare(in_dir=folder, out=tmp_path / 'store')
  assert [(c.source, c.length, c.split, c.time) for c in store.clips] == [
      ('train/a.tfrecords#0', 4, 'train', '2001-01-01T00:00'),
      ('train/b#0', 5, 'train', '2001-03-01T00:00'),
      ('train/b#1', 30, 'validation', '2001-04-01T01:00'),
      ('test/x#0', 6, 'test', '2002-01-01T00:00')]
  features = tfrecord_bytes.sequence('2001-03-01', 5, 1)
  np.testing.assert_array_equal(
      store.frames(1)[2, :, :, 0].tobytes(), features['2/Map'][0])
  want = np.float32([features[f'2/{n}'][0] for n in tfrecord_bytes.NAMES])
  np.testing.assert_array_equal(store.column('forcings')[4 + 2], want)
  assert store.meta['grid']['rows'] == 71 and store.streams['frames'].missing is None
  assert_disjoint([store], ['train'])
  verify(store.path)


def test_validation_zero_is_upstreams_split(folder, tmp_path):
  store = iono_electron.prepare(in_dir=folder, out=tmp_path / 'store', validation=0)
  assert [c.split for c in store.clips] == ['train', 'train', 'train', 'test']


def test_availability(folder, tmp_path):
  store = iono_electron.prepare(in_dir=folder, out=tmp_path / 'store')
  clip = store.clips[2]  # 30 frames from 01:00
  rows = slice(clip.start, clip.start + clip.length)
  names = [f.name for f in store.forcings]
  values, known, delay = (
      {n: store.column(c)[rows, i] for i, n in enumerate(names)}
      for c in ('forcings', 'forcings_known', 'forcings_delay'))
  assert (delay['dst'] == 1).all() and (delay['hour'] == 0).all()
  np.testing.assert_array_equal(delay['f107'][:13], [23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 23])
  np.testing.assert_array_equal(delay['kp'][:4], [2, 3, 1, 2])  # 1, 3, 5, 7 UT
  np.testing.assert_array_equal(known['dst'][1:], values['dst'][:-1])
  np.testing.assert_array_equal(known['f107'][12:24], np.full(12, values['f107'][11]))
  np.testing.assert_array_equal(known['f107'][:12], np.full(12, values['f107'][0]))
  np.testing.assert_array_equal(known['kp'][[2, 3]], values['kp'][[0, 2]])
  np.testing.assert_array_equal(known['hour'], values['hour'])
  assert store.meta['card']['notes'][0].startswith(f'{4 + 5 + 12 + 6} frames')


def _broken(change):
  features = tfrecord_bytes.sequence('2001-01-01', 3, 1)
  change(features)
  return features


@pytest.mark.parametrize('change, message', [
    (lambda f: f.pop('1/Dst'), '1/Dst has 0 values'),
    (lambda f: f.update({'1/Dst': [1.0, 2.0]}), '1/Dst has 2 values'),
    (lambda f: f.update({'1/Dst': [float('nan')]}), '1/Dst is no finite number'),
    (lambda f: f.update({'1/Dst': [b'x']}), '1/Dst is no finite number'),
    (lambda f: f.pop('2/Map'), '2/Map must be one string of 72 x 72|do not fit'),
    (lambda f: f.update({'0/Map': [b'xy']}), '0/Map must be|do not fit'),
    (lambda f: f.pop('1/Year'), 'has 1/F107 but no 1/Year'),
    (lambda f: f.clear(), '0/Year is missing')])
def test_bad_records_are_named(folder, tmp_path, change, message):
  _write(folder, 'train/b', tfrecord_bytes.sequence('2001-03-01', 5, 1), _broken(change))
  with pytest.raises(StoreError, match=message) as caught:
    iono_electron.prepare(in_dir=folder, out=tmp_path / 'store')
  assert 'train/b record 1: ' in str(caught.value)
  assert [p.name for p in tmp_path.iterdir()] == ['in']


def test_a_record_of_countless_frames_is_refused_before_memory_is_taken(folder, tmp_path):
  _write(folder, 'train/b', {f'{t}/Year': [2000.0] for t in range(3000)})
  with pytest.raises(StoreError, match='3000 frames do not fit'):
    iono_electron.prepare(in_dir=folder, out=tmp_path / 'store')


def test_dates_that_do_not_run_on_give_no_clock(folder, tmp_path):
  odd = tfrecord_bytes.sequence('2001-03-01', 5, 1)
  odd['3/Hour'] = [7.0]
  _write(folder, 'train/b', odd)
  store = iono_electron.prepare(in_dir=folder, out=tmp_path / 'store', validation=0)
  assert [c.time for c in store.clips] == ['2001-01-01T00:00', None, '2002-01-01T00:00']


def test_not_the_folder(tmp_path):
  with pytest.raises(StoreError, match=r'expected in train/ and test/'):
    iono_electron.prepare(in_dir=tmp_path, out=tmp_path / 'store')
  with pytest.raises(ValueError, match='--validation 2'):
    iono_electron.prepare(in_dir=tmp_path, out=tmp_path / 'store', validation=2)


def test_upstreams_samples(realdata, tmp_path):
  """Every number of the golden case, computed from the store by the published formulas."""
  case = pathlib.Path(realdata).parent / _CASE
  if not case.is_dir():
    pytest.skip('../shared/parity/iono_data is not here: golden samples of the upstream data set')
  golden = np.load(case / 'io.npz')
  store = iono_electron.prepare(in_dir=case, out=tmp_path / 'store', validation=0)
  for split in ('train', 'test'):
    windows = store.windows([split], 5)
    assert len(windows) == len(golden[f'output/{split}_data'])
    for (clip, start), want in zip(windows, golden[f'output/{split}_data']):
      frames = store.frames(clip, start, 5)[..., 0].astype(np.float64)
      np.testing.assert_array_equal(want[:, 0], np.float32(np.minimum(frames, 2000) / 2000))
      first = store.clips[clip].start + start
      scalars = store.column('forcings')[first:first + 5].astype(np.float64)
      np.testing.assert_allclose(
          want[:, 3:, 0, 0], (scalars + _OFFSETS) / _DIVISORS, rtol=0, atol=1e-7)
      assert (want[:, 3:] == want[:, 3:, :1, :1]).all()
