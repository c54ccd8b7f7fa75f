"""Single files of DeepSense6G, generated scenes, mirrors and augmentations."""

import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.data import (
  deepsense_augment,
  deepsense_features,
  deepsense_gps,
  deepsense_scenes,
  deepsense_sensors,
  deepsense_world,
  point_file,
)


@pytest.mark.parametrize('form', ['ascii', 'binary_little_endian', 'binary_big_endian'])
def test_point_clouds_with_further_properties(tmp_path, form):
  table = np.array([(7, 1.5, -2.0, 0.25), (9, 4.0, 5.0, -6.0)],
                   [('tag', 'u1'), ('x', 'f8'), ('y', 'f4'), ('z', 'f4')])
  header = (f'ply\nformat {form} 1.0\ncomment made here\nelement vertex 2\nproperty uchar tag\n'
            'property double x\nproperty float y\nproperty float32 z\nelement face 0\n'
            'property list uchar int vertex_indices\nend_header\n').encode()
  if form == 'ascii':
    body = '\n'.join(' '.join(str(v) for v in row) for row in table.tolist()).encode() + b'\n'
  else:
    body = table.astype(table.dtype.newbyteorder('<' if 'little' in form else '>')).tobytes()
  path = tmp_path / 'a.ply'
  path.write_bytes(header + body)
  np.testing.assert_array_equal(point_file.read(path), [[1.5, -2, 0.25], [4, 5, -6]])
  path.write_bytes((header + body)[:-9])
  with pytest.raises(ValueError, match=r'a\.ply: no readable point cloud'):
    point_file.read(path)


def test_utm_of_both_hemispheres_and_far_from_the_meridian():
  # Independent of the code: one second of latitude on the equator is 30.715 m x 0.9996.
  step = np.diff(deepsense_gps.utm(np.array([[0, 3.0], [1 / 3600, 3.0]])), axis=0)[0]
  np.testing.assert_allclose(step, [0, 30.7150 * 0.9996], atol=2e-3)
  np.testing.assert_allclose(deepsense_gps.utm(np.array([[0, 3.0]])), [[5e5, 0]], atol=1e-6)
  assert deepsense_gps.utm(np.array([[-33.9, 18.4]]))[0, 1] > 6e6
  assert deepsense_gps.zone(-111.9) == 12


def test_a_drive_is_where_every_sensor_says():
  for scenario in deepsense_sensors.SCENARIOS:
    rng = np.random.default_rng((3, scenario))
    drive = deepsense_world.drive(rng, scenario, 10, 0.0)
    for t in (0, 5, 9):
      x, y = drive.where(t)
      bearing = np.arctan2(y, -x)
      best = deepsense_world.beams(rng, x, y).argmax()
      assert abs(best - (bearing / (np.pi / 2) + 0.5) * 63) < 1.5
      fix = deepsense_world.position(rng, drive, t, 0.0)
      metres = np.diff(deepsense_gps.utm(
          np.array([deepsense_world.STATION[scenario], fix])), axis=0)
      angle = deepsense_features.gps_angle(
          jnp.asarray(np.stack([metres, metres], 1), jnp.float32), jnp.array([scenario]))
      np.testing.assert_allclose(angle, np.full((1, 2), bearing), atol=2e-3)
    cube = deepsense_world.radar(rng, [], drive, 0, (4, 64, 16))
    x, y = drive.where(0)
    angle_map, _ = deepsense_sensors.radar_maps(cube)
    distance, column = np.unravel_index(angle_map.argmax(), angle_map.shape)
    assert abs(distance - np.hypot(x, y)) < 2.5
    expected = 128 * np.sin(np.arctan2(y, -x))
    assert abs((column - expected + 128) % 256 - 128) < 20


def test_drives_follow_from_seed_and_index_alone(tmp_path):
  options = dict(adaptation=0, test=0, length=5, camera='16x16', cube='2x8x4', points=20,
                 gps_noise=1.0, workers=1)
  few = deepsense_scenes.write_scenes(tmp_path / 'few', samples=3, seed=0, **options)
  many = deepsense_scenes.write_scenes(tmp_path / 'many', samples=9, seed=0, **options)
  assert (few, many) == (15, 45)
  for path in (tmp_path / 'few').glob('Multi_Modal/scenario*/unit*/*/*'):
    other = tmp_path / 'many' / path.relative_to(tmp_path / 'few')
    assert path.read_bytes() == other.read_bytes()
  with pytest.raises(ValueError, match='holds other scenes'):
    deepsense_scenes.write_scenes(tmp_path / 'few', samples=3, seed=1, **options)
  with pytest.raises(ValueError, match='--camera 4x4'):
    deepsense_scenes.write_scenes(tmp_path / 'x', samples=3, seed=1, **{**options, 'camera': '4x4'})


