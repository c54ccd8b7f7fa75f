"""Scores over a whole split, added up on the host in float64: the same at any batch size."""

from collections.abc import Mapping

import numpy as np

_SUMS = ('weight', 'sse', 'sae', 'se')
SUM_STATS = frozenset(_SUMS) | {f'cos_{s}' for s in _SUMS}


class Scores:
  """Sums per forecast, stratum, statistic and lead; nothing per example is kept.

  Statistics of `tec.per_example` are sums with their own weights. Any other statistic (`ssim`,
  `mse_sum`, ...) is averaged over frames; a NaN frame (no valid pixel) is left out.

    scores = Scores(cadence_hours=2, units='TECU')
    scores.update({'net': {...}, 'persistence': {...}}, mask, {'storm': storm})
    scores.result()
  """

  def __init__(self, *, cadence_hours: float = 1.0, units: str = '1', frames_per_day: int = 0):
    """`frames_per_day` 0: 24 / cadence; `cadence_hours` 0: frames without a clock, 1 a 'day'."""
    self.cadence_hours, self.units = cadence_hours, units
    day = round(24 / cadence_hours) if cadence_hours else 1
    self.frames_per_day = frames_per_day or max(1, day)
    self.sums: dict[str, np.ndarray] = {}  # 'forecast/stratum/stat': float64 [T]

  def _add(self, key: str, value: np.ndarray) -> None:
    if key in self.sums and self.sums[key].shape != value.shape:
      raise ValueError(
          f'{key}: {len(value)} leads cannot be added to {len(self.sums[key])}')
    self.sums[key] = self.sums[key] + value if key in self.sums else value

  def update(
      self, per_forecast: Mapping[str, Mapping[str, np.ndarray]], mask: np.ndarray | None = None,
      strata: Mapping[str, np.ndarray] | None = None,
  ) -> None:
    """Adds a batch.

    Args:
      per_forecast: `{forecast: {statistic: [B, T]}}`.
      mask: `[B]`, False for rows that only fill the batch; None: all count.
      strata: `{name: [B] or [B, T] bool}`; the stratum `all` is always there.

    Raises:
      ValueError: a statistic, mask or stratum of another shape, or another number of leads.
    """
    shape = np.shape(next(iter(next(iter(per_forecast.values())).values())))
    mask = np.ones(shape[0], bool) if mask is None else np.asarray(mask) > 0
    if mask.shape != shape[:1]:
      raise ValueError(f'mask has shape {mask.shape}, the statistics have {shape}')
    chosen = {}
    for name, value in {'all': np.ones(shape[0], bool), **(strata or {})}.items():
      value = np.asarray(value, bool)
      value = value[:, None] if value.ndim == 1 else value
      if value.shape not in (shape, (shape[0], 1)):
        raise ValueError(f'stratum {name!r} has shape {value.shape}, the statistics have {shape}')
      chosen[name] = np.broadcast_to(value & mask[:, None], shape)
      self._add(f'/{name}/frames', chosen[name].sum(0, dtype=np.float64))
      self._add(f'/{name}/windows', chosen[name].any(1).sum(keepdims=True, dtype=np.float64))
    for forecast, statistics in per_forecast.items():
      for stat, value in statistics.items():
        value = np.asarray(value, np.float64)
        if value.shape != shape:
          raise ValueError(f'{forecast}/{stat} has shape {value.shape}, not {shape}')
        for name, rows in chosen.items():
          # `where`: a filling row may hold NaN or infinity.
          if stat not in SUM_STATS:
            rows = rows & ~np.isnan(value)
            self._add(f'{forecast}/{name}/count:{stat}', rows.sum(0, dtype=np.float64))
          self._add(f'{forecast}/{name}/{stat}', np.where(rows, value, 0).sum(0))

  def merge(self, other: 'Scores') -> 'Scores':
    """Adds another host's (or shard's) sums to these; the order does not matter. Returns self."""
    if (self.cadence_hours, self.units) != (other.cadence_hours, other.units):
      raise ValueError('scores of another cadence or unit cannot be added')
    for key, value in other.sums.items():
      self._add(key, value)
    return self

  def _group(self, prefix: str, leads: slice) -> dict[str, float | None]:
    """All scores of one forecast and stratum over these leads; None where nothing counted."""
    stat = lambda name: self.sums[f'{prefix}/{name}'][leads].sum()
    names = [k[len(prefix) + 1:] for k in self.sums if k.startswith(prefix + '/')]
    scores = {}
    for kind in ('', 'cos_'):
      if f'{kind}weight' in names:
        weight = stat(f'{kind}weight')
        for key, value in (('rmse', 'sse'), ('mae', 'sae'), ('bias', 'se')):
          mean = stat(kind + value) / weight if weight else None
          scores[kind + key] = mean**0.5 if weight and key == 'rmse' else mean
    for name in names:
      if f'count:{name}' in names:
        count = stat(f'count:{name}')
        scores[name] = stat(name) / count if count else None
    return {k: None if v is None else float(v) for k, v in scores.items()}

  def result(self, reference: str = 'persistence') -> dict:
    """Everything as plain JSON.

    Returns:
      `units`, `cadence_hours`, `frames_per_day`, `leads` (T), `lead_hours` [T], `windows` (of all),
      `strata` {name: {windows, frames}}, `forecasts` {forecast: {stratum: scores}}. `scores`:
      `rmse`, `mae`, `bias` and `cos_rmse`, `cos_mae`, `cos_bias` in `units`, the means of every
      other statistic, `gain` and `cos_gain` (% lower RMSE than `reference`; absent without it),
      `by_lead` and `by_day`: the same keys with a list each.

    Raises:
      ValueError: nothing was added.
    """
    if not self.sums:
      raise ValueError('no window was scored: the split is empty or shorter than one window')
    leads = len(self.sums['/all/frames'])
    days = [slice(i, i + self.frames_per_day) for i in range(0, leads, self.frames_per_day)]
    strata = [k.split('/')[1] for k in self.sums if k.startswith('/') and k.endswith('/frames')]
    forecasts = dict.fromkeys(k.split('/')[0] for k in self.sums if not k.startswith('/'))
    result = {}
    for forecast in forecasts:
      result[forecast] = {}
      for name in strata:
        prefix = f'{forecast}/{name}'
        scores = self._group(prefix, slice(None))
        for key, parts in (
            ('by_lead', [slice(i, i + 1) for i in range(leads)]), ('by_day', days)):
          groups = [self._group(prefix, part) for part in parts]
          scores[key] = {k: [g[k] for g in groups] for k in groups[0]}
        result[forecast][name] = scores
    for forecast in result if reference in result else ():
      for name in strata:
        _add_gain(result[forecast][name], result[reference][name])
    return dict(
        units=self.units, cadence_hours=self.cadence_hours, frames_per_day=self.frames_per_day,
        lead_hours=[float((i + 1) * self.cadence_hours) for i in range(leads)], leads=leads,
        windows=int(self.sums['/all/windows'][0]), reference=reference,
        strata={name: dict(
            windows=int(self.sums[f'/{name}/windows'][0]),
            frames=int(self.sums[f'/{name}/frames'].sum())) for name in strata},
        forecasts=result)


def _percent(value: float | None, reference: float | None) -> float | None:
  return 100 * (1 - value / reference) if reference and value is not None else None


def _add_gain(scores: dict, reference: dict) -> None:
  for kind in ('', 'cos_'):
    if f'{kind}rmse' in scores:
      scores[f'{kind}gain'] = _percent(scores[f'{kind}rmse'], reference[f'{kind}rmse'])
      for part in ('by_lead', 'by_day'):
        scores[part][f'{kind}gain'] = [
            _percent(*pair) for pair in zip(
                scores[part][f'{kind}rmse'], reference[part][f'{kind}rmse'])]
