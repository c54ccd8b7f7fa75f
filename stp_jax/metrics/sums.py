"""Sums of arrays per forecast and lead over a split, on the host in float64."""

from collections.abc import Mapping

import numpy as np


class Sums:
  """Adds `{forecast: {statistic: [B, T, ...]}}` over batches and hosts.

  Attributes:
    totals: `{forecast: {statistic: float64 [T, ...]}}`.
  """

  def __init__(self):
    self.totals: dict[str, dict[str, np.ndarray]] = {}

  def update(self, per_forecast: Mapping[str, Mapping[str, np.ndarray]],
             mask: np.ndarray | None = None) -> None:
    """Adds a batch; rows with mask 0 only fill it.

    Raises:
      ValueError: a mask of another length, or a statistic of another shape than before.
    """
    for forecast, statistics in per_forecast.items():
      for name, value in statistics.items():
        value = np.asarray(value, np.float64)
        if mask is not None:
          if np.shape(mask) != value.shape[:1]:
            raise ValueError(f'{forecast}/{name}: {len(value)} rows, a mask of {np.shape(mask)}')
          value = value[np.asarray(mask) > 0]  # a filling row may hold NaN
        self._add(forecast, name, value.sum(0))

  def _add(self, forecast: str, name: str, value: np.ndarray) -> None:
    kept = self.totals.setdefault(forecast, {})
    if name in kept and kept[name].shape != value.shape:
      raise ValueError(f'{forecast}/{name}: {value.shape} cannot be added to {kept[name].shape}')
    kept[name] = kept[name] + value if name in kept else value

  def merge(self, other: 'Sums') -> 'Sums':
    """Adds another host's sums to these; returns self."""
    for forecast, statistics in other.totals.items():
      for name, value in statistics.items():
        self._add(forecast, name, value)
    return self
