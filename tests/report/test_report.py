import json
import sys

import numpy as np
import PIL.Image
import pytest

from stp_jax import report
from stp_jax.report import __main__ as command
from stp_jax.report import names, plots, score_card, style

PICTURES = ('rmse_by_lead_test.png', 'maps.png', 'forecast.gif', 'training.png')


@pytest.fixture
def metrics(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  rows = [dict(step=i, loss=1 / i, grad_norm=0.5, learning_rate=1e-3) for i in range(1, 80)]
  rows[40]['validation/rmse'] = 7.0
  path.write_text(''.join(json.dumps(r) + '\n' for r in rows) + '{"step": 80, "lo')
  return path


def _is_picture(path):
  with PIL.Image.open(path) as image:
    pixels = np.asarray(image.convert('RGB'))
  return min(pixels.shape[:2]) > 150 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_the_folder_is_complete_and_its_readme_shows_all(tmp_path, card, example, metrics):
  paths = report.write(tmp_path / 'report', card, example, metrics)
  assert all(p.stat().st_size for p in paths)
  assert {p.name for p in paths} == {p.name for p in (tmp_path / 'report').iterdir()} == {
      'score_card.md', 'score_card.json', 'scores.json', 'example.npz', 'README.md', *PICTURES}
  assert all(_is_picture(tmp_path / 'report' / name) for name in PICTURES)
  with PIL.Image.open(tmp_path / 'report' / 'forecast.gif') as image:
    assert image.n_frames == 8
  readme = (tmp_path / 'report' / 'README.md').read_text()
  assert all(f']({p.name})' in readme for p in paths[:-1])
  assert '| net ' in readme


def test_card_names_data_forcings_step_units_and_every_forecast(card):
  text = score_card.markdown(card)
  for part in ('SIMULATED', 'persist: unknown drivers keep', 'checkpoint step: 240', '378,123',
               '## Split `test`: 4 windows', 'drivers not in the data, filled: dst',
               'RMSE day 1 [TECU]', 'gain on persistence [%]', 'Protocol `standard`',
               'Protocol `upstream`', 'storm: RMSE [TECU]', '24-h persistence', 'dB'):
    assert part in text
  net = card['splits']['test']['forecasts']['net']['all']
  row = next(line for line in text.splitlines() if line.startswith('| net '))
  cells = [c.strip() for c in row.strip('|').split('|')]
  assert cells[1:3] == [f'{v:.2f}' for v in net['by_day']['cos_rmse']]
  assert cells[3] == f'{net["cos_rmse"]:.2f}' and cells[4] == f'{net["cos_gain"]:+.1f}'
  # The net stands first though the dict says otherwise; all lines of a table are equally long.
  tables = [b.splitlines() for b in text.split('\n\n') if b.startswith('| forecast')]
  assert all(t[2].startswith('| net ') and len({len(x) for x in t}) == 1 for t in tables)
  mse = net['mse_sum']
  assert f'| {200 * (mse / 100)**0.5:.2f} | TECU |'.replace(' ', '') in text.replace(' ', '')


def test_real_data_is_not_called_simulated_and_observed_drivers_are_loud(card):
  card['data'] = [dict(name='codg', description='CODE final maps')]
  card['future_forcings'] = 'observed'
  text = score_card.markdown(card)
  assert 'SIMULATED' not in text and 'FUTURE DRIVERS OBSERVED' in text
  card['trained_on'] = dict(name='embedded', description='SIMULATED maps')
  text = score_card.markdown(card)
  assert 'trained on: SIMULATED: embedded' in text and '**SIMULATED' not in text


def test_no_forcings_mode_where_only_the_image_is_fed(card):
  card['fusion'] = 'none'
  assert 'future forcings: none are fed' in score_card.markdown(card)


def test_says_which_baseline_is_best_and_by_how_much(card):
  scores = card['splits']['test']['forecasts']
  gain = 100 * (1 - scores['net']['all']['cos_rmse'] / scores['ar_blend']['all']['cos_rmse'])
  assert f'**{gain:.1f} % better** than the best baseline (climatology + AR(1) blend)' in (
      score_card.markdown(card))
  scores['net'], scores['ar_blend'] = scores['ar_blend'], scores['net']
  assert '% worse** than' in score_card.markdown(card)


def test_json_is_strict_and_holds_units(tmp_path, card):
  card['splits']['test']['forecasts']['net']['all']['psnr'] = float('inf')
  card['splits']['test']['forecasts']['net']['all']['snr'] = float('nan')
  score_card.write(tmp_path, card)
  def refuse(name):
    raise AssertionError(name)
  compact = json.loads((tmp_path / 'score_card.json').read_text(), parse_constant=refuse)
  whole = json.loads((tmp_path / 'scores.json').read_text(), parse_constant=refuse)
  assert compact['units_of']['rmse'] == 'TECU' and compact['simulated'] is True
  assert whole['splits']['test']['forecasts']['net']['all']['psnr'] == 'inf'
  lines = score_card.markdown(whole).splitlines()  # what was read back prints again
  assert [x.split('|')[2].strip() for x in lines if x.startswith(('| PSNR', '| SNR'))] == [
      'inf', '-']


def test_frames_without_a_clock_have_leads_and_no_days(tmp_path, card, example):
  card['clock'], card['splits']['test']['frames_per_day'] = False, 1
  bare = dict(truth=example['truth'], forecast=example['forecast'], times=None, units='1')
  report.write(tmp_path, card, bare)
  text = (tmp_path / 'score_card.md').read_text()
  assert 'RMSE frame 1 [TECU] | frame 4 | frame 8' in text
  assert 'day 1' not in text and 'every 6 h' not in text and 'persistence (last frame)' in text
  assert all(_is_picture(tmp_path / n) for n in PICTURES[:3])


@pytest.mark.parametrize('module', ['matplotlib', 'PIL.Image'])
def test_without_pictures_the_card_is_written_and_one_line_says_so(
    tmp_path, card, example, metrics, monkeypatch, module):
  for name in [m for m in sys.modules if m.startswith('stp_jax.report.')]:
    if name.rsplit('.', 1)[1] in ('plots', 'style'):
      monkeypatch.delitem(sys.modules, name)
      monkeypatch.delattr(report, name.rsplit('.', 1)[1])
  monkeypatch.setitem(sys.modules, module, None)
  said = []
  paths = report.write(tmp_path / 'report', card, example, metrics, say=said.append)
  assert {p.name for p in paths} == {
      'score_card.md', 'score_card.json', 'scores.json', 'example.npz', 'README.md'}
  assert len(said) == 1 and "pip install 'stp_jax[plots]'" in said[0]
  assert said[0] in (tmp_path / 'report' / 'README.md').read_text()


def test_command_makes_the_report_again(tmp_path, card, example, metrics, capsys):
  report.write(tmp_path / 'report', card, example, metrics)
  first = (tmp_path / 'report' / 'README.md').read_text()
  assert command.main(['--workdir', str(tmp_path), '--out', str(tmp_path / 'again')]) == 0
  assert (tmp_path / 'again' / 'README.md').read_text() == first
  assert all(_is_picture(tmp_path / 'again' / name) for name in PICTURES)
  capsys.readouterr()
  assert command.main(['--workdir', str(tmp_path / 'nowhere')]) == 1
  (tmp_path / 'report' / 'scores.json').write_text('{')
  assert command.main(['--workdir', str(tmp_path)]) == 1
  errors = capsys.readouterr().err.splitlines()
  assert len(errors) == 2 and all('scores.json' in e and 'evaluate' in e for e in errors)


@pytest.mark.parametrize('south_first', [False, True])
def test_north_is_up(example, south_first):
  latitude, values = example['latitude'], example['truth'][0]
  if south_first:
    latitude, values = latitude[::-1], values[::-1]
  frame = style.MapFrame(values.shape, latitude, example['longitude'])
  axes = style.figure(3, 2).subplots()
  image = frame.draw(axes, values, left=True, bottom=True)
  west, east, south, north = image.get_extent()
  assert (west, east, south, north) == (-198, 162, -90, 90)
  assert image.origin == 'upper'  # so row 0 of the data lies at 90 degrees north
  assert image.get_array()[0, 0] == 170 and image.get_array()[-1, 0] == 10
  assert axes.get_ylim() == (-90, 90)
  assert axes.get_xlabel() == 'longitude [°E]' and axes.get_ylabel() == 'latitude [°N]'


def test_titles_count_from_the_forecast_when_times_cover_the_input(example):
  assert plots.when(example, 0, 6) == '+6 h\n2012-11-19 00:00 UT'
  assert plots.when(dict(example, times=None), 2, 0) == 'frame 3'


def test_training_without_a_step_has_no_picture(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n')
  assert plots.training(tmp_path / 'x.png', tmp_path / 'metrics.jsonl') is None


def test_shapes_that_differ_are_refused(tmp_path, card, example):
  with pytest.raises(ValueError, match=r'truth .* forecast'):
    report.write(tmp_path, card, dict(example, forecast=example['truth'][:2]))


def test_numbers():
  assert names.number(None) == names.number(float('nan')) == '-'
  assert names.number(3.14159) == '3.14' and names.number(-0.004, sign=True) == '-0.00'
  assert names.number(0.00012) == '1.2e-04' and names.number('inf') == 'inf'
