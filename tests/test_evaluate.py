"""Scores: the same at any batch size and device count; other stores; the report folder."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from stp_jax import checkpoint, evaluate, evaluate_forecast, sharding, skill, tasks, train
from stp_jax import config as config_files
from stp_jax.data import clip_store, clip_writer, driver_modes
from stp_jax.report import skill_card
from tests import stores

CONFIG = 'configs/iono_mixer.py:smoke,channels=9,model=convlstm'

# One worker makes what these tests share; another would make it again.
pytestmark = pytest.mark.xdist_group('evaluated_run')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A trained run on a tiny store: (workdir, store)."""
  folder = tmp_path_factory.mktemp('evaluate')
  store = stores.make(folder / 's', holes=40)
  config = config_files.load(CONFIG, {'data.eval_stride': '5'})
  config.data.stores = (str(store.path),)
  config.data.batch_size = 8
  train.train(config, folder / 'run')
  return folder / 'run', store


def _score(run, batch_size, devices):
  workdir, store = run
  loaded = checkpoint.load(workdir)
  loaded.config.data.eval_batch_size = batch_size
  task = tasks.build(loaded.config, loaded.spec)
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  fitted = evaluate_forecast.fit_baselines(task, [store])
  return evaluate_forecast.score(task, loaded.variables, fitted, [store], ['test'], mesh)


def test_scores_do_not_depend_on_batch_size_or_devices(run):
  one, many = _score(run, 1, 1), _score(run, 8, 8)
  assert one['windows'] == many['windows'] == 8
  flat = lambda r: jax.tree.leaves(r['forecasts'])
  for a, b in zip(flat(one), flat(many), strict=True):
    assert abs(a - b) <= 1e-6 * max(1, abs(a))


def test_the_score_is_what_numpy_says(run):
  """One number of the card, computed again without any of its code."""
  workdir, store = run
  loaded = checkpoint.load(workdir)
  task = tasks.build(loaded.config, loaded.spec)
  errors = []
  for start in range(0, 39, 5):
    raw = store.frames(2, start, 10)
    now = store.physical(raw)[..., 0]
    persisted = now[3]  # four frames are less than a day: the last one
    errors.append((persisted - now[4:])[:, :15])  # the sixteenth row is padding
  result = _score(run, 4, 1)
  expected = np.sqrt(np.nanmean(np.square(errors)))
  # A hole in the last frame is filled from the climatology, so a few pixels may differ.
  assert result['forecasts']['persistence']['all']['rmse'] == pytest.approx(expected, rel=0.02)
  assert 'net' in result['forecasts'] and task.t_out == 6


def test_the_report_is_complete(run, tmp_path, capsys):
  workdir, _ = run
  card = evaluate.evaluate(workdir, out=tmp_path / 'report')
  names = {p.name for p in (tmp_path / 'report').iterdir()}
  assert {'score_card.md', 'score_card.json', 'README.md', 'maps.png', 'forecast.gif',
          'training.png'} <= names
  text = (tmp_path / 'report' / 'score_card.md').read_text()
  assert 'SIMULATED' in text and 'persist' in text and 'TECU' in text
  assert set(card['splits']) == {'test'}
  assert (workdir / 'baselines.npz').exists()
  assert card['scored_on_training'] == {} and 'SCORED ON' not in text + capsys.readouterr().err
  json.loads((tmp_path / 'report' / 'score_card.json').read_text())


def test_another_store_and_mode(run, tmp_path, capsys):
  workdir, _ = run
  other = stores.make(tmp_path / 'o', seed=9, start='2012-01-05', days=(3,), splits=('all',))
  card = evaluate.evaluate(workdir, store=[other.path], split=['all'], out=tmp_path / 'r',
                           future_forcings='observed', limit=4)
  assert card['splits']['all']['windows'] == 4
  text = (tmp_path / 'r' / 'score_card.md').read_text()
  assert 'observed' in text
  # A training clip ends on the 6th at 22 h; the forecasts begin on the 5th at 8 h, on the 6th at
  # 4 h and 14 h, and on the 7th at 10 h.
  said = ('SCORED ON TRAINING DAYS: 3 of 4 windows of split all (2012-01-05 to 2012-01-07) '
          'forecast days that training clips hold; their scores are no test')
  assert card['scored_on_training']['all']['windows'] == 3 and f'**{said}.**' in text
  assert capsys.readouterr().err.splitlines().count(f'evaluate: {said}') == 1


