"""A store on latitudes and longitudes is scored by area, beside climatology, on a small mesh."""

import jax
import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import evaluate_fields, evaluate_forecast, sharding, tasks
from stp_jax.data import mean_fields, window
from stp_jax.data.clip_store import Stream
from stp_jax.data.clip_writer import StoreWriter
from stp_jax.report import score_card


def _store(path, rows=16, columns=16):
  latitude = np.linspace(84.375, -84.375, rows)
  grid = dict(latitude=latitude.tolist(), longitude=(np.arange(columns) * 22.5).tolist(),
              variables=[dict(name='t2m', units='K')])
  rng = np.random.default_rng(0)
  writer = StoreWriter(
      path, name='t2m', streams={'frames': Stream((rows, columns, 1), 'float32', 'K')},
      cadence_hours=6.0, recipe={}, grid=grid, normalisation=dict(shift=200.0, divisor=120.0))
  for split, start in (('train', '2010-01-01'), ('test', '2011-01-01')):
    noise = rng.normal(size=(60, rows, columns, 1)).cumsum(0)
    frames = 280 - 0.3 * abs(latitude)[:, None, None] + noise
    writer.add(split, {'frames': frames.astype(np.float32)}, split=split, source=split,
               time=f'{start}T00:00')
  return writer.finish()


def test_by_area_beside_climatology(tmp_path):
  store = _store(tmp_path / 's')
  config = config_files.load('configs/weather.py:smoke,model=convlstm,t_in=2,t_out=2')
  config.data.stores, config.data.eval_stride = (str(store.path),), 5
  config = window.fitted(config, [store])
  spec = tasks.find('forecast').data_spec(config, [store])
  task = tasks.build(config, spec)
  config.data.eval_batch_size = 3
  variables = jax.jit(task.init)(jax.random.key(0))
  tables = evaluate_fields.climatology_of(tmp_path, task, config)
  assert (tmp_path / 'climatology.npz').exists()
  found = evaluate_forecast.score(
      task, variables, None, [store], ['test'], sharding.make_mesh(devices=jax.devices()[:1]),
      fields=evaluate_fields.Fields(task, tables))
  forecasts = found['weather']['forecasts']
  assert set(forecasts) == {'net', 'persistence', 'climatology'} and not found['notes']
  # The same by hand, of every fifth window.
  clip = [c.split for c in store.clips].index('test')
  frames = store.frames(clip)[..., 0].astype(np.float64)
  times = store.clips[clip].times(6.0)
  truth = np.stack([frames[i + 2:i + 4] for i in range(0, 57, 5)])
  last = np.stack([frames[i + 1:i + 2].repeat(2, 0) for i in range(0, 57, 5)])
  usual = np.stack([mean_fields.at(tables, times[i + 2:i + 4])[..., 0] for i in range(0, 57, 5)])
  weights = np.cos(np.deg2rad(store.meta['grid']['latitude']))[:, None]
  total = weights.sum() * 16
  for name, forecast in (('persistence', last), ('climatology', usual)):
    error = ((forecast - truth) ** 2 * weights).sum((2, 3)) / total
    assert forecasts[name]['standard']['rmse'] == [pytest.approx(np.sqrt(error.mean()), rel=1e-4)]
  f, o = last - usual, truth - usual
  acc = (weights * f * o).sum((2, 3)) / np.sqrt(
      (weights * f ** 2).sum((2, 3)) * (weights * o ** 2).sum((2, 3)))
  assert forecasts['persistence']['standard']['acc'] == [pytest.approx(acc.mean(), rel=1e-4)]
  assert forecasts['climatology']['standard']['acc'] == [None]
  text = score_card.markdown(dict(
      name='weather', clock=True, cadence_hours=6.0, splits=dict(test=found)))
  assert '**t2m**' in text and 'upstream RMSE' in text and '| climatology' in text
