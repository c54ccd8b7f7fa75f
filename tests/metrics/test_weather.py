"""Weather scores by plain formulas; upstream's unweighted ones; climatologies of any variable."""

import numpy as np
import pytest

from stp_jax.data import mean_fields
from stp_jax.data.clip_store import Stream
from stp_jax.data.clip_writer import StoreWriter
from stp_jax.metrics import video, weather
from stp_jax.metrics.sums import Sums

LATITUDE = np.linspace(87.5, -87.5, 6)


@pytest.fixture(scope='module')
def fields():
  rng = np.random.default_rng(0)
  truth = rng.normal(280, 8, (3, 4, 6, 8, 2)).astype(np.float32)
  return truth + rng.normal(size=truth.shape).astype(np.float32), truth, np.full_like(truth, 279.0)


def test_by_area_and_as_upstream(fields):
  prediction, truth, climatology = (x.astype(np.float64) for x in fields)
  weights = np.cos(np.deg2rad(LATITUDE))[:, None, None]
  found = weather.scores(*fields[:2], LATITUDE, fields[2])
  error = prediction - truth
  total = 3 * 4 * 8 * weights.sum()
  np.testing.assert_allclose(
      found['rmse'], np.sqrt((error ** 2 * weights).sum((0, 1, 2, 3)) / total), rtol=1e-5)
  np.testing.assert_allclose(
      found['bias'], (error * weights).sum((0, 1, 2, 3)) / total, rtol=1e-3)
  f, o = prediction - climatology, truth - climatology
  acc = (weights * f * o).sum((2, 3)) / np.sqrt(
      (weights * f ** 2).sum((2, 3)) * (weights * o ** 2).sum((2, 3)))
  np.testing.assert_allclose(found['acc'], acc.mean((0, 1)), rtol=1e-5)
  upstream = weather.scores(*fields[:2], LATITUDE, protocol='upstream')
  theirs = video.upstream(*fields[:2], metrics=('mse', 'mae', 'rmse'), spatial_norm=True,
                          channel_names=('a', 'b'), layout='NTHWC')
  np.testing.assert_allclose(upstream['rmse'], [theirs['rmse_a'], theirs['rmse_b']], rtol=1e-5)
  assert abs(upstream['rmse'] - found['rmse']).min() > 1e-4 and 'acc' not in upstream
  with pytest.raises(ValueError, match='choose one of standard upstream'):
    weather.scores(*fields[:2], LATITUDE, protocol='openstl')


def test_the_climatology_itself_has_no_correlation(fields):
  _, truth, climatology = fields
  found = weather.scores(climatology, truth, LATITUDE, climatology)
  assert np.isnan(found['acc']).all() and np.isfinite(found['rmse']).all()


def test_holes_padding_and_batches(fields):
  prediction, truth, climatology = (x.copy() for x in fields)
  truth[0, 1, 2, 3, 0] = np.nan
  weights = np.array([1, 1, 1, 1, 1, 0], np.float32)  # the last row is padding
  sums, parts = Sums(), Sums()
  every = lambda rows: {'net': weather.per_example(
      prediction[rows], truth[rows], None, weights, climatology[rows])}
  sums.update(every(np.arange(3)))
  parts.update(every(np.array([2, 1])))
  parts.merge(other := Sums())
  other.update(every(np.array([0, 0])), np.array([1, 0]))
  parts.merge(other)
  names = [dict(name=n, units='K') for n in 'ab']
  one, two = (weather.result(s, names)['forecasts']['net'] for s in (sums, parts))
  for protocol in weather.PROTOCOLS:
    np.testing.assert_allclose(one[protocol]['rmse'], two[protocol]['rmse'], rtol=1e-6)
  error = (prediction - truth)[:, :, :5].astype(np.float64)
  np.testing.assert_allclose(
      one['upstream']['rmse'], np.sqrt(np.nanmean(error ** 2, (0, 1, 2, 3))), rtol=1e-5)
  assert np.shape(one['standard']['by_lead']['rmse']) == (4, 2)


def _store(path, months=('2001-01', '2001-07'), clock=True):
  writer = StoreWriter(
      path, name='t', streams={'frames': Stream((2, 3, 1), 'float32', 'K')}, cadence_hours=6.0,
      recipe={})
  for i, month in enumerate(months):
    hour = np.tile([0.0, 6.0, 12.0, 18.0], 20)
    frames = np.full((80, 2, 3, 1), 280.0 + 20 * i) + hour[:, None, None, None]
    frames[3, 0, 0] = np.nan
    writer.add(f'{i}', {'frames': frames.astype(np.float32)}, split='train', source=month,
               time=f'{month}-01T00:00' if clock else None)
  return writer.finish()


def test_mean_fields_by_month_and_hour(tmp_path):
  store = _store(tmp_path / 's')
  tables = mean_fields.fit([store], ['train'])
  found = mean_fields.at(tables, np.array(['2015-07-09T12:00', '2015-01-09T18:00'], 'M8[m]'))
  np.testing.assert_allclose(found, np.array([312.0, 298.0]).reshape(2, 1, 1, 1)
                             * np.ones((2, 2, 3, 1)), rtol=1e-6)
  # No April was seen: that hour of all months.
  april = mean_fields.at(tables, np.array(['2015-04-09T12:00'], 'M8[m]'))
  np.testing.assert_allclose(april, 302.0, rtol=1e-6)
  assert mean_fields.fit([_store(tmp_path / 'n', clock=False)], ['train']) is None
