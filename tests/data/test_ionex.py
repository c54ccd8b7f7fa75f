"""The IONEX importer: joining days, thinning, splits, drivers, and bad folders."""

import numpy as np
import pytest

from stp_jax import prepare as cli
from stp_jax.data import ionex, ionex_file, ionex_folder
from stp_jax.data.clip_store import ClipStore, StoreError, verify
from tests.data import ionex_text


def _day(folder, day, name=None, **options):
  """One day's file under its CODE name; the day's number is its seed."""
  date = np.datetime64(day)
  number = int((date - date.astype('M8[Y]').astype('M8[D]')).astype(int)) + 1
  name = name or f'codg{number:03d}0.{str(day)[2:4]}i'
  return ionex_text.write(folder, name, first=day, **{'seed': number} | options)


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / 'in'
  path.mkdir()
  return path


def _prepare(folder, tmp_path, **options) -> ClipStore:
  return ionex.prepare(in_dir=folder, out=tmp_path / 'store', **{'split': 'train'} | options)


def test_consecutive_days_join_and_the_closing_map_goes(folder, tmp_path):
  for day in ('2012-11-19', '2012-11-18', '2012-11-20'):
    _day(folder, day)
  store = _prepare(folder, tmp_path)
  assert [(c.length, c.time, c.split) for c in store.clips] == [(36, '2012-11-18T00:00', 'train')]
  # the 0 h map of the 19th is that of its own file
  second = ionex_file.read(folder / 'codg3240.12i')
  frames = store.frames(0)
  assert frames.shape == (36, 6, 6, 1)
  np.testing.assert_array_equal(frames[12:24, :5, :, 0], second.tec[:12])
  np.testing.assert_array_equal(frames[:, 5], frames[:, 4])  # padding repeats the last row
  assert (store.frames(0, stream='rms') == 65535).all()
  assert store.meta['grid']['rows'] == 5 and len(store.meta['grid']['latitude']) == 5
  assert store.meta['normalisation'] == {'divisor': 200.0, 'maximum': 200.0}
  assert store.streams['frames'].scale == 0.1 and store.streams['frames'].missing == 65535
  verify(store.path)


def test_a_closing_map_is_used_only_where_it_joins_two_files(folder, tmp_path):
  _day(folder, '2012-11-18')
  _day(folder, '2012-11-19T02:00', 'codg3240.12i', count=11)
  store = _prepare(folder, tmp_path)
  assert [c.length for c in store.clips] == [24]
  assert [c.time for c in store.clips] == ['2012-11-18T00:00']


def test_gaps_split_clips_and_short_ones_are_counted(folder, tmp_path, capsys):
  for day in ('2012-11-18', '2012-11-19', '2012-11-21'):
    _day(folder, day)
  store = _prepare(folder, tmp_path, window=24)
  assert [c.length for c in store.clips] == [24, 12]
  card = store.meta['card']
  assert card['clips_too_short'] == 1 and card['splits']['train']['windows'] == 1
  assert card['gaps'] == [['2012-11-19T22:00', '2012-11-21T00:00', 12]]
  assert '1 of 2 clips are shorter than a window of 24 frames' in capsys.readouterr().out


def test_hourly_files_are_thinned_and_mix_with_two_hourly_ones(folder, tmp_path):
  _day(folder, '2012-11-18')
  hourly = _day(folder, '2012-11-19', hours=1.0, count=25)
  store = _prepare(folder, tmp_path)
  assert [c.length for c in store.clips] == [24]
  np.testing.assert_array_equal(
      store.frames(0)[12:, :5, :, 0], ionex_file.read(hourly).tec[:24:2])
  one = ionex.prepare(in_dir=hourly, out=tmp_path / 'hourly', cadence=1.0, split='test')
  assert one.clips[0].length == 24 and one.cadence_hours == 1


def test_odd_hours_at_the_cadence_are_kept(folder, tmp_path):
  _day(folder, '1999-03-01T01:00', 'codg0600.99i', count=12)
  store = _prepare(folder, tmp_path)
  assert store.clips[0].length == 12 and store.clips[0].time == '1999-03-01T01:00'


def test_files_of_one_map_each(folder, tmp_path):
  for hour in range(6):
    _day(folder, f'2022-07-20T{hour:02d}:00', f'buhg201{"abcdef"[hour]}.22i', count=1, hours=1.0,
         seed=hour)
  store = _prepare(folder, tmp_path)
  assert [c.length for c in store.clips] == [3]


