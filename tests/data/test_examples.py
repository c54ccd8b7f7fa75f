"""Numbered examples of Spatiotemporal-Prediction, and PredRNN's npz."""

import numpy as np
import pytest

from tests.data import layouts
from tests.data.test_published import refused, run


def test_npz_npy_and_folders(tmp_path, capsys):
  rng = np.random.default_rng(0)
  for split in ('train', 'validation', 'test'):
    (tmp_path / 'a/MovingMNIST' / split).mkdir(parents=True)
    (tmp_path / 'b' / split).mkdir(parents=True)
    for i in (1, 2):
      pair = {k: rng.uniform(0, 1, (10, 1, 16, 16)) for k in ('inputs', 'labels')}
      np.savez(tmp_path / f'a/MovingMNIST/{split}/example{i:06d}.npz', **pair)
      counts = rng.integers(0, 1292, (8, 2, 32, 32))
      np.save(tmp_path / f'b/{split}/example{i:06d}.npy', counts)
      for t in range(12):
        frame = layouts.noise(t + i, 18, 20)
        layouts.picture(tmp_path / f'c/KTH/{split}/example{i:06d}/{t + 1}.png', frame)
  store = run('examples', tmp_path / 'a', tmp_path / 's')
  assert [c.split for c in store.clips] == ['train'] * 2 + ['validation'] * 2 + ['test'] * 2
  np.testing.assert_allclose(store.frames(5)[10:, ..., 0], pair['labels'][:, 0], rtol=1e-6)
  flows = run('examples', tmp_path / 'b', tmp_path / 't')
  np.testing.assert_array_equal(flows.frames(5), counts.transpose(0, 2, 3, 1))
  assert flows.meta['normalisation'] == dict(divisor=1292.0)
  films = run('examples', tmp_path / 'c', tmp_path / 'u')
  np.testing.assert_array_equal(films.frames(5)[11, ..., 0], frame)  # 12.png behind 9.png
  np.savez(tmp_path / 'a/MovingMNIST/test/example000002.npz', inputs=pair['inputs'])
  refused('examples', tmp_path / 'a', tmp_path / 'v', 'example000002.npz: no array labels',
          capsys=capsys)
  (tmp_path / 'b/test/example000003.npz').write_bytes(b'')
  refused('examples', tmp_path / 'b', tmp_path / 'v', 'examples of the kinds .npy .npz',
          capsys=capsys)


@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
def test_predrnns_npz(tmp_path, capsys, dtype):
  (tmp_path / 'in').mkdir()
  for split, count in dict(train=3, valid=1, test=2).items():
    frames = layouts.noise(count, count * 20, 1, 16, 16)
    raw = frames if dtype == 'uint8' else (frames / 255).astype(np.float32)
    starts = np.arange(count) * 20
    clips = np.stack([np.stack([starts + 10 * k, np.full(count, 10)], 1) for k in (0, 1)])
    np.savez(tmp_path / f'in/moving-mnist-{split}.npz', clips=clips, input_raw_data=raw,
             dims=np.array([[1, 16, 16]]))
  store = run('examples', tmp_path / 'in', tmp_path / 's')
  assert [c.split for c in store.clips] == ['train'] * 3 + ['validation'] + ['test'] * 2
  np.testing.assert_allclose(
      store.physical(store.frames(5))[..., 0], frames[20:, 0] / 255, atol=1e-6)
  np.savez(tmp_path / 'in/moving-mnist-test.npz', clips=clips[:, ::-1], input_raw_data=raw)
  refused('examples', tmp_path / 'in', tmp_path / 't', 'clips that do not follow', capsys=capsys)
