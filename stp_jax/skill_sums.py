"""What `skill` adds up over windows: sums by group and day, and an ensemble's CRPS and spread."""

import jax
import numpy as np

from stp_jax import ensemble
from stp_jax.metrics import skill

_BINS = (0.25, 0.5, 1, 2, 4, 8)  # TECU: borders of the ensemble's spread


class Groups:
  """Adds the sums of a batch to all groups that its frames belong to."""

  def __init__(self, table: skill.Table, spec):
    self._table, self._cadence = table, spec.cadence_hours
    height, self._width = spec.shape[:2]
    self._longitude, self._weights = spec.grid.get('longitude'), spec.row_weights
    self._bands = skill.band_matrix(spec.grid.get('latitude', np.zeros(height)), height)
    self._sums = jax.jit(skill.sums)

  def begin(self, truth, times: np.ndarray, frames: dict[str, np.ndarray]) -> None:
    """A batch: truth `[B, T, H, W]`, its times `[B, T]`, `{group: [B, T] bool}`."""
    self._truth, self._frames = truth, frames
    self._days = times.astype('datetime64[D]').astype(int)
    self._slots = skill.time_matrix(times, self._longitude, self._width)

  def add(self, name: str, prediction, valid: np.ndarray, by_lead: bool = True) -> None:
    """Adds a forecast `[B, T, H, W]` over the pixels `valid`."""
    values = np.asarray(self._sums(
        prediction, self._truth, valid, self._weights, self._bands, self._slots), np.float64)
    whole, size = values.sum((2, 3)), max(1, round(24 / self._cadence))
    for b, t in np.argwhere(whole[..., 0] > 0).tolist():
      day = int(self._days[b, t])
      groups = ['all', f'day {t // size + 1}', *(g for g, v in self._frames.items() if v[b, t])]
      if by_lead:
        groups.append(f'lead {(t + 1) * self._cadence:g} h')
      for group in groups:
        self._table.add(name, group, day, whole[b, t])
      for k, band in enumerate(skill.BANDS):
        self._table.add(name, band, day, values[b, t, k].sum(0))
      for k, slot in enumerate(skill.TIMES):
        self._table.add(name, slot, day, values[b, t, :, k].sum(0))


class Together:
  """CRPS, spread and error of an ensemble, by lead and by spread."""

  def __init__(self, t_out: int):
    self.partial: set[str] = set()
    self.by_lead = np.zeros((t_out, 5))  # weight, crps, variance, squared error, crps of the mean
    self.by_spread = np.zeros((len(_BINS) + 1, 3))  # pixels, variance, squared error
    self.members = 0

  def add(self, stack: np.ndarray, truth: np.ndarray, valid: np.ndarray, weights: np.ndarray):
    self.members = len(stack)
    there = valid & np.isfinite(truth) & (weights > 0)[:, None]
    weight = there * weights[:, None].astype(np.float64)
    known = np.where(there, truth, 0)
    crps = ensemble.crps(stack.astype(np.float64), known)
    variance, error = stack.var(0, ddof=1), (stack.mean(0) - known)**2
    for i, values in enumerate((np.ones_like(crps), crps, variance, error, error**0.5)):
      self.by_lead[:, i] += (weight * values).sum((0, 2, 3))
    which = np.digitize(np.sqrt(variance[there]), _BINS)
    for k, values in enumerate((np.ones(len(which)), variance[there], error[there])):
      self.by_spread[:, k] += np.bincount(which, values, len(_BINS) + 1)

  def result(self, cadence: float) -> dict | None:
    if not self.members:
      return None
    weight, crps, variance, error, absolute = self.by_lead.T
    # A perfect ensemble of M members has (M + 1) / M times its variance as squared error.
    spread = np.sqrt(variance / weight * (self.members + 1) / self.members)
    rmse = np.sqrt(error / weight)
    pixels = self.by_spread[:, 0]
    bins = [dict(spread=float(np.sqrt(v / n)), rmse=float(np.sqrt(e / n)), pixels=int(n))
            for n, v, e in self.by_spread if n]
    return dict(
        members=self.members, crps=float(crps.sum() / weight.sum()),
        mean_absolute_error=float(absolute.sum() / weight.sum()),
        spread=float(np.sqrt((spread**2 * weight).sum() / weight.sum())),
        rmse=float(np.sqrt(error.sum() / weight.sum())),
        lead_hours=[(i + 1) * cadence for i in range(len(weight))],
        crps_by_lead=(crps / weight).tolist(), spread_by_lead=spread.tolist(),
        rmse_by_lead=rmse.tolist(), by_spread=bins if pixels.any() else [])
