"""Moving MNIST from real digits, and the sets that are drawn like it."""

import pickle

import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import prepare as cli
from stp_jax.data import idx_files, moving_mnist, moving_mnist_cifar, pipeline, spec, train_batches
from stp_jax.data.clip_store import ClipStore, StoreError
from tests.data.test_moving_mnist import _clips, _idx

_SMALL = ('--clips', '6', '--validation-clips', '2', '--test-clips', '2', '--length', '12')


def made(name, root, out, *words) -> ClipStore:
  assert cli.main([name, '--in', str(root), '--out', str(out), *_SMALL, *words]) == 0
  return ClipStore(out)


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'in').mkdir()
  _idx(tmp_path / 'in' / 'train-images-idx3-ubyte.gz', 60, 1)
  _idx(tmp_path / 'in' / 't10k-images-idx3-ubyte.gz', 40, 2)
  return tmp_path / 'in'


def test_real_digits_of_train_and_test_differ(realdata, tmp_path):
  """Every clip of one digit shows an image of its own split's pool, and of no other."""
  root = realdata / 'mnist'
  store = made('moving_mnist', root, tmp_path / 's', '--digits', '1')
  images = idx_files.images(root, (), 't10k')[0]
  assert len(images) == 10_000
  pools = {k: {i.tobytes() for i in v}
           for k, v in moving_mnist.split_digits(None, images, 0.1, 0.1).items()}
  assert [len(pools[k]) for k in ('train', 'validation', 'test')] == [8000, 1000, 1000]
  for i, clip in enumerate(store.clips):
    frame = store.frames(i)[0, ..., 0]
    cuts = {np.ascontiguousarray(frame[y:y + 28, x:x + 28]).tobytes()
            for y in range(37) for x in range(37)}
    assert [k for k, pool in pools.items() if cuts & pool] == [clip.split]


def test_the_same_real_clips_whatever_the_worker_count(realdata, tmp_path):
  store = made('moving_mnist', realdata / 'mnist', tmp_path / 's')
  again = made('moving_mnist', realdata / 'mnist', tmp_path / 't')
  for source, frames in _clips(store).items():
    np.testing.assert_array_equal(frames, _clips(again)[source])
  data = config_files.load('configs/video.py:smoke').data
  data.batch_size = 2
  told = spec.make([store], data, ['train'])
  found = pipeline.sources([store], told, ['train'], 9)
  batches = []
  for workers in (0, 2):
    data.workers = workers
    iterator = train_batches.train_iterator(found, told, data, 4, seed=3)
    batches.append([next(iterator)['frames'] for _ in range(5)])
    iterator.close()
  for one, other in zip(*batches):
    np.testing.assert_array_equal(one, other)


def test_fashion(folder, tmp_path):
  clips = np.random.default_rng(1).integers(0, 256, (20, 3, 64, 64)).astype(np.uint8)
  np.save(folder / 'fmnist_test_seq.npy', clips)
  store = made('moving_fmnist', folder, tmp_path / 's')
  assert store.name == 'moving_fmnist' and store.clips[8].source == 'moving_fmnist/test/0'
  np.testing.assert_array_equal(store.frames(9)[..., 0], clips[:12, 1])


@pytest.mark.parametrize('noise', ['missing', 'perceptual', 'dynamic'])
def test_noise_is_on_the_inputs_of_training_clips_alone(folder, tmp_path, noise):
  clean = _clips(made('moving_mnist', folder, tmp_path / 'c'))
  noisy = _clips(made('noisy_mnist', folder, tmp_path / 'n', '--noise', noise, '--inputs', '7'))
  again = _clips(made('noisy_mnist', folder, tmp_path / 'a', '--noise', noise, '--inputs', '7'))
  changed = 0
  for source, frames in noisy.items():
    other = clean[source.replace('noisy_mnist', 'moving_mnist')]
    np.testing.assert_array_equal(frames, again[source])
    if 'train' not in source:
      np.testing.assert_array_equal(frames, other)
      continue
    differs = [not np.array_equal(a, b) for a, b in zip(frames, other)]
    changed += sum(differs[:7])
    if noise == 'dynamic':
      continue
    assert not any(differs[7:])
    for frame, before, differ in zip(frames, other, differs):
      if differ and noise == 'missing':
        assert not frame.any()
      elif differ:
        rows, columns = np.nonzero(frame[..., 0] != before[..., 0])
        assert np.ptp(rows) < 24 and np.ptp(columns) < 24 and not frame[rows, columns].any()
  assert changed >= 3


def _cifar(folder, seed=0):
  images = {}
  for i, name in enumerate([*(f'data_batch_{k}' for k in range(1, 6)), 'test_batch']):
    images[name] = np.random.default_rng(seed + i).integers(
        0, 200, (4, 3072)).astype(np.uint8)
    path = folder / 'cifar10' / 'cifar-10-batches-py' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({b'data': images[name], b'labels': [0] * 4}, protocol=2))
  return images


def test_digits_before_photographs(folder, tmp_path):
  images = _cifar(folder)
  store = made('moving_mnist_cifar', folder, tmp_path / 's')
  assert store.frames(0).shape == (12, 64, 64, 3)
  clip = store.frames(9)
  behind = clip.min(0)  # where no digit was all the time
  still = (clip == behind).all(0).all(-1) & (behind < 255).any(-1)
  assert still.mean() > 0.2 and (clip[:, ~still] == 255).any()
  import PIL.Image
  wanted = [np.asarray(PIL.Image.fromarray(i.reshape(3, 32, 32).transpose(1, 2, 0)).resize(
      (64, 64), PIL.Image.Resampling.BICUBIC)) for i in images['test_batch']]
  assert any((clip[:, still] == w[still]).all() for w in wanted)
  # The binary form holds the same.
  for name, value in images.items():
    path = tmp_path / 'b' / 'cifar-10-batches-bin' / f'{name}.bin'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.concatenate([np.zeros((4, 1), np.uint8), value], 1).tobytes())
    np.testing.assert_array_equal(
        moving_mnist_cifar._batch(path),
        moving_mnist_cifar._batch(folder / 'cifar10/cifar-10-batches-py' / name))


def test_bad_photographs_and_noise(folder, tmp_path, capsys):
  with pytest.raises(StoreError, match='no data_batch_1 of CIFAR'):
    moving_mnist_cifar.prepare(in_dir=folder, out=tmp_path / 's')
  _cifar(folder)
  bad = folder / 'cifar10/cifar-10-batches-py/data_batch_2'
  bad.write_bytes(pickle.dumps({b'data': np.random.default_rng}))
  with pytest.raises(StoreError, match=r'data_batch_2: unreadable .*it asks for numpy'):
    moving_mnist_cifar.prepare(in_dir=folder, out=tmp_path / 's')
  for words in (('--noise', 'loud'), ('--inputs', '13'),
                ('--noise', 'dynamic', '--motion', 'mirror')):
    assert cli.main(['noisy_mnist', '--in', str(folder), '--out', str(tmp_path / 's'), *_SMALL,
                     *words]) == 1
  assert '--noise loud (perceptual missing dynamic)' in capsys.readouterr().err
