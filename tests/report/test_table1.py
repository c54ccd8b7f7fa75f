"""Table 1: the published rows, and runs beside them."""

import json

import pytest

from stp_jax import benchmark_table, sweep
from stp_jax import config as config_files
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


def test_the_sweep_lists_the_63_runs():
  path, common, name, settings = sweep.read('configs/iono_mixer.py:sweep=table1,scale=paper,smoke')
  assert (name, common) == ('table1', 'scale=paper,smoke')
  assert len(settings) == len(set(sweep.labels(settings))) == 63
  found = {f'{s["model"]} {s["fusion"]} {s["channels"]}' for s in settings}
  assert found == set(benchmark_table.TABLES['channel_mixer'])
  for setting in settings[::9]:
    words = sweep.arguments(path, common, setting)[0].removeprefix('--config=')
    config = config_files.load(words)
    assert config.model.fusion == setting['fusion'] and config.data.channels == str(
        setting['channels'])
  # Nine of them were never published.
  assert len(table1.PUBLISHED) == len(table1.SPEEDS) == 63 - 9


def _rescored(folder, **more):
  path = folder / 'report' / 'scores.json'
  card = json.loads(path.read_text())
  for split, scores in card['splits'].items():
    scores.update(more.get(split, {}))
  path.write_text(json.dumps(card | {k: v for k, v in more.items() if not k.startswith('test')}))


def _rows(text):
  return [[c.strip() for c in line.strip('|').split('|')] for line in text.splitlines()
          if line.startswith('| ')]


def test_operations_speed_and_both_modes_are_shown(tmp_path):
  _run(tmp_path, 'plain', 'mau', 1, 'none', 4.0)
  _run(tmp_path, 'four', 'mau', 4, 'concatenate', 3.0)
  net = dict(all=dict(rmse=3.0, mae=1.5))
  both = dict(windows=1, modes=dict(net='persist', net_observed='observed'), forecasts=dict(
      net=net, net_observed=dict(all=dict(rmse=2.0, mae=1.0))))
  _rescored(tmp_path / 'four', gmacs=67.19, forecasts_per_second=12.5, speed_device='cpu, x',
            parameters_upstream=4_720_000, test=both, test_low=both)
  text = table1.table([tmp_path / 'plain', tmp_path / 'four'])
  header, _, persist, observed = _rows(text)
  named = dict(zip(header, persist))
  assert named['parameters [M]'] == '4.72 (4.72)' and named['multiply-adds [G]'] == '67.19 (67.19)'
  assert named['speed [1/s]'] == '12.5 (235)' and '(cpu, x)' in text
  assert (persist[-2], observed[-2]) == ('persist', 'observed')
  assert named['RMSE'] == '3.00 (2.40)' and named['gain [%]'] == '+25.0 (+0.4)'
  assert dict(zip(header, observed))['gain [%]'] == '+50.0 (+0.4)'
  assert 'python -m stp_jax.evaluate' in text  # the other run was scored before they were counted
  assert 'LSTM, GRU and "action" rows' in text


def test_errors_are_those_of_the_published_convention(tmp_path):
  """Every pixel, in TECU; the RMSE over low and high activity together, by windows."""
  _run(tmp_path, 'one', 'simvp', 1, 'none', 9.0)
  score = lambda rmse, mae: dict(forecasts=dict(net=dict(all=dict(
      rmse=9.0, mae=9.0, mse_sum=16 * (rmse / 200) ** 2, mae_sum=16 * mae / 200))))
  _rescored(tmp_path / 'one', divisor=200.0, shape=[4, 4, 1], test=dict(windows=3, **score(4, 3)),
            test_low=dict(windows=1, **score(2, 1)))
  header, row = _rows(table1.table([tmp_path / 'one']))
  named = dict(zip(header, row))
  assert named['MAE low'] == '1.00 (1.05)' and named['MAE high'] == '3.00 (3.24)'
  assert named['RMSE'] == f'{((3 * 16 + 4) / 4) ** 0.5:.2f} (2.38)'
  assert named['gain [%]'] == '+0.0 (+0.0)' and named['future'] == 'none fed'


def test_runs_of_one_name_in_two_folders_are_both_there(tmp_path):
  for folder in ('a', 'b'):
    (tmp_path / folder).mkdir()
    _run(tmp_path / folder, 'run', 'mim', 1, 'none', 4.0)
  rows = _rows(table1.table([tmp_path / 'a' / 'run', tmp_path / 'b' / 'run']))
  assert [r[0] for r in rows[1:]] == [str(tmp_path / f / 'run') for f in 'ab']
