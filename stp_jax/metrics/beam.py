"""Scores of beam prediction: distance-based accuracy (DBA) and top-k, per scenario and overall.

DBA of the DeepSense 6G challenge: with the K best guesses of a sample, the nearest of them counts;
y_k = 1 - mean min(|guess - beam| / 5, 1); DBA is the mean of y_1, y_2, y_3. 1 is best.
"""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.typing import Array

DELTA, TOP = 5.0, (1, 2, 3, 5)
RANKS = max(TOP)


def ranking(logits: Array, count: int = RANKS) -> Array:
  """The best beams, best first, int32 `[..., count]` of logits `[..., 64]`."""
  return jax.lax.top_k(logits, min(count, logits.shape[-1]))[1].astype(jnp.int32)


def dba_terms(ranked: Array, beam: Array, delta: float = DELTA) -> Array:
  """What each sample adds to y_1, y_2, ...: `[..., K]` of guesses `[..., K]` and beams `[...]`."""
  distance = jnp.abs(ranked - beam[..., None]).astype(jnp.result_type(float))
  nearest = jax.lax.cummin(jnp.minimum(distance / delta, 1), axis=distance.ndim - 1)
  return 1 - nearest


def dba(ranked: Array, beam: Array, max_k: int = 3, delta: float = DELTA) -> Array:
  """DBA per sample `[...]`; its mean over samples is the score."""
  return dba_terms(ranked[..., :max_k], beam, delta).mean(-1)


def hits(ranked: Array, beam: Array, k: int) -> Array:
  """1 where the beam is among the k best, `[...]`."""
  return (ranked[..., :k] == beam[..., None]).any(-1).astype(jnp.result_type(float))


def per_example(logits: Array, beam: Array) -> dict[str, Array]:
  """Every score of each sample, `[B]`; several steps are averaged (as if each were a sample).

  Args:
    logits: `[B, 64]` or `[B, K, 64]`. beam: int `[B]`, `[B, 1]` or `[B, K]`; -1 = unknown: NaN.

  Returns:
    dba, y1, y2, y3, top1, top2, top3, top5.
  """
  logits = logits if logits.ndim == 3 else logits[:, None]
  beam = beam.reshape(logits.shape[:2])
  ranked = ranking(logits)
  terms = dba_terms(ranked[..., :3], beam)
  scores = {'dba': terms.mean(-1), **{f'y{k + 1}': terms[..., k] for k in range(3)},
            **{f'top{k}': hits(ranked, beam, k) for k in TOP}}
  known = beam >= 0
  # A sample with some of its steps unknown counts by the others.
  count = known.sum(-1)
  return {k: jnp.where(count > 0, jnp.where(known, v, 0).sum(-1) / jnp.maximum(count, 1), jnp.nan)
          for k, v in scores.items()}


class BeamScores:
  """Sums per scenario in float64: the same at any batch size, and mergeable.

    scores = BeamScores()
    scores.update(per_example(logits, beam), scenario, mask)
    scores.result()['overall']['dba']
  """

  def __init__(self):
    self.sums: dict[tuple[int, str], np.ndarray] = {}  # (scenario, score): [sum, count]

  def update(self, scores: Mapping[str, Array], scenario: Array, mask: Array | None = None) -> None:
    """Adds a batch: `{score: [B]}`, scenario int `[B]`, mask `[B]` (0: only fills the batch)."""
    scenario = np.asarray(scenario)
    valid = np.ones(len(scenario), bool) if mask is None else np.asarray(mask) > 0
    for name, value in scores.items():
      value = np.asarray(value, np.float64)
      for number in np.unique(scenario[valid]):
        rows = valid & (scenario == number) & ~np.isnan(value)
        add = np.array([value[rows].sum(), rows.sum()])
        key = (int(number), name)
        self.sums[key] = self.sums.get(key, 0) + add

  def merge(self, other: 'BeamScores') -> 'BeamScores':
    """Adds another's sums to these. Returns self."""
    for key, value in other.sums.items():
      self.sums[key] = self.sums.get(key, 0) + value
    return self

  def result(self) -> dict:
    """`overall` (every sample weighs alike) and `scenarios` {number: ...}: {score: value, samples}.

    Raises:
      ValueError: no sample with a label was scored.
    """
    labelled = {k: v for k, v in self.sums.items() if v[1]}
    if not labelled:
      raise ValueError('no sample with a beam was scored: the split is empty or has no labels')
    numbers = sorted({number for number, _ in labelled})
    return dict(overall=_means(labelled, numbers),
                scenarios={n: _means(labelled, [n]) for n in numbers})


def _means(sums, numbers: Iterable[int]) -> dict[str, float]:
  totals: dict[str, np.ndarray] = {}
  for (number, name), value in sums.items():
    if number in numbers:
      totals[name] = totals.get(name, 0) + value
  return {k: float(v[0] / v[1]) for k, v in totals.items()} | {
      'samples': int(max(v[1] for v in totals.values()))}


def table(result: Mapping, decimals: int = 4) -> str:
  """Lines of text: a row per scenario and `all`; top-k in per cent."""
  names = ['dba', *(f'top{k}' for k in TOP)]
  lines = [f'{"scenario":<9}{"samples":>8}' + ''.join(f'{n:>9}' for n in names)]
  rows = [(str(n), v) for n, v in result['scenarios'].items()] + [('all', result['overall'])]
  for label, row in rows:
    cells = ''.join(
        f'{row[n]:>9.{decimals}f}' if n == 'dba' else f'{100 * row[n]:>8.2f}%' for n in names)
    lines.append(f'{label:<9}{row["samples"]:>8}{cells}')
  return '\n'.join(lines)
