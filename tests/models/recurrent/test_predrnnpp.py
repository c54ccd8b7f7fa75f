"""PredRNN++: its two cells, its highway."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.recurrent.predrnnpp import CausalLSTMCell, GradientHighway, PredRNNPlusPlus


def _arrays(*channels, seed=0):
  rng = np.random.default_rng(seed)
  return [jnp.asarray(rng.normal(size=(2, 3, 4, n)), jnp.float32) for n in channels]


@pytest.mark.parametrize('cell', ['predrnnpp', 'channel_mixer'])
def test_the_cell_follows_the_equations(cell):
  """The first stage reads c (paper, OpenSTL) or m (the Channel Mixer Layer's code)."""
  x, h, c, m = _arrays(3, 2, 2, 2)
  module = CausalLSTMCell(2, 3, cell=cell)
  params = module.init(jax.random.key(0), x, h, c, m)

  def conv(name, value, n):
    return jnp.split(jax.lax.conv_general_dilated(
        value, params['params'][name]['conv']['kernel'], (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC')), n, -1)

  s, th = jax.nn.sigmoid, jnp.tanh
  from_x, from_h, from_m = conv('conv_x', x, 7), conv('conv_h', h, 4), conv('conv_m', m, 3)
  first = conv('conv_c', c if cell == 'predrnnpp' else m, 3)
  i, f, g = (from_x[k] + from_h[k] + first[k] for k in range(3))
  new_c = s(f + 1) * c + s(i) * th(g)
  i2, g2, f2, o2 = conv('conv_c2m', new_c, 4)
  new_m = (s(from_x[4] + from_m[1] + f2 + 1) * th(from_m[2])
           + s(from_x[3] + from_m[0] + i2) * th(from_x[5] + g2))
  o = th(from_x[6] + from_h[3] + o2 + conv('conv_om', new_m, 1)[0])
  both = jnp.concatenate([new_c, new_m], -1)
  new_h = o * th(both @ params['params']['conv_last']['kernel'][0, 0])
  for got, expected in zip(module.apply(params, x, h, c, m), (new_h, new_c, new_m), strict=True):
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_the_highway_starts_by_halving_and_its_norms_span_both_gates():
  x, z = _arrays(2, 2)
  module = GradientHighway(2, 3)
  params = module.init(jax.random.key(0), x, z)
  assert max(float(jnp.max(jnp.abs(p))) for p in jax.tree.leaves(params)) <= 1e-3
  np.testing.assert_allclose(module.apply(params, x, z), z / 2, atol=0.1)
  params = jax.tree.map(lambda p: 300 * p, params)
  assert not np.allclose(module.apply(params, x, z), z / 2, atol=0.1)
  shapes = jax.eval_shape(
      GradientHighway(2, 3, layer_norm=True).init, jax.random.key(0), x, z)['params']
  assert shapes['z_concat']['norm']['scale'].shape == (3, 4, 4)


def test_the_highway_lies_between_the_first_two_layers():
  frame, = _arrays(3)
  module = PredRNNPlusPlus(features=(2, 2, 2), kernel_size=3)
  carry = module.initial_carry(frame, 1)
  variables = module.init(jax.random.key(0), carry, frame, 0)
  (layers, _, z), _, _ = module.apply(variables, carry, frame, 0)
  highway = GradientHighway(2, 3)
  expected = highway.apply(
      {'params': variables['params']['gradient_highway']}, layers[0][0], carry[2])
  np.testing.assert_allclose(z, expected, atol=1e-7)


def test_bad_fields():
  frame, = _arrays(3)
  with pytest.raises(ValueError, match=r'features \(4,\): give at least 2 layers'):
    PredRNNPlusPlus(features=(4,)).initial_carry(frame, 1)
  module = PredRNNPlusPlus(features=(2, 2), cell='gru')
  with pytest.raises(ValueError, match="'gru': one of predrnnpp channel_mixer"):
    module.init(jax.random.key(0), module.initial_carry(frame, 1), frame, 0)
