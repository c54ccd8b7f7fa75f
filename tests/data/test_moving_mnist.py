"""Moving MNIST: the published motion, clips from (seed, index) alone, digits in one split only."""

import gzip
import itertools

import numpy as np
import pytest

from stp_jax import prepare as cli
from stp_jax.data import clip_writer, moving_mnist
from stp_jax.data.clip_store import StoreError

_SMALL = dict(clips=6, validation_clips=2, test_clips=2, length=5)


def _idx(path, count=40, seed=0, pack=True) -> np.ndarray:
  images = np.random.default_rng(seed).integers(1, 256, (count, 28, 28)).astype(np.uint8)
  data = np.array([0x803, count, 28, 28], '>u4').tobytes() + images.tobytes()
  path.write_bytes(gzip.compress(data) if pack else data)
  return images


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'in').mkdir()
  _idx(tmp_path / 'in' / 't10k-images-idx3-ubyte.gz')
  return tmp_path / 'in'


def _clips(store):
  return {c.source: np.array(store.frames(i)) for i, c in enumerate(store.clips)}


def test_clips_follow_from_seed_and_index_alone(folder, tmp_path):
  first = moving_mnist.prepare(in_dir=folder, out=tmp_path / 'a', **_SMALL)
  more = moving_mnist.prepare(in_dir=folder, out=tmp_path / 'b', **(_SMALL | dict(clips=9)))
  other = moving_mnist.prepare(in_dir=folder, out=tmp_path / 'c', seed=1, **_SMALL)
  for source, frames in _clips(first).items():
    np.testing.assert_array_equal(frames, _clips(more)[source])
    assert not np.array_equal(frames, _clips(other)[source])
  assert first.frames(0).shape == (5, 64, 64, 1) and first.streams['frames'].dtype == 'uint8'


def test_no_digit_image_is_in_two_splits():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (50, 28, 28)).astype(np.uint8)
  images[7] = images[31]  # a copy must not fall into another split
  train, t10k = images[:30], np.concatenate([images[25:], images[:2]])
  for pools in (moving_mnist.split_digits(None, images, .2, .2),
                moving_mnist.split_digits(images, None, .2, .2),
                moving_mnist.split_digits(train, t10k, .2, .2)):
    sets = [{i.tobytes() for i in pool} for pool in pools.values()]
    assert all(sets) and not any(a & b for a, b in itertools.combinations(sets, 2))
    assert len(set.union(*sets)) == 49
  shuffled = moving_mnist.split_digits(None, images[::-1], .2, .2)
  np.testing.assert_array_equal(
      shuffled['train'], moving_mnist.split_digits(None, images, .2, .2)['train'])


def test_the_card_says_which_digits_were_there(folder, tmp_path, capsys):
  moving_mnist.prepare(in_dir=folder, out=tmp_path / 'a', **_SMALL)
  said = capsys.readouterr().out
  assert 'train 32, validation 4, test 4; none is in two splits' in said
  assert 'train-images is not there: all digits are of t10k-images' in said


def test_the_published_motion():
  """A digit moves, then reflects; its corner is truncated: followed by hand for one digit."""
  digit = np.full((1, 28, 28), 255, np.uint8)
  frames = moving_mnist.clip(digit, 3, 5, digits=1, length=40)
  rng = np.random.default_rng((3, 5))
  x, y = rng.uniform(size=2)
  angle = rng.uniform(0, 2 * np.pi)
  vx, vy = np.cos(angle), np.sin(angle)
  for frame in frames[..., 0]:
    x, y = x + .1 * vx, y + .1 * vy
    if x <= 0 or x >= 1:
      x, vx = float(x >= 1), -vx
    if y <= 0 or y >= 1:
      y, vy = float(y >= 1), -vy
    rows, columns = np.nonzero(frame)
    assert (rows.min(), columns.min()) == (int(36 * y), int(36 * x))
    assert (frame > 0).sum() == 28 * 28
  mirrored = moving_mnist.clip(digit, 3, 5, digits=1, length=40, motion='mirror')
  assert not np.array_equal(frames, mirrored) and (mirrored > 0).sum() == (frames > 0).sum()


