import numpy as np
import pytest

from stp_jax.metrics import tec, video
from stp_jax.metrics.accumulate import Scores

LATITUDE = np.linspace(80, -80, 9)
LONGITUDE = np.linspace(-180, 144, 10)


@pytest.fixture
def card():
  """A card as evaluation makes it: two days of 6-hourly maps, a net and two baselines."""
  rng = np.random.default_rng(0)
  truth = rng.uniform(5, 80, (4, 8, 10, 10, 1)).astype(np.float32)
  weights = tec.row_weights(LATITUDE, 10)
  scores = Scores(cadence_hours=6, units='TECU')
  statistics = {}
  for name, size in (('ar_blend', 3), ('net', 2), ('persistence', 4)):
    forecast = truth + size * rng.normal(size=truth.shape).astype(np.float32)
    statistics[name] = {
        k: np.asarray(v) for k, v in tec.per_example(forecast, truth, None, weights).items()}
    if name == 'net':
      statistics[name] |= {
          k: np.asarray(v) for k, v in video.per_example(forecast / 200, truth / 200).items()}
  scores.update(statistics, None, tec.strata(rng.uniform(0, 90, (4, 8))))
  return dict(
      name='iono_mixer', words='smoke', step=240, model='simvp', fusion='mix',
      anchor='climatology', channels=['tec', 'f107'], t_in=4, t_out=8, units='TECU',
      cadence_hours=6.0, future_forcings='persist', filled=['dst'], parameters=378123,
      divisor=200.0, shape=[10, 10, 1], trained_on=dict(name='embedded'),
      data=[dict(name='embedded', description='SIMULATED maps')],
      splits={'test': scores.result()})


@pytest.fixture
def example():
  """North first, as IONEX has it: the value is the latitude, so a flipped map shows."""
  truth = np.tile(LATITUDE[:, None] + 90.0, (8, 1, 10)).astype(np.float32)
  truth[3, 4, 5] = np.nan
  return dict(
      input=truth[:4], truth=truth, forecast=truth + 1,
      times=np.datetime64('2012-11-18T00:00', 'm') + np.arange(12) * np.timedelta64(360, 'm'),
      latitude=LATITUDE, longitude=LONGITUDE, units='TECU')
