"""What the networks that GS2PM compares with have in common: sizes, names, training, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stp_jax import convert
from stp_jax.convert import infer, published, rules
from stp_jax.models import BACKBONES, build

TINY = dict(
    unet=dict(features=(3, 4)),
    motionrnn=dict(features=(4, 4), kernel_size=(3, 1)),
    trajgru=dict(features=(3, 4), stems=(2, 3), kernels=(3, 1), links=(2, 1), back_kernels=(3, 1),
                 back_links=(1, 2), widths=(3, 2), flow_features=4),
    convlstmnet=dict(features=(3, 2, 2), layers=(1, 2, 1), skip=1),
    escl=dict(features=(3, 2), layers=(1, 1), skip=None, masks=((0, 1), (1, 2))),
    lmc=dict(features=(3, 4), layers=2, motion=(2, 2, 3, 4), memory_size=5, attention=3))
# Less to compile.
SMALLEST = dict(
    trajgru=dict(features=(3,), stems=(2,), kernels=(3,), links=(1,), back_kernels=(3,),
                 back_links=(1,), widths=(2,)),
    lmc=dict(layers=1))
# One channel and three; the tensors that nothing uses included.
PUBLISHED = dict(
    unet=(486556, 486556), motionrnn=(565881, 569977), trajgru=(5366069, 5366213),
    convlstmnet=(1431633, 1434099), escl=(1431633, 1434099), lmc=(33911825,))


def _build(name, size, t_in=3, t_out=2, channels=1, dtype='float32', **fields):
  return build(
      dict(name=name, backbone={**TINY[name], **fields}), shape=(*size, channels), t_in=t_in,
      t_out=t_out, dtype=dtype)


def _shapes(model, size, channels=1):
  frames = jnp.zeros((1, model.t_in, *size, channels))
  return jax.eval_shape(model.init, jax.random.key(0), frames)


def _random(tree, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), tree)


def _as_published(name):
  fields = published.published_fields(dict(model=dict(name=name, fusion='none')))
  start = 'model.backbone.'
  return {k.removeprefix(start): v for k, v in fields.items() if k.startswith(start)}


@pytest.mark.parametrize('name', TINY)
def test_published_parameter_counts(name):
  family = convert.family_of(name)
  for channels, count in zip((1, 3), PUBLISHED[name]):
    for fields in ({}, _as_published(name)) if channels == 1 else ({},):
      fields |= dict(outputs=1) if name == 'trajgru' else {}
      model = build(dict(name=name, backbone=fields), shape=(128, 128, channels), t_in=10, t_out=10)
      zeros = jax.tree.map(
          lambda x: np.zeros(x.shape, np.float32), _shapes(model, (128, 128), channels))
      weights = rules.complete(family, rules.to_torch(family, zeros), (128, 128))
      assert sum(v.size for k, v in weights.items()
                 if not rules.matches((*family.buffers, r'.*\.running_(mean|var)'), k)) == count


@pytest.mark.parametrize('name', TINY)
def test_weights_go_to_pytorch_and_back_bit_by_bit_and_tell_their_sizes(name):
  family, size = convert.family_of(name), (16, 32)
  given = _as_published(name) | ({k: v for k, v in TINY[name].items() if k == 'masks'})
  variables = _random(_shapes(_build(name, size, channels=3, **given), size, 3))
  weights = rules.complete(family, rules.to_torch(family, variables), size)
  # A ConvLSTMNet has the same tensors as an ESCL.
  assert infer.model_of(weights) == {'escl': 'convlstmnet'}.get(name, name)
  fields = infer.fields(name, weights, 3)
  assert fields.pop('model.patch') == 1 and infer.channels(name, weights, 3) == (3, 3)
  told = {k.removeprefix('model.backbone.'): v for k, v in fields.items() if 'backbone' in k}
  model = build(dict(name=name, backbone=given | told), shape=(*size, 3), t_in=3, t_out=2)
  back, unused = rules.to_flax(family, weights, _shapes(model, size, 3))
  jax.tree.map(np.testing.assert_array_equal, back, variables)
  assert {k for k in unused if not rules.matches(family.buffers, k)} == {
      k for k in unused if name == 'trajgru' and not rules.matches(family.buffers, k)}
  same = rules.to_torch(family, back, unused)
  assert same.keys() == weights.keys() and all((same[k] == weights[k]).all() for k in same)


@pytest.mark.parametrize('name', TINY)
def test_any_size_and_any_length(name):
  for size, t_in, t_out, channels in (((17, 22), 2, 5, 3), ((16, 33), 4, 1, 2)):
    model = _build(name, size, t_in, t_out, channels)
    frames = jnp.zeros((2, t_in + t_out, *size, channels))
    variables = jax.eval_shape(model.init, jax.random.key(0), frames[:, :t_in])
    for train in (False, True):
      output, _ = jax.eval_shape(
          lambda v, f, m=model, t=train: m.apply(v, f, train=t, mutable=['batch_stats']),
          variables, frames)
      assert output.prediction.shape == (2, t_out, *size, channels)
      assert output.prediction.dtype == jnp.float32
  backbone = BACKBONES[name](**TINY[name])
  if name in ('unet', 'trajgru', 'lmc'):
    with pytest.raises(ValueError, match=rf'15 x 16 do not divide by {backbone.multiple}; pad|pad'):
      jax.eval_shape(lambda: backbone.init(
          jax.random.key(0), jnp.zeros((1, 4, 15, 16, 1)), np.ones((1, 4)), t_in=2))
  if name not in ('motionrnn', 'convlstmnet'):
    with pytest.raises(ValueError, match=rf'model {name} .*fusion=none and anchor=none'):
      build(dict(name=name, fusion='concatenate'), shape=(16, 16, 1), forcings=2, t_in=2, t_out=2)


@pytest.mark.slow
@pytest.mark.parametrize('name', TINY)
def test_bfloat16_learns_and_holes_in_the_future_do_not_spread(name):
  size = (16, 16) if name == 'lmc' else (5, 7)
  model = _build(name, size, dtype='bfloat16', **SMALLEST.get(name, {}))
  # Bright frames: every network has something to learn at once.
  frames = jnp.asarray(np.random.default_rng(0).uniform(0.7, 1, (2, 5, *size, 1)), jnp.float32)
  target, holes = frames[:, 3:], frames.at[:, 3:].set(jnp.nan)
  tx = optax.adam(1e-2)

  def step(state):
    variables, moments = state

    def loss_of(params):
      output, updated = model.apply(
          {**variables, 'params': params}, holes, train=True, mutable=['batch_stats'])
      return jnp.mean(jnp.square(output.prediction - target)), updated

    (loss, updated), grads = jax.value_and_grad(loss_of, has_aux=True)(variables['params'])
    updates, moments = tx.update(grads, moments)
    params = optax.apply_updates(variables['params'], updates)
    return ({'params': params, **updated}, moments), loss

  variables = jax.tree.map(lambda x: 0.2 * jnp.asarray(x), _random(_shapes(model, size)))
  state = variables, tx.init(variables['params'])
  # Half the time to compile.
  step, losses = jax.jit(step, compiler_options={'xla_backend_optimization_level': 0}), []
  for _ in range(6):
    state, loss = step(state)
    losses.append(float(loss))
  variables, _ = state
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  assert np.all(np.isfinite(losses)) and losses[-1] < 0.97 * losses[0]
