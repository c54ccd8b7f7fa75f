"""Peephole ConvLSTM: its equations, an encoder-forecaster's promises. See test_gs2pm_cuts too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models import build
from stp_jax.models.recurrent.peephole_convlstm import PeepholeConvLSTM


def _random(tree, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), tree)


def _made(frames, t_in=2, **fields):
  module = PeepholeConvLSTM(**{'features': (3, 2), 'kernel_size': (3, 1), **fields})
  make = lambda key: module.init(key, frames, t_in=t_in)
  return module, _random(jax.eval_shape(make, jax.random.key(0)))


@pytest.mark.parametrize('peepholes', ['all', 'upstream'])
def test_a_forecast_follows_the_equations(peepholes):
  frames = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3, 4, 1)), jnp.float32)
  module, variables = _made(frames, peepholes=peepholes, forget_bias=0.25)
  s, th, params = jax.nn.sigmoid, jnp.tanh, variables['params']

  def cell(p, x, h, c):
    conv = lambda name, value: jax.lax.conv_general_dilated(
        value, p[name]['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    from_x = 0 if x is None else conv('conv_x', x)
    gates = from_x + p['conv_x']['bias'] + conv('conv_h', h) + p['conv_h']['bias']
    i, f, g, o = jnp.split(gates, 4, -1)
    f = f + (p['w_cf'] * c if peepholes == 'all' else 0)
    new = s(f + 0.25) * c + s(i + p['w_ci'] * c) * th(g)
    return s(o + p['w_co'] * new) * th(new), new

  zero = lambda n: jnp.zeros((2, 3, 4, n))
  states, expected = [(zero(3), zero(3)), (zero(2), zero(2))], []
  for t in range(5):
    part, x = ('encoder', frames[:, t]) if t < 2 else ('forecast', None)
    for i, state in enumerate(states):
      states[i] = cell(params[part][f'{part}_{i}'], x, *state)
      x = states[i][0]
    if part == 'forecast':
      both = jnp.concatenate([h for h, _ in states], -1)
      expected.append(both @ params[part]['conv_last']['kernel'][0, 0])
  # The forecaster's first layer is fed zeros: of that convolution only the bias is there.
  assert set(params['forecast']['forecast_0']['conv_x']) == {'bias'}
  assert ('w_cf' in params['encoder']['encoder_1']) == (peepholes == 'all')
  apply = jax.jit(lambda frames: module.apply(variables, frames, t_in=2)[0])
  got, expected = apply(frames), jnp.stack(expected, 1)
  np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)
  np.testing.assert_array_equal(apply(frames.at[:, 2:].set(jnp.nan)), got)
  if peepholes == 'upstream':
    for clip, low, high in (('unit', 0, 1), ('positive', 0, np.inf)):
      clipping = module.clone(clip=clip)
      image, context, terms = clipping.apply(variables, frames, t_in=2)
      np.testing.assert_allclose(image, np.clip(expected, low, high), atol=1e-5)
      assert context is None and terms == {}


def test_what_does_not_fit_is_named():
  frames = jnp.zeros((1, 4, 3, 4, 1))
  for fields, message in (
      (dict(peepholes='none'), 'all upstream'), (dict(clip='both'), 'none unit positive'),
      (dict(kernel_size=(3, 3, 3)), '3 kernel sizes .3, 3, 3. for 2 layers'),
      (dict(kernel_size=2), 'odd')):
    with pytest.raises(ValueError, match=message):
      _made(frames, **fields)
  module, variables = _made(frames)
  with pytest.raises(ValueError, match=r'made for 3 x 4 patches, the frames have 5 x 4'):
    jax.eval_shape(lambda: module.apply(variables, jnp.zeros((1, 4, 5, 4, 1)), t_in=2))
  with pytest.raises(ValueError, match='fusion=none and anchor=none'):
    build(dict(name='peephole_convlstm', anchor='persistence'), shape=(3, 4, 1), t_in=2, t_out=2)


@pytest.mark.parametrize('dataset, shape, patch, count', [
    ('moving_mnist', (64, 64, 1), 4, 8183808), ('kth', (128, 128, 1), 4, 9363456),
    ('taxibj', (32, 32, 2), 1, 9001472)])
def test_published_sizes_of_spatiotemporal_prediction(dataset, shape, patch, count):
  model = build(
      dict(name='peephole_convlstm', patch=patch,
           backbone=dict(features=(128, 64, 64), kernel_size=5)), shape=shape, t_in=4, t_out=4)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, *shape)))
  live = sum(x.size for x in jax.tree.leaves(shapes))
  # The kernel that upstream's forecaster convolves zeros with is no parameter.
  assert live + 25 * patch ** 2 * shape[2] * 4 * 128 == count, dataset
