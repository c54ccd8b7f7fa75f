"""DeepSense6G: tables to store, splits without a shared frame, bad input; on generated scenes."""

import csv
import shutil

import numpy as np
import pytest

from stp_jax import prepare
from stp_jax.data import (
  clip_store,
  deepsense,
  deepsense_csv,
  deepsense_scenes,
  deepsense_sensors,
  deepsense_split,
)
from stp_jax.data.clip_store import ClipStore

SMALL = dict(samples=54, adaptation=9, test=8, length=8, camera='32x20', cube='4x16x8', points=60,
             gps_noise=2.0, seed=1, workers=1)
SET = 'Multi_Modal'
TABLE = deepsense_scenes.SETS[SET][0]


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
  root = tmp_path_factory.mktemp('scenes') / 'Dataset'
  deepsense_scenes.write_scenes(root, **SMALL)
  return root


@pytest.fixture
def one_set(scenes, tmp_path):
  """A copy of the development set that a test may damage."""
  return shutil.copytree(scenes / SET, tmp_path / SET)


def _edit(folder, change):
  path = folder / TABLE
  with path.open(newline='') as file:
    rows = list(csv.DictReader(file))
  change(rows)
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)


def _run(folder, out, *options):
  return prepare.main(['deepsense', f'--in={folder}', f'--out={out}', '--size=16', '--workers=1',
                       *options])


def test_a_store_holds_what_the_tables_say(scenes, tmp_path, capsys):
  store = deepsense.prepare(in_dir=scenes, out=tmp_path / 's', size=16, workers=1)
  text = capsys.readouterr().out
  assert 'jumps' in text and 'rows across splits' in text
  assert 'rows whose beam is not the strongest: 0' in text
  assert store.splits == ['submission', 'test', 'train', 'validation']
  clip_store.assert_disjoint([store], ['train'])
  rows = {(str(r.root), r.frames[-1]): r for path, root in deepsense_csv.discover(scenes)
          for r in deepsense_csv.read(path, root)}
  by_index = {(r.root.name, r.index): r for r in rows.values()}
  names = [f.name for f in store.forcings]
  checked = 0
  for i, clip in enumerate(store.clips):
    window, beam = (store.frames(i, stream=s)[:, 0, 0] for s in ('window', 'beam'))
    index = store.column('forcings')[clip.start:clip.start + clip.length, names.index('row')]
    for end in np.flatnonzero(index >= 0):
      row = by_index[clip.source.split('/')[0], int(index[end])]
      assert list(window[end]) == [4, 3, 2, 1, 0]
      assert list(beam[end]) == (list(row.beams) or [-1])
      # The frame itself: read again from its file.
      if checked < 3:
        image = deepsense_sensors.read_image(row.root / row.frames[0][0], 16)
        np.testing.assert_array_equal(store.frames(i, end - 4, 1, 'image')[0], image)
      checked += 1
    assert (window[index < 0] == -1).all()
  assert checked + store.meta['card']['facts']['rows_across_splits'] == len(rows)
  assert store.frames(0, stream='lidar').max() <= 5
  assert store.streams['radar'].dtype == 'uint16'


def test_a_killed_import_goes_on_and_workers_change_nothing(scenes, tmp_path, monkeypatch):
  monkeypatch.setattr('stp_jax.data.clip_writer._SHARD_BYTES', 1)
  read, count = deepsense_sensors.read_frame, [0]
  def dies(*job):
    count[0] += 1
    if count[0] > 30:
      raise KeyboardInterrupt
    return read(*job)
  monkeypatch.setattr(deepsense_sensors, 'read_frame', dies)
  arguments = dict(in_dir=scenes / SET, out=tmp_path / 's', size=16)
  with pytest.raises(KeyboardInterrupt):
    deepsense.prepare(**arguments, workers=1)
  assert not (tmp_path / 's').exists()
  monkeypatch.setattr(deepsense_sensors, 'read_frame', read)
  resumed = deepsense.prepare(**arguments, workers=2)
  whole = deepsense.prepare(**dict(arguments, out=tmp_path / 't'), workers=1)
  assert [c.source for c in resumed.clips] == [c.source for c in whole.clips]
  for i in range(len(whole.clips)):
    for name in whole.streams:
      np.testing.assert_array_equal(resumed.frames(i, stream=name), whole.frames(i, stream=name))


def test_longer_windows_and_several_beams(scenes, tmp_path):
  store = deepsense.prepare(in_dir=scenes / SET, out=tmp_path / 's', size=16, workers=1,
                            window='3to2', stride=2)
  windows = np.concatenate([store.frames(i, stream='window')[:, 0, 0]
                            for i in range(len(store.clips))])
  assert (windows[windows[:, -1] >= 0] == [4, 2, 0]).all() and store.streams['beam'].shape[2] == 2
  beams = store.frames(0, stream='beam')[:, 0, 0]
  ends = np.flatnonzero(beams[:, 0] >= 0)
  assert beams[ends[0], 1] == beams[ends[1], 0]  # the second beam is the next sample's first


