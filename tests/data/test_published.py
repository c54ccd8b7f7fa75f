"""Video data sets in their published layouts: splits, windows, values, names; bad input."""

import numpy as np
import PIL.Image
import pytest

from stp_jax import prepare as cli
from stp_jax.data import bair, datasets, human, kitticaltech, kth, samples, taxibj
from stp_jax.data.clip_store import ClipStore, StoreError, assert_disjoint
from tests.data import layouts


def run(name, root, out, *words) -> ClipStore:
  assert cli.main([name, '--in', str(root), '--out', str(out), *map(str, words)]) == 0
  store = ClipStore(out)
  assert_disjoint([store], ['train'])
  return store


def whole(store) -> dict[str, tuple[str, np.ndarray]]:
  """source -> (split, frames)."""
  return {c.source: (c.split, np.array(store.frames(i))) for i, c in enumerate(store.clips)}


def refused(name, root, out, match, *words, capsys):
  assert cli.main([name, '--in', str(root), '--out', str(out), *map(str, words)]) == 1
  said = capsys.readouterr().err.strip().splitlines()[-1]
  assert match in said, said
  assert not out.exists() and not out.with_name(out.name + '.partial').exists()


def test_taxibj(tmp_path, capsys):
  arrays = layouts.taxibj(tmp_path / 'in')
  store = run('taxibj', tmp_path / 'in', tmp_path / 's')
  assert [c.split for c in store.clips] == ['train'] * 5 + ['test'] * 2
  clip = arrays['X_test'][1], arrays['Y_test'][1]
  expected = (np.concatenate(clip).transpose(0, 2, 3, 1) + 1) / 2
  np.testing.assert_allclose(store.physical(store.frames(6)), expected, atol=1e-6)
  assert store.frames(0).shape == (8, 32, 32, 2) and store.cadence_hours == 0.5
  assert '1292' in capsys.readouterr().out
  held = run('taxibj', tmp_path / 'in', tmp_path / 'h', '--validation', 0.4)
  assert [c.split for c in held.clips] == ['train'] * 3 + ['validation'] * 2 + ['test'] * 2


@pytest.mark.parametrize('spoil, match', [
    (lambda a: a.pop('Y_test'), 'no array Y_test; it has X_train Y_train X_test'),
    (lambda a: a.update(X_train=a['X_train'][:, :, :1]), 'X_train is float64[5, 4, 1, 32, 32]'),
    (lambda a: a.update(X_test=a['X_test'] * 2), 'test sample 0: values outside -1 to 1'),
    (lambda a: a.update(Y_train=a['Y_train'][:4]), 'X_train has 5 samples, Y_train 4')])
def test_taxibj_bad_input(tmp_path, capsys, spoil, match):
  arrays = layouts.taxibj(tmp_path / 'in')
  spoil(arrays)
  np.savez(tmp_path / 'in/taxibj/dataset.npz', **arrays)
  refused('taxibj', tmp_path / 'in', tmp_path / 's', match, capsys=capsys)
  path = tmp_path / 'in/taxibj/dataset.npz'
  path.write_bytes(path.read_bytes()[:3000])
  refused('taxibj', tmp_path / 'in', tmp_path / 's', 'no npz file, or damaged', capsys=capsys)


def test_kth_windows_are_the_published_ones(tmp_path):
  numbers, made = layouts.kth(tmp_path / 'in')
  store = run('kth', tmp_path / 'in', tmp_path / 's', '--size', 'native', '--length', 20)
  found = whole(store)
  for name, film in made.items():
    # The published rule, as it is told: from the end backwards, one index at a time.
    hop, index, expected = (20 if name.startswith('boxing') else 3), len(numbers) - 1, []
    while index >= 19:
      if numbers[index] - numbers[index - 19] == 19:
        expected.append(index - 19)
        index -= hop
      else:
        index -= 1
    assert len(expected) in (2, 11)
    for start in expected:
      split, frames = found.pop(f'{name}@{numbers[start]}')
      assert split == ('test' if int(name.split('person')[1][:2]) > 16 else 'train')
      np.testing.assert_array_equal(frames[..., 0], film[start:start + 20, ..., 0])
  assert not found


