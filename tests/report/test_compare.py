"""Runs beside the truth on one window: the numbers, the pictures, and what cannot be compared."""

import dataclasses

import jax
import numpy as np
import PIL.Image
import pytest

from stp_jax import checkpoint, predict, tasks
from stp_jax import config as config_files
from stp_jax.data import clip_store
from stp_jax.report import __main__ as command
from stp_jax.report import compare, compare_plots, plots, style
from tests import stores

pytestmark = pytest.mark.xdist_group('compared_runs')


def _run(path, store, words, seed=0):
  """A run that was never trained: its forecasts are as good as any to draw."""
  config = config_files.load(f'configs/iono_mixer.py:smoke,anchor=persistence,{words}')
  config.data.stores, config.name = (str(store.path),), path.name
  task = tasks.build(config, tasks.find('forecast').data_spec(config, [store]))
  variables = jax.jit(task.init)(jax.random.key(seed))
  checkpoint.save_converted(path, config, variables, task.spec)
  return path


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """(two runs, their store)."""
  folder = tmp_path_factory.mktemp('compare')
  store = stores.make(folder / 's', holes=2000)
  words = 'model=convlstm,t_out=3'
  return [_run(folder / 'first', store, f'{words},channels=9'),
          _run(folder / 'second', store, f'{words},fusion=none', seed=1)], store


def test_the_command_draws_truth_runs_and_errors(made, tmp_path, capsys):
  runs, store = made
  assert command.main(['--compare', *map(str, runs), '--index=7', '--leads=1,3', '--terminator',
                       '--magnetic-equator', f'--out={tmp_path / "out"}']) == 0
  out = capsys.readouterr().out
  assert {p.name for p in (tmp_path / 'out').iterdir()} == {
      'compare.png', 'compare.gif', 'compare.npz'}
  with PIL.Image.open(tmp_path / 'out' / 'compare.gif') as film:
    assert film.n_frames == 3 and min(film.size) > 300
  with np.load(tmp_path / 'out' / 'compare.npz') as file:
    kept = dict(file)
  # Window 7 starts at frame 7 of the test clip; the last of 16 rows is padding.
  truth = store.physical(store.frames(2, 7, 7))[4:, :15, :, 0]
  np.testing.assert_array_equal(kept['truth'], truth)
  assert np.isnan(truth).any() and list(kept['leads']) == [1, 3]
  np.testing.assert_array_equal(kept['times'], store.clips[2].times(2.0)[11:14])
  frames = store.physical(store.frames(2, 7, 4))
  one = predict.Predictor.load(runs[1])(frames, times=store.clips[2].times(2.0)[7:11])
  np.testing.assert_allclose(kept['forecasts'][1], one[:, :15, :, 0], atol=1e-3)
  rows = [[c.strip() for c in line.strip('|').split('|')] for line in out.splitlines()
          if line.startswith('| ')]
  for row, forecast, mode in zip(rows[1:], kept['forecasts'], ('persist', 'none fed')):
    square = (forecast - truth) ** 2
    assert row[2] == mode
    assert row[3:] == [f'{x:.2f}' for x in (
        np.nanmean(square[0]) ** 0.5, np.nanmean(square[2]) ** 0.5, np.nanmean(square) ** 0.5,
        np.nanmean(np.abs(forecast - truth)))]


def test_what_cannot_be_compared_is_one_line(made, tmp_path, capsys):
  runs, store = made
  longer = _run(tmp_path / 'longer', store, 'model=convlstm,t_out=5,fusion=none')
  other = stores.make(tmp_path / 'o', seed=2)
  moved = _run(tmp_path / 'moved', other, 'model=convlstm,t_out=3,fusion=none')
  wide = stores.make(tmp_path / 'wide', size=24)
  for more, parts in [
      ([longer], ('first: 4 frames in, 3 out', 'longer: 4 frames in, 5 out', 'one horizon')),
      ([moved], (f'first: {store.path}', f'moved: {other.path}', '--store')),
      (['--leads=2,4'], ('--leads=4', '3 frames', 'first')),
      (['--leads=0'], ('--leads=0',)), (['--leads=x'], ('--leads=x',)),
      (['--index=99'], ('--index=99', 'split test has 42 windows, 0 to 41')),
      (['--index=-1'], ('--index=-1',)), (['--split=nothing'], ('split nothing',)),
      ([f'--store={wide.path}'], ('was trained on [16, 16, 1]',)),
      (['--future-forcings=guess'], ('choose one of persist',)),
      ([tmp_path / 'nowhere'], ('no checkpoints folder',))]:
    out = tmp_path / 'out'
    assert command.main(['--compare', str(runs[0]), *map(str, more), f'--out={out}']) == 1, more
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and error.startswith('report: '), error
    assert all(p in error for p in parts), error
    assert not out.exists()
  assert command.main(['--compare', str(runs[0]), str(moved), f'--store={store.path}',
                       f'--out={tmp_path / "both"}']) == 0