def test_sequences_are_cut_at_jumps_and_rows_over_them_left_out(one_set, tmp_path):
  def jump(rows):  # one frame of scenario 32 is never named: rows around it have a gap
    gone = rows[0]['unit1_rgb_3']
    for row in rows:
      for t in range(1, 6):
        if row[f'unit1_rgb_{t}'] == gone:
          row['unit1_rgb_1'] = row['unit1_rgb_1'].replace('BS1_1_', 'BS1_900_')
  (one_set / 'scenario32/unit1/camera_data/image_BS1_900_10_00_00.jpg').write_bytes(
      next((one_set / 'scenario32/unit1/camera_data').glob('*.jpg')).read_bytes())
  _edit(one_set, jump)
  store = deepsense.prepare(in_dir=one_set, out=tmp_path / 's', size=16, workers=1)
  assert store.meta['card']['facts']['rows_with_jumps'] == 1


def test_the_leaky_split_warns_and_is_torchs(one_set, tmp_path):
  with pytest.warns(UserWarning, match='far too good'):
    store = deepsense.prepare(in_dir=one_set, out=tmp_path / 's', size=16, workers=1,
                              split='upstream')
  assert store.splits == ['upstream']
  torch = pytest.importorskip('torch')
  line = np.r_[np.arange(7), np.tile([7, 8], 48)]
  order = torch.randperm(len(line), generator=torch.Generator().manual_seed(100)).numpy()
  cut = int(0.9 * len(line))
  expected = np.stack([np.bincount(line[o], minlength=9) for o in (order[:cut], order[cut:])], 1)
  found = deepsense_split.upstream_copies([False] * 7 + [True] * 2)
  np.testing.assert_array_equal(found, expected)


def _set(column, value):
  return lambda rows: rows[4].update({column: value})


@pytest.mark.parametrize('damage, message', [
    (lambda f: next((f / 'scenario33/unit1/lidar_data').glob('*.ply')).unlink(),
     ('lidar_data_', 'is missing', '--skip-missing')),
    (lambda f: np.save(f / 'scenario32/unit1/radar_data/radar_data_3.npy', np.zeros((4, 9, 8))),
     ('radar_data_3.npy', '[4, 9, 8], expected [4, 16, 8]')),
    (lambda f: _edit(f, _set('unit1_beam', '65')), ('row 5', "'65'", 'from 1 to 64')),
    (lambda f: _edit(f, _set('unit1_beam', 'x')), ('row 5', "'x'")),
    (lambda f: _edit(f, _set('unit1_lidar_2', '')), ('row 5', 'unit1_lidar_2 is empty')),
    (lambda f: _edit(f, lambda rows: [r.pop('unit1_loc') for r in rows]), ('no column unit1_loc',)),
    (lambda f: (f / 'scenario32/unit2/GPS_data/gps_location_1.txt').write_text('north'),
     ('gps_location_1.txt', 'latitude and longitude')),
    (lambda f: (f / TABLE).write_text((f / TABLE).read_text().splitlines()[0] + '\n'),
     ('no row below the header',)),
    (lambda f: next((f / 'scenario34/unit1/camera_data').glob('*.jpg')).write_bytes(b'no'),
     ('.jpg', 'no readable image'))])
def test_bad_input_is_one_line_and_leaves_nothing(one_set, tmp_path, capsys, damage, message):
  damage(one_set)
  assert _run(one_set, tmp_path / 's') == 1
  error = [line for line in capsys.readouterr().err.splitlines() if line.startswith('prepare ')]
  assert len(error) == 1 and all(part in error[0] for part in message), error
  assert not (tmp_path / 's').exists() and not (tmp_path / 's.partial').exists()


def test_an_empty_scenario_and_an_empty_folder_are_named(one_set, tmp_path, capsys):
  assert _run(one_set, tmp_path / 's', '--scenarios=31+32') == 1
  assert 'scenario31: no row in' in capsys.readouterr().err
  assert _run(tmp_path / 'nothing', tmp_path / 's') == 1
  assert 'no CSV with the columns' in capsys.readouterr().err


def test_rows_with_missing_files_can_be_left_out(one_set, tmp_path):
  (one_set / 'scenario32/unit1/lidar_data/lidar_data_8.ply').unlink()
  store = deepsense.prepare(in_dir=one_set, out=tmp_path / 's', size=16, workers=1,
                            skip_missing=True)
  assert store.meta['card']['facts']['rows_without_files'] == 1
  assert isinstance(store, ClipStore)


def test_file_names_tell_number_and_clock():
  number = deepsense_csv.frame_number
  assert number('a/image_BS1_12_10_00_05.jpg') == ('image_BS1_', 12, 36005)
  assert number('a/image_BS1_4855_16_30_41.jpg') == ('image_BS1_', 4855, 59441)
  assert number('a/image_0_3.jpg') == ('image_0_', 3, None)


@pytest.mark.parametrize('starts, shares, expected', [
    ([4, 8, 12, 16], (0.8, 0.1, 0.1), [12, 16]), ([8, 16, 24], (0.8, 0.1, 0.1), [16, 24]),
    ([10, 20], (0.5, 0.5), [10]), ([10], (0.5, 0.0, 0.5), [10, 10]), ([10], (0.9, 0.1), [10])])
def test_a_few_sequences_are_dealt_out_whole(starts, shares, expected):
  assert deepsense_split._whole(starts, shares, 32 if 24 in starts else 20) == expected


def test_a_beam_that_is_not_the_strongest_is_counted(one_set, tmp_path, capsys):
  def other(rows):
    rows[0]['unit1_beam'] = str(int(rows[0]['unit1_beam']) % 64 + 1)

  _edit(one_set, other)
  assert _run(one_set, tmp_path / 's') == 0
  assert 'rows whose beam is not the strongest: 1' in capsys.readouterr().out
