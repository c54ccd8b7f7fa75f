import functools
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from stp_jax.metrics import tec, video
from stp_jax.metrics.accumulate import Scores

N, T = 11, 5
RNG = np.random.default_rng(3)
TRUTH = RNG.uniform(0, 90, (N, T, 9, 8, 1)).astype(np.float32)
NET = TRUTH + RNG.normal(size=TRUTH.shape).astype(np.float32)
OTHER = TRUTH + 3 * RNG.normal(size=TRUTH.shape).astype(np.float32)
VALID = RNG.uniform(size=TRUTH.shape) < 0.9
KP = RNG.uniform(0, 90, (N, T))
WEIGHTS = tec.row_weights(np.linspace(80, -80, 8), 9)


def _scored(parts, fill=0):
  """Scores of examples, part by part, each part filled up with `fill` rows of rubbish."""
  scores = Scores(cadence_hours=12, units='TECU')
  for part in parts:
    rows = np.concatenate([part, np.zeros(fill, int)])
    mask = np.arange(len(rows)) < len(part)
    net = np.where(mask[:, None, None, None, None], NET[rows], np.nan)
    statistics = {
        name: dict(tec.per_example(value, TRUTH[rows], VALID[rows], WEIGHTS),
                   **video.per_example(value / 90, TRUTH[rows] / 90, VALID[rows]))
        for name, value in (('net', net), ('persistence', OTHER[rows]))}
    scores.update(statistics, mask, tec.strata(KP[rows]))
  return scores


def _close(a, b, tolerance=1e-6):
  if isinstance(a, dict):
    assert a.keys() == b.keys()
    for key in a:
      _close(a[key], b[key], tolerance)
  elif isinstance(a, list):
    assert len(a) == len(b)
    for pair in zip(a, b):
      _close(*pair, tolerance)
  elif isinstance(a, float):
    assert a == pytest.approx(b, rel=tolerance, abs=tolerance)
  else:
    assert a == b


@functools.cache
def whole():
  return _scored([np.arange(N)]).result()


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(batch=st.sampled_from([1, 2, 3, 4, 7]), seed=st.integers(0, 99))
def test_the_same_at_any_batch_size_and_order(batch, seed):
  order = np.random.default_rng(seed).permutation(N)
  parts = [order[i:i + batch] for i in range(0, N, batch)]
  fill = (-N) % batch  # the last batch is filled up with rows that must not count
  halves = _scored(parts[:-1]), _scored(parts[-1:], fill)
  _close(halves[0].merge(halves[1]).result() if parts[:-1] else halves[1].result(), whole())


def test_merging_in_either_order():
  a, b, c = (lambda r=r: _scored([np.array(r)]) for r in ([0, 1, 2], [3, 4], range(5, N)))
  _close(a().merge(b()).merge(c()).result(), whole())
  _close(c().merge(a()).merge(b()).result(), whole())
  with pytest.raises(ValueError, match='another cadence or unit'):
    a().merge(Scores(cadence_hours=1, units='TECU'))


def test_result_is_json_with_everything():
  result = json.loads(json.dumps(whole()))
  assert result['windows'] == N and result['units'] == 'TECU'
  assert result['lead_hours'] == [12, 24, 36, 48, 60]
  assert list(result['strata']) == ['all', 'quiet', 'storm']
  net = result['forecasts']['net']['all']
  assert len(net['by_lead']['rmse']) == T and len(net['by_day']['cos_rmse']) == 3
  error = np.where(VALID, NET.astype(float) - TRUTH, 0)[:, :, :8]
  count = VALID[:, :, :8].sum((0, 2, 3, 4))
  np.testing.assert_allclose(
      net['by_lead']['rmse'], np.sqrt((error**2).sum((0, 2, 3, 4)) / count), rtol=1e-5)
  day = np.sqrt((error[:, 2:4]**2).sum() / count[2:4].sum())
  assert net['by_day']['rmse'][1] == pytest.approx(day, rel=1e-5)
  base = result['forecasts']['persistence']['all']
  assert net['gain'] == pytest.approx(100 * (1 - net['rmse'] / base['rmse']))
  assert base['gain'] == 0 and net['gain'] > 50
  assert net['by_day']['gain'][2] == pytest.approx(
      100 * (1 - net['by_day']['rmse'][2] / base['by_day']['rmse'][2]))


def test_strata_share_out_the_frames():
  strata = whole()['strata']
  assert strata['quiet']['frames'] + strata['storm']['frames'] == strata['all']['frames'] == N * T
  storm = KP >= 50
  error = np.where(VALID, NET.astype(float) - TRUTH, 0)[:, :, :8]
  expected = np.sqrt((error**2).sum((2, 3, 4))[storm].sum() / VALID[:, :, :8][storm].sum())
  assert whole()['forecasts']['net']['storm']['rmse'] == pytest.approx(expected, rel=1e-5)


def test_an_empty_stratum_has_no_score():
  scores = Scores()
  scores.update({'net': {'sse': np.ones((2, 1)), 'weight': np.ones((2, 1)), 'sae': np.ones((2, 1)),
                         'se': np.ones((2, 1)), 'ssim': np.array([[np.nan], [0.5]])}},
                strata={'storm': np.zeros(2)})
  result = scores.result()['forecasts']['net']
  assert result['storm']['rmse'] is None and result['storm']['ssim'] is None
  assert result['all']['ssim'] == 0.5  # the frame without a valid pixel is left out


def test_errors():
  with pytest.raises(ValueError, match='no window was scored'):
    Scores().result()
  with pytest.raises(ValueError, match='mask has shape'):
    Scores().update({'net': {'ssim': np.zeros((2, 3))}}, np.ones(3))
  with pytest.raises(ValueError, match='stratum'):
    Scores().update({'net': {'ssim': np.zeros((2, 3))}}, strata={'x': np.ones((2, 4))})
  with pytest.raises(ValueError, match='net/psnr has shape'):
    Scores().update({'net': {'ssim': np.zeros((2, 3)), 'psnr': np.zeros((2, 2))}})


def test_frames_without_a_clock():
  scores = Scores(cadence_hours=0)
  scores.update({'net': {'ssim': np.ones((2, 3))}})
  result = scores.result()
  assert result['leads'] == 3 and result['frames_per_day'] == 1
  with pytest.raises(ValueError, match='4 leads cannot be added to 3'):
    scores.update({'net': {'ssim': np.ones((2, 4))}})