def _window(shape=(3, 15, 16), globe=True, **more):
  rng = np.random.default_rng(0)
  truth = rng.uniform(5, 60, shape).astype(np.float32)
  forecasts = tuple(compare.Forecast(f'run_{i}', 'persist', 3, truth + i + 1) for i in range(2))
  scale = 1.0 if globe else 0.1
  return dataclasses.replace(compare.Window(
      'test', 125, truth, np.datetime64('2002-03-08T07:00') + np.arange(3) * np.timedelta64(2, 'h'),
      scale * np.linspace(80, -80, shape[1]), scale * np.linspace(-180, 157.5, shape[2]), 'TECU',
      2.0, [dict(name='codg', description='maps')], forecasts), **more)


def _pixels(path):
  with PIL.Image.open(path) as image:
    return np.asarray(image.convert('RGB'))


def test_missing_cells_are_grey_and_do_not_count(tmp_path):
  found = _window()
  whole = compare_plots.Lines(found)
  compare_plots.figure(tmp_path / 'whole.png', found, [0, 2], whole)
  truth = found.truth.copy()
  truth[:, :8] = np.nan
  holed = dataclasses.replace(found, truth=truth)
  compare_plots.figure(tmp_path / 'holed.png', holed, [0, 2], whole)
  grey = lambda name: (_pixels(tmp_path / name) == 0xbb).all(-1).sum()
  assert grey('holed.png') > 20 * max(1, grey('whole.png')) and grey('holed.png') > 5000
  assert compare_plots._rmse(holed, holed.forecasts[1]) == ['RMSE 2.00 TECU'] * 3
  assert compare.errors(holed, holed.forecasts[0])['rmse'] == pytest.approx(1.0, rel=1e-5)
  gone = dataclasses.replace(found, truth=np.full_like(truth, np.nan))
  assert compare_plots._rmse(gone, gone.forecasts[0]) == ['RMSE - TECU'] * 3
  compare_plots.figure(tmp_path / 'gone.png', gone, [1], whole)


def test_errors_of_tec_have_one_fixed_scale_for_all_runs(tmp_path, monkeypatch):
  shown = []
  draw = style.MapFrame.draw
  monkeypatch.setattr(style.MapFrame, 'draw', lambda self, axes, values, **o: (
      shown.append((axes, o)), draw(self, axes, values, **o))[1])
  found = _window()
  compare_plots.figure(tmp_path / 'x.png', found, [0, 1], compare_plots.Lines(found, True, True))
  looks = [o for _, o in shown]
  assert len(shown) == 2 * 5 and [o['cmap'] for o in looks] == ['viridis'] * 6 + ['RdBu_r'] * 4
  assert {(o['vmin'], o['vmax']) for o in looks[6:]} == {(-10.0, 10.0)}
  assert len({(o['vmin'], o['vmax']) for o in looks[:6]}) == 1
  titles = [axes.get_title() for axes, _ in shown]
  assert titles[0] == '+2 h\n2002-03-08 07:00 UT' and titles[1].startswith('+4 h')
  assert titles[6:] == ['RMSE 1.00 TECU'] * 2 + ['RMSE 2.00 TECU'] * 2
  assert all(len(axes.lines) == 3 for axes, _ in shown)  # coast, magnetic equator, terminator
  for units, other in (('m', {}), ('TECU', dict(latitude=None, longitude=None, times=None))):
    free = dataclasses.replace(found, units=units, **other)
    compare_plots.figure(tmp_path / 'y.png', free, [0], compare_plots.Lines(free))
  shown.clear()
  compare_plots.film(tmp_path / 'x.gif', found, compare_plots.Lines(found, terminator=True))
  assert len(shown) == 6
  with PIL.Image.open(tmp_path / 'x.gif') as film:
    assert film.n_frames == 3


def test_lines_that_have_no_place_are_refused():
  with pytest.raises(ValueError, match='--magnetic-equator: the maps do not cover'):
    compare_plots.Lines(_window(globe=False), magnetic_equator=True)
  with pytest.raises(ValueError, match='--terminator: the frames of this window have no times'):
    compare_plots.Lines(_window(times=None), terminator=True)


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
  assert compare._labels([tmp_path / 'a', tmp_path / 'b']) == ['a', 'b']
  assert compare._labels([tmp_path / 'a' / 'x', tmp_path / 'b' / 'x']) == ['a/x', 'b/x']
  assert compare.chosen_leads('', 48, ()) == [0, 12, 24, 35, 47]
  assert compare.chosen_leads('1,19+48', 48, ()) == [0, 18, 47]
  assert plots.palette(compare_plots._scales(_window())).mode == 'P'


def test_a_store_keeps_its_windows(made):
  """The index counts every start, whatever stride the run was evaluated with."""
  runs, store = made
  assert len(clip_store.ClipStore(store.path).windows(('test',), 7, 1)) == 42
  first, _ = compare.window(runs[:1], index=0)
  last, _ = compare.window(runs[:1], index=41)
  np.testing.assert_array_equal(first.truth[1], compare.window(runs[:1], index=1)[0].truth[0])
  assert last.times[-1] == store.clips[2].times(2.0)[-1]
