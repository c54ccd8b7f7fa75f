"""Own pictures of 16 bits among others of 8, and films that are damaged or end early."""

import numpy as np
import PIL.Image
import pytest

from stp_jax.data import folder, folder_images
from stp_jax.data.clip_store import StoreError


@pytest.mark.parametrize('colour', [False, True])
def test_16_bits_among_8(tmp_path, colour):
  """White stays white and a third of it a third, in three channels too."""
  deep = np.arange(0, 65536, 255, dtype=np.int64)[:256].reshape(16, 16)
  deep[0, :3] = 65535, 128, 129
  PIL.Image.fromarray(deep.astype(np.uint16)).save(tmp_path / 'f0.png')
  other = np.full((16, 16, 3), 50, np.uint8) if colour else deep.astype(np.uint16)
  PIL.Image.fromarray(other).save(tmp_path / 'f1.png')
  store = folder.prepare(in_dir=tmp_path, out=tmp_path / 's', split='train', window=2,
                         channels=0 if colour else 3)
  frames = store.frames(0)
  assert frames.shape == (2, 16, 16, 3) and frames.dtype == np.uint8
  expected = np.round(deep / 257)
  for c in range(3):
    np.testing.assert_array_equal(frames[0, ..., c], expected)
  assert (frames[1] == 50).all() == colour


def _gif(path, count=12):
  rng = np.random.default_rng(0)
  first, *others = [PIL.Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8))
                    for _ in range(count)]
  first.save(path, save_all=True, append_images=others, duration=40)


def _broken(monkeypatch, at):
  """Frame number `at` of a.gif cannot be decoded."""
  pixels, seen = folder_images._pixels, []

  def fail(image, channels, dtype):
    if image.filename.endswith('a.gif') and image.tell() == at:
      seen.append(1)
      raise OSError('broken data stream')
    return pixels(image, channels, dtype)
  monkeypatch.setattr(folder_images, '_pixels', fail)


def test_frames_behind_a_damaged_one_are_counted(tmp_path, monkeypatch, capsys):
  (tmp_path / 'in').mkdir()
  _gif(tmp_path / 'in' / 'a.gif')
  _gif(tmp_path / 'in' / 'b.gif', 4)
  _broken(monkeypatch, 7)
  with pytest.raises(StoreError, match=r'a.gif: frame 7 unreadable \(broken.*--on-bad skip'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's')
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', on_bad='skip', split='train',
                         window=2)
  assert [(c.source, c.length) for c in store.clips] == [('a.gif[0:7]', 7), ('b.gif[0:4]', 4)]
  assert store.meta['card']['facts']['frames or files skipped'] == 5
  said = capsys.readouterr()
  assert 'skipped: a.gif[7] a.gif[8] a.gif[9] a.gif[10] a.gif[11]' in said.out
  assert 'a.gif: frame 11 of 12 is lost' in said.err
  folder.prepare(in_dir=tmp_path / 'in', check=True, on_bad='skip', split='train', window=2)
  assert 'frames or files unreadable: 5' in capsys.readouterr().out


@pytest.mark.parametrize('check', [False, True])
def test_a_film_shorter_than_it_says(tmp_path, monkeypatch, check):
  _gif(tmp_path / 'a.gif')
  monkeypatch.setattr(folder_images, '_describe', lambda path: (15, (16, 16), 25))
  monkeypatch.setattr(
      folder_images, '_read_gif', lambda path, channels, start, stop: iter(
          [np.zeros((16, 16, 3), np.uint8)] * (min(stop, 12) - start)))
  words = dict(in_dir=tmp_path, check=check, out=tmp_path / 's', split='train', window=2)
  with pytest.raises(StoreError, match=r'a.gif: frame 12 of 15 is lost: .*--on-bad skip'):
    folder.prepare(**words)
  store = folder.prepare(**words, on_bad='skip')
  if not check:
    assert store.meta['card']['facts']['frames or files skipped'] == 3
    assert [c.length for c in store.clips] == [12]