def test_kth_whole_runs_held_out_persons_and_sizes(tmp_path):
  _, made = layouts.kth(tmp_path / 'in', persons=(1, 2, 16, 20), actions=('walking',))
  store = run('kth', tmp_path / 'in', tmp_path / 's', '--windows', 'all', '--validation', 0.34)
  found = whole(store)
  assert {k.split('@')[1] for k in found} == {'3', '50'}
  splits = {k.split('person')[1][:2]: v[0] for k, v in found.items()}
  assert splits == {'01': 'train', '02': 'train', '16': 'validation', '20': 'test'}
  assert store.frames(0).shape == (38, 128, 128, 1)
  frame = next(iter(made.values()))[0, ..., 0].astype(float)
  # Bilinear between pixel centres, by hand at one place.
  y, x = (10 + 0.5) * 30 / 128 - 0.5, (77 + 0.5) * 40 / 128 - 0.5
  i, j = int(y), int(x)
  a, b = y - i, x - j
  by_hand = ((1 - a) * (1 - b) * frame[i, j] + (1 - a) * b * frame[i, j + 1]
             + a * (1 - b) * frame[i + 1, j] + a * b * frame[i + 1, j + 1])
  first = found['walking/person01_walking_d1_uncomp@3'][1][0]
  assert first[10, 77, 0] == round(by_hand)


def test_kth_bad_input(tmp_path, capsys):
  layouts.kth(tmp_path / 'in', frames=list(range(1, 31)))
  bad = tmp_path / 'in/kth/jogging/person17_jogging_d1_uncomp/image_0004.png'
  bad.write_bytes(bad.read_bytes()[:60])
  refused('kth', tmp_path / 'in', tmp_path / 's', f'{bad}: unreadable as an image', capsys=capsys)
  store = run('kth', tmp_path / 'in', tmp_path / 's', '--on-bad', 'skip')
  assert len(store.clips) == 7 and store.meta['card']['skipped'] == 1
  assert 'skipped: jogging/person17' in capsys.readouterr().out
  (tmp_path / 'empty').mkdir()
  refused('kth', tmp_path / 'empty', tmp_path / 't', 'it holds nothing', capsys=capsys)


def test_bair(tmp_path):
  made = layouts.bair(tmp_path / 'in')
  store = run('bair', tmp_path / 'in', tmp_path / 's')
  found = whole(store)
  for (split, i), film in made.items():
    assert found[f'{split}/traj_0_to_255.tfrecords#{i}'][0] == split
    np.testing.assert_array_equal(found[f'{split}/traj_0_to_255.tfrecords#{i}'][1], film)
  assert len(store.windows(['test'], 16)) == 2 * 15  # 3,840 of the published 256 films
  main = run('bair', tmp_path / 'in', tmp_path / 'm', '--view', 'image_main')
  np.testing.assert_array_equal(main.frames(0), 255 - store.frames(0))


def test_bair_bad_input(tmp_path, capsys):
  from tests.data import tfrecord_bytes as tf
  layouts.bair(tmp_path / 'in', length=3)
  path = tmp_path / 'in/softmotion30_44k/train/traj_0_to_255.tfrecords'
  good = path.read_bytes()
  path.write_bytes(good[:-5])
  refused('bair', tmp_path / 'in', tmp_path / 's', f'{path} record 2: the file ends',
          capsys=capsys)
  path.write_bytes(good + tf.record(tf.example({
      '0/action': [0.0], '0/image_aux1/encoded': [bytes(100)]})))
  refused('bair', tmp_path / 'in', tmp_path / 's',
          f'{path} record 3: 0/image_aux1/encoded: 100 bytes', capsys=capsys)


def test_human(tmp_path, capsys):
  made = layouts.human(tmp_path / 'in')
  store = run('human', tmp_path / 'in', tmp_path / 's', '--size', 'native')
  assert [(c.split, c.source) for c in store.clips] == [
      ('train', 'train/images/S1_A.55011271_@1'), ('train', 'train/images/S1_A.55011271_@6'),
      ('train', 'train/images/S1_B.55011271_@1'), ('test', 'test/images/S1_B.55011271_@26')]
  expected = np.stack([made['B', n] for n in range(26, 66, 5)]).astype(int)
  assert np.abs(store.frames(3) - expected).mean() < 3  # RGB, but for JPEG
  assert store.meta['card']['facts']['cadence'] == 'every 5 frames of 50 a second'
  large = run('human', tmp_path / 'in', tmp_path / 'l', '--length', 4, '--size', 24)
  assert large.frames(0).shape == (4, 24, 24, 3)
  (tmp_path / 'in/human/images/S1_B.55011271_000036.jpg').unlink()
  refused('human', tmp_path / 'in', tmp_path / 't', '000036.jpg: missing', capsys=capsys)
  (tmp_path / 'in/human/test.txt').write_text('images/S1_B.55011271_ 26\n')
  refused('human', tmp_path / 'in', tmp_path / 't', 'test.txt line 1', capsys=capsys)


