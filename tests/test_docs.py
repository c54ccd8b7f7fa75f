"""What the documentation says is done as it stands there."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import main, predict, prepare, tasks
from stp_jax.data.clip_store import ClipStore
from stp_jax.tasks import base
from tests.data import own_frames

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_a_new_backbone_takes_three_files(tmp_path):
  """docs/new_backbone.md, applied to a copy of the package; its own test is run there."""
  page = (_ROOT / 'docs' / 'new_backbone.md').read_text()
  module, first, second, test = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  module_path, registry, test_path = re.findall(r'`((?:stp_jax|tests)/\S+\.py)`', page)
  assert len(module.splitlines()) <= 50
  for name in ('stp_jax', 'configs'):
    shutil.copytree(_ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
  (tmp_path / 'tests').mkdir()
  for name in ('__init__.py', 'conftest.py', 'stores.py'):
    shutil.copy(_ROOT / 'tests' / name, tmp_path / 'tests')
  shutil.copy(_ROOT / 'pyproject.toml', tmp_path)
  # The three files, and nothing else.
  (tmp_path / module_path).write_text(module)
  (tmp_path / test_path).parent.mkdir(parents=True)
  (tmp_path / test_path).write_text(test)
  text = (tmp_path / registry).read_text()
  anchor, table = 'from stp_jax.models.recurrent.convlstm ', 'BACKBONES: dict[str, type[nn.Module]]'
  assert text.count(anchor) == 1 and table in text
  text = text.replace(anchor, first + anchor).replace('    convlstm=ConvLSTM,\n',
                                                      second + '    convlstm=ConvLSTM,\n')
  (tmp_path / registry).write_text(text)
  done = subprocess.run(
      [sys.executable, '-m', 'pytest', test_path, '-n', '0', '-q', '-p', 'no:cacheprovider'],
      cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path)}, capture_output=True,
      text=True, timeout=600)
  assert done.returncode == 0 and '3 passed' in done.stdout, done.stdout + done.stderr


def test_a_task_of_ones_own(tmp_path, monkeypatch):
  """docs/trainer.md: its task, as it stands there, trains, is scored, and forecasts."""
  (code,) = re.findall(r'```python\n(.*?)```', (_ROOT / 'docs' / 'trainer.md').read_text(),
                       re.DOTALL)
  lines = [line for line in code[code.index('class'):].splitlines() if line]
  assert len(lines) <= 30
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'my_task.py').write_text(code)
  own_frames.clips(tmp_path / 'in', [8, 8, 9, 7, 8], size=(16, 18))
  assert prepare.main(['folder', '--in', 'in', '--out', 'store', '--window', '4']) == 0
  path = _ROOT / 'configs' / 'moving_frames.py'
  config = config_files.load(f'{path}:t_in=3,t_out=2,smoke', {
      'task.name': 'my_task.py:Added', 'data.stores': "('store',)", 'data.batch_size': '8',
      'data.eval_batch_size': '8', 'steps': '30', 'eval_every': '10', 'validation.metric': 'mse',
      'optimizer.learning_rate': '0.02'})
  main.run(config, pathlib.Path('run'))
  card = json.loads((tmp_path / 'run' / 'report' / 'scores.json').read_text())
  assert set(card['splits']['test']) == {'mse', 'mae', 'windows'}
  rows = [json.loads(r) for r in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  scores = {r['step']: r['validation/mse'] for r in rows if 'validation/mse' in r}
  assert list(scores) == [10, 20, 30] and card['step'] == min(scores, key=scores.get)
  losses = [r['loss'] for r in rows if 'loss' in r]
  assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
  assert predict.main(['--checkpoint=run', '--step=best', '--split=test', '--format=npy',
                       '--out=out']) == 0
  array = np.load('out/video_arrays_result_test.npy')
  assert array.shape[1:] == (2, 16, 18, 1) and array.dtype == np.uint8
  # The score of the card is that of the array, but for its whole numbers.
  store = ClipStore('store')
  first = next(i for i, c in enumerate(store.clips) if c.split == 'test')
  error = (array[0].astype(float) - store.frames(first, 3, 2)) / 255
  assert abs((error ** 2).mean() - card['splits']['test']['mse']) < 0.02


@pytest.mark.parametrize('name, message', [
    ('other.py:Added', 'no file other.py'), ('my_task.py:Nothing', 'has no class Nothing'),
    ('my_task.py:number', 'has no class number'), ('no_such_module:Task', 'No module named'),
    ('added', 'choose one of forecast masked beam rebuild, or your own')])
def test_tasks_that_are_not_there(tmp_path, monkeypatch, name, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'my_task.py').write_text('number = 3\n')
  with pytest.raises(ValueError, match=message):
    tasks.find(name)


def test_the_table_of_hooks_names_what_is_there():
  """Every field and method in docs/trainer.md exists, and every hook of the original is a row."""
  page = (_ROOT / 'docs' / 'trainer.md').read_text()
  config = config_files.load(str(_ROOT / 'configs' / 'moving_frames.py'))
  sections = '|'.join(('optimizer', 'validation', 'data', 'mesh'))
  fields = re.findall(rf'`(?:--config\.)?(({sections})\.(\w+))', page)
  assert len(fields) >= 20
  for whole, section, field in fields:
    assert field in config[section], whole
  for method in re.findall(r'`Task\.(\w+)', page):
    assert callable(getattr(base.Task, method)), method
  for hook in ('configure_optimizer', 'configure_lr_scheduler', 'training_step', 'predict_step',
               'training_step_end', 'validation_step', 'validation_step_end', 'optimizer_step',
               'lr_scheduler_step'):
    assert f'| `{hook}(' in page
