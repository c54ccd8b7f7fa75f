"""The pipeline: honest forcings, padding, mixing, a position that can be saved."""

import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax.data import pipeline, train_batches
from stp_jax.data import spec as data_spec
from tests import stores

CONFIG = 'configs/iono_mixer.py:smoke,channels=9'


def _setup(tmp_path, **kwargs):
  store = stores.make(tmp_path / 's', **kwargs)
  config = config_files.load(CONFIG)
  spec = data_spec.make([store], config.data, ['train'])
  return store, config, spec


def test_windows_are_the_stores_frames(tmp_path):
  store, _, spec = _setup(tmp_path)
  source = pipeline.sources([store], spec, ['train'], 10, 2)[0]
  for i in (0, 5, len(source) - 1):
    np.testing.assert_array_equal(source[i]['frames'], store.frames(0, 2 * i, 10))
  assert str(source.times(1)[0]) == '2012-01-01T04:00'


def test_the_flux_of_today_is_not_seen(tmp_path):
  store, config, spec = _setup(tmp_path)
  found = pipeline.sources([store], spec, ['test'], 10)
  batch = next(pipeline.eval_batches(found, spec, config.data, 4))
  flux = spec.columns.index('f107')
  # The first window starts at 0 h: no flux of its day was published before hour 6.
  known = store.column('forcings_known')[store.clips[2].start + 3, flux]
  assert (batch['forcings'][0, :, flux] == known).all()
  assert (batch['observed'][0, :, flux] != known).all()


def test_every_window_once_and_a_padded_tail(tmp_path):
  store, config, spec = _setup(tmp_path)
  found = pipeline.sources([store], spec, ['test'], 10)
  config.data.eval_batch_size = 5
  batches = list(pipeline.eval_batches(found, spec, config.data, 4))
  rows = np.concatenate([b['index'][b['mask'] > 0] for b in batches])
  assert rows.tolist() == list(range(len(found[0])))
  assert {b['frames'].shape[0] for b in batches} == {5}
  few = list(pipeline.eval_batches(found, spec, config.data, 4, limit=3))
  assert sum(b['mask'].sum() for b in few) == 3


def test_the_training_iterator_continues_where_it_stood(tmp_path):
  store, config, spec = _setup(tmp_path)
  found = pipeline.sources([store], spec, ['train'], 10)
  make = lambda: train_batches.train_iterator(found, spec, config.data, 4, seed=3)
  first = make()
  whole = [next(first)['frames'] for _ in range(5)]
  again, later = make(), make()
  for _ in range(2):
    next(again)
  later.seek(again.position)
  for expected in whole[2:]:
    np.testing.assert_array_equal(next(later)['frames'], expected)
  assert not np.array_equal(whole[0], whole[1])


def test_two_stores_are_mixed_by_weight(tmp_path):
  a = stores.make(tmp_path / 'a', seed=1)
  b = stores.make(tmp_path / 'b', seed=2)
  config = config_files.load(CONFIG)
  config.data.weights = (3.0, 1.0)
  spec = data_spec.make([a, b], config.data, ['train'])
  found = pipeline.sources([a, b], spec, ['train'], 10)
  rows = {w['frames'].tobytes() for w in (found[0][i] for i in range(len(found[0])))}
  iterator = train_batches.train_iterator(found, spec, config.data, 4, seed=0)
  frames = np.concatenate([next(iterator)['frames'] for _ in range(40)])
  share = np.mean([f.tobytes() in rows for f in frames])
  assert 0.7 < share < 0.8


def test_errors_name_the_split_and_the_cure(tmp_path):
  store, config, spec = _setup(tmp_path, days=(1, 1, 1))
  with pytest.raises(ValueError, match=r'zero windows of t_in \+ t_out = 50 .*longest clip has 12'):
    pipeline.sources([store], spec, ['test'], 50)
  with pytest.raises(ValueError, match='the stores have the splits test train validation'):
    pipeline.sources([store], spec, ['nothing'], 5)
  config.data.channels = 'tec+dst'
  with pytest.raises(ValueError, match='no file gives dst'):
    data_spec.make([store], config.data, ['train'])
  config.data.missing_drivers = 'fill'
  assert data_spec.make([store], config.data, ['train']).filled == ('dst',)
