"""docs/tec_tutorial.md is true: its commands parse everywhere, and run where real maps are."""

import csv
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from stp_jax import config as config_files
from stp_jax import evaluate, predict, skill
from stp_jax.data import datasets

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PAGE = (_ROOT / 'docs' / 'tec_tutorial.md').read_text()


def _commands() -> list[str]:
  """The commands of the page, in order, one line each."""
  blocks = re.findall(r'```sh\n(.*?)```', _PAGE, re.DOTALL)
  return [line for block in blocks
          for line in re.sub(r'\\\n\s*', ' ', block).splitlines() if line]


def _small(command: str) -> str:
  """The same with few steps of a tiny network."""
  command = re.sub(r'steps=\d+', 'steps=2', command)
  return re.sub(r'(--config=\S+)', r'\1,smoke', command)


def test_every_command_is_known():
  """Flags, words and fields exist; nothing is read or run."""
  seen = set()
  for command in _commands():
    python, dash, module, *rest = shlex.split(command)
    assert (python, dash) == ('python', '-m'), command
    name = module.removeprefix('stp_jax.')
    seen.add(name)
    if name == 'main':
      flags, overrides = config_files.split_overrides(rest)
      given = dict(f.removeprefix('--').partition('=')[::2] for f in flags)
      assert set(given) <= {'config', 'workdir', 'store', 'noevaluate'}, command
      config_files.load(str(_ROOT / given['config']), overrides)
    elif name == 'prepare':
      if rest[0] != 'check':
        module = datasets.importer(rest[0])
        known = {'in', 'out', *(module.SPELLED.get(o, o).replace('_', '-') for o in module.OPTIONS)}
        assert {f[2:] for f in rest if f.startswith('--')} <= known, command
    else:
      dict(evaluate=evaluate, predict=predict, skill=skill)[name].arguments().parse_args(rest)
  assert seen == {'prepare', 'main', 'evaluate', 'skill', 'predict'}


@pytest.mark.slow
def test_every_command_runs(realdata, tmp_path):
  """As it stands there but for the size of the network; then every file that the page names."""
  (tmp_path / 'configs').symlink_to(_ROOT / 'configs')
  environment = {
      **os.environ, 'TEC': str(realdata / 'tec'), 'PYTHONPATH': str(_ROOT),
      'INDICES': str(realdata / 'solar_indices' / 'celestrak_SW-All.txt.gz')}
  environment.pop('XLA_FLAGS')  # one device, as a reader has
  for command in _commands():
    line = _small(command).replace('python', shlex.quote(sys.executable), 1)
    done = subprocess.run(['bash', '-c', line], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=3600)
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
  named = set(re.findall(r'`(D/[\w./]+)`', _PAGE))
  assert len(named) >= 9
  lacking = [n for n in named if not (tmp_path / n).exists()]
  assert not lacking
  with (tmp_path / 'D' / 'desk' / 'ledger.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [r['issue_time'] for r in rows] == ['2012-11-20T22:00']
  assert 0 < float(rows[0]['net_cos_rmse']) < 50
  assert list((tmp_path / 'D' / 'tomorrow').glob('*.*i')) or list(
      (tmp_path / 'D' / 'tomorrow').glob('*.INX*'))
