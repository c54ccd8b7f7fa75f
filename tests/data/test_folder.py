"""Own frames: clips, splits, gaps, what is inferred and said, a kill, and bad input."""

import json

import numpy as np
import PIL.Image
import pytest

from stp_jax import prepare as cli
from stp_jax.data import clip_writer, folder, folder_clips
from stp_jax.data.clip_store import StoreError, assert_disjoint
from tests.data import own_frames
from tests.data.own_frames import whole


def splits(store):
  return [(c.split, c.source, c.length) for c in store.clips]


def test_a_folder_a_clip_in_natural_order(tmp_path, capsys):
  made = own_frames.clips(tmp_path / 'in', [12, 11, 4, 13, 10], channels=3)
  assert cli.main(['folder', '--in', str(tmp_path / 'in'), '--out', str(tmp_path / 's')]) == 0
  text = capsys.readouterr().out
  assert f'--config=configs/moving_frames.py --store={tmp_path / "s"}' in text
  assert '1 of 5 clips are shorter than a window of 10 frames' in text
  assert '5 of 4 to 13 frames' in text and 'uint8 of the files, kept' in text
  store = clip_writer.ClipStore(tmp_path / 's')
  stream = store.streams['frames']
  assert (stream.shape, stream.dtype, stream.scale) == ((20, 24, 3), 'uint8', 1 / 255)
  for i, frames in enumerate(made):  # frame10 comes behind frame9
    np.testing.assert_array_equal(whole(store)[f'clip{i + 1}'], frames)
  assert {c.split for c in store.clips} == {'train', 'validation', 'test'}
  assert next(c.split for c in store.clips if c.length == 4) == 'train'
  assert_disjoint([store], ['train'])
  with PIL.Image.open(tmp_path / 's' / 'thumbnails.png') as sheet:
    assert sheet.size[0] > 400
  # The same command again reads nothing anew; other options are another store.
  assert folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's').meta == store.meta
  with pytest.raises(StoreError, match='made from other inputs or options'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', grey=True)


def test_check_writes_nothing(tmp_path, capsys):
  own_frames.clips(tmp_path / 'in', [14], channels=1)
  (tmp_path / 'in' / 'clip1' / 'frame7.png').write_bytes(b'no image')
  assert cli.main(['folder', '--in', str(tmp_path / 'in'), '--check', '--on-bad', 'skip']) == 0
  text = capsys.readouterr().out
  assert 'frames or files unreadable: 1' in text and 'skipped: clip1[7]' in text
  # Cut there, as the store would be: 10 frames to train on, the last 4 apart.
  assert '13 frames in 3 clips' in text
  assert [p.name for p in tmp_path.iterdir()] == ['in']
  assert cli.main(['folder', '--in', str(tmp_path / 'in'), '--check']) == 1
  error = capsys.readouterr().err
  assert 'frame7.png: unreadable' in error and '--on-bad skip' in error
  assert cli.main(['folder', '--in', str(tmp_path / 'in')]) == 1
  assert '--out: name the clip store' in capsys.readouterr().err


def test_one_clip_is_cut_in_blocks_that_share_no_frame(tmp_path):
  frames = own_frames.film(0, 50)
  for t, frame in enumerate(frames):
    own_frames.png(tmp_path / 'in' / f'{t}.png', frame)
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's')
  assert splits(store) == [('train', 'in[0:30]', 30), ('validation', 'in[30:40]', 10),
                           ('test', 'in[40:50]', 10)]
  np.testing.assert_array_equal(whole(store)['in'], frames)
  assert_disjoint([store], ['train'])
  short = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 't', split='time:0.6,0.4')
  assert [s[::2] for s in splits(short)] == [('train', 30), ('validation', 20)]
  with pytest.raises(StoreError, match='three are needed, or --split time'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 'u', split='clip')
  with pytest.raises(ValueError, match='--split folders: in lies below none of train'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 'u', split='folders')


def test_folders_named_after_splits(tmp_path):
  for name in ('train/a', 'train/b', 'val/a', 'test/a'):
    for t, frame in enumerate(own_frames.film(1, 3)):
      own_frames.png(tmp_path / 'in' / name / f'{t}.png', frame)
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's')
  assert splits(store) == [('test', 'test/a[0:3]', 3), ('train', 'train/a[0:3]', 3),
                           ('train', 'train/b[0:3]', 3), ('validation', 'val/a[0:3]', 3)]
  everything = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 't', split='test')
  assert everything.splits == ['test']


def test_an_unreadable_frame_cuts_its_clip(tmp_path, capsys):
  frames = own_frames.clips(tmp_path / 'in', [12, 12, 12])[1]
  path = tmp_path / 'in' / 'clip2' / 'frame5.png'
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(StoreError, match=r'clip2/frame5.png: unreadable \(.*--on-bad skip'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's')
  assert not list(tmp_path.glob('s*'))
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', on_bad='skip')
  mine = [(c.source, c.length) for c in store.clips if c.source.startswith('clip2')]
  assert mine == [('clip2[0:5]', 5), ('clip2[6:12]', 6)]
  np.testing.assert_array_equal(whole(store)['clip2'], np.delete(frames, 5, 0))
  assert store.meta['card']['facts']['frames or files skipped'] == 1
  assert 'skipped: clip2[5]' in capsys.readouterr().out