@pytest.fixture(scope='module')
def wider(tmp_path_factory):
  """A test store of days that the run was trained on, with a driver that training lacked."""
  store = stores.make(tmp_path_factory.mktemp('wider') / 'w', seed=9, start='2012-01-05', days=(4,),
                      splits=('test',))
  meta = json.loads((store.path / 'meta.json').read_text())
  meta['forcings'].insert(1, dict(name='dst', units='nT', known_ahead=False))
  (store.path / 'meta.json').write_text(json.dumps(meta))
  for name in clip_store.FORCING_FILES:
    path = store.path / f'{name}.npy'
    np.save(path, np.insert(np.load(path), 1, -20, axis=1))
  return clip_store.ClipStore(store.path)


def test_baselines_are_those_of_the_training_whichever_command_comes_first(
    run, wider, tmp_path, capsys, monkeypatch):
  workdir, store = run
  loaded = checkpoint.load(workdir)
  fit, fits = evaluate_forecast.fit_baselines, []
  expected = fit(tasks.build(loaded.config, loaded.spec), [store])

  def spied(task, stores):
    fits.append((task.config.data.future_forcings, task.spec))
    return fit(task, stores)

  monkeypatch.setattr(evaluate_forecast, 'fit_baselines', spied)
  loaded.config.data.future_forcings = 'observed'
  copied = tmp_path / 'run'
  shutil.copytree(workdir, copied, ignore=shutil.ignore_patterns('*.npz', 'report', 'skill'))
  card = skill.measure([str(copied)], store=[str(wider.path)], split=['test'], limit=2,
                       future_forcings='observed', progress=False)
  assert {'ar_blend', 'scaled_climatology'} <= set(card['forecasts'])
  (copied / 'baselines.npz').rename(tmp_path / 'skill.npz')
  evaluate_forecast.trained_baselines(dataclasses.replace(loaded, path=copied))
  for path in (tmp_path / 'skill.npz', copied / 'baselines.npz'):
    with np.load(path) as kept:
      for name, value in expected.items():
        np.testing.assert_array_equal(kept[name], value, err_msg=name)
  assert fits == [('persist', loaded.spec)] * 2  # F10.7 of the last input frame as it was known
  # The days are those of training, which both the card and the command say.
  said = 'SCORED ON TRAINING DAYS: 1 of 2 windows of split test (2012-01-05 to 2012-01-05) forecast'
  assert said in skill_card.markdown(json.loads(json.dumps(card)))
  assert f'skill: {said}' in capsys.readouterr().err


def test_codes_forecasts_count_where_their_data_end_by_issue_time(run):
  """C1PG = the truth, of every frame; only what could be had at issue time counts."""
  workdir, store = run
  card = skill.measure([str(workdir)], store=[str(store.path)], split=['test'], stride=1,
                       c1pg=str(store.path), c2pg=str(store.path), progress=False)
  times = store.clips[2].times(2.0)
  two, frames, windows = np.timedelta64(2, 'h'), 0, 0
  for k in range(len(times) - 9):
    good = [t.astype('M8[D]') <= times[k + 3] + two for t in times[k + 4:k + 10]]
    frames, windows = frames + sum(good), windows + any(good)
  found = card['counted']['c1pg']
  assert 0 < frames < 6 * card['windows'] and card['windows'] == found['of'] == 39
  assert (found['frames'], found['windows']) == (frames, windows)
  entry, compared = card['forecasts']['c1pg']['all'], card['compared']['c1pg']['all']
  assert entry['pixels'] / card['forecasts']['net']['all']['pixels'] == pytest.approx(
      frames / (6 * 39), rel=0.01)  # a few pixels are missing
  assert entry['rmse'] < 1e-5 and compared['rmse'] < 1e-5
  assert compared['difference'] == pytest.approx(-compared['net_rmse'], abs=1e-5)
  assert compared['net_rmse'] != card['forecasts']['net']['all']['cos_rmse']
  # None of the second day's: said, and no row.
  assert card['counted']['c2pg']['windows'] == 0 and 'c2pg' not in card['forecasts']
  text = skill_card.markdown(json.loads(json.dumps(card)))
  assert f'in {windows} of 39 windows, {frames} of 234 frames, at leads of 2 to 12 h.' in text
  assert 'in 0 of 39 windows, 0 of 234 frames.' in text
  assert '| CODE C1PG* |' in text


