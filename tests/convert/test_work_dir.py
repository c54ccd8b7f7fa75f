"""A whole experiment's folder: found, converted, forecast again, scored."""

import json
import pathlib

import jax
import numpy as np
import pytest

from stp_jax import checkpoint, models, predict
from stp_jax.convert import FAMILIES, hyperparameters, rules, work_dir
from stp_jax.convert import __main__ as command
from stp_jax.metrics import video

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")

_ARGUMENTS = dict(
    method='ConvLSTM', dataname='iono', in_shape=[12, 12], pre_seq_length=2, aft_seq_length=3,
    total_length=5, img_channel=1, aux_channel=3, total_channel=4, fusion_method='mix',
    num_hidden='3,3', filter_size=3, stride=1, patch_size=2, layer_norm=0, lr=5e-4, epoch=10,
    sched='onecycle', opt='adam', clip_grad=None, scheduled_sampling=1, batch_size=4,
    sampling_stop_iter=50, sampling_changing_rate=2e-2, reverse_scheduled_sampling=0, seed=42,
    ex_name='iono/convlstm/mix_4channel', warmup_epoch=0, unknown_argument=[1])


def _experiment(folder, arguments=None, windows=11, **save):
  """Weights, arguments and saved arrays as upstream leaves them; the predictions are its own."""
  rng = np.random.default_rng(0)
  backbone = dict(features=(3, 3), kernel_size=3, cell='channel_mixer')
  model = models.build(
      dict(name='convlstm', patch=2, fusion='mix', mix='upstream', backbone=backbone),
      shape=(12, 12, 1), forcings=3, t_in=2, t_out=3)
  data = rng.random((windows, 5, 4, 12, 12)).astype(np.float32)
  frames = np.moveaxis(data, 2, -1)
  variables = jax.jit(model.init)(jax.random.key(1), frames[:1, ..., :1], frames[:1, ..., 1:])
  preds = jax.jit(model.apply)(variables, frames[..., :1], frames[..., 1:]).prediction
  family = FAMILIES['convlstm']
  weights = rules.complete(family, rules.to_torch(family, variables), (12, 12))
  (folder / 'saved').mkdir(parents=True)
  torch.save({f'module.{k}': torch.tensor(v) for k, v in weights.items()},
             folder / 'checkpoint.pth')
  (folder / 'model_param.json').write_text(json.dumps(arguments or _ARGUMENTS))
  arrays = dict(inputs=data, preds=np.moveaxis(np.asarray(preds), -1, 2), trues=data[:, 2:, :1])
  arrays.update(save)
  for name, array in arrays.items():
    if array is not None:
      np.save(folder / 'saved' / f'{name}.npy', array)
  return arrays


def _convert(folder, out, capsys, *more):
  assert command.main([str(folder), f'--out={out}', *more]) == 0, capsys.readouterr().err
  return capsys.readouterr().out


def test_an_experiment_is_reproduced_and_scored(tmp_path, capsys):
  arrays = _experiment(tmp_path / 'x')
  printed = _convert(tmp_path / 'x', tmp_path / 'run', capsys)
  assert 'your predictions reproduced to ' in printed and '(11 of 11 windows' in printed
  result = json.loads((tmp_path / 'run' / 'rescored.json').read_text())
  assert result['reproduced']['difference'] < 1e-5
  expected = video.upstream(arrays['preds'], arrays['trues'])
  for name, value in result['scores']['upstream'].items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
  standard = result['scores']['standard']
  error = arrays['preds'] - arrays['trues']
  np.testing.assert_allclose(standard['rmse'], np.sqrt(np.mean(error ** 2)), rtol=1e-5)
  np.testing.assert_allclose(standard['cos_rmse_tecu'], 200 * standard['rmse'], rtol=1e-5)
  assert standard['ssim'] < result['scores']['upstream']['ssim']  # its range is 2
  config = checkpoint.load(tmp_path / 'run').config
  assert (config.data.t_in, config.data.t_out, config.data.channels) == (2, 3, '4')
  assert config.model.fusion == 'mix' and config.model.backbone.cell == 'channel_mixer'
  assert config.sampling.stop_step == 50 and config.optimizer.learning_rate == 5e-4
  assert config.name == 'iono/convlstm/mix_4channel' and config.optimizer.clip_norm == 0