def test_coarser_than_the_cadence(folder, tmp_path):
  _day(folder, '2012-11-18')
  with pytest.raises(StoreError, match=r'maps every 2 h, coarser .* choose --cadence 2'):
    _prepare(folder, tmp_path, cadence=1.0)


def test_final_before_rapid_and_new_names(folder, tmp_path):
  _day(folder, '2022-11-19', 'COD0OPSRAP_20223230000_01D_01H_GIM.INX', seed=1)
  final = _day(folder, '2022-11-19', 'COD0OPSFIN_20223230000_01D_01H_GIM.INX', seed=2)
  store = _prepare(folder, tmp_path)
  np.testing.assert_array_equal(
      store.frames(0)[:, :5, :, 0], ionex_file.read(final).tec[:12])
  assert '12 duplicates' in store.meta['card']['facts']['maps left out']


def test_equal_copies_pass_and_different_ones_do_not(folder, tmp_path):
  _day(folder, '2012-11-18', 'codg3230.12i')
  _day(folder, '2012-11-18', 'CODG3230.12I.copy.12i')
  assert _prepare(folder, tmp_path).clips[0].length == 12
  _day(folder, '2012-11-18', 'CODG3230.12I.copy.12i', seed=9)
  with pytest.raises(StoreError, match=r'different maps of 2012-11-18T00:00; remove'):
    ionex.prepare(in_dir=folder, out=tmp_path / 'other', split='train')
  assert not (tmp_path / 'other').exists() and not (tmp_path / 'other.partial').exists()


@pytest.mark.parametrize('name, centre', [
    ('codg3230.12i.Z', 'cod'), ('CODG3230.12I.gz', 'cod'), ('c1pg3230.12i', 'c1p'),
    ('COD0OPSFIN_20223230000_01D_01H_GIM.INX.gz', 'cod'),
    ('COD0OPSPRD_20223230000_01D_01H_GIM.INX.gz', 'cod-prd'), ('CKMG0020.22I.gz', 'ckm')])
def test_centres(name, centre):
  assert ionex_folder.centre_of(name) == centre


def test_several_centres_need_a_choice(folder, tmp_path):
  _day(folder, '2012-11-18')
  _day(folder, '2012-11-18', 'jplg3230.12i')
  (folder / 'README.txt').write_text('not a map')
  with pytest.raises(StoreError, match=r'holds cod \(1 files\), jpl \(1 files\); choose'):
    _prepare(folder, tmp_path)
  with pytest.raises(StoreError, match='choose one with --centre'):
    _prepare(folder, tmp_path, centre='esa')
  assert _prepare(folder, tmp_path, centre='JPL').name == 'ionex_jpl'


