"""MotionRNN: a MotionGRU by hand, its highway, what it requires."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.layers.warp import warp
from stp_jax.models.recurrent.motionrnn import MotionGRU, MotionRNN


def _random(tree, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), tree)


def test_a_motion_gru_follows_the_equations():
  module = MotionGRU(8, alpha=0.3)
  h, flow, trend = _random([jnp.zeros((2, 4, 6, 8)), *[jnp.zeros((2, 2, 3, 18))] * 2])
  variables = _random(jax.eval_shape(module.init, jax.random.key(0), h, flow, trend), 1)
  p, s = variables['params'], jax.nn.sigmoid

  def conv(p, *values, stride=1, **more):
    pad = [(p['kernel'].shape[0] // 2,) * 2] * 2 if not more else [(1, 2)] * 2
    return p['bias'] + jax.lax.conv_general_dilated(
        jnp.concatenate(values, -1), p['kernel'], (stride, stride), pad,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **more)

  e, of = conv(p['encoder']['encoder'], h, stride=2), p['transient']
  u, r = s(conv(of['conv_u'], e, flow)), s(conv(of['conv_r'], e, flow))
  moment = u * jnp.tanh(conv(of['conv_z'], e, r * flow)) + (1 - u) * flow
  new_trend = trend + 0.3 * (flow - trend)
  new_flow, share, points = moment + new_trend, s(conv(p['broadcast']['conv_m'], e)), []
  for i in range(9):
    path = jnp.stack([i // 3 - 1 + new_flow[..., i], i % 3 - 1 + new_flow[..., i + 9]], -1)
    points.append(warp(e, path, 'zeros') * share[..., i:i + 1])
  y = conv(p['decoder']['conv_1x1'], jnp.stack(points, -1).reshape(2, 2, 3, -1))
  y = conv(p['decoder']['deconv'], y, lhs_dilation=(2, 2))
  gate = s(conv(p['conv_1x1'], y, h))
  got = jax.jit(module.apply)(variables, h, flow, trend)
  for a, b in zip(got, (gate * h + (1 - gate) * y, new_flow, new_trend), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_highway_keeps_what_the_output_gate_holds_back():
  frame = _random(jnp.zeros((1, 4, 4, 1)))
  models = [MotionRNN(features=(4, 4), highway=name) for name in ('paper', 'upstream')]
  carry = _random(models[0].initial_carry(frame, 1), 2)
  variables = _random(jax.eval_shape(models[0].init, jax.random.key(0), carry, frame, 0), 1)
  (paper, *_), (upstream, *_) = (
      jax.jit(m.apply)(variables, carry, frame, 0)[0] for m in models)
  below = paper[0][0]
  np.testing.assert_array_equal(below, upstream[0][0])  # there is none below the first layer
  # Both are the same state plus a share of the one below, which is all of it upstream.
  held = 1 - (upstream[1][0] - paper[1][0]) / below
  assert bool(jnp.all((held > -1e-3) & (held < 1 + 1e-3))) and float(jnp.std(held)) > 0.01


@pytest.mark.parametrize('fields, size, message', [
    (dict(features=(4, 8)), (4, 4), 'features'), (dict(features=(6, 6)), (4, 4), 'multiples of 4'),
    (dict(), (5, 4), '5 x 4.*even sides'), (dict(highway='own'), (4, 4), 'paper upstream'),
    (dict(features=(4, 4), kernel_size=(3,)), (4, 4), '1 kernel sizes for 2 layers')])
def test_bad_fields(fields, size, message):
  model, frame = MotionRNN(**fields), jnp.zeros((1, *size, 1))
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda: model.init(
        jax.random.key(0), model.initial_carry(frame, 1), frame, jnp.zeros((), int)))
