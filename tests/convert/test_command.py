"""python -m stp_jax.convert: a PyTorch file becomes a run, and a PyTorch file again."""

import pathlib

import jax
import numpy as np
import pytest

from stp_jax import checkpoint, models, predict, tasks
from stp_jax import config as config_files
from stp_jax.convert import __main__ as command
from stp_jax.convert import family_of, published, rules

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")

_CONFIG = str(pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'iono_mixer.py')
_WORDS = f'{_CONFIG}:smoke,model=convlstm,fusion=mix,channels=4'


def _weights(words, seed=0):
  """A state_dict as upstream would write it for this config, its unused tensors included."""
  config = config_files.load(words)
  published.apply_fields(config, published.published_fields(config))
  task = tasks.build(config, published.data_spec(config.data.channels))
  template = jax.eval_shape(task.init, jax.random.key(0))
  rng = np.random.default_rng(seed)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), template)
  family = family_of(config.model.name)
  live = rules.to_torch(family, variables)
  dead = {k: v for k, v in rules.complete(family, live, (72, 72)).items() if k not in live}
  return live | {k: rng.normal(size=v.shape).astype(v.dtype) for k, v in dead.items()}


def _save(path, weights):
  state = {k: torch.tensor(v) for k, v in weights.items()}
  torch.save({'epoch': 3, 'state_dict': state, 'optimizer': {}}, path)


@pytest.mark.parametrize('words', [
    _WORDS, f'{_CONFIG}:smoke,model=tau,fusion=concatenate,channels=1'])
def test_there_and_back(tmp_path, capsys, words):
  weights = _weights(words)
  _save(tmp_path / 'latest.pth', weights)
  run = tmp_path / 'run'
  assert command.main(
      [str(tmp_path / 'latest.pth'), f'--config={words}', f'--out={run}']) == 0
  out = capsys.readouterr().out
  assert 'after 3 epochs' in out and 'model.anchor = none' in out
  loaded = checkpoint.load(run)
  if loaded.config.model.name == 'convlstm':
    assert loaded.config.model.backbone.cell == 'channel_mixer'
    assert loaded.config.model.mix == 'upstream'
    assert f'{8 * 16 * 9 + 8 * 16} that nothing uses' in out
  assert loaded.spec.divisor == 200.0
  predict.Predictor.load(run)  # checks the architecture against the stored config
  for target in ('back.pth', 'back.npz'):
    assert command.main(['--to-torch', f'--checkpoint={run}', f'--out={tmp_path / target}']) == 0
  back = torch.load(tmp_path / 'back.pth', weights_only=True)
  with np.load(tmp_path / 'back.npz') as arrays:
    assert back.keys() == weights.keys() == set(arrays.files)
    for key, value in weights.items():
      np.testing.assert_array_equal(back[key].numpy(), value)
      np.testing.assert_array_equal(arrays[key], value)


def _fails(capsys, *argv):
  assert command.main(list(argv)) == 1
  error = capsys.readouterr().err.strip()
  assert '\n' not in error and error.startswith('convert: ')
  return error


def test_weights_of_another_model_write_nothing(tmp_path, capsys):
  _save(tmp_path / 'x.pth', _weights(_WORDS))
  out = tmp_path / 'run'
  error = _fails(capsys, str(tmp_path / 'x.pth'), f'--out={out}',
                 f'--config={_CONFIG}:smoke,model=simvp,fusion=mix,channels=4')
  assert 'x.pth: simvp: the weights do not fit: missing: ' in error
  assert not out.exists()


def test_bad_arguments_are_one_line(tmp_path, capsys):
  _save(tmp_path / 'x.pth', {'a': np.ones(1)})
  source, out = str(tmp_path / 'x.pth'), f'--out={tmp_path / "run"}'
  assert 'no such file' in _fails(capsys, str(tmp_path / 'y.pth'), f'--config={_WORDS}', out)
  assert 'no such config file' in _fails(capsys, source, '--config=none.py', out)
  assert 'no checkpoints folder' in _fails(
      capsys, '--to-torch', f'--checkpoint={tmp_path}', f'--out={tmp_path / "x.npz"}')


def test_the_upstreams_differ_in_the_cell():
  config = config_files.load(_WORDS)
  mixer = published.published_fields(config)
  other = published.published_fields(config, 'openstl')
  assert mixer['model.backbone.cell'] == 'channel_mixer'
  assert other['model.backbone.cell'] == 'convlstm'
  with pytest.raises(ValueError, match='choose one of channel_mixer openstl'):
    published.published_fields(config, 'elsewhere')


def test_the_published_data_needs_no_store():
  spec = published.data_spec('16')
  assert len(spec.channels) == 16 and 'sigma_b' in spec.columns and 'flow_pressure' not in (
      spec.columns)
  assert len(spec.columns) == len(spec.known_ahead) == len(spec.training_mean)
  assert published.data_spec('1').columns == ('year', 'day', 'hour', 'month', 'date')


def test_sizes_come_from_the_file(tmp_path):
  """A small ConvLSTM converts although the config's words name the published size."""

  model = models.build(dict(name='convlstm', patch=2, fusion='mix', backbone=dict(
      features=(4, 6), kernel_size=3)), shape=(72, 72, 1), forcings=3, t_in=12, t_out=48)
  shapes = jax.eval_shape(lambda: model.init(
      jax.random.key(0), np.zeros((1, 12, 8, 8, 1)), np.zeros((1, 60, 8, 8, 3))))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda s: rng.random(s.shape).astype('f4'), shapes)
  np.savez(tmp_path / 'w.npz', **rules.to_torch(family_of('convlstm'), variables))
  assert command.main([
      str(tmp_path / 'w.npz'), f'--out={tmp_path / "run"}', '--config.data.eval_batch_size=3',
      '--config=configs/iono_mixer.py:model=convlstm,scale=paper,channels=4']) == 0
  config = checkpoint.load(tmp_path / 'run').config
  assert config.model.backbone.features == (4, 6) and config.model.patch == 2
  assert config.model.backbone.kernel_size == 3 and config.data.eval_batch_size == 3
