"""What of a scored set was trained on: by time over all stores, by clip without a clock."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from stp_jax.data import clip_store, clip_writer, pipeline
from stp_jax.training_days import TrainingDays

STREAM = clip_store.Stream((2, 2, 1), 'uint8')


def _store(path, clips, name='maps', description=''):
  """Clips `(split, length, first time or None)` of 2 x 2 pixels, every two hours."""
  with clip_writer.StoreWriter(path, name=name, streams={'frames': STREAM}, cadence_hours=2.0,
                               recipe=dict(clips=len(clips)), description=description) as writer:
    for i, (split, length, time) in enumerate(clips):
      writer.add(str(i), {'frames': np.zeros((length, 2, 2, 1), np.uint8)}, split=split,
                 source=f'file{i}', time=time)
    return writer.finish()


def _config(*stores, dataset='', cache=''):
  return ConfigDict(dict(data=dict(stores=tuple(str(s.path) for s in stores), dataset=dataset,
                                   dataset_options={}, cache=str(cache), train_splits=('train',))))


def _found(store, splits=('test',), length=5):
  return [pipeline.Windows(store, store.windows(splits, length), length)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(['train', 'validation']), st.integers(1, 9),
                          st.integers(0, 60)), min_size=1, max_size=5),
       st.lists(st.tuples(st.integers(5, 12), st.integers(0, 60)), min_size=1, max_size=4),
       st.integers(1, 4), st.integers(0, 6))
def test_the_same_as_frame_by_frame(tmp_path_factory, training, scored, t_in, limit):
  folder = tmp_path_factory.mktemp('days')
  when = lambda hour: str(np.datetime64('2012-01-01T00:00') + np.timedelta64(2 * hour, 'h'))
  one = _store(folder / 'a', [(s, n, when(h)) for s, n, h in training])
  two = _store(folder / 'b', [('test', n, when(h)) for n, h in scored])
  trained = {h + k for split, n, h in training if split == 'train' for k in range(n)}
  flags = [bool({h + start + k for k in range(t_in, 5)} & trained)
           for n, h in scored for start in range(n - 4)]
  flags = [flags[k] for k in pipeline.picked(len(flags), limit)]
  found = TrainingDays([_config(one)]).overlap(_found(two), t_in, 5, limit)
  assert (found or dict(windows=0))['windows'] == sum(flags)
  assert found is None or found['of'] == len(flags)


def test_without_a_clock_only_the_clips_themselves(tmp_path):
  store = _store(tmp_path / 'a', [('train', 9, None), ('test', 7, None)])
  other = _store(tmp_path / 'b', [('test', 9, None), ('test', 7, '2012-01-01T00:00')])
  days = TrainingDays([_config(store)], [store])
  assert days.overlap(_found(store), 2, 5) is None
  assert days.overlap(_found(other), 2, 5) is None
  assert days.overlap(_found(store, ('train', 'test')), 2, 5) == dict(
      windows=5, of=8, first=None, last=None)


def test_what_cannot_be_opened_and_what_is_simulated(tmp_path):
  clips = [('train', 9, '2012-01-01T00:00'), ('test', 9, '2012-01-01T04:00')]
  real = _store(tmp_path / 'real', clips)
  made = _store(tmp_path / 'cache' / 'embedded', clips, description='SIMULATED')
  gone = ConfigDict(dict(data=dict(_config(real).data, stores=(str(tmp_path / 'gone'),))))
  assert TrainingDays([gone]).overlap(_found(real), 2, 5) is None
  generated = _config(dataset='embedded', cache=tmp_path / 'cache')
  # The simulated ionosphere of a day is not the real one; of itself it is.
  assert TrainingDays([generated]).overlap(_found(real), 2, 5) is None
  assert TrainingDays([generated]).overlap(_found(made), 2, 5)['windows'] == 5
  absent = _config(dataset='embedded', cache=tmp_path / 'nothing')
  assert TrainingDays([absent]).overlap(_found(made), 2, 5) is None
  assert not (tmp_path / 'nothing').exists()  # nothing is made for it


@pytest.mark.parametrize('members', [1, 2])
def test_any_run_of_an_ensemble_counts(tmp_path, members):
  one = _store(tmp_path / 'a', [('train', 9, '2013-01-01T00:00')])
  two = _store(tmp_path / 'b', [('train', 9, '2012-01-01T00:00')])
  test = _store(tmp_path / 'c', [('test', 9, '2012-01-01T00:00')])
  days = TrainingDays([_config(s) for s in (one, two)[:members]])
  assert (days.overlap(_found(test), 2, 5) is None) == (members == 1)