@pytest.mark.parametrize('options, message', [
    ({}, r'other/0.png: 10x12, but .*clip1/frame0.png has 20x24; give --size'),
    (dict(size='0x3'), '--size=0x3'), (dict(window=1), '--window 1'),
    (dict(on_bad='maybe'), '--on-bad maybe: one of error skip'),
    (dict(range='1,0'), '--range 1,0'), (dict(missing='x'), '--missing x: a number'),
    (dict(split='Train!', size='8'), '--split Train'), (dict(cadence=float('nan')), '--window 10'),
    (dict(split='clip:1,2', size='8'), '--split clip:1,2: give two or three shares')])
def test_mixed_sizes_and_wrong_options(tmp_path, options, message):
  own_frames.clips(tmp_path / 'in', [3])
  own_frames.png(tmp_path / 'in' / 'other' / '0.png', own_frames.film(5, 1, (10, 12))[0])
  with pytest.raises(ValueError, match=message):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', **options)
  assert not list(tmp_path.glob('s*'))


def test_size_and_grey(tmp_path):
  own_frames.clips(tmp_path / 'in', [5], channels=3)
  own_frames.png(tmp_path / 'in' / 'other' / '0.png', own_frames.film(5, 1, (10, 12))[0])
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', size='16x18', grey=True)
  assert store.streams['frames'].shape == (16, 18, 1)


@pytest.mark.parametrize('name, message', [
    (None, 'no such folder'), ('', r'no frames in it \(it is empty\); it takes .png'),
    ('a.txt', r'no frames in it \(1 .txt\)'), ('a.npy', r'holds 1 images \(x.png\), 1 arrays')])
def test_nothing_or_several_kinds(tmp_path, name, message):
  folder_ = tmp_path / 'in'
  if name is not None:
    folder_.mkdir()
    if name:
      (folder_ / name).write_bytes(b'')
  if name == 'a.npy':
    own_frames.png(folder_ / 'x.png', own_frames.film(0, 1)[0])
  with pytest.raises(StoreError, match=message):
    folder.prepare(in_dir=folder_, out=tmp_path / 's')


def test_a_kill_costs_one_shard(tmp_path, monkeypatch):
  own_frames.clips(tmp_path / 'in', [12] * 6)
  monkeypatch.setattr(clip_writer, '_SHARD_BYTES', 1)
  whole_ = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 'whole')
  add, count = clip_writer.StoreWriter.add, []

  def dying(self, *args, **kwargs):
    count.append(1)
    if len(count) == 4:
      raise KeyboardInterrupt
    return add(self, *args, **kwargs)

  monkeypatch.setattr(clip_writer.StoreWriter, 'add', dying)
  with pytest.raises(KeyboardInterrupt):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's')
  journal = (tmp_path / 's.partial' / 'journal.jsonl').read_text().splitlines()
  assert len(journal) == 4 and json.loads(journal[1])['keys'] == ['clip1[0:12]']
  again = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's')
  assert len(count) == 4 + 3
  assert {k: v.tobytes() for k, v in whole(again).items()} == {
      k: v.tobytes() for k, v in whole(whole_).items()}


def test_times_in_names():
  times = folder_clips.times_of(['a_20200102T030405.png', 'a_2020-01-02_03-09.png'])
  assert times.astype(str).tolist() == ['2020-01-02T03:04:05', '2020-01-02T03:09:00']
  assert folder_clips.times_of(['20200101.png', '20200102.png']) is not None
  for names in (['frame1', 'frame2'], ['20200101', '20200101'], ['20201301', '20201302'],
                ['00020200101120', '00020200101130']):
    assert folder_clips.times_of(names) is None


@pytest.mark.parametrize('names, gaps', [
    ([f'f{i:03}' for i in (*range(9), 11, 12, 13)], {9: 2}),
    ([f'a{i}_x' for i in (*range(0, 50, 5), 60, 65)], {10: 2}),
    ([f'{i}' for i in (1, 2, 4, 7, 8, 11)], {}), (['a', 'b', 'c', 'd'], {}), (['1', '5'], {}),
    ([f'clip2_{i}' for i in range(5)], {}), (['0', '1', '2', '3', '4', '4'], {})])
def test_gaps_in_the_numbers_of_files(names, gaps):
  assert folder_clips.number_gaps(names) == gaps


@pytest.mark.parametrize('arrays', [False, True])
def test_a_clip_is_cut_where_a_number_is_missing(tmp_path, capsys, arrays):
  frames = own_frames.film(0, 40)
  for t, frame in enumerate(frames):
    if t not in (20, 21):
      own_frames.png(tmp_path / 'in' / f'frame{t}.png', frame)
      if arrays:
        np.save(tmp_path / 'in' / f'frame{t}.npy', frame[..., 0])
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train',
                         pattern='*.npy' if arrays else '')
  assert [c.length for c in store.clips] == [20, 18]
  np.testing.assert_array_equal(store.frames(1, 0, 1)[0], frames[22])
  assert "gaps: 1 in the files' numbers, 2 frames" in capsys.readouterr().out


def test_folders_that_are_told_their_split(tmp_path, capsys):
  for name in ('good', 'worse', 'other'):
    for t, frame in enumerate(own_frames.film(1, 3)):
      own_frames.png(tmp_path / 'in' / name / f'{t}.png', frame)
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's',
                         split='folders:good=train,worse=hard_test')
  assert splits(store) == [('train', 'good[0:3]', 3), ('hard_test', 'worse[0:3]', 3)]
  assert '1 clips below others are left out' in capsys.readouterr().out
  for split, message in (
      ('folders:good', 'write folder=split'), ('folders:good=A b', '--split A b'),
      ('folders:x=train', 'lies below none of x')):
    with pytest.raises(ValueError, match=message):
      folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 't', split=split)
