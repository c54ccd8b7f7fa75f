"""Reading PyTorch files: every form that trainers write, and the ones to refuse."""

import argparse
import collections
import pathlib
import pickle
import tracemalloc
import zipfile

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


def _laughs():
  one = [1.0]
  for _ in range(60):
    one = [one, one]
  return one


def _nested(depth):
  one = 1.0
  for _ in range(depth):
    one = [one]
  return one


def _itself():
  one = []
  one.append(one)
  return one


def _quantised():
  made = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
  return {'a.x': made}


_ODD = {
    'key': (lambda: {3: torch.ones(2)}, 'the key 3 is no name'),
    'lines': (lambda: {'a\nb': torch.ones(2)}, r"the key 'a\\nb' is no name"),
    'sparse': (lambda: {'a.x': torch.eye(3).to_sparse()}, r'a\.x is a tensor that NumPy .*sparse'),
    'float8': (lambda: {'a.x': torch.ones(2).to(torch.float8_e4m3fn)}, r'a\.x is a .*float8'),
    'meta': (lambda: {'a.x': torch.ones(2, device='meta')}, r'a\.x is a .*meta'),
    'quantised': (_quantised, r'a\.x is a .*qint8'),
    'stride 0': (lambda: {'a.x': torch.ones(1, dtype=torch.bfloat16).expand(1 << 40)},
                 r'a\.x says that it is \(1099511627776,\) .* its 2 bytes are not; refused'),
    'stride 0 of float': (lambda: {'a.x': torch.ones(1, 8).expand(1 << 50, 8)},
                          r'a\.x says .* its 32 bytes are not; refused'),
    'many': (lambda: {f'a.{i}': torch.ones(1).bfloat16().expand(1 << 18) for i in range(60)},
             r'its tensors up to a\.\d+ say .* far more bytes than the file'),
    'list': (lambda: {'a.x': [torch.ones(1)]}, r'a\.x is a list, not a tensor'),
    'nested': (lambda: {'state_dict': dict(_STATE), 'optimizer': _nested(200)},
               'optimizer: nested 65 deep; refused'),
    'itself': (lambda: {'state_dict': dict(_STATE), 'hyper_parameters': {'a': _itself()}},
               'hyper_parameters: nested 65 deep; refused'),
    'laughs': (lambda: {'state_dict': dict(_STATE), 'scheduler': {'a': _laughs()}},
               'scheduler: of 1,000 values and more; refused'),
    'optimizer': (lambda: {'state_dict': dict(_STATE), 'optimizer': {'a': _quantised()}},
                  'optimizer is a tensor that NumPy')}


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('case', _ODD)
def test_what_is_no_array_is_one_line_that_names_file_and_key(tmp_path, case, monkeypatch):
  make, message = _ODD[case]
  monkeypatch.setattr(torch_checkpoint, '_MOST_VALUES', 1000)
  torch.save(make(), tmp_path / 'x.pth')
  tracemalloc.start()
  try:
    with pytest.raises(torch_checkpoint.CheckpointError, match=message) as error:
      torch_checkpoint.load(tmp_path / 'x.pth')
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
  finally:
    tracemalloc.stop()
  assert '\n' not in str(error.value) and str(tmp_path / 'x.pth') in str(error.value)


def test_views_are_read(tmp_path):
  whole = torch.arange(6.0).reshape(2, 3)
  pair = torch.complex(whole, whole + 1)
  torch.save({'conj': pair.conj(), 'neg': pair.clone().conj().imag, 'turned': whole.T,
              'part': whole[1:], 'same': torch.ones(1).expand(4), 'none': torch.ones(0, 3),
              'optimizer': torch.ones(3)}, tmp_path / 'x.pth')
  found = torch_checkpoint.load(tmp_path / 'x.pth').weights
  np.testing.assert_array_equal(found['conj'], pair.numpy().conj())
  np.testing.assert_array_equal(found['neg'], -(whole.numpy() + 1))
  np.testing.assert_array_equal(found['turned'], whole.numpy().T)
  assert found['part'].tolist() == [[3, 4, 5]] and found['same'].tolist() == [1] * 4
  assert found['none'].shape == (0, 3)


def test_a_tensor_beside_the_weights_is_no_state(tmp_path):
  torch.save({'state_dict': dict(_STATE), 'optimizer': torch.ones(3), 'epoch': 2},
             tmp_path / 'x.pth')
  found = torch_checkpoint.load(tmp_path / 'x.pth')
  assert found.epoch == 2 and found.optimizer == {}


def test_a_packed_checkpoint_that_claims_too_much_is_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.pth', 'w', zipfile.ZIP_BZIP2) as archive:
    archive.writestr('archive/data.pkl', bytes(1000))
  with pytest.raises(torch_checkpoint.CheckpointError, match=r"x\.pth 'archive/data\.pkl': packed"):
    torch_checkpoint.load(tmp_path / 'x.pth')


@pytest.mark.parametrize('error', [UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'odd'), KeyError(),
                                   AttributeError('none'), RecursionError('deep\ndown')])
def test_whatever_a_damaged_pickle_raises_is_one_line(tmp_path, monkeypatch, error):
  def load(*_, **__):
    raise error
  (tmp_path / 'x.pth').write_bytes(b'x')
  monkeypatch.setattr(torch, 'load', load)
  with pytest.raises(torch_checkpoint.CheckpointError, match=r'x\.pth: damaged: .') as found:
    torch_checkpoint.load(tmp_path / 'x.pth')
  assert '\n' not in str(found.value)


def test_an_npz_damaged_in_its_middle_is_one_line(tmp_path):
  noise = np.random.default_rng(0).integers(0, 50, 20_000).astype(np.int32)
  np.savez_compressed(tmp_path / 'x.npz', a=noise)
  data = bytearray((tmp_path / 'x.npz').read_bytes())
  for at in range(len(data) // 4, 3 * len(data) // 4, 1000):
    (tmp_path / 'y.npz').write_bytes(data[:at] + b'\xff' * 40 + data[at + 40:])
    with pytest.raises(torch_checkpoint.CheckpointError, match=r'y\.npz: not an \.npz') as error:
      torch_checkpoint.load(tmp_path / 'y.npz')
    assert '\n' not in str(error.value)
