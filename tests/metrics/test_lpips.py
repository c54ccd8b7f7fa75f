"""LPIPS against its definition in PyTorch, with random weights; and what stands in their place."""

import functools

import jax
import numpy as np
import pytest

from stp_jax.convert import __main__ as convert
from stp_jax.metrics import lpips


def _random(seed=0):
  rng = np.random.default_rng(seed)
  make = lambda name, shape: (
      abs(rng.standard_normal(shape)) if name.startswith('head')
      else rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
  return {name: make(name, shape) for name, shape in lpips.shapes().items()}


def _torch(weights):
  """The same numbers as PyTorch's two state_dicts."""
  alexnet, heads = {}, {}
  for i, place in enumerate((0, 3, 6, 8, 10), 1):
    alexnet[f'features.{place}.weight'] = weights[f'conv{i}/kernel'].transpose(3, 2, 0, 1)
    alexnet[f'features.{place}.bias'] = weights[f'conv{i}/bias']
    heads[f'lin{i - 1}.model.1.weight'] = weights[f'head{i}'][None, :, None, None]
  return alexnet, heads


def _reference(weights, x, y, gain):
  """The published definition, layer by layer; x, y `[N, 3, H, W]`."""
  torch = pytest.importorskip('torch')
  f = torch.nn.functional
  alexnet, heads = ({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in part.items()}
                    for part in _torch(weights))
  shift = torch.tensor([-.030, -.088, -.188])[None, :, None, None]
  scale = torch.tensor([.458, .448, .450])[None, :, None, None]

  def maps(image):
    image = (gain * torch.from_numpy(image) - 1 - shift) / scale
    found = []
    for place, stride, padding, pool in ((0, 4, 2, 0), (3, 1, 2, 1), (6, 1, 1, 1), (8, 1, 1, 0),
                                         (10, 1, 1, 0)):
      image = f.max_pool2d(image, 3, 2) if pool else image
      image = f.relu(f.conv2d(image, alexnet[f'features.{place}.weight'],
                              alexnet[f'features.{place}.bias'], stride, padding))
      found.append(image / (image.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
    return found
  total = 0
  for i, (a, b) in enumerate(zip(maps(x), maps(y))):
    total = total + f.conv2d((a - b).pow(2), heads[f'lin{i}.model.1.weight']).mean((1, 2, 3))
  return total.numpy()


@pytest.fixture(scope='module')
def weights():
  return _random()


@pytest.mark.parametrize('protocol, gain, channels, size', [
    ('standard', 2.0, 3, (35, 50)), ('upstream', 510.0, 1, (40, 33))])
def test_the_published_definition(weights, protocol, gain, channels, size):
  rng = np.random.default_rng(1)
  x, y = rng.random((2, 2, 1, *size, channels)).astype(np.float32)
  ours = jax.jit(functools.partial(lpips.lpips, protocol=protocol))(weights, x, y)
  first = lambda a: np.broadcast_to(a[:, 0], (2, *size, 3)).transpose(0, 3, 1, 2).copy()
  expected = _reference(weights, first(x), first(y), gain)
  assert ours.shape == (2, 1)
  np.testing.assert_allclose(ours[:, 0], expected, rtol=2e-5)
  assert ours[0, 0] != ours[1, 0]


def test_equal_frames_and_pixels_that_are_not_there(weights):
  rng = np.random.default_rng(2)
  x = rng.random((1, 2, 31, 31, 1)).astype(np.float32)
  y = x.copy()
  y[0, 1, :9] = np.nan
  valid = np.isfinite(y)
  measure = jax.jit(lpips.lpips)
  np.testing.assert_array_equal(measure(weights, x, x, np.ones_like(valid)), np.zeros((1, 2)))
  np.testing.assert_array_equal(measure(weights, x, y, valid), np.zeros((1, 2)))


def test_the_files_of_the_originals_are_converted(weights, tmp_path, capsys):
  alexnet, heads = _torch(weights)
  np.savez(tmp_path / 'alexnet.npz', **alexnet, **{'classifier.1.weight': np.zeros(3)})
  np.savez(tmp_path / 'heads.npz', **heads)
  out = tmp_path / 'lpips.npz'
  command = lambda a, h: convert.main(['lpips', f'--alexnet={tmp_path / a}',
                                       f'--heads={tmp_path / h}', f'--out={out}'])
  assert command('heads.npz', 'alexnet.npz') == 1
  assert capsys.readouterr().err.count('\n') == 1 and not out.exists()
  assert command('alexnet.npz', 'heads.npz') == 0
  read = lpips.load(out)
  assert set(read) == set(weights)
  for name, value in weights.items():
    np.testing.assert_array_equal(read[name], value)


def test_without_weights_the_message_tells_how_to_get_them(tmp_path):
  with pytest.raises(lpips.WeightsError, match=r'stp_jax\.convert lpips'):
    lpips.load('')
  with pytest.raises(lpips.WeightsError, match='no such file'):
    lpips.load(tmp_path / 'none.npz')
  np.savez(tmp_path / 'other.npz', a=np.zeros(2))
  with pytest.raises(lpips.WeightsError, match=r'conv1/kernel is missing'):
    lpips.load(tmp_path / 'other.npz')


def test_frames_that_cannot_be_measured(weights):
  with pytest.raises(ValueError, match='at least 31x31'):
    lpips.lpips(weights, np.zeros((1, 1, 30, 40, 3)), np.zeros((1, 1, 30, 40, 3)))
  with pytest.raises(ValueError, match='1 or 3'):
    lpips.lpips(weights, np.zeros((1, 1, 40, 40, 2)), np.zeros((1, 1, 40, 40, 2)))
