"""Attention accumulated state by state equals the softmax over all; a volume's convolution torch's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from stp_jax.models.layers.conv3d import DepthConv
from stp_jax.models.layers.recall import recall


def _random(*shape):
  return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def _dense(query, history, count):
  keys = history[:, :count].reshape(len(history), -1, history.shape[-1])
  return jax.nn.softmax(query @ jnp.swapaxes(keys, 1, 2), -1) @ keys


@pytest.mark.parametrize('count', [1, 3, 4, 9])
def test_recall_equals_a_softmax_over_the_states_so_far(count):
  query, history = 2 * _random(2, 5, 3), 2 * _random(2, 4, 5, 3)
  history = history.at[:, count:].set(jnp.nan)  # not filled yet: never read

  def value(function, count):
    loss = lambda q, h: (jnp.sum(jnp.sin(function(q, h, count))), function(q, h, count))
    return jax.value_and_grad(loss, (0, 1), has_aux=True)(query, history)

  (_, y), (d_query, d_history) = value(recall, jnp.asarray(count))
  (_, expected), (d_q, d_h) = value(_dense, count)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  np.testing.assert_allclose(d_query, d_q, atol=1e-5)
  np.testing.assert_allclose(d_history, d_h, atol=1e-5)


def test_recall_stands_large_scores_and_half_precision():
  query, history = 100 * _random(2, 5, 3), 100 * _random(2, 4, 5, 3)
  y = recall(query, history, jnp.asarray(4))
  np.testing.assert_allclose(y, _dense(query, history, 4), rtol=1e-4)
  half = recall(query / 100, history / 100, jnp.asarray(4), jnp.bfloat16)
  assert half.dtype == jnp.float32
  np.testing.assert_allclose(half, _dense(query / 100, history / 100, 4), atol=0.05)


@pytest.mark.parametrize('depth, size', [(1, 1), (2, 5), (2, 1), (3, 3)])
def test_depth_convolution_is_torchs(depth, size):
  x = _random(2, 3, 5, 4, 2)
  layer = DepthConv(6, depth, size)
  variables = layer.init(jax.random.key(0), x)
  kernel = np.transpose(variables['params']['kernel'], (4, 3, 0, 1, 2))
  expected = torch.nn.functional.conv3d(
      torch.tensor(np.moveaxis(x, -1, 1)), torch.tensor(kernel), padding=(0, size // 2, size // 2))
  np.testing.assert_allclose(
      np.moveaxis(layer.apply(variables, x), -1, 1), expected.numpy(), atol=1e-5)


def test_a_kernel_deeper_than_the_volume_is_an_error():
  for fields in (dict(kernel_depth=3), dict(kernel_size=4)):
    with pytest.raises(ValueError, match='odd size, no deeper'):
      DepthConv(2, **fields).init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 1)))
