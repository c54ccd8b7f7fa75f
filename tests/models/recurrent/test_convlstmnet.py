"""ConvLSTMNet, its tensor-train cell, and ESCL: skips, masks, states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.convert import convlstmnet, infer, rules
from stp_jax.models import build
from stp_jax.models.recurrent.convlstmnet import ConvLSTMNet, TensorTrainCell

NET = dict(features=(2, 3), layers=(1, 1), skip=1)


def _random(tree, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), tree)


def _widths(**fields):
  """Channels that the first cell of each block reads beside its state, and the read-out."""
  model, frame = ConvLSTMNet(**fields), jnp.zeros((1, 4, 4, 1))
  params = jax.eval_shape(
      lambda: model.init(jax.random.key(0), model.initial_carry(frame, 1), frame, 0))['params']
  n = fields['features']
  return [params[f'b{b}l0']['conv']['kernel'].shape[2] - n[b] for b in range(len(n))] + [
      params['output']['kernel'].shape[2]]


def test_skips():
  n = (2, 3, 5, 7)
  make = functools.partial(_widths, features=n, layers=(1, 2, 1, 1))
  assert make(skip=2) == [1, 2, 3, 5 + 2, 7 + 3]
  assert make(skip=1) == [1, 2, 3 + 2, 5 + 3, 7 + 5]
  assert make(skip=3) == [1, 2, 3, 5, 7 + 2]
  assert make(skip=None) == make(skip=4) == make(skip=9) == [1, 2, 3, 5, 7]


@pytest.mark.parametrize('fields, message', [
    (dict(cell='gru'), 'convlstm convttlstm'), (dict(layers=(1,)), 'for every block'),
    (dict(cell='convttlstm', order=3, steps=2), 'order <= steps')])
def test_bad_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    _widths(**{**NET, **fields})


def test_a_tensor_train_follows_the_equations():
  """With a ring of states, as published; ours keeps them in order."""
  cell = TensorTrainCell(2, 3, order=2, steps=3, ranks=4)
  x, past, c = _random([jnp.zeros((1, 4, 5, n)) for n in (2, 6, 2)])
  variables = _random(jax.eval_shape(cell.init, jax.random.key(0), x, (past, c)), 1)
  p = variables['params']

  def conv(name, *values):
    return p[name]['bias'] + jax.lax.conv_general_dilated(
        jnp.concatenate(values, -1), p[name]['kernel'], (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  step = jax.jit(cell.apply)
  ring, pointer, state = list(jnp.split(past, 3, -1)), 0, (past, c)
  for scale in (1, -1, 2):
    turned = ring[pointer:] + ring[:pointer]
    folded = conv('layers__0', *turned[:2])
    folded = conv('layers__1', *turned[1:]) + conv('layers_0', folded)
    i, f, o, g = jnp.split(conv('layers_1', scale * x, folded), 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    ring[pointer] = jax.nn.sigmoid(o) * jnp.tanh(c)
    h, state = step(variables, scale * x, state)
    np.testing.assert_allclose(h, ring[pointer], atol=1e-4)
    pointer = (pointer + 1) % 3


def test_tensor_train_weights_tell_their_sizes():
  fields = dict(NET, cell='convttlstm', order=2, steps=4, ranks=3, kernel_size=5, use_bias=False)
  model, frame = ConvLSTMNet(channels=1, **fields), jnp.zeros((1, 4, 4, 1))
  variables = _random(jax.eval_shape(
      lambda: model.init(jax.random.key(0), model.initial_carry(frame, 1), frame, 0)))
  weights = rules.to_torch(convlstmnet.FAMILIES['convlstmnet'], variables)
  assert 'layers.b1l0.layers_.1.weight' in weights and 'layers.b0l0.layers.0.weight' in weights
  told = infer.fields('convlstmnet', weights)
  assert {k.removeprefix('model.backbone.'): v for k, v in told.items()} == dict(
      fields, **{'model.patch': 1})
  assert infer.channels('convlstmnet', weights) == (1, 1)


@functools.cache
def _escl(states, masks=((0, 1), (1, 9))):
  model = build(dict(name='escl', backbone=dict(NET, states=states, masks=masks)),
                shape=(4, 6, 1), t_in=2, t_out=2)
  return jax.jit(lambda variables, frames: (
      model.apply(variables, frames).prediction,
      model.backbone.apply({'params': variables['params']['backbone']}, frames,
                           jnp.asarray([[1, 1, 0, 0]]), t_in=2, method='roll')))


def test_escl():
  net = build(dict(name='convlstmnet', backbone=NET), shape=(4, 6, 1), t_in=2, t_out=2)
  frames = _random(jnp.zeros((1, 4, 4, 6, 1)), 3)
  variables = _random(jax.eval_shape(net.init, jax.random.key(0), frames), 1)
  run = jax.jit(net.apply)
  expected = run(variables, frames)
  prediction, (every, features) = _escl('own')(variables, frames)
  # With states of their own, masked passes leave the forecast alone.
  np.testing.assert_allclose(prediction, expected.prediction, atol=1e-6)
  np.testing.assert_allclose(every[:, :1], expected.context, atol=1e-6)
  assert features[0].shape == (1, 4, 6, 5) and not np.allclose(features[0], features[1])
  # Frames after the input are never masked, whatever the range.
  _, (_, longer) = _escl('own', ((0, 1), (1, 2)))(variables, frames)
  np.testing.assert_array_equal(longer[1], features[1])
  # Where passes share their states, they are felt from the second step on.
  shared, (every, _) = _escl('shared')(variables, frames)
  np.testing.assert_allclose(every[:, :1], expected.context, atol=1e-6)
  assert not np.allclose(shared, prediction, atol=1e-3)
  with pytest.raises(ValueError, match='own shared'):
    _escl('none')(variables, frames)
