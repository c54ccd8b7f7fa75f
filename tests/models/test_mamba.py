"""The Mamba layer streams and is causal; the gated block starts alive, and upstream's does not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.layers.mamba import BiMambaBlock, Mamba


def sequence(length=6, width=8, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal((2, length, width)), jnp.float32)


def start(module, x):
  return jax.jit(module.init)(jax.random.key(0), x)


class Stack(nn.Module):
  """Equal blocks, their parameters stacked."""
  block: nn.Module
  depth: int
  remat: bool = False

  @nn.compact
  def __call__(self, x):
    body = lambda module, x: (module(x), None)
    if self.remat:
      body = nn.remat(body, prevent_cse=False)
    scan = nn.scan(
        body, variable_axes={'params': 0}, split_rngs={'params': True}, length=self.depth)
    return scan(self.block, x)[0]


def output_and_gradients(module, x):
  """y, parameters, gradients of sum(y * noise), by path."""
  params = start(module, x)['params']

  @jax.jit
  def run(params):
    def loss(params):
      y = module.apply({'params': params}, x)
      noise = np.random.default_rng(5).standard_normal(y.shape)
      return jnp.sum(y.astype(jnp.float32) * noise), y
    return jax.grad(loss, has_aux=True)(params)

  grads, y = run(params)
  by_path = lambda tree: {
      jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)}
  return np.asarray(y), by_path(params), by_path(grads)


def test_a_sequence_in_pieces_is_the_whole():
  module, x = Mamba(d_state=4), sequence(7)
  variables, apply = start(module, x), jax.jit(module.apply)
  whole = apply(variables, x)
  carry, pieces = module.initial_carry(2, 8), []
  for piece in (x[:, :2], x[:, 2:3], x[:, 3:]):
    y, carry = apply(variables, piece, carry)
    pieces.append(y)
  np.testing.assert_allclose(jnp.concatenate(pieces, 1), whole, atol=1e-6)
  assert [c.shape for c in carry] == [(2, 3, 16), (2, 16, 4)]
  later = apply(variables, x.at[:, 4:].set(9.0))
  np.testing.assert_array_equal(later[:, :4], whole[:, :4])


@pytest.mark.parametrize('d_conv', [1, 2])
def test_short_convolutions_and_fixed_ranks(d_conv):
  module = Mamba(d_state=2, d_conv=d_conv, expand=1, dt_rank=3)
  variables = jax.eval_shape(module.init, jax.random.key(0), sequence(3))
  assert variables['params']['conv1d']['kernel'].shape == (d_conv, 1, 8)
  assert variables['params']['dt_proj']['kernel'].shape == (3, 8)
  assert jax.eval_shape(module.apply, variables, sequence(5)).shape == (2, 5, 8)


def test_how_it_starts():
  x = sequence(2, 32)
  params = start(Mamba(), x)['params']
  steps = jax.nn.softplus(params['dt_proj']['bias'])
  assert 1e-3 * 0.99 < steps.min() < 3e-3 and 0.04 < steps.max() < 0.1 * 1.01
  np.testing.assert_allclose(params['A_log'], np.tile(np.log(np.arange(1, 17)), (64, 1)), rtol=1e-6)
  assert (params['D'] == 1).all() and abs(params['dt_proj']['kernel']).max() <= 2 ** -0.5
  again = start(Mamba(initializer='trunc_normal'), x)['params']
  assert not again['dt_proj']['bias'].any()
  assert 0.015 < again['in_proj']['kernel'].std() < 0.025
  assert abs(again['conv1d']['kernel']).max() > 0.4  # torch's start: only linear layers are redrawn


def test_every_parameter_of_a_deep_stack_has_a_gradient():
  y, _, grads = output_and_gradients(Stack(BiMambaBlock(d_state=4), 6), sequence())
  assert np.isfinite(y).all()
  for path, grad in grads.items():
    for layer in grad:
      # The smallest, of step sizes that start at 0.001, is 7e-7.
      assert 1e-9 < np.linalg.norm(layer) < 1e4, path


def test_upstreams_start_is_dead():
  """No residual, a product of two small branches: eight blocks later exactly zero."""
  block = BiMambaBlock(
      align='upstream', residual=False, initializer='trunc_normal', d_state=4)
  y, _, grads = output_and_gradients(Stack(block, 8), sequence())
  assert not y.any()
  assert not any(g.any() for g in grads.values())


def test_aligned_branches_meet_at_the_same_step():
  x = sequence(5)
  module = BiMambaBlock(d_state=2, residual=False)
  params = start(module, x)['params']
  params['fc1'] = dict(kernel=jnp.eye(8), bias=jnp.zeros(8))
  part = lambda name, x: jax.jit(Mamba(d_state=2).apply)({'params': params[name]}, x)
  normed = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(
      x.var((1, 2), keepdims=True) + 1e-5)
  skip = nn.leaky_relu(normed @ params['fc2']['kernel'] + params['fc2']['bias'], 0.2)
  gate = part('backward_mamba', normed[:, ::-1])
  expected = gate[:, ::-1] * (skip + part('forward_mamba', normed))
  run = lambda **fields: jax.jit(module.clone(**fields).apply)({'params': params}, x)
  np.testing.assert_allclose(run(), expected, atol=1e-6)
  np.testing.assert_allclose(run(residual=True), x + expected, atol=1e-6)
  upstream = gate * (skip[:, ::-1] + part('forward_mamba', normed))
  np.testing.assert_allclose(run(align='upstream'), upstream, atol=1e-6)


def test_the_norm_of_tokens_takes_any_length():
  module = BiMambaBlock(d_state=2, norm='token')
  variables = jax.eval_shape(module.init, jax.random.key(0), sequence(5))
  assert variables['params']['ln1']['scale'].shape == (8,)
  assert jax.eval_shape(module.apply, variables, sequence(9)).shape == (2, 9, 8)
  joint = jax.eval_shape(BiMambaBlock().init, jax.random.key(0), sequence(5))
  assert joint['params']['ln1']['scale'].shape == (5, 8)


def test_bfloat16_under_remat_and_a_scan_over_layers():
  """Longer than a plain loop's 16 steps, so that `recompute` runs."""
  x = sequence(20).astype(jnp.bfloat16)
  module = Stack(BiMambaBlock(d_state=2, dtype=jnp.bfloat16), 2, remat=True)
  y, params, grads = output_and_gradients(module, x)
  assert y.dtype == jnp.bfloat16 and all(p.dtype == np.float32 for p in params.values())
  exact, _, exact_grads = output_and_gradients(Stack(BiMambaBlock(d_state=2), 2), sequence(20))
  np.testing.assert_allclose(np.asarray(y, np.float32), exact, atol=0.1)
  for path, grad in grads.items():
    assert np.isfinite(grad).all() and np.linalg.norm(
        grad - exact_grads[path]) < 0.2 * np.linalg.norm(exact_grads[path]), path


@pytest.mark.parametrize('fields, message', [
    (dict(align='both'), 'align'), (dict(norm='batch'), 'norm'),
    (dict(initializer='mamba'), 'initialiser'), (dict(method='fast'), 'method')])
def test_unknown_words(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(BiMambaBlock(**fields).init, jax.random.key(0), sequence(3))
