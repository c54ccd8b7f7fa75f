"""A training of PyTorch goes on here: moments, schedule and step, update for update."""

import json
import pathlib

import jax
import numpy as np
import optax
import pytest

from stp_jax import checkpoint, models, optimizers, train
from stp_jax import config as config_files
from stp_jax.convert import FAMILIES, moments, rules, torch_checkpoint
from stp_jax.convert import __main__ as command
from tests import stores

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")

_FAMILY = FAMILIES['convlstm']


def _names():
  model = models.build(
      dict(name='convlstm', patch=4, backbone=dict(features=(4, 4), kernel_size=3)),
      shape=(16, 16, 1), t_in=3, t_out=2)
  template = jax.eval_shape(lambda: model.init(
      jax.random.key(0), np.zeros((1, 5, 16, 16, 1), np.float32)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), template)
  live = rules.to_torch(_FAMILY, variables)
  weights = rules.complete(_FAMILY, live, (16, 16))
  order = ('conv_x.0', 'conv_h.0', 'conv_o.0', 'conv_last')
  names = [f'cell_list.{i}.{c}.weight' for i in range(2) for c in order] + ['conv_last.weight']
  return {n: weights[n] for n in names}, set(live)


def _gradients(weights, live, step):
  rng = np.random.default_rng(100 + step)
  return {k: rng.normal(size=v.shape).astype(np.float32) for k, v in weights.items() if k in live}


def _torch_training(weights, live, steps, *, groups=False, adamw=False, total=20):
  """Runs upstream's optimizer on given gradients; returns its state and weights at every step."""
  params = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in weights.items()}
  given = list(params.values())
  if groups:
    given = [dict(params=[], weight_decay=0.0), dict(params=given, weight_decay=0.02)]
  kind = torch.optim.AdamW if adamw else torch.optim.Adam
  optimizer = kind(given, lr=3e-3, weight_decay=0.02)
  scheduler = torch.optim.lr_scheduler.OneCycleLR(
      optimizer, max_lr=3e-3, total_steps=total, final_div_factor=1e4)
  history = []
  for step in range(steps):
    for name, gradient in _gradients(weights, live, step).items():
      params[name].grad = torch.tensor(gradient)
    optimizer.step()
    scheduler.step()
    history.append(({k: v.detach().numpy().copy() for k, v in params.items()},
                    optimizer.state_dict(), scheduler.state_dict()))
  return history


@pytest.mark.parametrize('adamw', [False, True])
def test_the_next_updates_are_pytorchs(tmp_path, adamw):
  weights, live = _names()
  history = _torch_training(weights, live, 3, adamw=adamw)
  # The state_dict's arrays are the optimizer's own: three updates, then two more.
  torch.save({'epoch': 1, 'state_dict': {k: torch.tensor(v) for k, v in history[-1][0].items()},
              'optimizer': history[-1][1], 'scheduler': history[-1][2]}, tmp_path / 'latest.pth')
  later = _torch_training(weights, live, 5, adamw=adamw)
  run = tmp_path / 'run'
  assert command.main([str(tmp_path / 'latest.pth'), f'--out={run}', '--frame=16x16',
                       '--config.data.t_in=3', '--config.data.t_out=2']) == 0
  config = config_files.load(str(run / 'config.json'))
  assert config.steps == 20 and config.optimizer.name == ('adamw' if adamw else 'adam')
  tx, _ = optimizers.make(config.optimizer, config.steps, config.optimizer.steps_per_epoch)
  loaded = checkpoint.load(run)
  assert loaded.step == 3
  params = loaded.variables['params']
  with checkpoint.manager(run) as checkpoints:
    key = jax.random.key(0)
    shapes = train.TrainState(
        step=np.int32(0), params=params, model_state={}, ema=None, opt_state=tx.init(params),
        rng=key, skipped=np.int32(0))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, shapes))
    state = checkpoint.restore(
        checkpoints, 3, shapes, jax.tree.map(lambda _: device, shapes), None)
  assert int(state.step) == 3
  opt_state = state.opt_state
  template = {'params': params}
  for step in (3, 4):
    gradients = _gradients(weights, live, step)
    gradients = rules.to_flax(_FAMILY, gradients, template)[0]['params']
    updates, opt_state = tx.update(gradients, opt_state, params)
    params = optax.apply_updates(params, updates)
    ours = rules.to_torch(_FAMILY, {'params': params})
    for name, value in ours.items():
      np.testing.assert_allclose(value, later[step][0][name], rtol=2e-5, atol=2e-7)


