"""Own frames, from a folder to a forecast: `prepare folder`, then `main`, and nothing else."""

import json

import jax
import numpy as np
import PIL.Image
import pytest

from stp_jax import benchmark_table, main, predict
from stp_jax import config as config_files
from stp_jax import prepare as cli
from stp_jax.data import window
from stp_jax.data.clip_store import ClipStore
from tests import stores
from tests.data import own_frames

CONFIG = 'configs/moving_frames.py'

# One worker makes what these tests share; another would make it again.
pytestmark = pytest.mark.xdist_group('own_data')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Two commands: RGB frames of 59x83, clips of unequal length, to a report with a GIF."""
  root = tmp_path_factory.mktemp('own')
  own_frames.clips(root / 'in', [12, 10, 7, 11, 13], size=(59, 83), channels=3)
  assert cli.main(['folder', '--in', str(root / 'in'), '--out', str(root / 'store')]) == 0
  config = config_files.load(f'{CONFIG}:smoke')
  config.data.stores = (str(root / 'store'),)
  # Eight devices stand in for a mesh.
  config.data.batch_size = config.data.eval_batch_size = 8
  main.run(config, root / 'run')
  return root


def test_from_a_folder_of_frames_to_a_scored_forecast_and_a_gif(run):
  kept = json.loads((run / 'run' / 'config.json').read_text())
  assert (kept['data']['t_in'], kept['data']['t_out']) == (5, 5)
  report = run / 'run' / 'report'
  card = json.loads((report / 'scores.json').read_text())
  forecasts = card['splits']['test']['forecasts']
  assert set(forecasts) == {'net', 'persistence'} and card['shape'] == [59, 83, 3]
  assert all(np.isfinite(f['all']['rmse']) for f in forecasts.values())
  with np.load(report / 'example.npz') as example:
    assert example['truth'].shape == example['forecast'].shape == (5, 59, 83, 3)
  with PIL.Image.open(report / 'forecast.gif') as gif:
    assert gif.n_frames == 5
    gif.seek(2)
    picture = np.asarray(gif.convert('RGB')).astype(int)
  # The left third is the truth, in its colours.
  assert abs(picture[:, :400, 0] - picture[:, :400, 2]).max() > 60
  assert (report / 'maps.png').stat().st_size > 5000


def test_predict_writes_frames_and_gifs(run):
  out = run / 'forecast'
  assert predict.main([f'--checkpoint={run / "run"}', f'--store={run / "store"}', f'--out={out}',
                       '--limit=1']) == 0
  folder = out / 'store' / 'run' / 'sample1'
  assert len(list(folder.glob('output*.png'))) == 5
  with PIL.Image.open(folder / 'ground_truth1.png') as picture:
    assert picture.size == (83, 59) and picture.mode == 'RGB'
  assert (folder / 'sample1.gif').stat().st_size > 1000


@pytest.mark.parametrize('lengths, given, expected', [
    ((96, 48, 48), (0, 0), (5, 5)), ((96, 48, 7), (0, 0), (4, 3)), ((2, 48, 96), (0, 0), (1, 1)),
    ((96, 48, 48), (12, 0), (12, 5)), ((96, 48, 14), (12, 0), (12, 2)),
    ((96, 48, 48), (0, 3), (5, 3)), ((96, 48, 48), (4, 30), (4, 30))])
def test_windows_fit_the_clips(tmp_path, lengths, given, expected):
  store = stores.make(tmp_path / 's', days=lengths, cadence=24.0)
  config = config_files.load(f'{CONFIG}:t_in={given[0]},t_out={given[1]}')
  fitted = window.fitted(config, [store])
  assert (fitted.data.t_in, fitted.data.t_out) == expected
  assert (config.data.t_in, config.data.t_out) == given  # the words stay what they were


@pytest.mark.parametrize('model', ['convlstm', 'mau', 'e3dlstm', 'dmvfn', 'phydnet', 'crevnet'])
def test_other_models_take_frames_of_any_size(model):
  config = config_files.load(f'{CONFIG}:model={model},smoke')
  config.data.dataset_options.size = '59x83'
  task = benchmark_table.task_of(config)
  assert (task.t_in, task.t_out) == (5, 5) and task.spec.shape == (59, 83, 3)
  jax.eval_shape(task.init, jax.random.key(0))


def test_clips_too_short_for_any_window(tmp_path):
  store = stores.make(tmp_path / 's', days=(9, 9, 4), cadence=24.0)
  with pytest.raises(ValueError, match=r'longest clip of a split has 4 frames, .* take 7 at least'):
    window.fitted(config_files.load(f'{CONFIG}:t_in=6'), [store])


def test_floats_below_zero_are_learnt_from_0_to_1(tmp_path):
  """A range that does not begin at 0: model values do, forecasts come back in units."""
  from stp_jax import tasks
  values = np.random.default_rng(0).uniform(250, 310, (60, 16, 18)).astype(np.float32)
  np.save(tmp_path / 'a.npy', values)
  assert cli.main(['folder', '--in', str(tmp_path / 'a.npy'), '--out', str(tmp_path / 's'),
                   '--range', '250,310']) == 0
  store = ClipStore(tmp_path / 's')
  config = window.fitted(config_files.load(f'{CONFIG}:smoke'), [store])
  spec = tasks.find('forecast').data_spec(config, [store])
  assert (spec.shift, spec.divisor) == (250.0, 60.0)
  task = tasks.build(config, spec)
  raw = store.frames(0, 0, 10)[None]
  inputs = task.inputs(dict(frames=raw), 5)
  np.testing.assert_allclose(
      inputs['frames'][0], (values[:10, ..., None] - 250) / 60, atol=1e-4)
  np.testing.assert_allclose(inputs['physical'][0], values[:10, ..., None], atol=1e-3)
  class Same:
    prediction = inputs['frames'][:, :5]
  task.apply = lambda *args, **kwargs: (Same, {})
  np.testing.assert_allclose(
      task.predict({}, dict(frames=raw))[0], values[:5, ..., None], atol=1e-2)