def test_both_ways_of_seeing_future_drivers_stand_side_by_side(run, tmp_path):
  workdir, _ = run
  honest = evaluate.evaluate(workdir, out=tmp_path / 'a')
  later = evaluate.evaluate(workdir, out=tmp_path / 'b', protocol='upstream')
  one, other = (c['splits']['test'] for c in (honest, later))
  assert one['modes'] == {'net': 'persist', 'net_observed': 'observed'}
  assert other['modes'] == {'net': 'observed', 'net_persist': 'persist'}
  for name, same in (('net', 'net_persist'), ('net_observed', 'net')):
    for key in ('rmse', 'cos_rmse', 'mae', 'mse_sum', 'gain'):
      assert one['forecasts'][name]['all'][key] == pytest.approx(
          other['forecasts'][same]['all'][key], rel=1e-5)
  # F10.7 and R of the future do reach the net.
  assert one['forecasts']['net']['all']['rmse'] != one['forecasts']['net_observed']['all']['rmse']
  rows = [line for line in (tmp_path / 'a' / 'score_card.md').read_text().splitlines()
          if line.startswith('| net ')]
  assert rows[0].startswith('| net (persist)') and rows[1].startswith('| net (observed)')
  text = (tmp_path / 'b' / 'score_card.md').read_text()
  assert 'protocol: upstream' in text and 'FUTURE DRIVERS OBSERVED' in text
  assert text.index('Unweighted') < text.index('Cosine-of-latitude')
  assert text.index('**Protocol `upstream`') < text.index('**Protocol `standard`')
  # What a table of many runs needs.
  assert honest['gmacs'] > 0 and honest['forecasts_per_second'] > 0
  assert honest['parameters_upstream'] >= honest['parameters'] and honest['speed_device']


def test_no_second_row_where_drivers_change_nothing_or_have_gaps(run, tmp_path):
  workdir, store = run
  loaded = checkpoint.load(workdir)
  task = tasks.build(loaded.config, loaded.spec)
  assert driver_modes.drivers(task) == ('f107', 'r') and driver_modes.other(task) == 'observed'
  calendar = config_files.load('configs/iono_mixer.py:smoke,channels=4,model=convlstm')
  spec = dataclasses.replace(loaded.spec, channels=loaded.spec.channels[:4])
  assert driver_modes.other(tasks.build(calendar, spec)) == ''
  assert driver_modes.complete(task.sources([store], ['test']), loaded.spec, ('r',), 'observed', 4)
  gap = stores.make(tmp_path / 'gap', seed=3)
  columns = np.load(gap.path / 'forcings.npy')
  columns[-1, [f.name for f in gap.forcings].index('r')] = np.nan  # the last frame of test
  np.save(gap.path / 'forcings.npy', columns)
  gap = clip_store.ClipStore(gap.path)
  found = task.sources([gap], ['test'])
  assert not driver_modes.complete(found, loaded.spec, ('r',), 'observed', 4)
  assert driver_modes.complete(found, loaded.spec, ('f107',), 'observed', 4)
  assert driver_modes.complete(found, loaded.spec, ('r',), 'persist', 4)


def test_bad_input_is_one_line(run, tmp_path, capsys):
  workdir, _ = run
  wide = stores.make(tmp_path / 'wide', size=24)
  for arguments, message in [
      (['--checkpoint=/nowhere'], 'no checkpoints folder'),
      ([f'--checkpoint={workdir}', f'--store={wide.path}'], 'was trained on [16, 16, 1]'),
      ([f'--checkpoint={workdir}', '--split=nothing'], 'the stores have the splits'),
      ([f'--checkpoint={workdir}', '--future-forcings=guess'], 'choose one of persist'),
      ([f'--checkpoint={workdir}', f'--store={tmp_path}'], 'no clip store')]:
    assert evaluate.main(arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith('evaluate: ')


def test_a_store_without_the_drivers_names_them(run, tmp_path):
  workdir, store = run
  bare = clip_writer.StoreWriter(
      tmp_path / 'bare', name='bare', streams=store.streams, cadence_hours=2.0, recipe={},
      normalisation=store.meta['normalisation'], grid=store.meta['grid'])
  bare.add('a', {'frames': store.frames(0)}, split='test', source='a', time='2022-01-01T00:00')
  bare.finish()
  with pytest.raises(clip_store.StoreError, match='has no year f107 r day hour month'):
    evaluate.evaluate(workdir, store=[tmp_path / 'bare'], out=tmp_path / 'r')