def test_the_loop_goes_on_with_it(tmp_path):
  weights, live = _names()
  state, optimizer, scheduler = _torch_training(weights, live, 3, total=5)[-1]
  (tmp_path / 'checkpoints').mkdir()
  torch.save({'epoch': 1, 'state_dict': {k: torch.tensor(v) for k, v in state.items()},
              'optimizer': optimizer, 'scheduler': scheduler},
             tmp_path / 'checkpoints' / 'latest.pth')
  (tmp_path / 'model_param.json').write_text(json.dumps(dict(
      method='ConvLSTM', dataname='iono', in_shape=[16, 16], pre_seq_length=3, aft_seq_length=2,
      num_hidden='4,4', filter_size=3, patch_size=4, layer_norm=0, fusion_method=None,
      total_channel=1, batch_size=8, val_batch_size=8, lr=3e-3, sched='onecycle', epoch=1)))
  run = tmp_path / 'run'
  assert command.main([str(tmp_path / 'checkpoints' / 'latest.pth'), f'--out={run}']) == 0
  store = stores.make(tmp_path / 'store')
  config = config_files.load(str(run / 'config.json'), {
      'data.validation_windows': '2', 'log_every': '1'})
  with config.unlocked():
    config.data.stores = (str(store.path),)
  train.train(config, run)
  rows = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  assert [r['step'] for r in rows if 'loss' in r] == [4, 5]
  assert checkpoint.load(run).step == 5


def _reason(weights, live, optimizer):
  with pytest.raises(moments.OrderUnknown) as error:
    moments.read(_FAMILY, weights, live, optimizer)
  return str(error.value)


def test_moments_without_a_certain_owner_are_left():
  weights, live = _names()
  _, optimizer, scheduler = _torch_training(weights, live, 1)[-1]
  found = moments.read(_FAMILY, weights, live, optimizer, scheduler)
  assert set(found.first) == live == set(found.second) and found.steps == 1
  other = dict(weights, **{'cell_list.0.conv_x.0.weight': np.zeros((16, 9, 3, 3), np.float32)})
  assert 'moment 0 is (16, 16, 3, 3), but cell_list.0.conv_x.0.weight (16, 9, 3, 3)' in _reason(
      other, live, optimizer)
  fewer = {k: v for k, v in weights.items() if k != 'conv_last.weight'}
  assert 'has 9 parameters, the model 8' in _reason(fewer, live, optimizer)
  lacking = dict(optimizer, state={k: v for k, v in optimizer['state'].items() if k})
  assert 'cell_list.0.conv_x.0.weight has no moments' in _reason(weights, live, lacking)
  assert 'taken no step' in _reason(weights, live, dict(optimizer, state={}))
  assert 'no optimizer state' in _reason(weights, live, {})


def test_two_groups_are_ordered_by_weight_decay():
  weights, live = _names()
  weights = {'a.bias': np.zeros(3, np.float32), **weights, 'b.weight': np.ones(5, np.float32)}
  params = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in weights.items()}
  plain = [p for k, p in params.items() if p.ndim <= 1]
  optimizer = torch.optim.AdamW([
      dict(params=plain, weight_decay=0.0),
      dict(params=[p for p in params.values() if p.ndim > 1], weight_decay=0.1)], lr=1e-3)
  for name, p in params.items():
    if name in live or p.ndim == 1:
      p.grad = torch.full_like(p, float(len(name)))
  optimizer.step()
  found = moments.read(_FAMILY, weights, live, optimizer.state_dict())
  assert found.fields['optimizer.weight_decay'] == 0.1 and found.fields['optimizer.skip_decay_1d']
  for name, value in found.first.items():
    np.testing.assert_allclose(value, 0.1 * len(name), rtol=1e-5)


_PARITY = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'parity'


@pytest.mark.parametrize('case', [
    'convlstm/ch1_ln0_test', 'predrnnv2/ch1_ln0_test', 'simvp/train6_simvp_1ch'])
@pytest.mark.parametrize('file', ['checkpoint.pth', 'checkpoint_ddp.pth', 'latest.pth'])
def test_files_of_upstream_come_back_bit_equal(tmp_path, capsys, case, file):
  path = _PARITY / case / file
  if not path.is_file():
    pytest.skip('../shared/parity is not here: this test reads files that upstream wrote')
  run, back = tmp_path / 'run', tmp_path / 'back.pth'
  assert command.main([str(path), f'--out={run}']) == 0
  printed = capsys.readouterr().out
  assert ('training goes on from step' in printed) == (file == 'latest.pth')
  assert command.main(['--to-torch', f'--checkpoint={run}', f'--out={back}']) == 0
  theirs = torch_checkpoint.load(path).weights
  ours = torch.load(back, weights_only=True)
  assert ours.keys() == theirs.keys()
  for key, value in theirs.items():
    np.testing.assert_array_equal(ours[key].numpy(), value)
    assert ours[key].numpy().dtype == value.dtype
