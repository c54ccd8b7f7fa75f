"""The transposed convolution equals torch's, by phases and natively, gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from stp_jax.models.layers.conv import convolution_method
from stp_jax.models.layers.transposed import ConvTranspose2D, transposed_convolution


def _random(*shape):
  return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('k, stride, padding, more', [
    (3, 2, 1, 1), (3, 2, 1, 0), (4, 2, 1, 0), (3, 1, 1, 0), (5, 3, 2, 2), (2, 2, 0, 0),
    (5, 2, 0, 1), (1, 2, 0, 1), (3, 3, 2, 0)])
def test_it_is_torchs(k, stride, padding, more):
  x, kernel = _random(2, 5, 4, 3), _random(3, 2, k, k)
  ours = np.transpose(kernel[:, :, ::-1, ::-1], (2, 3, 0, 1))
  inputs = [torch.tensor(a, requires_grad=True) for a in (np.moveaxis(x, -1, 1), kernel)]
  expected = torch.nn.functional.conv_transpose2d(
      *inputs, stride=stride, padding=padding, output_padding=more)
  expected.square().sum().backward()
  d_x, d_kernel = (a.grad.numpy() for a in inputs)
  d_kernel = np.transpose(d_kernel[:, :, ::-1, ::-1], (2, 3, 0, 1))

  def loss(x, kernel):
    y = transposed_convolution(
        x, kernel, stride=stride, padding=padding, output_padding=more)
    return jnp.sum(jnp.square(y)), y

  for method in ('rewritten', 'native'):
    with convolution_method(method):
      (_, y), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(
          jnp.asarray(x), jnp.asarray(ours))
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(grads[0], np.moveaxis(d_x, 1, -1), atol=2e-4)
    np.testing.assert_allclose(grads[1], d_kernel, atol=1e-3)


def test_a_layer_doubles_the_size_and_starts_as_torch_does():
  x = jnp.asarray(_random(2, 1, 5, 4, 3))
  layer = ConvTranspose2D(7)
  variables = layer.init(jax.random.key(0), x)
  assert layer.apply(variables, x).shape == (2, 1, 10, 8, 7)
  bound = (3 * 3 * 7) ** -0.5  # torch's kernel is [in, out, k, k]: its fan in counts outputs
  for leaf in jax.tree.leaves(variables):
    assert 0.8 * bound < float(jnp.max(jnp.abs(leaf))) <= bound
  with pytest.raises(ValueError, match='torch or zeros'):
    ConvTranspose2D(2, initializer='he').init(jax.random.key(0), x)
