"""The lidar's background: what stands still goes, what moves stays."""

import numpy as np
import pytest

from stp_jax import prepare
from stp_jax.data import deepsense_filter, deepsense_scenes, point_file


def _still(rng, n=300):
  return np.stack([rng.uniform(-28, -4, n), rng.uniform(-12, 12, n), rng.uniform(-2, 3, n)], 1)


def test_what_moves_is_left():
  rng = np.random.default_rng(0)
  road = _still(rng)
  car = lambda y: np.array([-10.0, y, -1.5]) + rng.uniform(-0.4, 0.4, (40, 3))
  frames = [np.concatenate([road + rng.normal(0, 0.02, road.shape), car(y)]) for y in (-9, 0, 9)]
  cloud = deepsense_filter.background(frames)
  assert len(road) <= len(cloud) < len(road) + 20
  kept = deepsense_filter.foreground(np.concatenate([road, car(5.0)]), cloud)
  near = np.hypot(*(kept[:, :2] - (-10, 5)).T) < 1
  assert near.sum() >= 25 and (~near).sum() == 0
  # A point that stays is drawn to the middle of both frames.
  grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)
  np.testing.assert_allclose(deepsense_filter.background([grid, grid + 0.1]), grid + 0.05)


def test_the_threshold_grows_with_the_range():
  points = np.array([[0.0, 0, 9], [-30, 0, 0], [-18, 24, 0], [-15, 0, 0]])
  np.testing.assert_allclose(
      deepsense_filter.threshold(points), [0.3, 5, 5, 0.3 + 4.7 / 16], rtol=1e-12)
  still = np.zeros((1, 3))
  # At the threshold itself a point is kept.
  ring = np.array([[0.29, 0, 5], [0.31, 0, 5]])
  np.testing.assert_array_equal(deepsense_filter.foreground(ring, still), ring[1:])


def test_a_set_is_filtered_once_and_read(tmp_path, capsys):
  root = tmp_path / 'Dataset'
  deepsense_scenes.write_scenes(
      root, samples=6, adaptation=0, test=0, length=6, camera='32x20', cube='2x8x4', points=200,
      gps_noise=1.0, seed=0, workers=1)
  command = ['deepsense_filter', f'--in={root}', f'--out={root}', '--workers=1']
  assert prepare.main(command) == 0
  assert 'background of' in capsys.readouterr().out
  whole = sorted(root.rglob('lidar_data/*.ply'))
  made = sorted(root.rglob('lidar_data_filtered/*.ply'))
  assert [p.name for p in made] == [p.name for p in whole]
  assert all(len(point_file.read(a)) < len(point_file.read(b)) for a, b in zip(made, whole))
  made[0].unlink()
  before = made[1].stat().st_mtime_ns
  assert prepare.main(command) == 0 and made[0].exists() and made[1].stat().st_mtime_ns == before
  assert prepare.main(['deepsense', f'--in={root}', f'--out={tmp_path / "s"}', '--size=16',
                       '--workers=1', '--filtered']) == 0


@pytest.mark.parametrize('arguments, message', [
    (['--in={0}'], 'no folder lidar_data'),
    (['--in={0}', '--least=500'], 'no frame has 500 points, the largest 7; choose')])
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys):
  if 'least' in arguments[-1]:
    folder = tmp_path / 'scenario32' / 'unit1' / 'lidar_data'
    folder.mkdir(parents=True)
    point_file.write(folder / 'a.ply', np.ones((7, 3)))
  assert prepare.main(['deepsense_filter', *(a.format(tmp_path) for a in arguments),
                       f'--out={tmp_path / "o"}']) == 1
  error = capsys.readouterr().err.strip()
  assert message in error and '\n' not in error