@pytest.mark.parametrize('version, extra', [(5, 8), (2, 16)])
def test_kitticaltech(tmp_path, version, extra):
  kitti, frames = layouts.kitticaltech(tmp_path / 'in', version, extra)
  found = whole(run('kitticaltech', tmp_path / 'in', tmp_path / 's'))
  # Windows of 11 from the end of each film: 13 frames hold one, 24 hold two, 40 // 3 hold one.
  assert list(found) == [
      'kitti/train/city-2011_09_26_drive_0000@2', 'kitti/train/city-2011_09_26_drive_0001@15',
      'kitti/train/city-2011_09_26_drive_0001@26', 'caltech/set06/V000.seq@2']
  np.testing.assert_array_equal(found['kitti/train/city-2011_09_26_drive_0001@15'][1], kitti[15:26])
  split, clip = found['caltech/set06/V000.seq@2']
  assert split == 'test' and clip.shape == (11, 128, 160, 3)
  resized = np.asarray(PIL.Image.fromarray(frames[8]).resize(
      (171, 128), PIL.Image.Resampling.BILINEAR))[:, 5:165]
  assert np.abs(clip[0].astype(int) - resized).mean() < 3
  films = whole(run('kitticaltech', tmp_path / 'in', tmp_path / 'a', '--windows', 'all'))
  assert [len(f) for _, f in films.values()] == [13, 24, 13]


def test_kitticaltech_arrays(tmp_path, capsys):
  folder = tmp_path / 'in' / 'kitticaltech_npy'
  folder.mkdir(parents=True)
  data = layouts.noise(0, 30, 128, 160, 3)
  for split, starts in (('train', [15, 2]), ('test', [19])):
    np.save(folder / f'{split}_data.npy', data if split == 'train' else data / 255)
    np.save(folder / f'{split}_idx.npy', np.array(starts))
  found = whole(run('kitticaltech', tmp_path / 'in', tmp_path / 's'))
  assert list(found) == ['train/2', 'train/15', 'test/19']
  np.testing.assert_array_equal(found['test/19'][1], data[19:30])
  np.save(folder / 'test_idx.npy', np.array([20]))
  refused('kitticaltech', tmp_path / 'in', tmp_path / 't', 'a window at 20', capsys=capsys)


def test_kitticaltech_bad_input(tmp_path, capsys):
  layouts.kitticaltech(tmp_path / 'in')
  path = tmp_path / 'in/caltech/set06/V000.seq'
  path.write_bytes(path.read_bytes()[:5000])
  refused('kitticaltech', tmp_path / 'in', tmp_path / 's', 'V000.seq: ends inside frame',
          capsys=capsys)
  (tmp_path / 'in/kitti_hkl/X_train.hkl').write_bytes(b'no such thing')
  refused('kitticaltech', tmp_path / 'in', tmp_path / 's', 'X_train.hkl: unreadable', capsys=capsys)


def test_memory_holds_one_clip(tmp_path):
  """`write` asks for the next sample when it is done with the last."""
  alive, most = set(), 0
  class Frames(np.ndarray):
    def __del__(self):
      alive.discard(id(self))
  def one(i):
    nonlocal most
    frames = np.full((2, 16, 16, 1), i, np.uint8).view(Frames)
    alive.add(id(frames))
    most = max(most, len(alive))
    return frames
  from stp_jax.data import clip_writer
  clip_writer._SHARD_BYTES, before = 1, clip_writer._SHARD_BYTES
  try:
    store = samples.write(
        tmp_path / 's', (samples.Sample(str(i), 'train', lambda i=i: one(i)) for i in range(30)),
        name='x', recipe={}, window=2, stream=samples.Stream((0, 0, 1), 'uint8'))
  finally:
    clip_writer._SHARD_BYTES = before
  assert len(store.clips) == 30 and most <= 3
  np.testing.assert_array_equal(store.frames(29), 29)


def test_every_importer_has_help_and_options(capsys):
  for name in ('taxibj', 'kth', 'bair', 'human', 'kitticaltech', 'kinetics', 'weatherbench',
               'sevir', 'hko7', 'shanghai2020'):
    assert name in datasets.IMPORTERS
    with pytest.raises(SystemExit):
      cli.main([name, '--help'])
    said = capsys.readouterr().out
    assert f'python -m stp_jax.prepare {name}' in said and '->' in said
  for module in (taxibj, kth, bair, human, kitticaltech):
    with pytest.raises(StoreError, match='no such folder'):
      module.prepare(in_dir='/nowhere', out='/nowhere/x')
