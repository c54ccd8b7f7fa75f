"""Scores of a threshold (does it rain?): four counts per example and lead, and ratios of counts.

Counts add up over frames, batches and hosts; the ratios are taken last. `scores(counts(...))` of
one frame is the score of that frame, of summed counts that of the whole set. (Ratios do not change
when all counts are divided by the number of frames, so means of counts serve as well.)
Definitions: Wilks 2011, Statistical Methods in the Atmospheric Sciences, ch. 8.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from stp_jax.typing import Array

COUNTS = ('hits', 'misses', 'false_alarms', 'correct_negatives')
SCORES = ('pod', 'far', 'csi', 'bias', 'hss')
_AXES = (-3, -2, -1)


def counts(
    prediction: Array, truth: Array, valid: Array | None = None, *, low: float,
    high: float = float('inf'),
) -> dict[str, Array]:
  """Counts of a frame's pixels and channels, by whether the event low <= value <= high is there.

  Args:
    prediction, truth: `[B, T, H, W, C]` in the unit of the thresholds (dBZ, mm/h, ...); NaN is no
      event.
    valid: bool, broadcastable to them: False leaves a pixel out of every count.

  Returns:
    float32 `[B, T]` each, by the names of COUNTS; exact below 2 ** 24 pixels.
  """
  event = lambda x: (x >= low) & (x <= high)
  predicted, observed = event(prediction), event(truth)
  tables = dict(
      hits=predicted & observed, misses=~predicted & observed,
      false_alarms=predicted & ~observed, correct_negatives=~predicted & ~observed)
  if valid is not None:
    tables = {k: v & valid for k, v in tables.items()}
  return {k: jnp.sum(v, _AXES, dtype=jnp.float32) for k, v in tables.items()}


def scores(counted: Mapping[str, Array]) -> dict[str, np.ndarray]:
  """Ratios of counts, of any shape; float64.

    pod   hits / observed events: probability of detection, 1 is best
    far   false alarms / predicted events: false alarm ratio, 0 is best
    csi   hits / (observed or predicted events): critical success index, 1 is best
    bias  predicted / observed events: 1 is unbiased
    hss   Heidke skill: share of right pixels beyond chance, 1 is best, 0 is chance

  A score whose denominator is zero (nothing observed, nothing predicted) is NaN: it says nothing,
  and averages leave it out.
  """
  a, c, b, d = (np.asarray(counted[k], np.float64) for k in COUNTS)

  def ratio(top, bottom):
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom != 0)

  return dict(
      pod=ratio(a, a + c), far=ratio(b, a + b), csi=ratio(a, a + b + c),
      bias=ratio(a + b, a + c),
      hss=ratio(2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d)))


def merge(parts: list[Mapping[str, Array]]) -> dict[str, np.ndarray]:
  """Counts `[B, T]` of several batches as their sums per lead `[T]`, float64."""
  return {k: sum(np.asarray(part[k], np.float64).sum(0) for part in parts) for k in COUNTS}


def upstream(counted: Mapping[str, Array]) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Scores as GS2PM's tables have them: of every frame apart, with fillers for what is undefined.

  Args:
    counted: `[B, T]` each.

  Returns:
    Scores `[B, T]`: a frame without an observed event has 0 everywhere; the false alarm ratio of
    a frame without a predicted event is 1. And which frames have no event, 1.0 or 0.0 `[B, T]`.
  """
  found = scores(counted)
  found['far'] = np.where(
      np.asarray(counted['hits']) + np.asarray(counted['false_alarms']) == 0, 1, found['far'])
  empty = np.asarray(counted['hits']) + np.asarray(counted['misses']) == 0
  return {k: np.where(empty, 0, v) for k, v in found.items()}, empty.astype(np.float64)


def upstream_by_lead(score: np.ndarray, empty: np.ndarray) -> np.ndarray:
  """A score `[B, T]` of `upstream` by lead `[T]`, as its tables average it.

  Sums over examples are divided by the mean number of frames with an event per lead: the mean of a
  lead only where all leads have equally many. NaN where no frame has one.
  """
  leads, counted = score.shape[1], (1 - empty).sum()
  return leads * score.sum(0) / counted if counted else np.full(leads, np.nan)