def test_digits_join_by_their_maximum_in_a_frame_of_any_size():
  images = np.stack([np.full((28, 28), 90, np.uint8), np.full((28, 28), 200, np.uint8)])
  frames = moving_mnist.clip(images, 0, 0, digits=5, length=6, size=(28, 41))
  assert set(np.unique(frames)) <= {0, 90, 200} and frames.shape == (6, 28, 41, 1)


def test_the_official_file_is_the_test_split(folder, tmp_path, capsys):
  clips = np.random.default_rng(1).integers(0, 256, (20, 3, 64, 64)).astype(np.uint8)
  np.save(folder / 'mnist_test_seq.npy', clips)
  store = moving_mnist.prepare(in_dir=folder, out=tmp_path / 'a', **_SMALL)
  test = [i for i, c in enumerate(store.clips) if c.split == 'test']
  assert len(test) == 3 and 'split test is mnist_test_seq.npy' in capsys.readouterr().out
  np.testing.assert_array_equal(store.frames(test[1])[..., 0], clips[:5, 1])
  with pytest.raises(StoreError, match=r'mnist_test_seq\.npy: 20 frames of 64x64'):
    moving_mnist.prepare(in_dir=folder, out=tmp_path / 'b', size='80', **_SMALL)
  without = moving_mnist.prepare(in_dir=folder, out=tmp_path / 'c', official=False, **_SMALL)
  assert len(without.clips) == 10


def test_a_killed_run_continues(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(clip_writer, '_SHARD_BYTES', 2 * 5 * 64 * 64)
  draw, count = moving_mnist.clip, itertools.count()

  def dying(*args, **kwargs):
    if next(count) == 5:
      raise KeyboardInterrupt
    return draw(*args, **kwargs)
  with monkeypatch.context() as patch:
    patch.setattr(moving_mnist, 'clip', dying)
    with pytest.raises(KeyboardInterrupt):
      moving_mnist.prepare(in_dir=folder, out=tmp_path / 'a', **_SMALL)
  resumed = moving_mnist.prepare(in_dir=folder, out=tmp_path / 'a', **_SMALL)
  whole = moving_mnist.prepare(in_dir=folder, out=tmp_path / 'b', **_SMALL)
  assert list(resumed.clips) == list(whole.clips)
  for source, frames in _clips(whole).items():
    np.testing.assert_array_equal(frames, _clips(resumed)[source])


@pytest.mark.parametrize('spoil, options, message', [
    (lambda p: p.write_bytes(p.read_bytes()[:900]), {}, r't10k-images\S+: unreadable'),
    (lambda p: p.write_bytes(gzip.decompress(p.read_bytes())[:900]), {}, r'900 bytes, its header'),
    (lambda p: p.write_bytes(b'no digits here at all'), {}, r'no idx file'),
    (lambda p: p.unlink(), {}, r'neither train-images'),
    (lambda p: None, dict(size='20'), r'--size 20: at least the size of a digit, 28x28'),
    (lambda p: None, dict(motion='fly'), r'--motion fly'),
    (lambda p: None, dict(test=0.95), r'shares that sum to less'),
    (lambda p: None, dict(validation=0.0), r'no digit image is left for the split validation')])
def test_bad_input_is_one_line(folder, tmp_path, spoil, options, message):
  spoil(folder / 't10k-images-idx3-ubyte.gz')
  with pytest.raises(ValueError, match=message):
    moving_mnist.prepare(in_dir=folder, out=tmp_path / 'a', **(_SMALL | options))
  assert not (tmp_path / 'a').exists()


def test_real_digits(realdata, tmp_path):
  assert cli.main(['moving_mnist', '--in', str(realdata / 'mnist'), '--out', str(tmp_path / 's'),
                   '--clips', '4', '--validation-clips', '1', '--test-clips', '1']) == 0