def test_scenes_as_a_store(tmp_path):
  options = dict(samples=6, adaptation=0, test=0, length=6, camera='16x16', cube='2x8x4',
                 points=20, as_store=True, size=16, workers=1, out=tmp_path / 's')
  store = deepsense_scenes.prepare(**options)
  assert 'SIMULATED' in store.meta['description'] and not (tmp_path / 's.scenes').exists()
  assert deepsense_scenes.prepare(**options).path == store.path
  with pytest.raises(ValueError, match='other inputs or options'):
    deepsense_scenes.prepare(**dict(options, seed=5))


def test_a_mirror_keeps_physics_and_upstreams_does_not():
  rng = np.random.default_rng(0)
  batch = dict(
      image=jnp.asarray(rng.integers(0, 255, (2, 1, 8, 8, 3))),
      lidar=jnp.asarray(rng.integers(0, 5, (2, 1, 8, 100, 1))),
      radar=jnp.asarray(rng.integers(0, 99, (2, 1, 8, 8, 2))), beam=jnp.array([[3], [-1]]),
      gps=jnp.asarray(rng.normal(-10, 3, (2, 2, 2)), jnp.float32), scenario=jnp.array([32, 99]))
  sound = deepsense_features.mirror(batch)
  angle = deepsense_features.gps_angle
  np.testing.assert_allclose(angle(sound['gps'], batch['scenario']),
                             -angle(batch['gps'], batch['scenario']), atol=1e-5)
  np.testing.assert_array_equal(sound['beam'], [[60], [-1]])
  np.testing.assert_array_equal(sound['radar'][..., 1], batch['radar'][..., 1])
  np.testing.assert_array_equal(sound['radar'][:, :, :, 3, 0], batch['radar'][:, :, :, 5, 0])
  # Scenario 32 reaches from -40 to 5.5 m: the middle of cell 93, y = 2.54 m, is seen in cell 82.
  np.testing.assert_array_equal(sound['lidar'][0, :, :, 82], batch['lidar'][0, :, :, 93])
  np.testing.assert_array_equal(sound['lidar'][1], batch['lidar'][1, :, :, ::-1])
  quirk = deepsense_features.mirror(batch, upstream=True)
  np.testing.assert_array_equal(quirk['radar'], batch['radar'][:, :, :, ::-1])
  twice = deepsense_features.upstream_flip(dict(gps=np.ones((2, 2))), reads=2)['gps']
  np.testing.assert_array_equal(twice, np.ones((2, 2)))  # its sign alternates


@pytest.mark.parametrize('kind', deepsense_augment.CAMERA)
def test_camera_kinds_leave_the_neutral_amount_alone(kind):
  image = np.random.default_rng(0).integers(0, 256, (2, 12, 14, 3)).astype(np.uint8)
  if kind == 'blur':
    flat = deepsense_augment.adjust(np.full_like(image, 77), kind, 4.0)
    np.testing.assert_allclose(flat, 77, atol=1e-3)
  else:
    neutral = 0.0 if kind == 'hue' else 1.0
    np.testing.assert_allclose(deepsense_augment.adjust(image, kind, neutral), image, atol=1e-2)
  one, same, other = (np.asarray(deepsense_augment.camera(image, kind, 0, i)) for i in (1, 1, 2))
  assert np.array_equal(one, same) and not np.array_equal(one, other)
  assert one.min() >= 0 and one.max() <= 255.01


def test_lidar_and_radar_augmentation():
  cloud = np.random.default_rng(0).normal(size=(50, 3))
  assert len(deepsense_augment.points(cloud, 'thin', 0, 0)) == 45
  moved = deepsense_augment.points(cloud, 'jitter', 0, 0)
  assert 0 < np.abs(moved - cloud).max() <= 0.4
  values = deepsense_augment.radar_map(np.random.default_rng(0).uniform(size=(6, 5)), 0, 0)
  assert values.min() == 0 and values.max() == 1


def test_image_folders_by_suffix():
  path = './scenario33/unit1/camera_data/image_BS1_1_20_00_00.jpg'
  choose = lambda scenario=33, **k: deepsense_sensors.image_path(
      path, scenario, deepsense_sensors.Reading(**k)).split('/')[3]
  assert choose() == 'camera_data' and choose(enhanced=False) == 'camera_data_raw'
  assert choose(31, enhanced=False) == 'camera_data' and choose(31, mask=True) == 'camera_data_mask'
  with pytest.raises(ValueError, match='mask or enhanced'):
    choose(mask=True)
