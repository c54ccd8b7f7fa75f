"""Scores of rain maps: events at thresholds, in neighbourhoods, counted over a whole split.

An event is a value of at least the threshold. Counts of a neighbourhood of n x n pixels are those
of maxima over blocks that do not overlap (max-pooling of forecast and truth alike, stride n; the
blocks at the far edges may be smaller), as the SEVIR and DGMR lines of work report CSI-4, CSI-16:
a shower that is a pixel off is then no miss and false alarm at once. The fractions skill score
compares the shares of event pixels in sliding n x n windows instead (Roberts and Lean 2008,
doi:10.1175/2007MWR2123.1). Where the truth has no value, neither field has an event and no count
changes; what lies outside the frame is treated alike.

Counts and sums are added over all frames before any ratio is taken, lead by lead, on the host in
float64: scores depend neither on the batch size nor on the order. Ratios: `metrics.nowcast`.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.metrics import nowcast
from stp_jax.metrics.sums import Sums
from stp_jax.typing import Array

SCORES = (*nowcast.SCORES, 'fss')
# mm/h: those of HKO-7 (Shi et al. 2017); dBZ: light rain to hail.
THRESHOLDS = {'mm/h': (0.5, 2.0, 5.0, 10.0, 30.0), 'dBZ': (10.0, 20.0, 30.0, 40.0, 50.0),
              # SEVIR's codes 16 74 133 160 181 219 in its own unit of vertically integrated liquid.
              'kg m-2': (0.14, 0.70, 3.5, 6.9, 12.0, 32.0)}
_SPELLINGS = {
    'mm/h': ('mm/h', 'mm/hr', 'mm h-1', 'mm hr-1', 'mm h^-1', 'mm/hour', 'kg m-2 h-1'),
    'dBZ': ('dbz', 'dbz.'), 'mm': ('mm', 'millimeter', 'millimeters', 'millimetre')}
# A code times its step in float32 may fall a last digit short of the threshold that it stands for.
_SLACK = 1e-6


@dataclasses.dataclass(frozen=True)
class Settings:
  """What counts as an event.

  Attributes:
    thresholds: in `units`, rising. scales: sides of neighbourhoods, pixels.
    factor: value in `units` = value in the store's units * factor.
  """
  thresholds: tuple[float, ...]
  scales: tuple[int, ...]
  units: str
  factor: float = 1.0


def known_units(units: str) -> str:
  """'mm/h', 'dBZ', 'mm' for any spelling of them, else ''."""
  return next((k for k, v in _SPELLINGS.items() if units.strip().lower() in v), '')


def settings(options: Mapping, units: str, cadence_hours: float) -> Settings:
  """The events of a store in these units.

  Rain that fell between two frames ('mm') is scored as its rate, mm/h.

  Args:
    options: `thresholds` (() = those of the unit), `scales`; and for frames 'of full scale' what 1
      stands for, `full_scale` in `full_scale_units`, with its own `full_scale_thresholds`.

  Raises:
    ValueError: thresholds that do not rise or are not known for the unit, scales below 1.
  """
  name, factor = known_units(units) or units, 1.0
  thresholds = tuple(options['thresholds'])
  if name == 'mm':
    name, factor = 'mm/h', 1 / cadence_hours
  elif units in ('of full scale', '1') and options['full_scale']:
    name, factor = options['full_scale_units'] or units, float(options['full_scale'])
    thresholds = thresholds or tuple(options['full_scale_thresholds'])
  thresholds = tuple(map(float, thresholds)) or THRESHOLDS.get(name, ())
  scales = tuple(map(int, options['scales']))
  if not thresholds:
    raise ValueError(
        f'task.events.thresholds: give some for frames in {name!r}; known by themselves are those '
        f'of {", ".join(THRESHOLDS)}')
  if any(b <= a for a, b in itertools.pairwise(thresholds)):
    raise ValueError(f'task.events.thresholds={thresholds}: numbers that rise')
  if not scales or min(scales) < 1:
    raise ValueError(f'task.events.scales={scales}: sides of neighbourhoods, at least 1 pixel')
  return Settings(thresholds, scales, name, factor)


def max_pool(value: Array, side: int) -> Array:
  """Maxima of side x side blocks `[..., ceil(H / side), ceil(W / side), C]`; floats."""
  height, width, channels = value.shape[-3:]
  pad = [(0, 0)] * (value.ndim - 3) + [(0, -height % side), (0, -width % side), (0, 0)]
  value = jnp.pad(value, pad, constant_values=-jnp.inf)
  shape = (*value.shape[:-3], value.shape[-3] // side, side, value.shape[-2] // side, side)
  return value.reshape(*shape, channels).max((-4, -2))


def window_sum(value: Array, side: int) -> Array:
  """Sums over side x side windows around every pixel `[..., H, W, C]`, zeros outside the frame.

  A window of even side reaches one pixel further up and left than down and right.
  """
  if side == 1:
    return value
  before, after = side // 2, (side - 1) // 2
  for axis in (value.ndim - 3, value.ndim - 2):
    pad = [(0, 0)] * value.ndim
    pad[axis] = (before + 1, after)
    total = jnp.cumsum(jnp.pad(value, pad), axis)
    size = value.shape[axis]
    value = (jax.lax.slice_in_dim(total, side, side + size, axis=axis)
             - jax.lax.slice_in_dim(total, 0, size, axis=axis))
  return value


def per_example(
    prediction: Array, truth: Array, valid: Array | None, settings: Settings,
) -> dict[str, Array]:
  """Counts and sums of every frame, for `metrics.sums.Sums`.

  Args:
    prediction, truth: `[B, T, H, W, C]` in the store's units. valid: bool, broadcastable; None:
      every finite pixel of the truth.

  Returns:
    float32: `counts` `[B, T, S, K, 4]` in the order of `nowcast.COUNTS`, S scales, K thresholds;
    `fractions` `[B, T, S, K, 2]`, the sums over windows of (forecast share - observed share)² and
    of forecast share² + observed share².
  """
  there = jnp.isfinite(truth) if valid is None else jnp.isfinite(truth) & valid
  # NaN compares as no event; minus infinity also pools as none.
  hidden = lambda x: jnp.where(there & ~jnp.isnan(x), x, -jnp.inf)
  fields = [hidden(prediction), hidden(truth)]
  # One compiled body for all thresholds: this would else be the longest compilation of a run.
  lows = jnp.asarray(settings.thresholds, jnp.float32) * ((1 - _SLACK) / settings.factor)
  counts, fractions = [], []
  for side in settings.scales:
    pooled, seen = fields, there
    if side > 1:
      pooled = [max_pool(f, side) for f in fields]
      seen = max_pool(jnp.where(there, 0.0, -jnp.inf), side) == 0

    def one(low, pooled=pooled, seen=seen, side=side):
      counted = nowcast.counts(*pooled, seen, low=low)
      forecast, observed = (
          window_sum((f >= low).astype(jnp.float32), side) / side**2 for f in fields)
      sums = (jnp.square(forecast - observed), jnp.square(forecast) + jnp.square(observed))
      return (jnp.stack([counted[k] for k in nowcast.COUNTS], -1),
              jnp.stack([jnp.sum(s, (-3, -2, -1)) for s in sums], -1))

    # [K, B, T, n] -> [B, T, K, n]
    counted, shares = (jnp.moveaxis(x, 0, 2) for x in jax.lax.map(one, lows))
    counts.append(counted)
    fractions.append(shares)
  return dict(counts=jnp.stack(counts, 2), fractions=jnp.stack(fractions, 2))


def scores(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """All SCORES `[..., S, K]` of summed `counts` and `fractions`, float64; NaN says nothing."""
  counts = np.asarray(sums['counts'], np.float64)
  result = nowcast.scores({k: counts[..., i] for i, k in enumerate(nowcast.COUNTS)})
  error, worst = (np.asarray(sums['fractions'], np.float64)[..., i] for i in (0, 1))
  result['fss'] = 1 - np.divide(error, worst, out=np.full(worst.shape, np.nan), where=worst > 0)
  return result


def result(sums: Sums, settings: Settings) -> dict:
  """Everything as plain JSON; None where nothing was observed or forecast.

  Returns:
    `units`, `thresholds` [K], `scales` [S], `observed` [K] (share of the valid pixels with an
    event), `forecasts` {name: {score: [S][K], 'by_lead': {score: [T][S][K]}}}, and of every score
    and scale its mean over the thresholds where it is defined under `mean` {score: [S]}.
  """
  forecasts, observed = {}, None
  for name, found in sums.totals.items():
    whole = scores({k: v.sum(0) for k, v in found.items()})
    forecasts[name] = {k: plain(v) for k, v in whole.items()}
    forecasts[name]['by_lead'] = {k: plain(v) for k, v in scores(found).items()}
    forecasts[name]['mean'] = {k: [_mean(row) for row in v] for k, v in whole.items()}
    counts = found['counts'].sum(0)[settings.scales.index(min(settings.scales))]
    observed = plain((counts[:, 0] + counts[:, 1]) / np.maximum(counts.sum(-1), 1))
  return dict(
      units=settings.units, thresholds=list(settings.thresholds), scales=list(settings.scales),
      observed=observed, forecasts=forecasts)


def _mean(row: Sequence[float]) -> float | None:
  row = np.asarray(row, np.float64)
  return float(np.nanmean(row)) if np.isfinite(row).any() else None


def plain(values: np.ndarray) -> list:
  """Nested lists with None for NaN."""
  return np.where(np.isnan(values), None, values).tolist()
