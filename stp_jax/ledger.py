"""The ledger of the forecaster's desk: what was forecast, and how it came out, day by day.

`ledger.csv` has a row per forecast and lead day: root mean square error, mean absolute error and
bias in TECU, of the net, of persistence (the last day seen, or the last map where less than a day
is read) and of CODE's own forecasts (C1PG for the first day, C2PG for the second), plain and
weighted with the cosine of the latitude, over the same maps. Empty: not there (yet). Rows are keyed
by issue time and lead day: a second run changes nothing, a better truth (final maps in place of
rapid ones) replaces the row.
"""

import csv
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from stp_jax import files

FORECASTS = ('net', 'persistence', 'c1pg', 'c2pg')
_SCORES = ('rmse', 'mae', 'bias', 'cos_rmse', 'cos_mae', 'cos_bias')
FIELDS = ('issue_time', 'lead_day', 'valid_from', 'valid_to', 'maps', 'truth',
          *(f'{f}_{s}' for f in FORECASTS for s in _SCORES))


def score(forecast: np.ndarray, truth: np.ndarray, latitude: np.ndarray | None
          ) -> dict[str, float]:
  """Errors of maps `[T, H, W]` where both are known, in their units; {} where nothing is.

  Args:
    latitude: degrees `[H]`, or None: weights of one.
  """
  there = np.isfinite(forecast) & np.isfinite(truth)
  if not there.any():
    return {}
  error = np.where(there, forecast - truth, 0).astype(np.float64)
  cosine = np.ones(truth.shape[1]) if latitude is None else np.cos(np.radians(latitude))
  result = {}
  for kind, weight in (('', there.astype(float)), ('cos_', there * cosine[:, None])):
    total = weight.sum()
    result |= {f'{kind}rmse': float(((weight * error**2).sum() / total) ** 0.5),
               f'{kind}mae': float((weight * abs(error)).sum() / total),
               f'{kind}bias': float((weight * error).sum() / total)}
  return result


def row(issue_time: str, lead_day: int, times: np.ndarray, truth_name: str,
        scores: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
  """A line of the ledger; `scores` as of `score`, by name of FORECASTS."""
  made = dict.fromkeys(FIELDS, '') | dict(
      issue_time=issue_time, lead_day=str(lead_day), valid_from=str(times[0]),
      valid_to=str(times[-1]), maps=str(len(times)), truth=truth_name)
  for forecast, each in scores.items():
    made |= {f'{forecast}_{k}': f'{v:.4f}' for k, v in each.items()}
  return made


def read(path: pathlib.Path) -> list[dict[str, str]]:
  """The rows; [] where there is no ledger yet.

  Raises:
    ValueError: a file with other columns; it is left alone.
  """
  if not path.exists():
    return []
  with path.open(newline='') as file:
    reader = csv.DictReader(file)
    if tuple(reader.fieldnames or ()) != FIELDS:
      raise ValueError(f'{path}: the columns are not those of a ledger; move it away')
    return list(reader)


def update(path: pathlib.Path, rows: Iterable[Mapping[str, str]]) -> tuple[int, int]:
  """Adds rows or replaces those of the same key (temp + rename), in order of time.

  A score that the new row lacks (CODE's forecast, no longer in the archive) keeps the old value.

  Returns:
    How many rows are new, and how many there are.
  """
  key = lambda r: (r['issue_time'], int(r['lead_day']))
  kept = {key(r): r for r in read(path)}
  before = len(kept)
  for new in rows:
    old = kept.get(key(new), {})
    kept[key(new)] = {f: new[f] or old.get(f, '') for f in FIELDS}
  with files.whole(path) as partial, partial.open('w', newline='') as file:
    writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(kept[k] for k in sorted(kept))
  return len(kept) - before, len(kept)


def draw(path: pathlib.Path, rows: list[Mapping[str, str]], title: str) -> pathlib.Path:
  """Cosine-weighted RMSE against the day forecast, a panel per lead day; needs matplotlib."""
  from stp_jax.report import style
  leads = sorted({int(r['lead_day']) for r in rows})[:4]
  figure = style.figure(7.2, 1.2 + 2.0 * len(leads))
  panels = figure.subplots(len(leads), 1, sharex=True, squeeze=False)[:, 0]
  looks = dict(net=style.LINES['net'], persistence=style.LINES['persistence'],
               c1pg=dict(color='#0072B2'), c2pg=dict(color='#56B4E9'))
  labels = dict(net='net', persistence='persistence', c1pg='CODE C1PG', c2pg='CODE C2PG')
  times = np.array([r['valid_from'] for r in rows], 'datetime64[m]')
  margin = max(np.timedelta64(1, 'D'), np.ptp(times) // 20)  # the first night is one point
  panels[0].set_xlim(times.min() - margin, times.max() + margin)
  for axes, lead in zip(panels, leads):
    mine = [r for r in rows if int(r['lead_day']) == lead]
    x = np.array([r['valid_from'] for r in mine], 'datetime64[m]')
    highest = 0.0
    for name in FORECASTS:
      y = np.array([float(r[f'{name}_cos_rmse'] or 'nan') for r in mine])
      if np.isfinite(y).any():
        axes.plot(x, y, marker='o', markersize=4, label=f'{labels[name]}: {np.nanmean(y):.2f}',
                  **looks[name])
        highest = max(highest, float(np.nanmax(y)))
    axes.set_ylim(0, 1.1 * highest or 1)
    axes.set_ylabel('RMSE [TECU]', fontsize=9)
    axes.set_title(f'day {lead} after issue: {len(mine)} forecasts (legend: means)', fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc='lower left', ncols=4)
    style.tidy(axes)
  panels[-1].tick_params(axis='x', labelrotation=30, labelsize=8)
  figure.suptitle(f'{title}: cosine-of-latitude RMSE by day', fontsize=11)
  figure.savefig(path)
  return path
