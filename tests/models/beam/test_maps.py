"""Pooling, upsampling, tokens and swapped channels, against torch where torch defines them."""

import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.beam import maps
from stp_jax.models.beam.resnet import max_pool


def _image(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('size, anchors', [
    ((8, 8), (2, 2)), ((7, 10), (3, 4)), ((2, 3), (8, 8)), ((5, 5), (5, 5)), ((1, 9), (1, 2))])
def test_adaptive_average_has_torchs_bins(size, anchors):
  torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[test]'")
  x = _image(2, *size, 3)
  expected = torch.nn.functional.adaptive_avg_pool2d(
      torch.from_numpy(x).permute(0, 3, 1, 2), anchors).permute(0, 2, 3, 1)
  np.testing.assert_allclose(maps.adaptive_average(x, anchors), expected, atol=1e-6)


@pytest.mark.parametrize('size, out', [((2, 2), (16, 16)), ((3, 2), (7, 5)), ((8, 8), (2, 3))])
def test_upsampling_is_torchs_bilinear(size, out):
  torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[test]'")
  x = _image(2, *size, 3)
  expected = torch.nn.functional.interpolate(
      torch.from_numpy(x).permute(0, 3, 1, 2), size=out, mode='bilinear',
      align_corners=False).permute(0, 2, 3, 1)
  np.testing.assert_allclose(maps.upsample(x, out), expected, atol=1e-5)


@pytest.mark.parametrize('size', [(8, 8), (7, 10), (1, 3)])
def test_max_pool_is_torchs(size):
  torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[test]'")
  x = _image(2, *size, 3)
  expected = torch.nn.functional.max_pool2d(
      torch.from_numpy(x).permute(0, 3, 1, 2), 3, 2, 1).permute(0, 2, 3, 1)
  np.testing.assert_array_equal(max_pool(jnp.asarray(x)), expected)


def test_tokens_there_and_back_keep_sensor_time_row_column():
  sensors = {s: _image(2, 3, 2, 4, 5) + 10 * i for i, s in enumerate(maps.SENSORS)}
  gps = _image(2, 2, 5)
  tokens = maps.to_tokens(sensors, gps)
  assert tokens.shape == (2, 3 * 3 * 2 * 4 + 2, 5)
  # lidar, frame 2, row 1, column 3
  np.testing.assert_array_equal(tokens[1, 24 + 2 * 8 + 4 + 3], sensors['lidar'][1, 2, 1, 3])
  back, fixes = maps.from_tokens(tokens, (2, 3, 2, 4, 5))
  np.testing.assert_array_equal(fixes, gps)
  for sensor, x in sensors.items():
    np.testing.assert_array_equal(back[sensor], x)


def test_channels_are_swapped_in_thirds():
  # 8 channels: thirds of 2, 2 and the rest of 4.
  found = maps.swap_channels({s: np.full((1, 1, 1, 1, 8), i) for i, s in enumerate(maps.SENSORS)})
  rows = {s: np.asarray(x).reshape(8).tolist() for s, x in found.items()}
  assert rows == dict(image=[0, 0, 1, 1, 2, 2, 2, 2], lidar=[1, 1, 2, 2, 0, 0, 0, 0],
                      radar=[2, 2, 0, 0, 1, 1, 1, 1])
