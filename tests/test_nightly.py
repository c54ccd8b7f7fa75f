"""The desk: fetch, prepare, forecast; the next day yesterday's forecast is scored, once."""

import csv
import gzip
import subprocess
import sys

import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import ledger, nightly, predict, train
from stp_jax.data import fetch, ionex, ionex_file
from tests.data import archive_server, ionex_text

pytestmark = pytest.mark.xdist_group('desk')
GRID = dict(latitudes=(75.0, -75.0, -10.0), longitudes=(-180.0, 180.0, 22.5))  # 16 x 16


def _text(day: str, seed: int) -> str:
  hours = np.arange(13) * 2
  lat = np.cos(np.radians(75 - 10 * np.arange(16)))[None, :, None]
  wave = np.cos(2 * np.pi * (hours[:, None, None] / 24 + np.arange(17) / 16))
  tec = (100 + 10 * seed + 80 * wave) * lat
  return ionex_text.text(first=day, tec=np.rint(tec).astype(int), **GRID)


def _publish(archive, day: str, seed: int, name: str):
  archive.files[name] = gzip.compress(_text(day, seed).encode(), mtime=0)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('desk')
  (folder / 'in').mkdir()
  for i in range(5):
    (folder / 'in' / f'codg{i + 1:03d}0.12i').write_text(_text(f'2012-01-0{i + 1}', i))
  store = ionex.prepare(in_dir=folder / 'in', out=folder / 'store', split='train')
  config = config_files.load('configs/iono_mixer.py:smoke,fusion=none,anchor=none')
  config.data.stores = (str(store.path),)
  config.data.batch_size = 8
  train.train(config, folder / 'run')
  return folder / 'run'


@pytest.fixture
def archive(monkeypatch):
  monkeypatch.setattr(fetch, 'PAUSE', 0.0)
  with archive_server.serve() as made:
    monkeypatch.setenv('STP_JAX_IONEX_AIUB', made.url + '/CODE')
    monkeypatch.setenv('STP_JAX_IONEX_CDDIS', made.url + '/ionex')
    yield made


def _night(run, desk, date) -> int:
  return predict.main([f'--checkpoint={run}', '--nightly', f'--out={desk}', f'--date={date}',
                       '--rms=none'])


def test_two_nights(run, archive, tmp_path, capsys):
  desk = tmp_path / 'desk'
  for i, day in enumerate((18, 19)):
    _publish(archive, f'2012-11-{day}', i, f'/CODE/2012/CODG{305 + day}0.12I.Z')
  assert _night(run, desk, '2012-11-20') == 0
  first = desk / 'forecasts' / '2012-11-19T2200'
  assert (first / 'forecast.npz').exists() and len(list(first.glob('*.INX'))) == 1
  assert ledger.read(desk / 'ledger.csv') == []
  # The next day: rapid maps of the 20th, and CODE's forecast of that day.
  _publish(archive, '2012-11-20', 2, '/CODE/CORG3250.12I.Z')
  _publish(archive, '2012-11-20', 3, '/CODE/IONO/P1/2012/C1PG3250.12I.Z')
  assert _night(run, desk, '2012-11-21') == 0
  rows = ledger.read(desk / 'ledger.csv')
  assert [(r['issue_time'], r['lead_day'], r['maps']) for r in rows] == [
      ('2012-11-19T22:00', '1', '6')]
  with np.load(first / 'forecast.npz') as kept:
    forecast = kept['forecast']
  (tmp_path / 'truth.12i').write_text(_text('2012-11-20', 2))
  truth = ionex_file.read(tmp_path / 'truth.12i').tec[:6] * 0.1
  error = forecast - truth
  cosine = np.broadcast_to(np.cos(np.radians(75 - 10 * np.arange(16)))[:, None], error.shape)
  assert float(rows[0]['net_rmse']) == pytest.approx((error**2).mean() ** 0.5, abs=1e-3)
  assert float(rows[0]['net_cos_rmse']) == pytest.approx(
      ((cosine * error**2).sum() / cosine.sum()) ** 0.5, abs=1e-3)
  # Persistence is the last frame seen (t_in = 4), CODE's forecast one unit of the level off.
  (tmp_path / 'code.12i').write_text(_text('2012-11-20', 3))
  code = ionex_file.read(tmp_path / 'code.12i').tec[:6] * 0.1
  assert float(rows[0]['c1pg_rmse']) == pytest.approx(((code - truth)**2).mean() ** 0.5, abs=1e-3)
  assert float(rows[0]['c1pg_bias']) > 0 and rows[0]['c2pg_rmse'] == ''
  (tmp_path / 'seen.12i').write_text(_text('2012-11-19', 1))
  seen = ionex_file.read(tmp_path / 'seen.12i').tec[11] * 0.1
  assert float(rows[0]['persistence_mae']) == pytest.approx(abs(seen - truth).mean(), abs=1e-3)
  # Again: nothing changes, nothing is issued twice.
  before = {p: p.stat().st_mtime_ns for p in (desk / 'forecasts').rglob('*')}
  text = (desk / 'ledger.csv').read_bytes()
  assert _night(run, desk, '2012-11-21') == 0
  assert 'issued before' in capsys.readouterr().out
  assert {p: p.stat().st_mtime_ns for p in (desk / 'forecasts').rglob('*')} == before
  assert (desk / 'ledger.csv').read_bytes() == text
  assert (desk / 'ledger.png').stat().st_size > 5000
  # The final maps replace the rapid ones, and their scores.
  _publish(archive, '2012-11-20', 4, '/CODE/2012/CODG3250.12I.Z')
  for path in (desk / 'files' / 'cod').glob('CORG*'):
    path.unlink()
  assert _night(run, desk, '2012-11-21') == 0
  (changed,) = ledger.read(desk / 'ledger.csv')
  assert changed['truth'].startswith('CODG') and changed['net_rmse'] != rows[0]['net_rmse']


