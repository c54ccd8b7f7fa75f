"""Reading PyTorch files: every form that trainers write, and the ones to refuse."""

import argparse
import collections
import pathlib
import pickle

import numpy as np
import pytest

from stp_jax.convert import torch_checkpoint

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")

_STATE = collections.OrderedDict(
    [('a.weight', torch.arange(6.0).reshape(2, 3)), ('b.count', torch.tensor(3))])


@pytest.mark.parametrize('tree,epoch,wrapper', [
    (_STATE, None, ''),
    ({f'module.{k}': v for k, v in _STATE.items()}, None, ''),
    ({'epoch': 4, 'optimizer': {'state': {}}, 'state_dict': _STATE, 'scheduler': {'last': 1.5}}, 4,
     'state_dict'),
    ({'model': {f'module.{k}': v for k, v in _STATE.items()}}, None, 'model')])
def test_forms(tmp_path, tree, epoch, wrapper):
  torch.save(tree, tmp_path / 'x.pth')
  found = torch_checkpoint.load(tmp_path / 'x.pth')
  assert (found.epoch, found.wrapper) == (epoch, wrapper)
  assert list(found.weights) == ['a.weight', 'b.count']
  np.testing.assert_array_equal(found.weights['a.weight'], _STATE['a.weight'].numpy())
  assert found.weights['b.count'].dtype == np.int64


def test_npz_and_bfloat16(tmp_path):
  np.savez(tmp_path / 'x.npz', **{'a.weight': np.ones(2)})
  assert torch_checkpoint.load(tmp_path / 'x.npz').weights['a.weight'].tolist() == [1, 1]
  torch.save({'a': torch.ones(2, dtype=torch.bfloat16)}, tmp_path / 'x.pth')
  assert torch_checkpoint.load(tmp_path / 'x.pth').weights['a'].dtype == np.float32


def test_only_a_prefix_of_all_keys_is_taken_off(tmp_path):
  torch.save({'module.a': torch.ones(1), 'b': torch.ones(1)}, tmp_path / 'x.pth')
  assert set(torch_checkpoint.load(tmp_path / 'x.pth').weights) == {'module.a', 'b'}


class _Malicious:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path(self.path),)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path):
  trace = tmp_path / 'it_ran'
  torch.save({'state_dict': _STATE, 'extra': _Malicious(str(trace))}, tmp_path / 'x.pth')
  (tmp_path / 'y.pth').write_bytes(pickle.dumps(_Malicious(str(trace))))
  for name in ('x.pth', 'y.pth'):
    with pytest.raises(torch_checkpoint.CheckpointError, match=f'{name}: refused'):
      torch_checkpoint.load(tmp_path / name)
  assert not trace.exists()


def test_a_pickled_npz_is_refused(tmp_path):
  np.savez(tmp_path / 'x.npz', a=np.array([{}], dtype=object))
  with pytest.raises(torch_checkpoint.CheckpointError, match='plain arrays'):
    torch_checkpoint.load(tmp_path / 'x.npz')


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'PK\x03\x04 cut short'])
def test_damaged_files_are_one_line(tmp_path, content):
  (tmp_path / 'x.pth').write_bytes(content)
  with pytest.raises(torch_checkpoint.CheckpointError, match=r'x\.pth: ') as error:
    torch_checkpoint.load(tmp_path / 'x.pth')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('tree,message', [
    ({'state_dict': {}}, 'holds no weights'), ([1, 2], 'holds no weights'),
    ({'epoch': 3}, 'epoch is a int, not a tensor')])
def test_no_weights(tmp_path, tree, message):
  torch.save(tree, tmp_path / 'x.pth')
  with pytest.raises(torch_checkpoint.CheckpointError, match=message):
    torch_checkpoint.load(tmp_path / 'x.pth')


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(torch_checkpoint.CheckpointError, match='no such file'):
    torch_checkpoint.load(tmp_path / 'none.pth')


def _lightning(path, hyperparameters, **more):
  state = {f'model.{k}': v for k, v in _STATE.items()}
  torch.save({'epoch': 4, 'global_step': 50, 'pytorch-lightning_version': '2.1.0',
              'state_dict': state | {'criterion.weight': torch.ones(2)},
              'loops': {'fit_loop': {}}, 'callbacks': {'best': {'score': torch.tensor(0.5)}},
              'optimizer_states': [{'state': {}, 'param_groups': [{'lr': 0.1, 'params': [0]}]}],
              'lr_schedulers': [{'total_steps': 60}], 'hparams_name': 'kwargs',
              'hyper_parameters': hyperparameters, **more}, path)


@pytest.mark.parametrize('wrap', [dict, lambda **kw: argparse.Namespace(**kw)])
def test_a_lightning_checkpoint(tmp_path, wrap):
  _lightning(tmp_path / 'best.ckpt', wrap(method='SimVP', hid_S=16, in_shape=(10, 1, 64, 64)))
  found = torch_checkpoint.load(tmp_path / 'best.ckpt')
  assert found.lightning and found.epoch == 5 and list(found.weights) == ['a.weight', 'b.count']
  assert found.left_out == ('criterion.weight',)
  assert found.hyperparameters == dict(method='SimVP', hid_S=16, in_shape=[10, 1, 64, 64])
  assert found.optimizer['param_groups'][0]['lr'] == 0.1
  assert found.scheduler['total_steps'] == 60


def test_other_objects_in_a_lightning_checkpoint_are_refused(tmp_path):
  _lightning(tmp_path / 'best.ckpt', {'path': pathlib.PurePosixPath('/')})
  with pytest.raises(torch_checkpoint.CheckpointError, match=r'best\.ckpt: refused') as error:
    torch_checkpoint.load(tmp_path / 'best.ckpt')
  assert '\n' not in str(error.value)
