"""ConvLSTM: its two cells, its options, its published size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models import build
from stp_jax.models.layers.conv import convolution_method
from stp_jax.models.recurrent.convlstm import ConvLSTM


def _step(module, seed=0, batch=2):
  frame = jnp.asarray(np.random.default_rng(seed).normal(size=(batch, 4, 5, 3)), jnp.float32)
  carry = module.initial_carry(frame, 1)
  variables = module.init(jax.random.key(1), carry, frame, 0)
  return variables, carry, frame


def _by_hand(variables, x, h, c, cell):
  """One layer from the published equations, convolutions as XLA has them."""
  p = variables['params']['cell_list_0']
  conv = lambda x, name: jax.lax.conv_general_dilated(
      x, p[name]['conv']['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  i, f, g, o = jnp.split(conv(x, 'conv_x') + conv(h, 'conv_h'), 4, -1)
  c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  h = jax.nn.sigmoid(o) * (jnp.tanh(c) if cell == 'convlstm' else jnp.tanh(g))
  return h, c


@pytest.mark.parametrize('cell', ['convlstm', 'channel_mixer'])
def test_two_steps_follow_the_equations(cell):
  module = ConvLSTM(features=(4,), kernel_size=3, cell=cell)
  variables, carry, frame = _step(module)
  h = c = jnp.zeros((2, 4, 5, 4))
  for scale in (1, -2):
    carry, prediction, terms = module.apply(variables, carry, scale * frame, 0)
    h, c = _by_hand(variables, scale * frame, h, c, cell)
    expected = h @ variables['params']['conv_last']['kernel'][0, 0]
    np.testing.assert_allclose(prediction, expected, atol=1e-5)
    assert not terms
  # The published cell never reads c: it is not even computed.
  assert (carry[0][1] is None) == (cell == 'channel_mixer')


def test_layers_may_differ_in_width_and_layer_norm_is_over_the_volume():
  module = ConvLSTM(channels=2, features=(3, 5), kernel_size=3, layer_norm=True)
  variables, carry, frame = _step(module)
  shapes = jax.tree.map(jnp.shape, variables['params'])
  assert shapes['cell_list_1']['conv_x'] == dict(
      conv=dict(kernel=(3, 3, 3, 20)), norm=dict(scale=(4, 5, 20), bias=(4, 5, 20)))
  _, prediction, _ = module.apply(variables, carry, frame, 0)
  assert prediction.shape == (2, 4, 5, 2)
  for cell in ('convlstm', 'channel_mixer'):
    other = ConvLSTM(channels=2, features=(3, 5), kernel_size=3, layer_norm=True, cell=cell)
    other.apply(variables, other.initial_carry(frame, 1), frame, 0)  # the same parameters


def test_bad_fields():
  for fields, message in (
      (dict(cell='gru'), 'convlstm channel_mixer'), (dict(kernel_size=4), 'odd')):
    with pytest.raises(ValueError, match=message):
      _step(ConvLSTM(features=(2,), **fields))


@functools.cache
def _gradients(method):
  model = build(
      dict(name='convlstm', patch=2, backbone=dict(features=(3, 4), kernel_size=3)),
      shape=(8, 8, 1), t_in=2, t_out=3)
  frames = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8, 8, 1)), jnp.float32)
  with convolution_method(method):
    variables = model.init(jax.random.key(0), frames)
    return jax.jit(jax.grad(lambda v: jnp.sum(model.apply(v, frames).prediction ** 2)))(variables)


def test_gradient_through_the_scan_is_that_of_native_convolutions():
  for a, b in zip(*(jax.tree.leaves(_gradients(m)) for m in ('rewritten', 'native'))):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.max(jnp.abs(b))))


@pytest.mark.parametrize('fusion, forcings, published', [
    ('none', 0, 15083520), ('concatenate', 8, 16721920), ('mix', 15, 18360320)])
def test_published_parameter_counts(fusion, forcings, published):
  model = build(
      dict(name='convlstm', patch=4, fusion=fusion), shape=(72, 72, 1), forcings=forcings,
      t_in=12, t_out=48)
  planes = jnp.zeros((1, 60, 72, 72, forcings)) if forcings else None
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 12, 72, 72, 1)), planes)
  # Upstream builds a conv_o and a conv_last in every cell that nothing uses.
  unused = 4 * (2 * 128 * 128 * 25 + 2 * 128 * 128)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == published - unused
