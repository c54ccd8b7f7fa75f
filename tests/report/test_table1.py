"""Table 1: the published rows, and runs beside them."""

import json

import pytest

from stp_jax.report import __main__ as command
from stp_jax.report import table1


def _run(folder, name, model, channels, fusion, rmse, splits=('test', 'test_low'), words=''):
  net = dict(all=dict(rmse=rmse, mae=rmse / 2, bias=0.0))
  card = dict(name='iono_mixer', words=words, model=model, fusion=fusion, units='TECU',
              channels=['tec', 'longitude', 'latitude', 'year'][:channels], parameters=1_500_000,
              future_forcings='observed', data=[dict(name='cod', description='maps')],
              splits={s: dict(forecasts=dict(net=net)) for s in splits})
  (folder / name / 'report').mkdir(parents=True)
  (folder / name / 'report' / 'scores.json').write_text(json.dumps(card))


def test_published_rows():
  # 63 configurations; E3D-LSTM is published with one channel only, MAU without the mixer.
  assert len(table1.PUBLISHED) == 7 * 7 + 1 + 4
  assert table1.PUBLISHED['predrnnpp', 16, 'mix'] == [44.32, 785, 0.94, 2.63, 2.05]


def test_runs_stand_beside_them(tmp_path, capsys):
  _run(tmp_path, 'plain', 'convlstm', 1, 'none', 4.0)
  _run(tmp_path, 'mixed', 'convlstm', 4, 'mix', 3.0)
  _run(tmp_path, 'attention', 'simvp', 4, 'mix', 2.5, words='model=tau,fusion=mix')
  (tmp_path / 'empty').mkdir()
  assert command.main(['--table1', *map(str, sorted(tmp_path.iterdir()))]) == 0
  lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()
           if line.startswith('| ')}
  assert '3.00 (2.57)' in lines['mixed'] and '+25.0 (+5.2)' in lines['mixed']
  assert '1.50 (3.51)' in lines['mixed'] and '1.50 (15.9)' in lines['mixed']
  assert '2.50 (2.37)' in lines['attention'] and 'mix-tau' in lines['attention']
  assert '- (+0.8)' in lines['attention']  # its one-channel run is not there
  assert command.main(['--table1', str(tmp_path / 'empty')]) == 1
  assert 'python -m stp_jax.evaluate' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    command.main([])
