"""Splits by time: shares, named date ranges, and what is refused."""

import numpy as np
import pytest

from stp_jax.data import splits

DAYS = np.datetime64('2012-11-01') + np.arange(100)


def _counts(labels):
  return {str(k): int(v) for k, v in zip(*np.unique(labels, return_counts=True))}


def test_default_is_80_10_10_in_order_of_time():
  labels = splits.assign(DAYS)
  assert _counts(labels) == {'train': 80, 'validation': 10, 'test': 10}
  assert (labels[:80] == 'train').all() and (labels[90:] == 'test').all()


def test_shares_and_one_name():
  assert _counts(splits.assign(DAYS, 'time:0.5,0.5')) == {'train': 50, 'validation': 50}
  assert _counts(splits.assign(DAYS, 'time:0.5+0.25+0.25'))['test'] == 25
  assert _counts(splits.assign(DAYS, 'test')) == {'test': 100}


def test_ranges_include_both_ends_whole():
  hours = np.datetime64('2012-11-19T00') + np.arange(72).astype('m8[h]')
  labels = splits.assign(hours, None, dict(test='2012-11-20..2012-11-20'))
  assert (labels[24:48] == 'test').all() and _counts(labels) == {'test': 24, 'train': 48}


def test_named_ranges_and_the_rest():
  named = dict(test_low='2012-12', test_high='2013-01-01..2013-01-10,2013-02-08', test=None)
  labels = splits.assign(DAYS, None, named)
  assert _counts(labels) == {'test_low': 31, 'test_high': 11, 'train': 58}
  labels = splits.assign(DAYS, 'time:0.9,0.1', named)
  assert _counts(labels)['validation'] == 6


@pytest.mark.parametrize('split, named, message', [
    ('time:0.8,0.1', {}, 'sum to 1'), ('time:a', {}, 'sum to 1'), ('Time', {}, '--split Time'),
    (None, dict(test='2012-11-20..'), "--test: '2012-11-20..' is no date"),
    (None, dict(test='2012-13-01'), 'is no date'),
    (None, dict(test='2012-11-20..2012-11-10'), 'ends before it begins'),
    (None, dict(test_low='2015'), r'--test-low 2015: no frame lies in it; the data go from 2012'),
    (None, dict(test='2012-12', validation='2012-12-31'), 'overlaps')])
def test_bad_options(split, named, message):
  with pytest.raises(ValueError, match=message):
    splits.assign(DAYS, split, named)
