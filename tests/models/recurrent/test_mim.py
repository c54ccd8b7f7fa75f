"""MIM: its memory S, its branch of changes, its fixed frame size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models import build
from stp_jax.models.recurrent.mim import MIM


def _random(tree, seed=0):
  """Peepholes start at zero, states too: neither would be seen."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), tree)


def _made(**fields):
  module = MIM(features=(2, 2, 2), kernel_size=3, **fields)
  frame = _random(jnp.zeros((2, 3, 4, 3)))
  carry = module.initial_carry(frame, 1)
  return module, _random(module.init(jax.random.key(0), carry, frame, 1)), _random(carry), frame


def test_one_step_follows_the_equations():
  module, variables, carry, frame = _made()
  s, th = jax.nn.sigmoid, jnp.tanh

  def conv(layer, name, value, n):
    return jnp.split(jax.lax.conv_general_dilated(
        value, variables['params'][layer][name]['conv']['kernel'], (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC')), n, -1)

  def last(layer, c, m):
    return jnp.concatenate([c, m], -1) @ variables['params'][layer]['conv_last']['kernel'][0, 0]

  def lstm(layer, x, h, c):
    p = variables['params'][layer]
    i, g, f, o = (a + b for a, b in zip(
        conv(layer, 'conv_h_concat', h, 4), conv(layer, 'conv_x_concat', x, 4)))
    i, f = i + c * p['ct_weight'][..., :2], f + c * p['ct_weight'][..., 2:]
    new = s(f + 1) * c + s(i) * th(g)
    return s(o + new * p['oc_weight']) * th(new), new

  name = 'stlstm_layer_0'
  from_x, from_h, from_m = (conv(name, k, v, n) for k, v, n in (
      ('conv_x', frame, 7), ('conv_h', carry['h'][0], 4), ('conv_m', carry['m'], 3)))
  c = s(from_x[1] + from_h[1] + 1) * carry['c'][0] + s(from_x[0] + from_h[0]) * th(
      from_x[2] + from_h[2])
  m = s(from_x[4] + from_m[1] + 1) * carry['m'] + s(from_x[3] + from_m[0]) * th(
      from_x[5] + from_m[2])
  o = s(from_x[6] + from_h[3] + conv(name, 'conv_o', jnp.concatenate([c, m], -1), 1)[0])
  h = [o * th(last(name, c, m))]
  change = h[0] - carry['h'][0]
  for i in (1, 2):
    name = f'stlstm_layer_{i}'
    change, _ = lstm(f'stlstm_layer_diff_{i - 1}', change, carry['change_h'][i - 1],
                     carry['change_c'][i - 1])
    i_t, g_t, o_t = conv(name, 'conv_t_cc', carry['h'][i], 3)
    i_s, g_s, f_s, o_s = conv(name, 'conv_s_cc', m, 4)
    i_x, g_x, f_x, o_x = conv(name, 'conv_x_cc', h[-1], 4)
    m = s(f_x + f_s + 1) * m + s(i_x + i_s) * th(g_x + g_s)
    kept, _ = lstm(name, change, carry['c'][i], carry['s'][i - 1])
    c = kept + s(i_x + i_t) * th(g_x + g_t)
    h.append(s(o_x + o_t + o_s) * th(last(name, c, m)))
  expected = h[-1] @ variables['params']['conv_last']['kernel'][0, 0]
  np.testing.assert_allclose(
      module.apply(variables, carry, frame, 1)[1], expected, atol=1e-5)


def test_at_step_zero_nothing_has_changed():
  module, variables, carry, frame = _made()
  state, prediction, _ = module.apply(variables, carry, frame, 0)
  for x in jax.tree.leaves((state['change_h'], state['change_c'])):
    np.testing.assert_array_equal(x, 0)
  # Whatever the branch would have made of it.
  other = {'params': {k: jax.tree.map(lambda x: x + 1, v) if 'diff' in k else v
                      for k, v in variables['params'].items()}}
  np.testing.assert_array_equal(module.apply(other, carry, frame, 0)[1], prediction)
  later = [module.apply(v, carry, frame, 1)[1] for v in (variables, other)]
  assert not np.allclose(*later)


@pytest.mark.parametrize('flows', [False, True])
def test_the_memory_takes_gradients_only_when_asked(flows):
  module, variables, carry, frame = _made(memory_gradient=flows)
  grads = jax.grad(lambda s: jnp.sum(
      module.apply(variables, {**carry, 's': s}, frame, 1)[1] ** 2))(carry['s'])
  assert any(bool(jnp.any(g != 0)) for g in grads) == flows


def test_a_sequence_starts_afresh_or_goes_on_with_the_memory_alone():
  module, variables, carry, frame = _made()
  on = module.next_carry(carry)
  jax.tree.map(np.testing.assert_array_equal, on['s'], carry['s'])
  assert all(not bool(jnp.any(x)) for k, v in on.items() if k != 's' for x in jax.tree.leaves(v))
  fresh = module.initial_carry(frame, 1)
  assert all(not bool(jnp.any(x)) for x in jax.tree.leaves(fresh))
  assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, on)
  a, b = (module.apply(variables, c, frame, 0)[1] for c in (fresh, on))
  assert not np.allclose(a, b)


def test_another_frame_size_is_one_clear_error():
  model = lambda size: build(
      dict(name='mim', patch=2, backbone=dict(features=(2, 2), kernel_size=3)), shape=(*size, 1),
      t_in=2, t_out=1)
  variables = jax.eval_shape(model((8, 12)).init, jax.random.key(0), jnp.zeros((1, 3, 8, 12, 1)))
  variables = jax.tree.map(lambda x: jnp.zeros(x.shape), variables)
  with pytest.raises(ValueError, match=r'^MIM: ct_weight was made for 4 x 6 patches.*5 x 6'):
    jax.eval_shape(model((10, 12)).apply, variables, jnp.zeros((1, 3, 10, 12, 1)))
