"""Rewritten convolutions equal the native ones and torch's, and stay fast inside a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.layers import conv, depthwise, patches

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")


def _random(*shape):
  return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def _both(function, *args):
  """Value and gradients of a weighted sum, rewritten and native."""
  results = []
  for method in ('rewritten', 'native'):
    def loss(*args):
      y = function(*args)
      return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)), y
    with conv.convolution_method(method):
      (_, y), grads = jax.jit(
          jax.value_and_grad(loss, tuple(range(len(args))), has_aux=True))(*args)
    results.append((y, *grads))
  return zip(*results, strict=True)


@pytest.mark.parametrize('k, stride, groups, inputs, outputs, size', [
    (1, 1, 1, 3, 5, (4, 6)), (3, 1, 1, 5, 3, (7, 6)), (5, 1, 1, 1, 7, (6, 5)),
    (3, 2, 1, 3, 4, (8, 6)), (3, 2, 1, 3, 4, (7, 9)), (5, 2, 1, 2, 3, (9, 6)),
    (1, 2, 1, 3, 4, (5, 4)), (3, 3, 1, 2, 3, (7, 8)), (3, 1, 2, 6, 4, (5, 6)),
    (3, 2, 4, 8, 12, (7, 6))])
def test_convolution_rewritten_equals_native(k, stride, groups, inputs, outputs, size):
  function = functools.partial(conv.convolution, stride=stride, groups=groups)
  x, kernel = _random(2, *size, inputs), _random(k, k, inputs // groups, outputs)
  for rewritten, native in _both(function, x, kernel):
    np.testing.assert_allclose(rewritten, native, atol=2e-5)


def test_uneven_padding_and_padding_beyond_the_kernel():
  x, kernel = _random(2, 5, 6, 3), _random(3, 3, 3, 2)
  for padding in (((0, 2), (1, 0)), ((4, 3), (3, 3))):
    function = functools.partial(conv.convolution, padding=padding)
    for rewritten, native in _both(function, x, kernel):
      np.testing.assert_allclose(rewritten, native, atol=2e-5)


@pytest.mark.parametrize('k, dilation, channels, size', [
    (3, 1, 5, (6, 7)), (5, 1, 3, (4, 9)), (7, 3, 2, (8, 5)), (3, 2, 1, (3, 3)), (11, 1, 3, (5, 9)),
    (9, 2, 2, (7, 4))])
def test_depthwise_rewritten_equals_native(k, dilation, channels, size):
  function = functools.partial(depthwise.depthwise, dilation=dilation)
  for rewritten, native in _both(
      function, _random(2, *size, channels), _random(k, k, 1, channels)):
    np.testing.assert_allclose(rewritten, native, atol=2e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_convolution_equals_torch(stride):
  x, kernel, bias = _random(2, 9, 8, 3), _random(3, 3, 3, 4), _random(4)
  module = conv.Conv2D(4, 3, stride)
  y = module.apply({'params': dict(kernel=kernel, bias=bias)}, x)
  expected = torch.nn.functional.conv2d(
      *(torch.from_numpy(np.array(a)) for a in (
          x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), bias)), stride, 1)
  np.testing.assert_allclose(y, expected.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_leading_outputs_can_be_left_out():
  x, module = _random(2, 5, 5, 3), conv.Conv2D(6)
  variables = module.init(jax.random.key(0), x)
  np.testing.assert_allclose(
      module.apply(variables, x, 4), module.apply(variables, x)[..., 4:], atol=1e-6)


def _convolutions(jaxpr):
  for e in jaxpr.eqns:
    if e.primitive.name == 'conv_general_dilated':
      yield e.params
    for p in e.params.values():
      for v in p if isinstance(p, (tuple, list)) else (p,):
        if hasattr(v, 'eqns') or hasattr(v, 'jaxpr'):
          yield from _convolutions(getattr(v, 'jaxpr', v))


def slow_convolutions(function, *args) -> int:
  """Convolutions that XLA's CPU backend would run 20 to 50 times slower inside a loop."""
  plain = jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
  return sum(
      p['dimension_numbers'] != plain or p['feature_group_count'] != 1
      or (p['window_strides'], p['lhs_dilation'], p['rhs_dilation']) != ((1, 1),) * 3
      for p in _convolutions(jax.make_jaxpr(function)(*args).jaxpr))


