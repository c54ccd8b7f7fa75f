"""SEVIR by date: no hours that two splits share. HKO-7: frames whose names have no time."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import sevir
from stp_jax.data.clip_store import StoreError
from tests.data import layouts, own_frames
from tests.data.test_published import refused, run

_HOUR = np.timedelta64(1, 'h')


def _named(times):
  return [str(t).replace('T', ' ') for t in np.sort(times)]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 24 * 60 - 1), min_size=1, max_size=80), st.integers(1, 30))
def test_events_of_two_splits_share_no_time(minutes, factor):
  """Times within a month or less around the border of the test events."""
  offsets = (np.array(minutes) - 16 * 60) * factor
  times = np.sort(np.datetime64('2019-06-01T00:00:00') + offsets * np.timedelta64(1, 'm'))
  labels = np.array(sevir.by_date(_named(times))[0])
  spans = {s: times[labels == s] for s in ('train', 'validation', 'test')}
  border = np.datetime64('2019-06-01')
  np.testing.assert_array_equal(labels == 'test', times >= border)  # as published
  later = border
  for split in ('validation', 'train'):
    mine = spans[split]
    if len(mine):
      assert mine[-1] + 4 * _HOUR < later
    if split == 'validation' and len(mine):
      later = mine[0].astype('datetime64[D]')
  # Nothing else is left out, and no day is divided.
  for t in times[labels == '']:
    assert t < border and t.astype('datetime64[D]') + 20 * _HOUR <= t
  days = [set(v.astype('datetime64[D]').tolist()) for v in spans.values()]
  assert not (days[0] & days[1] or days[1] & days[2])


def test_a_tenth_and_whole_days():
  times = np.datetime64('2019-05-01T02:00:00') + 8 * _HOUR * np.arange(3 * 40)
  labels, text = sevir.by_date(_named(times))
  assert text == 'validation from 2019-05-29 on, test from 2019-06-01 on'
  count = {s: labels.count(s) for s in ('train', 'validation', 'test', '')}
  assert count == {'train': 28 * 3, 'validation': 9, 'test': 27, '': 0}
  labels, _ = sevir.by_date(_named(times + 2 * _HOUR))  # 4, 12 and 20 UT
  assert labels.count('') == 2 and labels[28 * 3 - 1] == labels[31 * 3 - 1] == ''
  with pytest.raises(StoreError, match=r'CATALOG\.csv: time_utc that is no time'):
    sevir.by_date(['yesterday'], 'CATALOG.csv')


def test_sevir_counts_what_it_leaves_out(tmp_path, capsys):
  base = tmp_path / 'in'
  (base / 'data').mkdir(parents=True)
  with h5py.File(base / 'data' / 'v.h5', 'w') as file:
    file['vil'] = np.zeros((13, 16, 16, 49), np.uint8)
  times = [f'2019-05-{d:02} 12:00:00' for d in range(20, 30)] + [
      '2019-05-31 12:00:00', '2019-05-31 22:00:00', '2019-06-01 00:00:00']
  rows = [f'S{k},v.h5,{k},{kind},{t}' for k, t in enumerate(times) for kind in sevir.TYPES]
  (base / 'CATALOG.csv').write_text('\n'.join([','.join(sevir._COLUMNS), *rows]) + '\n')
  store = run('sevir', base, tmp_path / 's', '--split', 'date', '--size', 'native')
  assert [c.split for c in store.clips] == ['train'] * 10 + ['validation', 'test']
  text = capsys.readouterr().out
  assert 'split: validation from 2019-05-31 on, test from 2019-06-01 on' in text
  assert 'events left out: 1, 4 h or less before a border' in text
  published = run('sevir', base, tmp_path / 'p', '--size', 'native')
  assert [c.split for c in published.clips] == ['train'] * 7 + ['validation'] * 3 + ['test'] * 3
  (base / 'CATALOG.csv').write_text('\n'.join([','.join(sevir._COLUMNS), *rows[55:60]]) + '\n')
  refused('sevir', base, tmp_path / 't', 'all 1 events last across a border', '--split', 'date',
          capsys=capsys)


def test_a_mask_among_the_frames_of_a_day(tmp_path, capsys):
  layouts.hko7(tmp_path / 'in')
  clean = run('hko7', tmp_path / 'in', tmp_path / 'c', '--size', 'native')
  day = next((tmp_path / 'in').rglob('2015/05/05'))
  own_frames.png(day / 'RAD150505_mask.png', own_frames.film(0, 1, (20, 20))[0])
  refused('hko7', tmp_path / 'in', tmp_path / 's', 'RAD150505_mask.png: no time of its day in its '
          'name', '--size', 'native', capsys=capsys)
  store = run('hko7', tmp_path / 'in', tmp_path / 's', '--size', 'native', '--on-bad', 'skip')
  assert [(c.source, c.time, c.length) for c in store.clips] == [
      (c.source, c.time, c.length) for c in clean.clips]
  np.testing.assert_array_equal(store.frames(3), clean.frames(3))
  assert 'samples skipped: 1' in capsys.readouterr().out
