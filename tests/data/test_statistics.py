"""Statistics of maps whose answers are known."""

import numpy as np
import pytest

from stp_jax.data import clip_store, clip_writer, statistics

LATITUDE, LONGITUDE = np.linspace(80, -80, 17), np.arange(-180, 180, 22.5)
WEIGHT = np.cos(np.radians(LATITUDE))


def store_of(path, frames, cadence=2.0, grid=True, time='2012-11-18', split='train'):
  """Physical frames `[T, 17, 16]` -> a store of 0.1 units with one padding row of nonsense."""
  raw = np.where(np.isnan(frames), 65535, np.rint(np.nan_to_num(frames) * 10)).astype(np.uint16)
  raw = np.concatenate([raw, np.full_like(raw[:, :1], 999)], 1)[..., None]
  with clip_writer.StoreWriter(
      path, name='x', cadence_hours=cadence, recipe={},
      streams={'frames': clip_store.Stream(raw.shape[1:], 'uint16', 'TECU', 0.1, missing=65535)},
      grid=dict(latitude=LATITUDE.tolist(), longitude=LONGITUDE.tolist(), rows=17) if grid else {},
  ) as writer:
    writer.add('a', {'frames': raw}, split=split, source='a', time=time)
    return writer.finish()


def test_mean_and_differences_are_weighted_and_skip_padding_and_missing_values(tmp_path):
  frames = np.full((40, 17, 16), 10.0)
  frames[:, :8] = 20  # the north
  frames[12:] += 3  # half a day later; from then on constant
  frames[:, 8, 3] = np.nan
  result = statistics.statistics(store_of(tmp_path / 's', frames))
  expected = np.average(np.where(LATITUDE > 1, 20.0, 10.0), weights=WEIGHT) + 3 * 28 / 40
  assert result['frames'] == 40
  assert result['mean'] == pytest.approx(expected, abs=0.1)  # one equatorial pixel is missing
  # Of the 28 pairs a day apart, the first 12 differ by 3.
  assert result['rms_difference']['24'] == pytest.approx(3 * (12 / 28) ** 0.5, rel=1e-5)
  assert result['rms_difference']['2'] == pytest.approx(3 / 39 ** 0.5, rel=1e-5)
  assert result['rms_difference']['72'] == pytest.approx(3, rel=1e-5)
  assert result['wavenumber_share'][0] == pytest.approx(1)


@pytest.mark.parametrize('wave', [1, 3])
def test_the_wavenumber_of_the_change_is_found(tmp_path, wave):
  frames = np.full((24, 17, 16), 50.0)
  frames[12:] += 8 * np.cos(np.radians(wave * LONGITUDE))
  share = statistics.statistics(store_of(tmp_path / 's', frames))['wavenumber_share']
  assert share[wave] == pytest.approx(1, abs=1e-3)


def test_white_noise_counts_both_signs_of_a_wavenumber(tmp_path):
  frames = 50 + np.random.default_rng(0).standard_normal((200, 17, 16)) * 5
  share = statistics.statistics(store_of(tmp_path / 's', frames))['wavenumber_share']
  np.testing.assert_allclose(share, [1 / 16] + [2 / 16] * 5, atol=0.01)


def test_spans_splits_and_cadence(tmp_path):
  frames = np.concatenate([np.full((24, 17, 16), 10.0), np.full((24, 17, 16), 30.0)])
  store = store_of(tmp_path / 's', frames)
  second = statistics.statistics(store, span=('2012-11-20', '2012-11-22'))
  assert second['frames'] == 24 and second['mean'] == pytest.approx(30)
  assert second['rms_difference'] == {'2': 0, '24': 0}
  nothing = statistics.statistics(store, ['test'])
  assert nothing['frames'] == 0 and nothing['mean'] is None and nothing['rms_difference'] == {}
  # Three-hourly maps have no pair two hours apart; without a grid there are no wavenumbers.
  other = store_of(tmp_path / 'o', frames, cadence=3.0, grid=False, time=None)
  other = statistics.statistics(other)
  assert '2' not in other['rms_difference'] and '24' in other['rms_difference']
  assert other['wavenumber_share'] is None
  assert statistics.statistics(
      store_of(tmp_path / 'p', frames, time=None), span=('2012', '2013'))['frames'] == 0


def test_a_sample_of_pairs_covers_all_hours(tmp_path):
  frames = np.tile(np.arange(12.0)[:, None, None] * np.ones((17, 16)), (60, 1, 1))
  result = statistics.statistics(store_of(tmp_path / 's', frames), pairs=60)
  assert result['mean'] == pytest.approx(5.5, abs=0.5)
  assert result['rms_difference']['24'] == 0


def test_the_table_has_a_line_per_row_and_dashes_for_what_is_absent():
  row = dict(mean=1.0, rms_difference={'2': 0.5}, wavenumber_share=None)
  head, line = statistics.table({'a': row}).splitlines()
  assert 'mean' in head and line.split() == ['a', '1.0', '0.50', '-', '-', '-', '-']
