"""What every forecaster promises, for both kinds of backbone."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models import BACKBONES, build
from stp_jax.models.anchor import scaled
from stp_jax.models.layers.conv import convolution_method

TINY = dict(
    convlstm=dict(features=(3,), kernel_size=3),
    e3dlstm=dict(features=(2,)),
    mau=dict(features=(2,), kernel_size=3, tau=2, sr_size=2),
    mim=dict(features=(2, 2), kernel_size=3),
    phydnet=dict(features=8, hidden=(3,), kernel_size=3, groups=2),
    prednet=dict(features=(3,)),
    predrnn=dict(features=(2,), kernel_size=3),
    predrnnpp=dict(features=(2, 2), kernel_size=3),
    predrnnv2=dict(features=(2,), kernel_size=3),
    simvp=dict(hid_S=4, hid_T=6, N_S=2, N_T=2, mlp_ratio=1.0),
)
NAMES = tuple(TINY)
# What is done around a backbone is the same for all: one for each time loop, the others `slow`.
ONE_FOR_EACH_LOOP = [n if n in ('convlstm', 'simvp') else pytest.param(n, marks=pytest.mark.slow)
                     for n in NAMES]
# GS2PM and cuts of networks above that it is compared with: they promise in their own files.
OWN_TESTS = {
    'gs2pm', 'ms2p_v1', 'gs2pm_e3dlstm', 'gs2pm_mim', 'gs2pm_predrnn', 'gs2pm_predrnnpp',
    'simvp_v1', 'convlstmnet', 'motionrnn'}


def _data(t=5, size=(8, 8), forcings=3, b=2):
  rng = np.random.default_rng(0)
  draw = lambda c: jnp.asarray(rng.random((b, t, *size, c)), jnp.float32)
  return draw(1), draw(forcings) if forcings else None


def _build(name, size=(8, 8), forcings=3, t_in=2, t_out=3, fusion='mix', **fields):
  more = {k: fields.pop(k) for k in ('frames_per_day', 'dtype', 'divisor') if k in fields}
  return build(
      dict(name=name, fusion=fusion, backbone=TINY[name], **fields), shape=(*size, 1),
      forcings=forcings, t_in=t_in, t_out=t_out, **more)


@functools.cache
def _fixed(name):
  model, (frames, forcings) = _build(name), _data()
  variables = jax.jit(model.init)(jax.random.key(0), frames, forcings)
  return model, variables, jax.jit(model.apply)


def test_every_backbone_is_tested():
  own_loop = {name for name, cls in BACKBONES.items() if cls.kind == 'window'}  # own tests
  assert set(BACKBONES) - own_loop - OWN_TESTS == set(TINY)


@pytest.mark.parametrize('name', NAMES)
def test_future_frames_do_not_reach_the_forecast(name):
  model, variables, apply = _fixed(name)
  frames, forcings = _data()
  expected = apply(variables, frames, forcings)
  assert expected.prediction.shape == (2, 3, 8, 8, 1)
  assert set(variables['params']) == {'backbone'}
  spoilt = apply(variables, frames.at[:, 2:].set(jnp.nan), forcings)
  np.testing.assert_array_equal(spoilt.prediction, expected.prediction)
  if model.backbone.kind == 'frames':
    alone = apply(variables, frames[:, :2], forcings)
    np.testing.assert_array_equal(alone.prediction, expected.prediction)
    assert expected.context.shape == (2, 1, 8, 8, 1)
    forced = apply(variables, frames, forcings, jnp.ones((2, 5)))
    np.testing.assert_array_equal(forced.prediction[:, 0], expected.prediction[:, 0])
    assert not np.allclose(forced.prediction[:, 1:], expected.prediction[:, 1:])
  else:
    assert expected.context is None


@pytest.mark.parametrize('name', NAMES)
def test_nan_in_the_future_does_not_reach_gradients(name):
  model, variables, _ = _fixed(name)
  frames, forcings = _data()

  @jax.jit
  def grad(frames):
    def loss(params):
      output, _ = model.apply(
          {**variables, 'params': params}, frames, forcings, train=True, mutable='batch_stats')
      return jnp.sum(output.prediction ** 2)
    return jax.grad(loss)(variables['params'])

  for a, b in zip(*map(jax.tree.leaves, (grad(frames), grad(frames.at[:, 2:].set(jnp.nan))))):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('name', NAMES)
def test_forcings_of_their_own_time_are_read(name):
  _, variables, apply = _fixed(name)
  frames, forcings = _data()
  base = apply(variables, frames, forcings).prediction
  # Those of the last frame are never needed; those of frame 2 shape what follows.
  last = apply(variables, frames, forcings.at[:, -1].set(9.0)).prediction
  np.testing.assert_array_equal(last, base)
  changed = apply(variables, frames, forcings.at[:, 2].add(1.0)).prediction
  assert not np.allclose(changed[:, -1], base[:, -1], atol=1e-7)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('t_in, t_out', [(4, 2), (2, 5), (1, 1)])
@pytest.mark.parametrize('fusion, patch, size', [
    ('mix', 1, (59, 83)), ('concatenate', 4, (59, 83)), ('none', 3, (16, 17)),
    ('mix', 2, (17, 16))])
def test_any_size_and_any_horizon(name, t_in, t_out, fusion, patch, size):
  model = _build(name, size, t_in=t_in, t_out=t_out, fusion=fusion, patch=patch)
  frames, forcings = _data(t_in + t_out, size, b=1)
  output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), frames, forcings)
  assert output.prediction.shape == (1, t_out, *size, 1)


@pytest.mark.parametrize('name', NAMES)
def test_an_odd_size_is_padded_and_cropped(name):
  model = _build(name, (9, 11), fusion='concatenate', patch=2, t_out=1)
  frames, forcings = _data(3, (9, 11))
  variables = jax.jit(model.init)(jax.random.key(0), frames, forcings)
  padded = model.padded(9, 11)
  wide = _build(name, padded, fusion='concatenate', patch=2, t_out=1)
  pad = lambda x: jnp.pad(
      x, ((0, 0), (0, 0), (0, padded[0] - 9), (0, padded[1] - 11), (0, 0)), mode='edge')
  expected = jax.jit(wide.apply)(variables, pad(frames), pad(forcings)).prediction
  got = jax.jit(model.apply)(variables, frames, forcings).prediction
  np.testing.assert_allclose(got, expected[:, :, :9, :11], rtol=1e-5, atol=1e-6)


@functools.cache
def _residual(name, lag):
  model = _build(name, anchor='persistence', frames_per_day=lag, t_in=3, t_out=4)
  variables = _residual(name, 1)[1] if lag > 1 else jax.jit(model.init)(
      jax.random.key(0), *_data(7))
  return jax.jit(model.apply), variables


@pytest.mark.parametrize('name', ONE_FOR_EACH_LOOP)
@pytest.mark.parametrize('lag', [1, 2, 5])
def test_the_untrained_residual_model_is_persistence(name, lag, t_in=3):
  (apply, variables), (frames, forcings) = _residual(name, lag), _data(7)
  got = apply(variables, frames, forcings).prediction
  lag = lag if lag <= t_in else 1  # the last frame, where the input is shorter than a day
  expected = jnp.stack([frames[:, t_in - lag + i % lag] for i in range(4)], 1)
  np.testing.assert_array_equal(got, expected)


def _constants(days=2, size=(8, 8)):
  rng = np.random.default_rng(1)
  return dict(
      base=rng.uniform(10, 60, (12, days, *size)), slope=rng.uniform(0, .1, (12, days, *size)),
      driver_mean=np.float32(100), hourly=np.zeros((days, *size)), row_weights=np.ones(size[0]))


@pytest.mark.parametrize('name', ONE_FOR_EACH_LOOP)
def test_climatology_anchor_is_undone_exactly_and_scales(name):
  model = _build(name, anchor='climatology', frames_per_day=2, divisor=200.0)
  frames, forcings = _data()
  calendar = jnp.stack(jnp.broadcast_arrays(6.25, 12.0 * jnp.arange(5)), -1)[None].repeat(2, 0)
  more = dict(calendar=calendar, driver=jnp.asarray([90.0, 180.0]))
  variables = dict(jax.jit(model.init)(jax.random.key(0), frames, forcings))
  assert set(variables['constants']) == set(_constants())
  variables['constants'] = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), _constants())
  apply = jax.jit(model.apply)
  got = apply(variables, frames, forcings, **more).prediction
  spoilt = apply(variables, frames.at[:, 2:].set(jnp.nan), forcings, **more).prediction
  np.testing.assert_array_equal(got, spoilt)
  # Twice the electrons in, twice out: climatology, anomaly and read-out scale with the last day.
  twice = apply(variables, 2 * frames, forcings, **more).prediction
  np.testing.assert_allclose(twice, 2 * got, rtol=2e-5)
  # An untrained read-out predicts sigmoid(0) = half the lagged anomaly, so frames that are the
  # climatology are forecast as the climatology.
  exact, _ = scaled(variables['constants'], 200 * frames, None, calendar, more['driver'], 2,
                    np.ones(8))
  given = apply(variables, exact / 200, forcings, **more).prediction
  np.testing.assert_allclose(given, exact[:, 2:] / 200, rtol=1e-4)
  with pytest.raises(ValueError, match='calendar'):
    model.apply(variables, frames, forcings)


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_computes_narrow_and_stays_finite(name):
  model, (frames, forcings) = _build(name, dtype='bfloat16'), _data()
  variables = jax.jit(model.init)(jax.random.key(0), frames, forcings)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}

  def loss(params):
    output, _ = model.apply(
        {**variables, 'params': params}, frames, forcings, train=True, mutable='batch_stats')
    return jnp.mean(output.prediction ** 2), output.prediction

  grads, prediction = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  assert prediction.dtype == jnp.float32
  assert all(bool(jnp.all(jnp.isfinite(g))) and g.dtype == jnp.float32
             for g in jax.tree.leaves(grads))
  with convolution_method('native'):
    text = str(jax.make_jaxpr(loss)(variables['params']))
  # Attention keeps its scores in float32; every convolution is narrow.
  counted = 'conv_general_dilated' + ('' if name in ('e3dlstm', 'mau') else '|dot_general')
  products = re.findall(rf':(\w+)\[[\d,]*\] = (?:{counted})', text)
  assert products and set(products) == {'bf16'}


def test_build_says_what_is_wrong():
  shape = dict(shape=(8, 8, 1), t_in=2, t_out=2)
  with pytest.raises(ValueError, match=r"'lstm'.*convlstm.*simvp"):
    build(dict(name='lstm'), **shape)
  with pytest.raises(TypeError, match=r"ConvLSTM: unknown field 'hid_S'.*features"):
    build(dict(name='convlstm', backbone=dict(hid_S=4)), **shape)
  with pytest.raises(TypeError, match="SimVP: unknown field 'depth'"):
    build(dict(name='simvp', depth=4), **shape)
  with pytest.raises(ValueError, match='none persistence climatology'):
    build(dict(name='simvp', anchor='mean'), **shape)
  with pytest.raises(ValueError, match='perfect square'):
    build(dict(name='simvp', fusion='mix'), forcings=4, **shape)
  model = _build('convlstm')
  frames, forcings = _data()
  for bad, planes, message in (
      (frames[:, :3], forcings, '2 or 5'), (frames[..., None], forcings, r'\[B, 2 or 5'),
      (jnp.tile(frames, 2), forcings, '2 channels'), (frames, forcings[:, :2], 'forcings'),
      (frames, None, 'forcings None')):
    with pytest.raises(ValueError, match=message):
      jax.eval_shape(model.init, jax.random.key(0), bad, planes)
