"""PredNet: against the equations in PyTorch, its terms, extrapolation, fusion, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stp_jax import convert
from stp_jax.convert import rules
from stp_jax.models import build
from stp_jax.models.recurrent.prednet import PredNet
from stp_jax.parity.runtime import compiled

FAMILY = convert.family_of('prednet')


def _build(t_in=3, t_out=2, shape=(8, 12, 2), **fields):
  backbone = dict(dict(features=(3, 4)), **fields.pop('backbone', {}))
  return build(dict(name='prednet', backbone=backbone, **fields), shape=shape, t_in=t_in,
               t_out=t_out, forcings=fields.get('fusion', 'none') != 'none' and 2)


def _frames(t=5, size=(8, 12), channels=2, b=2):
  return jnp.asarray(np.random.default_rng(0).random((b, t, *size, channels)), jnp.float32)


def _init(model, frames):
  """Weights large enough that every unit moves."""
  template, rng = jax.eval_shape(model.init, jax.random.key(0), frames), np.random.default_rng(1)
  return jax.tree.map(
      lambda x: (rng.normal(size=x.shape) * (.3 if x.ndim > 1 else .5)).astype(x.dtype), template)


def _by_hand(weights, frames, fed, layers, *, act, error_act, pixel_max):
  """Predictions `[B, T, C, H, W]` and mean errors; `fed(t, predictions)` is frame t."""
  conv = lambda name, x: F.conv2d(
      x, weights[f'{name}.weight'], weights[f'{name}.bias'],
      padding=weights[f'{name}.weight'].shape[-1] // 2)
  hard = lambda x: torch.clamp(0.2 * x + 0.5, 0, 1)
  b, total, _, h, w = frames.shape
  widths = [weights[f'Ahat.{2 * n}.weight'].shape[0] for n in range(layers)]
  zeros = lambda n, c: torch.zeros(b, c, h >> n, w >> n)
  r = [zeros(n, weights[f'i.{n}.weight'].shape[0]) for n in range(layers)]
  c = [torch.zeros_like(x) for x in r]
  e = [zeros(n, 2 * k) for n, k in enumerate(widths)]
  predictions, errors = [], []
  for t in range(total):
    for n in reversed(range(layers)):
      up = [F.interpolate(r[n + 1], scale_factor=2, mode='nearest')] if n + 1 < layers else []
      x = torch.cat([r[n], e[n], *up], 1)
      c[n] = hard(conv(f'f.{n}', x)) * c[n] + hard(conv(f'i.{n}', x)) * torch.tanh(
          conv(f'c.{n}', x))
      r[n] = hard(conv(f'o.{n}', x)) * torch.tanh(c[n])
    for n in range(layers):
      x = conv(f'Ahat.{2 * n}', r[n])
      ahat = act(x) if n else torch.clamp(F.relu(x), max=pixel_max)
      if n == 0:
        predictions.append(ahat)
        a = fed(t, predictions)
      e[n] = torch.cat([error_act(ahat - a), error_act(a - ahat)], 1)
      if n + 1 < layers:
        a = F.max_pool2d(act(conv(f'A.{2 * n}', e[n])), 2)
    errors.append(torch.stack([x.abs().mean((1, 2, 3)) for x in e], -1))
  return torch.stack(predictions, 1), torch.stack(errors, 1)


@pytest.mark.parametrize('fields, lag', [
    (dict(), 0),
    (dict(extrapolation='previous', features=(3,), activation='tanh', error_activation='tanh',
          pixel_max=0.4, kernel_size=(5, 3), ahat_kernel_size=(1, 3), a_kernel_size=5), 1),
    (dict(features=(3, 4), r_features=(5, 2, 6), a_kernel_size=(1, 3)), 0)])
def test_forecasts_errors_and_gradients_follow_the_equations(fields, lag):
  model, frames = _build(backbone=fields), _frames()
  variables = _init(model, frames)
  target = np.random.default_rng(2).random(frames.shape).astype(np.float32)

  @compiled
  @functools.partial(jax.value_and_grad, has_aux=True)
  def ours(params):
    out = model.apply({'params': params}, frames)
    every = jnp.concatenate([out.context, out.prediction], 1)
    error = sum(jnp.mean(v) for v in out.terms.values())
    return jnp.mean(jnp.square(every - target[:, 1:])) + error, every

  (loss, every), grads = ours(variables['params'])
  weights = {k: torch.tensor(v, requires_grad=True)
             for k, v in rules.to_torch(FAMILY, variables).items()}
  x = torch.tensor(np.moveaxis(np.asarray(frames), -1, 2))
  layers = len(model.backbone.features) + 1
  act = dict(relu=F.relu, tanh=torch.tanh)
  predictions, errors = _by_hand(
      weights, x, lambda t, p: x[:, t] if t < 3 else p[t - lag], layers,
      act=act[model.backbone.activation], error_act=act[model.backbone.error_activation],
      pixel_max=model.backbone.pixel_max)
  wanted = torch.tensor(np.moveaxis(target, -1, 2))
  # Frame 4 is predicted, never fed.
  expected = ((predictions - wanted)[:, 1:] ** 2).mean() + errors[:, 1:4].mean((0, 1)).sum()
  expected.backward()
  np.testing.assert_allclose(
      np.moveaxis(np.asarray(every), -1, 2), predictions[:, 1:].detach(), atol=2e-6)
  np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
  for key, grad in rules.to_torch(FAMILY, {'params': grads}).items():
    wanted = weights[key].grad.numpy()
    np.testing.assert_allclose(grad, wanted, atol=2e-5 * max(1e-2, np.abs(wanted).max()),
                               err_msg=key)


def test_an_odd_error_activation_has_errors_unless_they_are_signed():
  frames = _frames()
  terms = {}
  for signed in (False, True):
    model = _build(backbone=dict(error_activation='tanh', signed_error=signed))
    every = jnp.ones((2, 5))
    terms[signed] = compiled(model.apply)(_init(model, frames), frames, None, every).terms
  assert list(terms[True]) == ['error_0', 'error_1', 'error_2']
  for name in terms[True]:
    np.testing.assert_allclose(terms[True][name], 0, atol=1e-7)
    assert bool(jnp.all(terms[False][name] > 1e-2))


def test_the_lowest_error_is_half_the_absolute_error():
  """So a main loss 'mae' and weights of 0.2 are the published L_all; a fed prediction has none."""
  model, frames = _build(t_in=4, t_out=1), _frames()
  variables = _init(model, frames)
  out = compiled(model.apply)(variables, frames, None, jnp.ones((2, 5)))
  gap = jnp.abs(out.context - frames[:, 1:4]).mean((1, 2, 3, 4))
  np.testing.assert_allclose(out.terms['error_0'], gap / 2, rtol=1e-5)
  free = compiled(_build(t_in=1, t_out=4).apply)(variables, frames)
  np.testing.assert_array_equal(free.terms['error_0'], 0)


@pytest.mark.parametrize('fields', [
    dict(fusion='concatenate'), dict(fusion='mix', patch=2), dict(anchor='persistence')])
def test_a_read_out_serves_forcings_and_corrections(fields):
  model = _build(shape=(17, 22, 2), t_in=2, t_out=4, **fields)
  frames = _frames(6, (17, 22))
  planes = jnp.ones((2, 6, 17, 22, 2)) if 'fusion' in fields else None
  variables = compiled(model.init)(jax.random.key(0), frames, planes)
  assert 'readout' in variables['params']['backbone']
  out = compiled(model.apply)(variables, frames.at[:, 2:].set(jnp.nan), planes)
  assert out.prediction.shape == (2, 4, 17, 22, 2)
  assert bool(jnp.all(jnp.isfinite(out.prediction)))
  if 'anchor' in fields:
    np.testing.assert_array_equal(out.prediction, jnp.repeat(frames[:, 1:2], 4, 1))


@pytest.mark.parametrize('t_in, t_out', [(4, 1), (1, 4)])
@pytest.mark.parametrize('extrapolation', ['own', 'previous'])
def test_odd_sizes_and_unused_frames(t_in, t_out, extrapolation):
  model = _build(t_in, t_out, (17, 22, 2), backbone=dict(extrapolation=extrapolation))
  frames = _frames(5, (17, 22))
  variables = _init(model, frames)
  apply = compiled(model.apply)
  expected = apply(variables, frames).prediction
  assert expected.shape == (2, t_out, 17, 22, 2)
  got = apply(variables, frames.at[:, t_in:].set(jnp.nan)).prediction
  np.testing.assert_array_equal(got, expected)


def test_bfloat16_learns():
  frames = _frames(b=1)
  model = build(dict(name='prednet', backbone=dict(features=(8,))), shape=(8, 12, 2), t_in=3,
                t_out=2, dtype='bfloat16')
  variables = compiled(model.init)(jax.random.key(0), frames)

  @compiled
  @jax.value_and_grad
  def loss(params):
    out = model.apply({'params': params}, frames)
    return jnp.mean(jnp.abs(out.prediction - frames[:, 3:])) + jnp.mean(out.terms['error_1'])

  params, losses = variables['params'], []
  for _ in range(8):
    value, grads = loss(params)
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    losses.append(float(value))
  assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_published_size():
  model = build(dict(name='prednet'), shape=(64, 64, 1), t_in=10, t_out=10)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 10, 64, 64, 1)))
  widths, count = (1, 32, 64, 128, 256), 0
  for n, k in enumerate(widths):
    above = widths[n + 1] if n < 4 else 0
    count += 4 * (9 * (3 * k + above) * k + k) + 9 * k * k + k  # gates, expectation
    count += (9 * 2 * k * above + above) if n < 4 else 0
  assert sum(x.size for x in jax.tree.leaves(shapes)) == count
  assert round(count / 1e6, 1) == 12.5  # in OpenSTL's tables


def test_a_checkpoint_there_and_back():
  model, frames = _build(), _frames()
  variables = _init(model, frames)
  weights = rules.to_torch(FAMILY, variables)
  assert weights['Ahat.4.weight'].shape == (4, 4, 3, 3) and weights['A.2.bias'].shape == (4,)
  again, unused = rules.to_flax(FAMILY, weights, variables)
  assert not unused and jax.tree.structure(again) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize('fields, message', [
    (dict(kernel_size=4), 'kernel_size=4: an odd number, or 3'),
    (dict(a_kernel_size=(3, 3, 3)), 'a_kernel_size'), (dict(r_features=(1, 2)), 'r_features'),
    (dict(activation='gelu'), 'relu or tanh'), (dict(extrapolation='no'), 'own or previous'),
    (dict(extrapolation='previous', zero_readout=True), 'anchor=none')])
def test_bad_fields(fields, message):
  model = _build(backbone=fields)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), _frames())


def test_a_size_that_does_not_halve_is_named():
  with pytest.raises(ValueError, match='6 x 8 do not divide by 4'):
    jax.eval_shape(lambda: PredNet(features=(2, 2)).init(
        jax.random.key(0), jnp.zeros((1, 6, 8, 1)), 3, method='initial_carry'))