def test_other_grids_are_refused_with_both_named(folder, tmp_path):
  _day(folder, '2012-11-18')
  _day(folder, '2012-11-19', longitudes=(-180.0, 180.0, 30.0))
  with pytest.raises(StoreError, match=r'codg3240.12i: grid 5 x 12 .*codg3230.12i has 5 x 6'):
    _prepare(folder, tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['in']


def test_a_bad_file_leaves_nothing_behind(folder, tmp_path, capsys):
  _day(folder, '2012-11-18')
  (folder / 'codg3240.12i').write_text('<!DOCTYPE html>')
  words = ['ionex', '--in', str(folder), '--out', str(tmp_path / 'store')]
  assert cli.main(words) == 1
  assert 'codg3240.12i: a web page' in capsys.readouterr().err
  assert [p.name for p in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize('options, message', [
    (dict(cadence=7.0), '--cadence 7'), (dict(cadence=-1.0), '--cadence -1'),
    (dict(negative='ignore'), '--negative ignore')])
def test_bad_options(folder, tmp_path, options, message):
  _day(folder, '2012-11-18')
  with pytest.raises(ValueError, match=message):
    _prepare(folder, tmp_path, **options)


def test_no_folder_and_no_ionex_file(folder, tmp_path):
  with pytest.raises(StoreError, match='no IONEX file'):
    _prepare(folder, tmp_path)
  with pytest.raises(StoreError, match='no such folder'):
    _prepare(folder / 'nowhere', tmp_path)


def test_splits_cut_clips(folder, tmp_path):
  for day in ('2012-11-18', '2012-11-19', '2012-11-20', '2012-11-21'):
    _day(folder, day)
  store = _prepare(folder, tmp_path, split=None, test='2012-11-20..2012-11-20',
                   validation='2012-11-21')
  assert [(c.split, c.length) for c in store.clips] == [
      ('train', 24), ('test', 12), ('validation', 12)]
  other = ionex.prepare(in_dir=folder, out=tmp_path / 'time', split='time:0.5,0.25,0.25')
  assert [(c.split, c.length) for c in other.clips] == [
      ('train', 24), ('validation', 12), ('test', 12)]


def test_a_second_run_is_done_at_once_and_other_options_are_refused(folder, tmp_path):
  _day(folder, '2012-11-18')
  first = _prepare(folder, tmp_path)
  stamp = (first.path / 'meta.json').stat().st_mtime_ns
  assert _prepare(folder, tmp_path).path == first.path
  assert (first.path / 'meta.json').stat().st_mtime_ns == stamp
  with pytest.raises(StoreError, match='other inputs or options'):
    _prepare(folder, tmp_path, split='test')


def test_calendar_without_indices(folder, tmp_path):
  _day(folder, '2012-11-18')
  store = _prepare(folder, tmp_path)
  assert [f.name for f in store.forcings] == ['year', 'day', 'hour', 'month', 'date']
  assert all(f.known_ahead for f in store.forcings)
  np.testing.assert_array_equal(store.column('forcings')[3], [2012, 323, 6, 11, 18])


def test_real_code_days_with_drivers(realdata, tmp_path, capsys):
  out = tmp_path / 'cod'
  words = ['ionex', '--in', str(realdata / 'tec'), '--out', str(out), '--centre=cod', '--test',
           '2012-11-18..2012-11-21', '--indices',
           str(realdata / 'solar_indices' / 'celestrak_SW-All.txt.gz')]
  assert cli.main(words) == 0
  store = ClipStore(out)
  test = next(c for c in store.clips if c.split == 'test')
  assert (test.length, test.time) == (48, '2012-11-18T00:00')
  assert store.streams['frames'].shape == (72, 72, 1) and store.meta['grid']['rows'] == 71
  assert [f.name for f in store.forcings] == [
      'year', 'f107', 'r', 'day', 'hour', 'month', 'date', 'kp', 'ap']
  row = test.start + 11  # 22 UT
  np.testing.assert_array_equal(store.column('forcings')[row],
                                [2012, 141, 132, 323, 22, 11, 18, 17, 6])
  np.testing.assert_allclose(store.column('forcings_known')[row],
                             [2012, 135.5, 139, 323, 22, 11, 18, 0, 0])
  np.testing.assert_array_equal(store.column('forcings_delay')[row], [0, 2, 2, 0, 0, 0, 0, 2, 2])
  tec = store.physical(store.frames(store.clips.index(test)))
  assert 10 < tec.mean() < 40 and tec.max() < 120
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert ['test', '1', '48', '25'] in lines


def test_real_jpl_days(realdata, tmp_path):
  store = ionex.prepare(in_dir=realdata / 'tec', out=tmp_path / 'jpl', centre='jpl', split='test')
  assert [c.length for c in store.clips] == [48]


def test_maps_behind_the_observations(realdata, folder, tmp_path):
  _day(folder, '2025-08-01', 'codg2130.25i')
  index = realdata / 'solar_indices' / 'celestrak_SW-All.txt.gz'
  with pytest.raises(StoreError, match='reach 2025-07-20'):
    _prepare(folder, tmp_path, indices=index)
  store = _prepare(folder, tmp_path, indices=index, predicted_drivers=True)
  column = [f.name for f in store.forcings].index('f107')
  assert np.isnan(store.column('forcings')[:, column]).all()
  assert (store.column('forcings_known')[:, column] == np.float32(150.3)).all()
  assert (store.column('forcings_forecast')[:, column] == np.float32(131.0)).all()
  filled = ionex.prepare(in_dir=folder, out=tmp_path / 'filled', indices=index, split='train',
                         missing_drivers='fill')
  assert np.isfinite(filled.column('forcings')).all()
  assert any('filled with the newest' in note for note in filled.meta['card']['notes'])
