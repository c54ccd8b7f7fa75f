"""PhyDNet: against PyTorch's layers, moments, its term, sizes, checkpoints."""

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
from stp_jax.models.recurrent.phydnet import kernel_to_moments, moment_matrix, moments_to_kernel
from stp_jax.parity.runtime import compiled

FAMILY = convert.family_of('phydnet')
TINY = dict(features=8, hidden=(5, 3), kernel_size=3, groups=2)


def _build(t_in=2, t_out=2, shape=(8, 12, 3), **fields):
  more = {k: fields.pop(k) for k in ('dtype', 'forcings') if k in fields}
  backbone = dict(TINY, **fields.pop('backbone', {}))
  return build(
      dict(name='phydnet', backbone=backbone, **fields), shape=shape, t_in=t_in, t_out=t_out,
      **more)


def _frames(t=4, size=(8, 12), channels=3, b=2):
  return jnp.asarray(np.random.default_rng(0).random((b, t, *size, channels)), jnp.float32)


def _init(model, frames):
  template, rng = jax.eval_shape(model.init, jax.random.key(0), frames), np.random.default_rng(1)
  return jax.tree.map(
      lambda x: (rng.normal(size=x.shape) * (.2 if x.ndim > 1 else 1)).astype(x.dtype), template)


def _by_hand(w, frames, use, groups, downscale):
  """Predictions of frames 1 to T - 1, `[B, T - 1, C, H, W]`."""
  last = downscale // 2

  def stages(name, x, strides):
    for i, stride in enumerate(strides, 1):
      k = f'encoder.{name}.{"upc" if "decoder" in name else "c"}{i}.main'
      if 'decoder' in name:
        x = F.conv_transpose2d(x, w[f'{k}.0.weight'], w[f'{k}.0.bias'], stride, 1, stride - 1)
      else:
        x = F.conv2d(x, w[f'{k}.0.weight'], w[f'{k}.0.bias'], stride, 1)
      x = F.leaky_relu(F.group_norm(x, groups, w[f'{k}.1.weight'], w[f'{k}.1.bias']), 0.2)
    return x

  def conv(name, x):
    return F.conv2d(x, w[f'{name}.weight'], w[f'{name}.bias'],
                    padding=w[f'{name}.weight'].shape[-1] // 2)

  b, total, _, rows, columns = frames.shape
  size = (rows // downscale, columns // downscale)
  cell = 'phycell.cell_list.0'
  physics = torch.zeros(b, w[f'{cell}.F.conv2.weight'].shape[0], *size)
  widths = [w[f'convcell.cell_list.{i}.conv.weight'].shape[0] // 4 for i in range(2)]
  states = [(torch.zeros(b, n, *size), torch.zeros(b, n, *size)) for n in widths]
  images = []
  for t in range(total - 1):
    frame = frames[:, t] if t == 0 else torch.where(
        use[:, t, None, None, None], frames[:, t], images[-1])
    latent = stages('encoder_E', frame, (2, 1, last))
    x = stages('encoder_Ep', latent, (1, 1))
    k = w[f'{cell}.F.bn1.weight'].numel()
    terms = F.group_norm(conv(f'{cell}.F.conv1', physics), round(k ** 0.5),
                         w[f'{cell}.F.bn1.weight'], w[f'{cell}.F.bn1.bias'])
    predicted = physics + conv(f'{cell}.F.conv2', terms)
    gain = torch.sigmoid(conv(f'{cell}.convgate', torch.cat([x, physics], 1)))
    physics = predicted + gain * (x - predicted)
    x = stages('encoder_Er', latent, (1, 1))
    for i, (h, c) in enumerate(states):
      gates = conv(f'convcell.cell_list.{i}.conv', torch.cat([x, h], 1)).chunk(4, 1)
      i_, f, o = (torch.sigmoid(g) for g in gates[:3])
      c = f * c + i_ * torch.tanh(gates[3])
      x = o * torch.tanh(c)
      states[i] = (x, c)
    both = stages('decoder_Dp', physics, (1, 1)) + stages('decoder_Dr', x, (1, 1))
    both = stages('decoder_D', both, (2, 1))
    images.append(torch.sigmoid(F.conv_transpose2d(
        both, w['encoder.decoder_D.upc3.weight'], w['encoder.decoder_D.upc3.bias'], last, 1,
        last - 1)))
  return torch.stack(images, 1)


@pytest.mark.parametrize('downscale', [2, 4])
def test_forecasts_and_gradients_follow_the_equations(downscale):
  model, frames = _build(backbone=dict(downscale=downscale)), _frames()
  variables = _init(model, frames)
  use = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)

  @compiled
  @functools.partial(jax.value_and_grad, has_aux=True)
  def ours(params):
    out = model.apply({'params': params}, frames, None, use, train=True)
    every = jnp.concatenate([out.context, out.prediction], 1)
    return jnp.mean(jnp.square(every - frames[:, 1:])) + jnp.mean(out.terms['moments']), every

  (loss, every), grads = ours(variables['params'])
  w = {k: torch.tensor(v, requires_grad=True) for k, v in rules.to_torch(FAMILY, variables).items()
       if not k.startswith('k2m')}
  x = torch.tensor(np.moveaxis(np.asarray(frames), -1, 2))
  images = _by_hand(w, x, torch.tensor(use), 2, downscale)
  matrix = torch.tensor(moment_matrix(3), dtype=torch.float32)
  filters = w['phycell.cell_list.0.F.conv1.weight']
  moments = matrix @ filters.transpose(0, 1) @ matrix.T  # [in, filters, k, k]
  expected = F.mse_loss(images, x[:, 1:]) + sum(
      F.mse_loss(m, torch.eye(9).reshape(9, 3, 3)) for m in moments)
  expected.backward()
  np.testing.assert_allclose(np.moveaxis(np.asarray(every), -1, 2), images.detach(), atol=5e-6)
  np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
  for key, grad in rules.to_torch(FAMILY, {'params': grads}).items():
    if key.startswith(('phycell', 'convcell', 'encoder.encoder', 'encoder.decoder')):
      wanted = w[key].grad.numpy()
      np.testing.assert_allclose(grad, wanted, atol=1e-4 * max(1e-2, np.abs(wanted).max()),
                                 err_msg=key)


def test_moments_are_those_of_the_derivative():
  # A central difference along x, and the Laplacian.
  difference = np.array([[0, 0, 0], [-.5, 0, .5], [0, 0, 0]])
  np.testing.assert_allclose(kernel_to_moments(difference), [[0, 1, 0], [0, 0, 0], [0, 0, 0]])
  laplacian = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
  moments = kernel_to_moments(laplacian)
  np.testing.assert_allclose([moments[0, 2], moments[2, 0], moments[0, 0]], [1, 1, 0])
  for shape in ((2, 3, 7, 5), (4, 3)):
    filters = np.random.default_rng(0).normal(size=shape)
    again = moments_to_kernel(kernel_to_moments(filters))
    assert again.dtype == np.float64
    np.testing.assert_allclose(again, filters, atol=1e-9)


def test_the_term_is_zero_for_the_derivatives_themselves_and_only_in_training():
  model, frames = _build(), _frames()
  variables = compiled(model.init)(jax.random.key(0), frames)
  exact = moments_to_kernel(np.eye(9).reshape(9, 3, 3))  # [filters, k, k]
  kernel = np.broadcast_to(exact.transpose(1, 2, 0)[:, :, None], (3, 3, 8, 9))
  variables['params']['backbone']['phycell']['cell_list_0']['F']['conv1']['kernel'] = jnp.asarray(
      kernel, jnp.float32)
  terms = compiled(lambda v: model.apply(v, frames, train=True).terms)(variables)
  np.testing.assert_allclose(terms['moments'], [0, 0], atol=1e-10)
  assert not jax.eval_shape(model.apply, variables, frames).terms


@pytest.mark.parametrize('t_in, t_out', [(4, 1), (1, 4)])
def test_odd_sizes_and_unused_frames(t_in, t_out):
  model, frames = _build(t_in, t_out, (17, 22, 1)), _frames(5, (17, 22), 1)
  variables = _init(model, frames)
  apply = compiled(model.apply)
  expected = apply(variables, frames).prediction
  assert expected.shape == (2, t_out, 17, 22, 1)
  assert bool(jnp.all((expected > 0) & (expected < 1)))
  got = apply(variables, frames.at[:, t_in:].set(jnp.nan)).prediction
  np.testing.assert_array_equal(got, expected)


def test_frames_outside_the_unit_interval():
  frames = 5 * _frames() - 9
  model = _build(backbone=dict(squash=False))
  variables = _init(model, frames)
  assert float(jnp.min(compiled(model.apply)(variables, frames).prediction)) < 0
  residual = _build(anchor='persistence')
  variables = compiled(residual.init)(jax.random.key(0), frames)
  got = compiled(residual.apply)(variables, frames).prediction
  np.testing.assert_array_equal(got, jnp.repeat(frames[:, 1:2], 2, 1))


@pytest.mark.slow
def test_bfloat16_learns():
  frames = _frames(size=(8, 8), b=1)
  model = _build(shape=(8, 8, 3), dtype='bfloat16', backbone=dict(downscale=2))
  variables = compiled(model.init)(jax.random.key(0), frames)

  @compiled
  @jax.value_and_grad
  def loss(params):
    out = model.apply({'params': params}, frames, train=True)
    return jnp.mean(jnp.square(out.prediction - frames[:, 2:])) + jnp.mean(out.terms['moments'])

  params, losses = variables['params'], []
  for _ in range(8):
    value, grads = loss(params)
    params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
    losses.append(float(value))
  assert np.isfinite(losses).all() and losses[-1] < losses[0]


@pytest.mark.parametrize('channels, published', [(1, 3091732), (3, 3092886)])
def test_published_parameter_counts(channels, published):
  model = build(dict(name='phydnet'), shape=(64, 64, channels), t_in=10, t_out=10)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 10, 64, 64, channels)))
  assert sum(x.size for x in jax.tree.leaves(shapes)) == published


