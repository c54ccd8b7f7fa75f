"""The first SimVP against its restatement in PyTorch; sizes, names, training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stp_jax import convert
from stp_jax.convert import infer, rules
from stp_jax.models import build

TINY = dict(hid_S=4, hid_T=16, N_S=2, N_T=2)


def _build(size=(8, 8), t_in=2, t_out=2, channels=1, dtype='float32', **fields):
  return build(dict(name='simvp_v1', backbone={**TINY, **fields}), shape=(*size, channels),
               t_in=t_in, t_out=t_out, dtype=dtype)


def _shapes(model, shape):
  return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, model.t_in, *shape)))


@pytest.mark.parametrize('name, backbone, counts', [
    ('simvp_v1', {}, (15778433, 15779715)),
    # The later SimVP as GS2PM compares with it is the one of OpenSTL.
    ('simvp', dict(translator='tau', hid_S=64, hid_T=128, N_S=4, N_T=8), (10924289, 10925571)),
    ('simvp', dict(translator='uniformer', hid_S=64, hid_T=128, N_S=4, N_T=8),
     (10341633, 10342915))])
def test_published_parameter_counts(name, backbone, counts):
  for channels, count in zip((1, 3), counts):
    model = build(dict(name=name, backbone=backbone), shape=(128, 128, channels), t_in=10, t_out=10)
    params = _shapes(model, (128, 128, channels))['params']
    assert sum(x.size for x in jax.tree.leaves(params)) == count


def _restated(frames, weights, torch):
  """The forward pass in PyTorch, by the names of its state_dict; `[B, T, C, H, W]`."""
  from torch.nn import functional as f
  w = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in weights.items()}
  stages = len({k.split('.')[2] for k in w if k.startswith('enc.enc')})
  depth = len({k.split('.')[2] for k in w if k.startswith('hid.enc')})

  def act(x, name, groups):
    return f.leaky_relu(
        f.group_norm(x, groups, w[f'{name}.norm.weight'], w[f'{name}.norm.bias']), 0.2)

  def stage(x, name, stride, up=False):
    kernel, bias = w[f'{name}.conv.weight'], w[f'{name}.conv.bias']
    if up and stride == 2:
      y = f.conv_transpose2d(x, kernel, bias, stride=2, padding=1, output_padding=1)
    else:
      y = f.conv2d(x, kernel, bias, stride=stride, padding=1)
    return act(y, name, 2)

  def inception(x, name):
    x = f.conv2d(x, w[f'{name}.conv1.weight'], w[f'{name}.conv1.bias'])
    groups, total = (1 if x.shape[1] % 8 else 8), 0
    for i, k in enumerate((3, 5, 7, 11)):
      layer = f'{name}.layers.{i}'
      y = f.conv2d(x, w[f'{layer}.conv.weight'], w[f'{layer}.conv.bias'], padding=k // 2,
                   groups=groups)
      total = total + act(y, layer, groups)
    return total

  b, t, *rest = frames.shape
  x = torch.from_numpy(frames).reshape(b * t, *rest)
  x = skip = stage(x, 'enc.enc.0.conv', 1)
  for i in range(1, stages):
    x = stage(x, f'enc.enc.{i}.conv', 1 + i % 2)
  z, kept = x.reshape(b, -1, *x.shape[2:]), []
  for i in range(depth):
    z = inception(z, f'hid.enc.{i}')
    kept.append(z)
  kept.pop()
  for i in range(depth):
    z = inception(torch.cat([z, kept.pop()], 1) if i else z, f'hid.dec.{i}')
  y = z.reshape(x.shape)
  for i in range(stages):
    y = torch.cat([y, skip], 1) if i == stages - 1 else y
    y = stage(y, f'dec.dec.{i}.conv', 2 - i % 2, up=True)
  y = f.conv2d(y, w['dec.readout.weight'], w['dec.readout.bias'])
  return y.reshape(b, t, *rest).numpy()


@pytest.mark.parametrize('fields', [dict(), dict(N_S=4, N_T=3, hid_T=12)])
def test_the_forward_pass_is_that_of_pytorch(fields):
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  model, family = _build(channels=2, **fields), convert.family_of('simvp_v1')
  variables = jax.tree.map(
      lambda x: np.float32(0.3 * rng.normal(size=x.shape)), _shapes(model, (8, 8, 2)))
  weights = rules.to_torch(family, variables)
  frames = np.float32(rng.normal(size=(2, 2, 8, 8, 2)))
  expected = np.moveaxis(_restated(np.moveaxis(frames, -1, 2), weights, torch), 2, -1)
  got = jax.jit(model.apply)(variables, frames).prediction
  np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_weights_go_to_pytorch_and_back_bit_by_bit_and_tell_their_sizes():
  rng = np.random.default_rng(0)
  model, family = _build(channels=3, N_S=4, N_T=3), convert.family_of('simvp_v1')
  variables = jax.tree.map(
      lambda x: np.float32(rng.normal(size=x.shape)), _shapes(model, (8, 8, 3)))
  weights = rules.to_torch(family, variables)
  assert weights['dec.dec.2.conv.conv.weight'].shape == (4, 4, 3, 3)
  assert weights['dec.dec.3.conv.conv.weight'].shape == (4, 8, 3, 3)
  assert infer.model_of(weights) == 'simvp_v1' and infer.channels('simvp_v1', weights) == (3, 3)
  told = infer.fields('simvp_v1', weights)
  assert told == {'data.t_in': 2} | {f'model.backbone.{k}': v for k, v in dict(
      TINY, N_S=4, N_T=3).items()}
  back, unused = rules.to_flax(family, weights, _shapes(model, (8, 8, 3)))
  jax.tree.map(np.testing.assert_array_equal, back, variables)
  assert not unused


@pytest.mark.slow
def test_bfloat16_learns_on_an_odd_size_and_a_longer_horizon():
  model = _build((7, 9), t_out=3, dtype='bfloat16', hid_T=4)  # one group: quick to compile
  frames = jnp.asarray(np.random.default_rng(0).random((2, 5, 7, 9, 1)), jnp.float32)
  tx = optax.adam(1e-2)

  def loss_of(params):
    prediction = model.apply({'params': params}, frames.at[:, 2:].set(jnp.nan)).prediction
    assert prediction.shape == (2, 3, 7, 9, 1) and prediction.dtype == jnp.float32
    return jnp.mean(jnp.square(prediction - frames[:, 2:]))

  def step(state, _):
    loss, grads = jax.value_and_grad(loss_of)(state[0])
    updates, moments = tx.update(grads, state[1])
    return (optax.apply_updates(state[0], updates), moments), loss

  @jax.jit
  def run():
    params = model.init(jax.random.key(0), frames)['params']
    return jax.lax.scan(step, (params, tx.init(params)), length=6)

  (params, _), losses = run()
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  assert np.all(np.isfinite(losses)) and losses[-1] < 0.9 * losses[0]


def test_bad_fields():
  for fields, message in ((dict(N_S=3), 'must be even'), (dict(N_T=1), 'at least 2'),
                          (dict(t_in=1), 'do not divide by 8 groups')):
    with pytest.raises(ValueError, match=message):
      _shapes(_build(**fields), (8, 8, 1))
