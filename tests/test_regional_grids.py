"""Maps of an odd number of longitudes: the column that pads them is no part of any number."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from stp_jax import (
    checkpoint,
    error_model,
    evaluate_forecast,
    predict,
    predict_clips,
    sharding,
    skill,
    tasks,
)
from stp_jax import config as config_files
from stp_jax.data import clip_store, clip_writer, domains, ionex, resize, statistics
from stp_jax.report import compare
from stp_jax.typing import Output
from tests.data import ionex_text

# One worker makes what these tests share; another would make it again.
pytestmark = pytest.mark.xdist_group('regional_run')
ROWS, COLUMNS = 17, 15  # stored as 18 x 16
LATITUDES, LONGITUDES = (80.0, -80.0, -10.0), (0.0, 140.0, 10.0)


def _maps(day: int) -> np.ndarray:
  """Tenths of TECU `[12, 17, 15]`: the last column alone changes fast."""
  hours = np.arange(12)[:, None, None] * 2 + 24 * day
  wave = 60 * np.cos(2 * np.pi * (hours / 24 + np.arange(COLUMNS) / 36))
  last = np.where(np.arange(COLUMNS) == COLUMNS - 1, 90 * np.sin(hours * 1.3), 0)
  slow = 40 * np.sin(hours / 8) * np.cos(np.arange(ROWS) / 3)[:, None]
  return np.rint(200 + 5 * np.arange(ROWS)[:, None] + wave + slow + last).astype(int)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """(run that was never trained, store)."""
  folder = tmp_path_factory.mktemp('regional')
  (folder / 'in').mkdir()
  for i in range(5):
    ionex_text.write(folder / 'in', f'codg{i + 1:03d}0.12i', first=f'2012-01-0{i + 1}',
                     tec=_maps(i), count=12, latitudes=LATITUDES, longitudes=LONGITUDES)
  store = ionex.prepare(in_dir=folder / 'in', out=folder / 'store', window=5,
                        test='2012-01-04..2012-01-05')
  config = config_files.load('configs/iono_mixer.py:smoke,model=simvp,fusion=none,'
                             'anchor=persistence')
  config.data.t_in, config.data.t_out, config.data.eval_stride = 3, 2, 1
  config.data.stores, config.data.test_splits = (str(store.path),), ('test',)
  task = tasks.build(config, tasks.find('forecast').data_spec(config, [store]))
  checkpoint.save_converted(folder / 'run', config, jax.jit(task.init)(jax.random.key(0)),
                            task.spec)
  return folder / 'run', store


@pytest.fixture(scope='module')
def task(made):
  loaded = checkpoint.load(made[0])
  return tasks.build(loaded.config, loaded.spec)


def test_the_mask_leaves_padding_rows_and_columns_out(task, made):
  assert task.spec.shape == (18, 16, 1) and task.spec.grid_shape == (17, 15)
  mask = task.spec.pixel_mask
  assert mask.dtype == np.float32 and mask[:17, :15].all() and mask.sum() == 17 * 15
  spec = type(task.spec)(name='whole', shape=(18, 16, 1))
  assert spec.grid_shape == (18, 16) and spec.pixel_mask.all()


def test_evaluate_and_skill_agree_and_persistence_is_that_of_numpy(made):
  run, store = made
  loaded = checkpoint.load(run)
  task = tasks.build(loaded.config, loaded.spec)
  fitted = evaluate_forecast.baselines_of(run, task, loaded.config)
  scores = evaluate_forecast.score(
      task, loaded.variables, fitted, [store], ['test'], sharding.make_mesh())
  card = skill.measure([run], split=['test'], stride=1, progress=False)
  assert scores['windows'] == card['windows'] == 20
  for name in ('net', 'persistence', 'scaled_climatology', 'ar_blend'):
    one, other = scores['forecasts'][name]['all'], card['forecasts'][name]['all']
    for key in ('rmse', 'mae', 'bias', 'cos_rmse', 'cos_mae', 'cos_bias'):
      assert one[key] == pytest.approx(other[key], rel=2e-5, abs=2e-5), (name, key)
  assert card['forecasts']['net']['all']['pixels'] == 20 * 2 * ROWS * COLUMNS
  truth = np.concatenate([_maps(3), _maps(4)]) / 10
  error = np.stack([truth[i + 2] - truth[i + 3 + k] for i in range(20) for k in range(2)])
  got = scores['forecasts']['persistence']['all']
  assert got['rmse'] == pytest.approx((error ** 2).mean() ** 0.5, rel=1e-5)
  assert got['bias'] == pytest.approx(error.mean(), abs=1e-5)


def test_what_is_forecast_in_the_padding_never_reaches_a_loss(task, monkeypatch):
  batch = dict(frames=np.full((2, 5, 18, 16, 1), 300, np.uint16),
               forcings=np.zeros((2, 5, len(task.spec.columns)), np.float32))
  off = np.zeros((18, 16, 1), np.float32)
  off[17], off[:, 15], off[4, 14] = 1000, 1000, 2
  physical = jnp.full((2, 2, 18, 16, 1), 30.0) + off
  monkeypatch.setattr(task, 'predict', lambda v, b: physical)
  monkeypatch.setattr(task, 'apply', lambda *a: (
      Output(prediction=physical / 200, context=None, terms={}), {}))
  monkeypatch.setattr(task.config.task, 'loss_scale', 'none', raising=True)
  expected = (2 / 200) ** 2 / (ROWS * COLUMNS)
  np.testing.assert_allclose(task.frame_loss({}, batch), expected, rtol=1e-3)
  loss, _ = task.loss({}, batch, rng=jax.random.key(0), step=0, stage=2)
  np.testing.assert_allclose(loss, expected, rtol=1e-3)


def test_baselines_are_fitted_on_what_counts(task, made, tmp_path):
  """Other numbers in the padding give the same rho and phi."""
  rng, padding = np.random.default_rng(0), np.ones((18, 16, 1), bool)
  padding[:ROWS, :COLUMNS] = False
  _, store = made
  fitted = evaluate_forecast.fit_baselines(task, [store])
  other = _rewritten(store, tmp_path / 's', lambda raw: np.where(
      padding, rng.integers(0, 2000, raw.shape), raw))
  again = evaluate_forecast.fit_baselines(task, [other])
  assert 0.1 < fitted['phi'][0] < 1 and 0.1 < fitted['rho'][0] < 1
  for name in ('rho', 'phi'):
    np.testing.assert_array_equal(fitted[name], again[name])
  one, two = (statistics.statistics(s) for s in (store, other))
  assert one == two and one['wavenumber_share']


def _rewritten(store, path, change, grid=None):
  """The store with other raw frames, or another grid."""
  writer = clip_writer.StoreWriter(
      path, name=store.name, streams={'frames': store.streams['frames']},
      cadence_hours=store.cadence_hours, recipe=dict(path=str(path)), forcings=store.forcings,
      normalisation=store.meta['normalisation'], grid=store.meta['grid'] | (grid or {}),
      licence='', description='')
  for i, clip in enumerate(store.clips):
    rows = slice(clip.start, clip.start + clip.length)
    writer.add(f'{i}', dict(frames=change(store.frames(i)).astype(np.uint16)), split=clip.split,
               source=clip.source, time=clip.time,
               **{k: np.asarray(store.column(name)[rows]) for k, name in dict(
                   forcings='forcings', known='forcings_known', delay='forcings_delay').items()})
  return writer.finish()


def test_pictures_and_examples_have_the_size_of_the_grid(made, task, tmp_path):
  run, store = made
  loaded = checkpoint.load(run)
  shown = evaluate_forecast.example(
      task, loaded.variables, [store], ['test'], jax.jit(task.predict))
  assert shown['truth'].shape == shown['forecast'].shape == (2, ROWS, COLUMNS)
  assert len(shown['longitude']) == COLUMNS
  window, _ = compare.window([run], split='test')
  assert window.truth.shape == window.forecasts[0].values.shape == (2, ROWS, COLUMNS)
  folder, = predict_clips.write(run, str(store.path), ['test'], tmp_path, limit=1)
  for part in ('input', 'output', 'ground_truth'):
    with PIL.Image.open(folder / f'{part}1.png') as picture:
      assert picture.size == (COLUMNS, ROWS)
  found = [s for s in task.sources([store], ['train']) if len(s)]
  predictor = predict.Predictor(loaded)
  fitted = error_model.fit(predictor, found, task.spec, 'test', limit=2, progress=False)
  assert fitted.rms.shape[:2] == (2, ROWS)


def test_the_predictor_takes_maps_of_the_grid(made):
  run, store = made
  predictor = predict.Predictor.load(run)
  frames = store.physical(store.frames(1, 0, 3))
  times = store.clips[1].times(2.0)[:3]
  whole = predictor(frames, times=times)
  assert whole.shape == (2, 18, 16, 1)
  for rows, columns in ((17, 15), (18, 15), (17, 16)):
    cut = predictor(frames[:, :rows, :columns], times=times)
    assert cut.shape == (2, rows, columns, 1)
    np.testing.assert_array_equal(cut, whole[:, :rows, :columns])
  with pytest.raises(ValueError, match=r'takes \[B, 3, 18 or 17, 16 or 15, 1\]'):
    predictor(frames[:, :, :14], times=times)


def test_a_domain_is_resized_without_its_padding(made):
  _, store = made
  spec = domains.data_spec([('a', store)], (20, 20))
  item = domains.sources([('a', store)], spec, ['train'], 5)[0][0]
  expected = resize.frames(store.frames(0, 0, 5)[:, :ROWS, :COLUMNS], (20, 20),
                           store.streams['frames'].missing)
  np.testing.assert_array_equal(item['frames'], expected)


@pytest.mark.parametrize('moved, words', [
    (dict(longitude=[float(v) for v in range(-150, 0, 10)]), r'longitudes -150 to -10 \(15\)'),
    (dict(latitude=np.linspace(40, -40, 17).tolist()), r'latitudes 40 to -40 \(17\)')])
def test_another_region_is_refused(made, tmp_path, moved, words):
  run, store = made
  away = _rewritten(store, tmp_path / 's', lambda raw: raw, moved)
  loaded = checkpoint.load(run)
  own = r'latitudes 80 to -80 \(17\), longitudes 0 to 140 \(15\)'
  spec = tasks.build(loaded.config, loaded.spec).spec
  from stp_jax.data import climatology
  from stp_jax.data import spec as data_spec
  with pytest.raises(clip_store.StoreError, match=f'{words}.*; RUN was trained on {own}; prep'):
    data_spec.for_stores(spec, [away], (), 'RUN')
  with pytest.raises(clip_store.StoreError, match=f'{words}.* are another grid than {own} of '):
    data_spec.make([store, away], loaded.config.data, ['train'])
  with pytest.raises(clip_store.StoreError, match=f'{words}.* are another grid than {own} of '):
    climatology.fit([store, away])
  with pytest.raises(clip_store.StoreError, match=f'{words}.*; they are compared with .*{own}'):
    skill.measure([run], split=['test'], c1pg=str(away.path), progress=False)


def test_longitudes_are_compared_around_the_globe(made, tmp_path):
  from stp_jax.data import georeference
  grid = made[1].meta['grid']
  turned = grid | dict(longitude=[v + 360 for v in grid['longitude']])
  assert georeference.same_places(grid, turned) and georeference.same_places(grid, {})
  assert not georeference.same_places(grid, grid | dict(longitude=grid['longitude'][:-1]))


def test_maps_of_another_size_are_no_forecast_of_code(made, tmp_path):
  run, store = made
  (tmp_path / 'in').mkdir()
  ionex_text.write(tmp_path / 'in', 'codg0010.12i', first='2012-01-04', count=12)
  small = ionex.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='test', window=5)
  with pytest.raises(clip_store.StoreError, match=r'maps of 6x6, .*; they are compared with 18x16'):
    skill.measure([run], split=['test'], c2pg=str(small.path), progress=False)
  # Its own maps as CODE's forecast: nothing is to be said.
  found = skill._Series([store], skill.data_spec.for_stores(
      checkpoint.load(run).spec, [store], (), 'run'))
  times = store.clips[0].times(2.0)[:2]
  assert np.isfinite(found.maps(times, (18, 16))[:, :ROWS, :COLUMNS]).all()
