"""Norms against torch's, in values, gradients and running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.layers import norms

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(2, 3, size=shape).astype(np.float32)


def _first(x):  # channels first
  return torch.from_numpy(np.moveaxis(x, -1, 1).copy()).requires_grad_()


def test_batch_norm_equals_torch_in_training_and_after():
  x, scale, bias = _random(3, 4, 5, 6), _random(6, seed=1), _random(6, seed=2)
  reference = torch.nn.BatchNorm2d(6)
  with torch.no_grad():
    reference.weight.copy_(torch.from_numpy(scale))
    reference.bias.copy_(torch.from_numpy(bias))
  module = norms.BatchNorm()
  variables = module.init(jax.random.key(0), x, True)
  # Initialisation must not count as a training step.
  np.testing.assert_array_equal(variables['batch_stats']['mean'], 0)
  variables['params'] = dict(scale=scale, bias=bias)
  stats = variables['batch_stats']
  for step in range(2):
    batch = x + step
    y, new = module.apply({**variables, 'batch_stats': stats}, batch, True, mutable='batch_stats')
    stats = new['batch_stats']
    expected = reference(_first(batch))
    np.testing.assert_allclose(y, np.moveaxis(expected.detach().numpy(), 1, -1), atol=2e-5)
  np.testing.assert_allclose(stats['mean'], reference.running_mean, rtol=1e-5)
  # Flax's own would keep the biased variance, 1.7 % less here.
  np.testing.assert_allclose(stats['var'], reference.running_var, rtol=1e-5)
  reference.eval()
  y = module.apply({**variables, 'batch_stats': stats}, x, False)
  expected = np.moveaxis(reference(_first(x)).detach().numpy(), 1, -1)
  np.testing.assert_allclose(y, expected, atol=2e-5)


@pytest.mark.parametrize('groups', [1, 2, 6])
def test_group_norm_equals_torch(groups):
  x, scale, bias = _random(3, 4, 5, 6), _random(6, seed=1), _random(6, seed=2)
  given = _first(x)
  expected = torch.nn.functional.group_norm(
      given, groups, torch.from_numpy(scale), torch.from_numpy(bias))
  weight = np.cos(np.arange(x.size)).reshape(x.shape).astype(np.float32)
  (expected * _first(weight)).sum().backward()
  module, params = norms.GroupNorm(groups), dict(scale=scale, bias=bias)
  y = module.apply({'params': params}, x)
  np.testing.assert_allclose(y, np.moveaxis(expected.detach().numpy(), 1, -1), atol=2e-5)
  grad = jax.grad(lambda x: jnp.sum(module.apply({'params': params}, x) * weight))(jnp.asarray(x))
  np.testing.assert_allclose(grad, np.moveaxis(given.grad.numpy(), 1, -1), atol=2e-5)


def test_group_norm_of_a_constant_group_is_finite():
  x = jnp.full((1, 8, 8, 2), 1234.567)
  module = norms.GroupNorm(1)
  assert bool(jnp.all(jnp.isfinite(module.apply(module.init(jax.random.key(0), x), x))))
  with pytest.raises(ValueError, match='groups'):
    norms.GroupNorm(3).init(jax.random.key(0), x)


def test_volume_layer_norm_equals_torch():
  x, scale, bias = _random(3, 4, 5, 6), _random(4, 5, 6, seed=1), _random(4, 5, 6, seed=2)
  expected = torch.nn.functional.layer_norm(
      torch.from_numpy(x), (4, 5, 6), torch.from_numpy(scale), torch.from_numpy(bias))
  y = norms.VolumeLayerNorm().apply({'params': dict(scale=scale, bias=bias)}, x)
  np.testing.assert_allclose(y, expected.numpy(), atol=1e-5)


def test_statistics_are_float32_and_results_keep_their_type():
  # In bfloat16 a mean of 300 numbers near 256 would be off by units.
  x = jnp.asarray(256 + _random(2, 12, 12, 4), jnp.bfloat16)
  for module, more in (
      (norms.GroupNorm(2), ()), (norms.VolumeLayerNorm(), ()), (norms.BatchNorm(), (True,))):
    variables = module.init(jax.random.key(0), x, *more)
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    y = module.apply(variables, x, *more, mutable='batch_stats')[0]
    assert y.dtype == jnp.bfloat16
    assert abs(float(jnp.mean(y.astype(jnp.float32)))) < 0.02


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
  x = jnp.ones((4000, 2, 3))
  y = norms.DropPath(0.25).apply({}, x, True, rngs={'dropout': jax.random.key(1)})
  np.testing.assert_array_equal(y, jnp.broadcast_to(y[:, :1, :1], y.shape))
  np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
  np.testing.assert_allclose(jnp.mean(y), 1, atol=0.04)
  np.testing.assert_array_equal(norms.DropPath(0.25).apply({}, x, False), x)