def test_other_predictions_are_not_called_reproduced(tmp_path, capsys):
  arrays = _experiment(tmp_path / 'x')
  broken = arrays['preds'].copy()
  broken[3, 1] += 0.25
  np.save(tmp_path / 'x' / 'saved' / 'preds.npy', broken)
  printed = _convert(tmp_path / 'x', tmp_path / 'run', capsys)
  assert 'NOT reproduced: they differ by up to 0.25' in printed
  broken[3, 1] = np.nan
  np.save(tmp_path / 'x' / 'saved' / 'preds.npy', broken)
  assert 'NOT reproduced' in _convert(tmp_path / 'x', tmp_path / 'run2', capsys)
  assert 'reproduced to' in _convert(tmp_path / 'x', tmp_path / 'run3', capsys, '--limit=2')


def test_without_inputs_it_is_only_scored(tmp_path, capsys):
  _experiment(tmp_path / 'x', inputs=None)
  printed = _convert(tmp_path / 'x', tmp_path / 'run', capsys)
  assert 'no saved/inputs.npy: the saved predictions are scored, not forecast again' in printed
  assert 'protocol upstream: mse' in printed and 'protocol standard: mse' in printed


def test_inputs_without_the_later_forcings_say_so(tmp_path, capsys):
  arrays = _experiment(tmp_path / 'x')
  np.save(tmp_path / 'x' / 'saved' / 'inputs.npy', arrays['inputs'][:, :2])
  printed = _convert(tmp_path / 'x', tmp_path / 'run', capsys)
  assert 'not forecast again: inputs end after 2 of 5 frames' in printed


def test_a_lightning_experiment_of_openstl(tmp_path, capsys):
  """`checkpoints/best.ckpt`, arguments inside it, inputs that end with the input."""
  rng = np.random.default_rng(0)
  backbone = dict(hid_S=4, hid_T=8, N_S=2, N_T=2, mlp_ratio=2.0)
  model = models.build(dict(name='simvp', backbone=backbone), shape=(8, 12, 3), t_in=3, t_out=4)
  data = rng.random((5, 3, 3, 8, 12)).astype(np.float32)
  frames = np.moveaxis(data, 2, -1)
  variables = jax.jit(model.init)(jax.random.key(1), frames[:1])
  preds = np.moveaxis(np.asarray(jax.jit(model.apply)(variables, frames).prediction), -1, 2)
  family = FAMILIES['simvp']
  weights = rules.complete(family, rules.to_torch(family, variables), (8, 12))
  folder = tmp_path / 'x'
  (folder / 'saved').mkdir(parents=True)
  (folder / 'checkpoints').mkdir()
  torch.save({
      'epoch': 7, 'pytorch-lightning_version': '2.1', 'global_step': 9,
      'state_dict': {f'model.{k}': torch.tensor(v) for k, v in weights.items()},
      'hyper_parameters': dict(
          method='SimVP', dataname='kitticaltech', in_shape=(3, 3, 8, 12), pre_seq_length=3,
          aft_seq_length=4, model_type='gSTA', lr=1e-3, **backbone)},
      folder / 'checkpoints' / 'best.ckpt')
  for name, array in dict(inputs=data, preds=preds, trues=preds + 0.1).items():
    np.save(folder / 'saved' / f'{name}.npy', array)
  printed = _convert(folder, tmp_path / 'run', capsys)
  assert 'after 8 epochs' in printed and 'your predictions reproduced to' in printed
  loaded = checkpoint.load(tmp_path / 'run')
  assert loaded.spec.shape == (8, 12, 3) and loaded.spec.name == 'kitticaltech'
  scores = json.loads((tmp_path / 'run' / 'rescored.json').read_text())['scores']
  np.testing.assert_allclose(scores['standard']['mae'], 0.1, rtol=1e-5)
  assert not any('tecu' in k for k in scores['upstream'] | scores['standard'])
  forecast = predict.Predictor.load(tmp_path / 'run')(frames[0])
  np.testing.assert_allclose(np.moveaxis(forecast, -1, 1), preds[0], atol=1e-5)


