"""TrajGRU: its update gate, an absent input, its two time loops, what fields must fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.layers.warp import warp
from stp_jax.models.recurrent.trajgru import TrajGRU, TrajGRUCell


def _cell(**fields):
  rng = np.random.default_rng(0)
  x, h = (jnp.asarray(rng.normal(size=(2, 5, 4, n)), jnp.float32) for n in (2, 3))
  cell = TrajGRUCell(3, 3, 2, inputs=2, flow_features=4, **fields)
  shapes = jax.eval_shape(cell.init, jax.random.key(0), x, h)
  draw = lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32)
  return cell, jax.tree.map(draw, shapes), x, h


def _by_hand(params, x, h, gate):
  """The equations, path by path, convolutions as XLA has them."""
  def conv(name, value):
    p = params[name]
    return p['bias'] + jax.lax.conv_general_dilated(
        value, p['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  relu = lambda v: jnp.where(v > 0, v, 0.2 * v)
  flows = conv('generate_flow', relu(conv('gammma_x', x) + conv('gammma_h', h)))
  fetched = [warp(h, flows[..., 2 * i:2 * i + 2], 'zeros') for i in range(2)]
  moved = lambda name: sum(conv(f'{name}_{i}', f) for i, f in enumerate(fetched))
  r = jax.nn.sigmoid(conv('W_xr', x) + moved('W_hr'))
  candidate = relu(conv('W_xh', x) + r * moved('W_hh'))
  if gate == 'upstream':
    return candidate
  z = jax.nn.sigmoid(conv('W_xz', x) + moved('W_hz'))
  return (1 - z) * candidate + z * h


@pytest.mark.parametrize('gate', ['paper', 'upstream'])
def test_a_step_follows_the_equations(gate):
  cell, variables, x, h = _cell(update_gate=gate)
  expected = _by_hand(variables['params'], x, h, gate)
  np.testing.assert_allclose(cell.apply(variables, x, h), expected, rtol=1e-4, atol=1e-4)
  # The gate that upstream's code cancels has no parameters.
  assert any('z' in name for name in variables['params']) == (gate == 'paper')


def test_no_input_is_an_input_of_zeros_without_its_kernels():
  cell, variables, x, h = _cell()
  shapes = jax.eval_shape(cell.init, jax.random.key(0), None, h)['params']
  assert shapes['W_xz'].keys() == shapes['gammma_x'].keys() == {'bias'}
  fewer = {k: {p: v for p, v in variables['params'][k].items() if p in shapes[k]} for k in shapes}
  np.testing.assert_allclose(
      cell.apply({'params': fewer}, None, h), cell.apply(variables, 0 * x, h), rtol=1e-5, atol=1e-5)


def test_the_forecast_goes_on_from_the_states_of_the_encoder():
  model = TrajGRU(channels=3, features=(2, 3), stems=(2, 2), kernels=(1, 1), links=(1, 1),
                  back_kernels=(1, 1), back_links=(1, 1), widths=(2, 2), flow_features=2, outputs=1)
  frames = jnp.asarray(np.random.default_rng(0).random((1, 5, 8, 4, 3)), jnp.float32)
  use = jnp.ones((1, 5))
  variables = model.init(jax.random.key(0), frames, use, t_in=3)
  predict = jax.jit(lambda f: model.apply(variables, f, use, t_in=3)[0])
  prediction = predict(frames)
  np.testing.assert_array_equal(prediction, predict(frames.at[:, 3:].set(jnp.nan)))
  # One channel stands for all three.
  np.testing.assert_array_equal(prediction, jnp.repeat(prediction[..., :1], 3, -1))
  states = [jnp.zeros((1, 4, 2, 2)), jnp.zeros((1, 2, 1, 3))]
  for t in range(3):
    states = model.apply(variables, states, frames[:, t], method=lambda m, s, f: m.encoder(s, f))
  states, images = states[::-1], []
  for _ in range(2):
    states, image = model.apply(variables, states, method=lambda m, s: m.forecast(s))
    images.append(image)
  np.testing.assert_allclose(prediction[..., :1], jnp.stack(images, 1), atol=1e-6)


@pytest.mark.parametrize('fields, message', [
    (dict(links=(1,)), r'links \(1,\) for 3 levels'), (dict(outputs=2), 'outputs=2: 0'),
    (dict(update_gate='none'), 'paper upstream')])
def test_bad_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda: TrajGRU(channels=3, **fields).init(
        jax.random.key(0), jnp.zeros((1, 3, 8, 8, 3)), jnp.ones((1, 3)), t_in=2))