@pytest.mark.parametrize('method, slow', [('auto', False), ('native', True)])
def test_gradients_keep_the_form_that_is_fast_in_a_loop(method, slow):
  layers = [conv.Conv2D(4, 3), conv.Conv2D(4, 3, 2), conv.Conv2D(4, 3, groups=2),
            depthwise.DepthwiseConv2D(3), depthwise.DepthwiseConv2D(9), conv.Conv2D(3, 1)]
  x = _random(2, 8, 8, 4)
  variables = [layer.init(jax.random.key(0), x) for layer in layers]

  def loss(variables, x):
    total = 0.
    for layer, v in zip(layers, variables):
      total += jnp.sum(layer.apply(v, x) ** 2)
    return total

  with conv.convolution_method(method):
    assert (slow_convolutions(jax.grad(loss, (0, 1)), variables, x) > 0) == slow


def test_initialisers():
  key = jax.random.key(0)
  shape = (3, 3, 16, 64)
  kernel = conv.kernel_init('torch')(key, shape)
  assert 0.98 < float(jnp.max(jnp.abs(kernel))) * 12 <= 1
  np.testing.assert_allclose(jnp.std(conv.kernel_init('trunc_normal')(key, shape)), 0.02, rtol=0.03)
  np.testing.assert_allclose(
      jnp.std(conv.kernel_init('he_out')(key, shape)), (2 / (9 * 64)) ** 0.5, rtol=0.03)
  np.testing.assert_allclose(
      jnp.std(conv.kernel_init('he_out', 64)(key, (3, 3, 1, 64))), (2 / 9) ** 0.5, rtol=0.1)
  # torch counts the fan out of a depthwise kernel over all channels.
  np.testing.assert_allclose(
      jnp.std(conv.kernel_init('xavier')(key, (3, 3, 1, 64))), (2 / (9 + 9 * 64)) ** 0.5, rtol=0.1)
  with pytest.raises(ValueError, match='he_out'):
    conv.kernel_init('glorot')


def test_errors_name_the_cure():
  x = jnp.zeros((1, 4, 4, 3))
  with pytest.raises(ValueError, match='odd'):
    conv.Conv2D(2, 4).init(jax.random.key(0), x)
  with pytest.raises(ValueError, match='odd'):
    depthwise.DepthwiseConv2D(2).init(jax.random.key(0), x)
  with pytest.raises(ValueError, match='groups'):
    conv.Conv2D(4, 3, groups=2).init(jax.random.key(0), x)
  with pytest.raises(ValueError, match='native'), conv.convolution_method('fast'):
    pass


def test_patches_round_trip_and_order():
  frames = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  patched = patches.patchify(frames, 2)
  assert patched.shape == (2, 2, 3, 12)
  # Pixel (1, 0) of patch (1, 2), channel 2: (1 * 2 + 0) * 3 + 2.
  assert patched[1, 1, 2, 8] == frames[1, 3, 4, 2]
  np.testing.assert_array_equal(patches.unpatchify(patched, 2), frames)
  with pytest.raises(ValueError, match='4 x 6'):
    patches.patchify(frames, 4)


def test_pixel_shuffle_equals_torch():
  x = _random(2, 3, 4, 8)
  first = torch.from_numpy(np.array(x.transpose(0, 3, 1, 2)))
  expected = torch.nn.functional.pixel_shuffle(first, 2)
  np.testing.assert_array_equal(patches.pixel_shuffle(x), expected.numpy().transpose(0, 2, 3, 1))