@pytest.mark.parametrize('change, message', [
    (dict(method='WaST'), "method 'WaST': not built here"),
    (dict(method='MIM'), 'its arguments name mim, its keys are those of convlstm'),
    (dict(stride=2), 'stride 2'), (dict(sched='multistep'), 'schedule multistep'),
    (dict(lr='fast'), 'its arguments: ')])
def test_arguments_that_cannot_be_are_one_line(tmp_path, capsys, change, message):
  _experiment(tmp_path / 'x', _ARGUMENTS | change, preds=None, trues=None, inputs=None)
  assert command.main([str(tmp_path / 'x'), f'--out={tmp_path / "run"}']) == 1
  error = capsys.readouterr().err.strip()
  assert message in error and '\n' not in error and 'checkpoint.pth' in error
  assert not (tmp_path / 'run').exists()


def test_damaged_folders_are_one_line(tmp_path, capsys):
  for act, message in [
      (lambda x: (x / 'model_param.json').write_text('{'), 'model_param.json: not JSON'),
      (lambda x: (x / 'saved' / 'preds.npy').write_bytes(b'no'), 'preds.npy: no array'),
      (lambda x: (x / 'checkpoint.pth').unlink(), 'no experiment: has none of checkpoint.pth')]:
    folder = tmp_path / message[:5]
    _experiment(folder)
    act(folder)
    assert command.main([str(folder), f'--out={tmp_path / "run"}']) == 1
    assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_arguments_of_the_other_methods():
  known = tuple(FAMILIES)
  tau = hyperparameters.read(dict(method='TAU', alpha=0.3, hid_S=8, mlp_ratio=4.0), known)
  assert tau.model == 'simvp' and tau.fields['model.backbone.translator'] == 'tau'
  assert tau.fields['task.term_weights.diff_div'] == 0.3
  net = hyperparameters.read(dict(
      method='PredNet', stack_sizes=[3, 8, 16], R_stack_sizes=[3, 8, 16], A_filt_sizes=[3, 3],
      error_activation='ReLU', in_shape=[10, 3, 32, 32]), known)
  assert net.fields['model.backbone.features'] == (8, 16) and net.image == 3
  assert net.frame == (32, 32) and net.fields['model.backbone.error_activation'] == 'relu'
  assert hyperparameters.read(
      dict(method='PhyDNet', patch_size=8), known).fields['model.backbone.downscale'] == 4
  video_net = hyperparameters.read(dict(
      method='DMVFN', num_features=[16, 8], scale=[4, 1], beta=0.4), known)
  assert video_net.fields['model.backbone.scales'] == (4, 1)
  v2 = hyperparameters.read(dict(
      method='PredRNNv2', reverse_scheduled_sampling=1, r_exp_alpha=9, decouple_beta=0.2), known)
  assert v2.fields['sampling.name'] == 'reverse' and v2.fields['sampling.alpha'] == 9
  assert v2.fields['task.term_weights.decouple'] == 0.2 and v2.fork is False
  assert hyperparameters.read({}, known) == hyperparameters.Told()


_PARITY = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'parity'


@pytest.mark.parametrize('name', ['convlstm/ch1_ln0_test', 'predrnnv2/ch1_ln0_test'])
def test_predictions_that_upstream_made_are_reproduced(tmp_path, capsys, name):
  case = _PARITY / name
  if not case.is_dir():
    pytest.skip('../shared/parity is not here: this test reads predictions that upstream made')
  spec, folder = json.loads((case / 'case.json').read_text()), tmp_path / 'x'
  (folder / 'saved').mkdir(parents=True)
  (folder / 'model_param.json').write_text(json.dumps(
      spec['config'] | dict(dataname='iono', method=spec['model'])))
  (folder / 'checkpoint.pth').write_bytes((case / 'checkpoint.pth').read_bytes())
  with np.load(case / 'io.npz') as arrays:
    data, pred = arrays['input/frames'], arrays['output/pred']
  for key, array in dict(inputs=data, preds=pred, trues=data[:, -pred.shape[1]:, :1]).items():
    np.save(folder / 'saved' / f'{key}.npy', array)
  printed = _convert(folder, tmp_path / 'run', capsys)
  assert 'your predictions reproduced to' in printed
  assert work_dir.find_checkpoint(folder).name == 'checkpoint.pth'
