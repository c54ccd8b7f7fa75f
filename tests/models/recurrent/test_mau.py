"""MAU: its queues, options, heads and published size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stp_jax import convert
from stp_jax.convert import published, rules
from stp_jax.models import build
from stp_jax.models.recurrent.mau import MAU
from stp_jax.parity.runtime import compiled

_SMALL = dict(features=(4, 4), kernel_size=3, tau=2, sr_size=2)


def _random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _model(t_in=2, t_out=3, shape=(17, 22, 1), forcings=0, dtype='float32', **fields):
  config = dict(name='mau', backbone={**_SMALL, **fields.pop('backbone', {})}, **fields)
  return build(config, shape=shape, forcings=forcings, t_in=t_in, t_out=t_out, dtype=dtype)


def _shapes(model, frames, forcings=None):
  return jax.eval_shape(model.init, jax.random.key(0), frames, forcings)


def test_queues_hold_the_last_tau_states_oldest_first():
  module, frame = MAU(**_SMALL), _random(2, 4, 6, 3)
  start = module.initial_carry(frame, 9)
  variables = compiled(module.init)(jax.random.key(0), start, frame, 0)
  carries, step = [start], compiled(module.apply)
  for scale in (1, -2, 3):
    carries.append(step(variables, carries[-1], scale * frame, 0)[0])
  for layer in range(2):
    temporal, past, spatial = carries[3][layer]
    np.testing.assert_array_equal(past, jnp.stack([c[layer][0] for c in carries[2:]]))
    # A layer reads what was there before its own step.
    np.testing.assert_array_equal(carries[1][layer][2][0], 0)
    assert spatial.shape == (2, 2, 2, 3, 4) and temporal.shape == (2, 2, 3, 4)


def test_residual_cells_add_the_state_they_read():
  frame = _random(2, 4, 6, 3)
  carries = {}
  for mode in ('normal', 'residual'):
    module = MAU(**_SMALL, cell_mode=mode)
    start = module.initial_carry(frame, 1)
    variables = compiled(module.init)(jax.random.key(0), start, frame, 0)
    carries[mode] = compiled(module.apply)(variables, start, frame, 0)[0]
  first = carries['normal'][0][2][-1]
  np.testing.assert_array_equal(first, carries['residual'][0][2][-1])
  np.testing.assert_allclose(
      carries['residual'][1][2][-1], carries['normal'][1][2][-1] + first, atol=1e-6)


@pytest.mark.parametrize('fields, message', [
    (dict(sr_size=3), 'power of two'), (dict(cell_mode='x'), 'normal residual'),
    (dict(model_mode='x'), 'normal recall'), (dict(head='x'), 'pointwise transposed'),
    (dict(features=(2, 3)), 'equal'), (dict(tau=0), 'positive'),
    (dict(head='transposed', model_mode='recall'), 'no recall'),
    (dict(head='transposed', sr_size=1), 'sr_size > 1')])
def test_bad_fields_are_one_clear_line(fields, message):
  with pytest.raises(ValueError, match=message) as error:
    _shapes(_model(backbone=fields), jnp.zeros((1, 2, 16, 16, 1)))
  assert '\n' not in str(error.value)


def test_a_frame_that_does_not_halve_is_refused_by_the_step_and_padded_by_the_forecaster():
  module, frame = MAU(**_SMALL), jnp.zeros((1, 5, 4, 1))
  with pytest.raises(ValueError, match='does not divide by sr_size 2'):
    jax.eval_shape(module.init, jax.random.key(0), module.initial_carry(frame, 1), frame, 0)
  assert _model(backbone=dict(sr_size=8)).padded(59, 83) == (64, 88)


@pytest.mark.parametrize('backbone', [
    dict(), dict(head='transposed'), dict(model_mode='recall', sr_size=4), dict(sr_size=1)])
@pytest.mark.parametrize('t_in, t_out', [(2, 4), (4, 2)])
@pytest.mark.parametrize('fusion, forcings, channels', [
    ('none', 0, 3), ('concatenate', 2, 1), ('mix', 3, 1)])
def test_any_size_and_length(backbone, t_in, t_out, fusion, forcings, channels):
  model = _model(t_in, t_out, (17, 22, channels), forcings, fusion=fusion, backbone=backbone)
  frames = jnp.zeros((2, t_in, 17, 22, channels))
  planes = jnp.zeros((2, 6, 17, 22, forcings)) if forcings else None
  out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), frames, planes)
  assert out.prediction.shape == (2, t_out, 17, 22, channels)
  assert out.context.shape == (2, t_in - 1, 17, 22, channels)


def test_bfloat16_learns_and_an_unused_frame_may_hold_anything():
  model = _model(forcings=3, fusion='mix', dtype='bfloat16', backbone=dict(model_mode='recall'))
  frames, planes = _random(2, 5, 17, 22, 1) + 1, _random(2, 5, 17, 22, 3, seed=1)
  params = compiled(model.init)(jax.random.key(0), frames, planes)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
  given = frames.at[:, 2:].set(jnp.nan)
  tx = optax.adam(1e-2)

  @compiled
  def step(params, state):
    def loss_of(params):
      out = model.apply(params, given, planes)
      return jnp.mean(jnp.square(out.prediction - frames[:, 2:])), out.prediction.dtype
    (loss, dtype), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    assert dtype == jnp.float32
    updates, state = tx.update(grads, state)
    return optax.apply_updates(params, updates), state, loss

  state, losses = tx.init(params), []
  for _ in range(6):
    params, state, loss = step(params, state)
    losses.append(float(loss))
  assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize('head', ['pointwise', 'transposed'])
def test_a_correction_starts_at_zero(head):
  model = _model(combine='residual', backbone=dict(head=head))
  frames = _random(1, 2, 17, 22, 1)
  out, _ = compiled(model.init_with_output)(jax.random.key(0), frames)
  np.testing.assert_array_equal(out.context[:, 0], frames[:, 0])


@pytest.mark.parametrize('head', ['pointwise', 'transposed'])
def test_weights_there_and_back(head):
  template = _shapes(
      _model(backbone=dict(head=head, sr_size=4)), jnp.zeros((1, 2, 16, 16, 1)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)
  family = convert.family_of('mau')
  weights = rules.to_torch(family, variables)
  assert weights['encoders.0.encoder_t_conv-1.weight'].shape == (4, 1, 1, 1)
  assert weights['encoders.2.encoder_t1.bias'].shape == (4,)
  assert weights['decoders.1.c_decoder1.weight'].shape == (4, 4 if head == 'pointwise' else 1, 3, 3)
  assert weights['cell_list.1.conv_t_next.1.weight'].shape == (4, 4, 4)
  extra = {'merge.weight': np.ones((4, 8, 1, 1), np.float32)}
  again, unused = rules.to_flax(family, weights | extra, template)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  assert rules.to_torch(family, again, unused).keys() == weights.keys() | extra.keys()
  assert rules.parameter_count(family, again['params'], unused) == 32 + sum(
      x.size for x in jax.tree.leaves(variables))


def test_the_converter_sets_the_head():
  for upstream, head in (('channel_mixer', 'transposed'), ('openstl', 'pointwise')):
    fields = published.published_fields(dict(model=dict(name='mau', fusion='none')), upstream)
    assert fields['model.backbone.head'] == head


@pytest.mark.parametrize('fusion, channels, count', [
    ('none', 1, 4717441), ('concatenate', 4, 4717633), ('concatenate', 9, 4717953),
    ('concatenate', 16, 4718401), ('mix', 4, 4717697), ('mix', 9, 4718017), ('mix', 16, 4718465)])
def test_published_parameter_counts(fusion, channels, count):
  a = channels - 1
  model = build(dict(name='mau', fusion=fusion, backbone=dict(head='transposed')),
                shape=(72, 72, 1), forcings=a, t_in=12, t_out=48)
  planes = jnp.zeros((1, 60, 72, 72, a)) if a else None
  shapes = _shapes(model, jnp.zeros((1, 12, 72, 72, 1)), planes)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == count
