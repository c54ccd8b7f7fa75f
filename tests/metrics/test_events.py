"""Events in neighbourhoods: by hand, by plain loops, and by other people's libraries."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies
from scipy import ndimage

from stp_jax.metrics import events
from stp_jax.metrics.sums import Sums

DEFAULTS = dict(thresholds=(), scales=(1, 4, 16), full_scale=0.0, full_scale_units='',
                full_scale_thresholds=())


# One compilation a shape instead of one an operation.
_per_example = functools.partial(jax.jit, static_argnums=3)(events.per_example)


def _fields(seed, shape=(3, 2, 11, 14, 1), holes=0.2):
  rng = np.random.default_rng(seed)
  prediction, truth = (ndimage.gaussian_filter(rng.normal(size=shape), (0, 0, 1, 1, 0)) * 40
                       for _ in range(2))
  return prediction.astype(np.float32), truth.astype(np.float32), rng.random(shape) >= holes


def _result(prediction, truth, valid, chosen, order=None, size=None):
  sums = Sums()
  rows = np.arange(len(truth)) if order is None else np.asarray(order)
  for start in range(0, len(rows), size or len(rows)):
    part = rows[start:start + (size or len(rows))]
    filled = np.resize(part, size or len(part))  # the last batch is padded by repeats
    sums.update({'net': _per_example(
        prediction[filled], truth[filled], valid[filled], chosen)},
        np.arange(len(filled)) < len(part))
  return events.result(sums, chosen)


def _by_loops(prediction, truth, valid, low, side):
  """Counts `[4]` and fraction sums `[2]` of all frames, pixel by pixel."""
  counts, fractions = np.zeros(4), np.zeros(2)
  height, width = truth.shape[2:4]
  for b, t, c in np.ndindex(*truth.shape[:2], truth.shape[4]):
    f, o, v = (x[b, t, ..., c] for x in (prediction, truth, valid))
    for i in range(0, height, side):
      for j in range(0, width, side):
        block = np.s_[i:i + side, j:j + side]
        if not v[block].any():
          continue
        hit = f[block][v[block]].max() >= low, o[block][v[block]].max() >= low
        counts[{(True, True): 0, (False, True): 1, (True, False): 2, (False, False): 3}[hit]] += 1
    share = [ndimage.uniform_filter(((x >= low) & v).astype(float), side, mode='constant')
             for x in (f, o)]
    fractions += ((share[0] - share[1]) ** 2).sum(), (share[0] ** 2 + share[1] ** 2).sum()
  return counts, fractions


@settings(max_examples=8, deadline=None)
@given(seed=strategies.integers(0, 10 ** 6), holes=strategies.floats(0, 1))
def test_counts_and_shares_are_those_of_plain_loops(seed, holes):
  fields = _fields(seed, holes=holes)
  chosen = events.Settings((-5.0, 4.0), (1, 3, 4), 'dBZ')
  found = {k: np.asarray(v).sum((0, 1)) for k, v in _per_example(*fields, chosen).items()}
  for (i, side), (k, low) in itertools.product(
      enumerate(chosen.scales), enumerate(chosen.thresholds)):
    counts, fractions = _by_loops(*fields, low, side)
    np.testing.assert_array_equal(found['counts'][i, k], counts)
    np.testing.assert_allclose(found['fractions'][i, k], fractions, rtol=2e-4, atol=1e-4)


def test_scores_do_not_depend_on_batches_or_their_order():
  fields = _fields(1, (5, 3, 9, 9, 1))
  chosen = events.Settings((-5.0, 4.0, 1e6), (1, 4), 'dBZ')
  whole = _result(*fields, chosen)
  split = _result(*fields, chosen, order=[3, 0, 4, 1, 2], size=2)
  for key in events.SCORES:
    one, other = (r['forecasts']['net'][key] for r in (whole, split))
    assert one[0][2] is other[0][2] is None  # no such event anywhere says nothing
    np.testing.assert_allclose(
        np.array(one, float)[:, :2], np.array(other, float)[:, :2], rtol=1e-6)
  lead = whole['forecasts']['net']['by_lead']['csi']
  assert np.shape(lead) == (3, 2, 3) and lead[0] != lead[1]
  assert whole['forecasts']['net']['mean']['csi'][0] == pytest.approx(
      np.mean(whole['forecasts']['net']['csi'][0][:2]))


def test_counts_are_added_before_the_ratio():
  """A frame with one event pixel weighs as one pixel, not as a frame."""
  truth = np.zeros((2, 1, 4, 4, 1), np.float32)
  truth[0, 0, 0, 0], truth[1] = 20, 20
  prediction = np.where(truth > 0, 20, 0).astype(np.float32)
  prediction[0, 0, 0, 0] = 0
  found = _result(prediction, truth, np.ones(truth.shape, bool),
                  events.Settings((10.0,), (1,), 'dBZ'))
  assert found['forecasts']['net']['csi'][0][0] == pytest.approx(16 / 17)
  assert found['observed'] == [pytest.approx(17 / 32)]


def test_a_neighbour_is_no_miss_in_a_neighbourhood():
  truth = np.zeros((1, 1, 8, 8, 1), np.float32)
  prediction = truth.copy()
  truth[0, 0, 1, 1], prediction[0, 0, 2, 2] = 20, 20
  net = _result(prediction, truth, np.ones(truth.shape, bool),
                events.Settings((10.0,), (1, 4), 'dBZ'))['forecasts']['net']
  assert (net['csi'][0][0], net['csi'][1][0]) == (0, 1)
  assert net['fss'][0][0] == 0 and net['fss'][1][0] > 0.5


def test_what_is_missing_counts_nowhere():
  prediction, truth, valid = _fields(2)
  chosen = events.Settings((-5.0, 4.0), (1, 4), 'dBZ')
  changed = [np.where(valid, x, bad) for x, bad in ((prediction, 99.0), (truth, np.nan))]
  one, other = (_per_example(*f, valid, chosen) for f in ((prediction, truth), changed))
  for key in one:
    np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize('units, hours, options, expected', [
    ('dBZ', 0.1, {}, ((10, 20, 30, 40, 50), 'dBZ', 1.0)),
    ('mm', 1 / 12, {}, ((0.5, 2, 5, 10, 30), 'mm/h', 12.0)),
    ('mm h-1', 0.25, dict(thresholds=(1, 3)), ((1, 3), 'mm/h', 1.0)),
    ('of full scale', 1.0, dict(full_scale=70.0, full_scale_units='dBZ'),
     ((10, 20, 30, 40, 50), 'dBZ', 70.0)),
    ('of full scale', 1.0, dict(full_scale=255.0, full_scale_units='x',
                                full_scale_thresholds=(16, 74)), ((16, 74), 'x', 255.0))])
def test_thresholds_by_unit(units, hours, options, expected):
  found = events.settings(DEFAULTS | options, units, hours)
  assert (found.thresholds, found.units) == expected[:2]
  assert found.factor == pytest.approx(expected[2])


@pytest.mark.parametrize('options, message', [
    ({}, "give some for frames in 'K'"), (dict(thresholds=(2, 1)), 'numbers that rise'),
    (dict(thresholds=(1,), scales=(0,)), 'at least 1 pixel')])
def test_bad_settings_are_one_line(options, message):
  with pytest.raises(ValueError, match=message):
    events.settings(DEFAULTS | options, 'K', 1.0)


def test_a_code_reaches_the_threshold_that_it_stands_for():
  """30 steps of 0.01 in float32 are a last digit less than 0.3."""
  value = np.full((1, 1, 2, 2, 1), 30, np.uint16).astype(np.float32) * np.float32(0.01)
  found = events.per_example(value, value, None, events.Settings((0.3,), (1,), 'mm/h'))
  assert found['counts'][0, 0, 0, 0].tolist() == [4, 0, 0, 0]


def test_scores_of_another_library():
  """The package `scores` (Apache-2.0): contingency tables, and FSS over windows inside."""
  other = pytest.importorskip('scores')
  spatial = pytest.importorskip('scores.spatial')
  xarray = pytest.importorskip('xarray')
  prediction, truth, _ = _fields(3, (2, 1, 16, 16, 1), 0)
  net = _result(prediction, truth, np.ones(truth.shape, bool),
                events.Settings((4.0,), (1,), 'dBZ'))['forecasts']['net']
  flat = lambda x: xarray.DataArray(x[:, 0, :, :, 0], dims=('n', 'y', 'x'))
  table = other.categorical.ThresholdEventOperator(
      default_event_threshold=4.0).make_contingency_manager(flat(prediction), flat(truth))
  for key, name in dict(csi='critical_success_index', pod='probability_of_detection',
                        far='false_alarm_ratio', bias='frequency_bias',
                        hss='heidke_skill_score').items():
    assert net[key][0][0] == pytest.approx(float(getattr(table, name)()), rel=1e-5), key
  # Around pixels whose windows lie inside, shares are the same whatever is outside.
  side, inner = 5, np.s_[..., 2:-2, 2:-2, :]
  share = [np.asarray(events.window_sum((x >= 4).astype(np.float32), side))[inner] / side ** 2
           for x in (prediction, truth)]
  fss = 1 - ((share[0] - share[1]) ** 2).sum() / (share[0] ** 2 + share[1] ** 2).sum()
  theirs = spatial.fss_2d(
      flat(prediction), flat(truth), event_threshold=4.0, window_size=(side, side),
      spatial_dims=('y', 'x'))
  assert fss == pytest.approx(float(theirs), rel=1e-4)


def test_fss_of_pysteps():
  verification = pytest.importorskip('pysteps.verification.spatialscores')
  prediction, truth, _ = _fields(4, (1, 1, 20, 20, 1), 0)
  net = _result(prediction, truth, np.ones(truth.shape, bool),
                events.Settings((4.0,), (1, 4, 9), 'dBZ'))['forecasts']['net']
  for side, (found,) in zip((1, 4, 9), net['fss']):
    assert found == pytest.approx(
        verification.fss(prediction[0, 0, ..., 0], truth[0, 0, ..., 0], 4.0, side), rel=1e-4)