def test_scores_after_a_pause_and_final_maps_in_place_of_rapid_ones(run, archive, tmp_path):
  """Cron stood still for twelve nights: what was issued before is scored, and scored again."""
  desk = tmp_path / 'desk'
  for i, day in enumerate((18, 19)):
    _publish(archive, f'2012-11-{day}', i, f'/CODE/2012/CODG{305 + day}0.12I.Z')
  assert _night(run, desk, '2012-11-20') == 0
  _publish(archive, '2012-11-20', 2, '/CODE/CORG3250.12I.Z')
  _publish(archive, '2012-12-01', 3, '/CODE/CORG3360.12I.Z')
  assert _night(run, desk, '2012-12-02') == 0
  (row,) = ledger.read(desk / 'ledger.csv')
  # The day's own file, not the first and last of the days that follow each other.
  assert (row['issue_time'], row['truth']) == ('2012-11-19T22:00', 'CORG3250.12I.Z')
  _publish(archive, '2012-11-20', 5, '/CODE/2012/CODG3250.12I.Z')
  assert _night(run, desk, '2012-12-03') == 0
  (final,) = ledger.read(desk / 'ledger.csv')
  assert final['truth'] == 'CODG3250.12I.Z' and final['net_rmse'] != row['net_rmse']
  # Scored and no longer young, or too long ago: nothing is looked for again.
  waiting = lambda kept, today: [f.name for f in nightly._waiting(
      desk, kept, np.datetime64(today), 2.0)]
  kept = {('2012-11-19T22:00', 1): final, ('2012-12-01T22:00', 1): final}
  assert waiting(kept, '2012-12-09') == ['2012-11-19T2200', '2012-12-01T2200']
  assert waiting(kept, '2012-12-11') == ['2012-12-01T2200']
  assert waiting({}, '2013-01-03') == ['2012-11-19T2200', '2012-12-01T2200']
  assert waiting({}, '2013-01-04') == ['2012-12-01T2200']


def test_one_night_at_a_time(run, tmp_path, capsys):
  desk = tmp_path / 'desk'
  desk.mkdir()
  code = ('import fcntl, sys; f = open(sys.argv[1], "a"); fcntl.lockf(f, fcntl.LOCK_EX); '
          'print("held", flush=True); sys.stdin.read()')
  with subprocess.Popen([sys.executable, '-c', code, str(desk / '.lock')], text=True,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
    assert other.stdout.readline() == 'held\n'
    assert _night(run, desk, '2012-11-20') == 1
    other.stdin.close()
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('predict: ') and 'held by another process' in line
  assert [p.name for p in desk.iterdir()] == ['.lock']


def test_nothing_to_be_had(run, archive, tmp_path, capsys):
  assert _night(run, tmp_path / 'desk', '2012-11-20') == 1
  assert 'cod best: no file from' in capsys.readouterr().err
  assert _night(run, tmp_path / 'desk', 'soon') == 1
  assert '--date=soon: write a day' in capsys.readouterr().err


def test_ledger_keeps_what_a_later_run_lacks(tmp_path):
  path = tmp_path / 'ledger.csv'
  times = np.array(['2012-11-20T00:00', '2012-11-20T02:00'], 'M8[m]')
  scores = dict(rmse=1.0, mae=0.5, bias=0.1, cos_rmse=1.1, cos_mae=0.6, cos_bias=0.2)
  full = ledger.row('2012-11-19T22:00', 1, times, 'a', dict(net=scores, c1pg=scores))
  assert ledger.update(path, [full]) == (1, 1)
  later = ledger.row('2012-11-19T22:00', 1, times, 'b', dict(net=dict(scores, rmse=2.0)))
  assert ledger.update(path, [later]) == (0, 1)
  (row,) = ledger.read(path)
  assert (row['truth'], row['net_rmse'], row['c1pg_rmse']) == ('b', '2.0000', '1.0000')
  with path.open('w', newline='') as file:
    csv.writer(file).writerow(['other'])
  with pytest.raises(ValueError, match='not those of a ledger'):
    ledger.update(path, [full])
  assert ledger.score(np.full((1, 2, 2), np.nan), np.ones((1, 2, 2)), None) == {}
