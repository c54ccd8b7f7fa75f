"""What the documentation says is done as it stands there."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

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