def test_a_checkpoint_lists_the_cells_twice_and_keeps_its_moment_matrices():
  model, frames = _build(), _frames()
  template = jax.eval_shape(model.init, jax.random.key(0), frames)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)
  weights = rules.to_torch(FAMILY, variables)
  assert {k for k in weights if k.startswith('k2m')} == {
      'k2m._M0', 'k2m._M1', 'k2m._invM0', 'k2m._invM1'}
  assert weights['k2m._invM1'].dtype == np.float64
  for key in ('phycell.cell_list.0.F.conv1.weight', 'convcell.cell_list.1.conv.bias'):
    np.testing.assert_array_equal(weights[f'encoder.{key}'], weights[key])
  again, unused = rules.to_flax(FAMILY, weights, template)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  assert set(unused) == {k for k in weights if k.startswith('k2m')}
  live = sum(x.size for x in jax.tree.leaves(variables))
  assert rules.parameter_count(FAMILY, again['params'], unused) == live
  back = rules.to_torch(FAMILY, again, unused)
  assert back.keys() == weights.keys()
  for key, value in weights.items():
    np.testing.assert_array_equal(back[key], value)
  # Trained weights win over what the two names once held.
  doubled = jax.tree.map(lambda x: 2 * x, again)
  back = rules.to_torch(FAMILY, doubled, unused)
  key = 'phycell.cell_list.0.F.conv1.weight'
  np.testing.assert_array_equal(back[f'encoder.{key}'], 2 * weights[key])
  with pytest.raises(rules.ConversionError, match='differs from its other name'):
    rules.to_flax(FAMILY, weights | {f'encoder.{key}': 1 + weights[key]}, template)


@pytest.mark.parametrize('fields, message', [
    (dict(downscale=3), '2 or 4'), (dict(groups=3), 'groups'), (dict(kernel_size=4), 'odd')])
def test_bad_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(_build(backbone=fields).init, jax.random.key(0), _frames())
