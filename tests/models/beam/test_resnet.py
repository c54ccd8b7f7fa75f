"""Trunks: torch's numbers, published sizes, files of ImageNet weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.convert import __main__ as command
from stp_jax.convert import resnet, rules
from stp_jax.models.beam import pretrained
from stp_jax.models.beam.resnet import DEPTHS, ResNet

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[test]'")
torch_trunk = pytest.importorskip('tests.models.beam.torch_trunk')


def _arrays(module):
  return {k: v.detach().numpy().copy() for k, v in module.state_dict().items()}


@pytest.mark.parametrize('train', [False, True])
def test_a_trunk_computes_what_torch_does(train):
  reference = torch_trunk.drawn().train(train)
  weights = _arrays(reference)
  variables = resnet.to_variables(weights)
  x = np.random.default_rng(0).normal(size=(2, 21, 18, 3)).astype(np.float32)
  expected = reference(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().numpy()
  trunk = resnet.trunk_of(weights)
  y, updated = jax.jit(
      lambda v, x: trunk.apply(v, x, train, mutable=['batch_stats']))(variables, x)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  after = rules.to_torch(resnet.FAMILY, updated)
  for key, value in _arrays(reference).items():
    if 'running' in key:
      np.testing.assert_allclose(after[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('depth, channels, count', [
    (34, 3, 21_284_672), (18, 1, 11_170_240), (18, 2, 11_173_376)])
def test_published_sizes(depth, channels, count):
  trunk = ResNet(DEPTHS[depth])
  shapes = jax.eval_shape(lambda: trunk.init(
      jax.random.key(0), jnp.zeros((1, 64, 64, channels)), False))
  assert sum(x.size for x in jax.tree.leaves(shapes['params'])) == count


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.npz'])
def test_a_file_of_imagenet_weights_becomes_a_trunk(tmp_path, capsys, suffix):
  reference = torch_trunk.drawn()
  source, out = tmp_path / f'r{suffix}', tmp_path / 'trunk.npz'
  if suffix == '.pth':
    torch.save(reference.state_dict(), source)
  elif suffix == '.npz':
    np.savez(source, **_arrays(reference))
  else:
    pytest.importorskip('safetensors.numpy').save_file(_arrays(reference), source)
  assert command.main(['resnet', str(source), f'--out={out}']) == 0, capsys.readouterr().err
  assert 'ResNet-8 trunk' in capsys.readouterr().out
  image = ResNet((1, 2), (4, 6))
  lidar = ResNet((1, 2), (4, 6), fresh_stem=True)
  shapes = {f'{name}_encoder': jax.eval_shape(
      lambda t=trunk, c=c: t.init(jax.random.key(1), jnp.zeros((1, 32, 32, c)), False))
            for name, trunk, c in (('image', image, 3), ('lidar', lidar, 1))}
  start = jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), shapes)
  variables = {c: {name: v[c] for name, v in start.items()} for c in ('params', 'batch_stats')}
  found = pretrained.insert(variables, {'image': out, 'lidar': out})
  expected = resnet.to_variables(_arrays(reference))
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  same({c: found[c]['image_encoder'] for c in found}, expected)
  # One channel does not take the kernel of three: it stays as drawn, all else is replaced.
  stem = found['params']['lidar_encoder'].pop('conv1')
  same(stem, variables['params']['lidar_encoder']['conv1'])
  expected['params'].pop('conv1')
  same({c: found[c]['lidar_encoder'] for c in found}, expected)
  with pytest.raises(ValueError, match="no trunk for 'radar'"):
    pretrained.insert(variables, {'radar': out})


def test_bad_files_are_named(tmp_path, capsys):
  odd = tmp_path / 'odd.npz'
  np.savez(odd, a=np.zeros(3))
  for arguments, words in (
      ([str(odd), f'--out={tmp_path}/x.npz'], 'odd.npz: not a ResNet'),
      ([str(odd), f'--out={tmp_path}/x'], 'name an .npz'),
      ([str(tmp_path / 'none.pth'), f'--out={tmp_path}/x.npz'], 'none.pth: no such file')):
    assert command.main(['resnet', *arguments]) == 1
    assert words in capsys.readouterr().err
  weights = _arrays(torch_trunk.drawn())
  del weights['layer2.1.bn2.weight']
  np.savez(odd, **weights)
  assert command.main(['resnet', str(odd), f'--out={tmp_path}/x.npz']) == 1
  assert 'missing: layer2.1.bn2.weight' in capsys.readouterr().err
  assert sorted(p.name for p in tmp_path.iterdir()) == ['odd.npz']
  with pytest.raises(ValueError, match='not the trunk of image'):
    pretrained.insert({'params': {'image_encoder': {'conv1': {'kernel': np.zeros(1)}}}},
                      {'image': odd})
