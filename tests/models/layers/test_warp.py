"""Resizing, warping and Laplacian pyramids, against PyTorch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.layers.pyramid import laplacian_distance, laplacian_pyramid
from stp_jax.models.layers.resize import enlarge, shrink
from stp_jax.models.layers.warp import warp


def _draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('factor', [1, 2, 3, 4])
def test_resizing_is_interpolate(factor):
  torch = pytest.importorskip('torch')
  x = _draw(2, 12, 24, 3)

  def reference(scale):
    y = torch.nn.functional.interpolate(
        torch.tensor(x).permute(0, 3, 1, 2), scale_factor=scale, mode='bilinear')
    return y.permute(0, 2, 3, 1).numpy()

  np.testing.assert_allclose(shrink(jnp.asarray(x), factor), reference(1 / factor), atol=1e-5)
  np.testing.assert_allclose(enlarge(jnp.asarray(x), factor), reference(factor), atol=1e-5)


def test_shrinking_wants_a_divisible_size():
  with pytest.raises(ValueError, match='10 x 12 do not divide by 4'):
    shrink(jnp.zeros((1, 10, 12, 1)), 4)


def _torch_warp(torch, image, flow, padding):
  h, w = image.shape[1:3]
  lines = [torch.linspace(-1, 1, n) for n in (h, w)]
  y, x = torch.meshgrid(*lines, indexing='ij')
  grid = torch.stack([x + flow[..., 0] / ((w - 1) / 2), y + flow[..., 1] / ((h - 1) / 2)], -1)
  y = torch.nn.functional.grid_sample(
      image.permute(0, 3, 1, 2), grid, padding_mode=padding, align_corners=True)
  return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize('padding', ['border', 'zeros'])
@pytest.mark.parametrize('scale', [0.0, 3.0])
def test_warp_and_its_gradients_are_grid_sample(padding, scale):
  torch = pytest.importorskip('torch')
  image, flow, weight = (_draw(2, 16, 13, c, seed=c) for c in (3, 2, 3))
  flow = scale * flow
  tensors = [torch.tensor(x, requires_grad=True) for x in (image, flow)]
  reference = _torch_warp(torch, *tensors, padding)
  (reference * torch.tensor(weight)).sum().backward()

  @jax.jit
  def run(image, flow):
    y = warp(image, flow, padding, 'upstream')
    return jnp.sum(y * weight), y

  (_, y), grads = jax.value_and_grad(run, (0, 1), has_aux=True)(image, flow)
  np.testing.assert_allclose(y, reference.detach(), atol=1e-5)
  for ours, tensor in zip(grads, tensors):
    np.testing.assert_allclose(ours, tensor.grad, atol=1e-4)
  exact = warp(jnp.asarray(image), jnp.asarray(flow), padding)
  np.testing.assert_allclose(exact, y, atol=1e-5)


def test_warp_takes_any_flow():
  image = jnp.asarray(_draw(1, 4, 5, 1))
  np.testing.assert_array_equal(warp(image, jnp.full((1, 4, 5, 2), 1e30)), np.broadcast_to(
      image[:, -1:, -1:], image.shape))
  assert not np.any(warp(image, jnp.full((1, 4, 5, 2), -1e30), 'zeros'))
  with pytest.raises(ValueError, match='border zeros'):
    warp(image, jnp.zeros((1, 4, 5, 2)), 'wrap')
  with pytest.raises(ValueError, match='exact upstream'):
    warp(image, jnp.zeros((1, 4, 5, 2)), grid='torch')


def test_laplacian_pyramid():
  # What is smooth leaves nothing behind, at odd sizes and down to single pixels.
  for level in laplacian_pyramid(jnp.ones((1, 11, 6, 1)), 5):
    np.testing.assert_allclose(level, 0, atol=1e-6)
  a, b = _draw(2, 8, 8, 2), _draw(2, 8, 8, 2, seed=1)
  pairs = zip(laplacian_pyramid(a, 2), laplacian_pyramid(b, 2))
  expected = sum(np.abs(p - q).mean((1, 2, 3)) for p, q in pairs)
  np.testing.assert_allclose(laplacian_distance(a, b, 2), expected, rtol=1e-4)


@pytest.mark.parametrize('padding', ['border', 'zeros'])
def test_several_flows_fetch_from_one_image(padding):
  image, flow = jnp.asarray(_draw(2, 5, 7, 3)), 2 * jnp.asarray(_draw(2, 4, 6, 5, 2, seed=1))
  together = warp(image, flow, padding)
  assert together.shape == (2, 4, 6, 5, 3)
  for k in range(4):
    np.testing.assert_array_equal(together[:, k], warp(image, flow[:, k], padding))
