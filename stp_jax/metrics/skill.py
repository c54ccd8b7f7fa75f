"""Is one forecast better than another? Errors by day and group, and intervals from resampled days.

Sums of every day forecast are kept, so that days can be drawn again (B. Efron, Bootstrap methods,
Ann. Statist. 7 (1979); blocks of a day, as the errors within one are not independent). Memory grows
with days and groups, not with windows or pixels; the numbers do not depend on the batch size.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from stp_jax.typing import Array

# Degrees north; borders belong to the band nearer to the equator.
BANDS = {'60N-90N': (60, 90), '30N-60N': (30, 60), '30S-30N': (-30, 30), '60S-30S': (-60, -30),
         '90S-60S': (-90, -60)}
TIMES = {'00-06 LT': (0, 6), '06-12 LT': (6, 12), '12-18 LT': (12, 18), '18-24 LT': (18, 24)}
STATS = ('n', 'e', 'ae', 'ee', 'p', 't', 'pp', 'tt', 'pt')
_BASE = 2 * len(STATS)  # plain sums, then those with cosine-of-latitude weights
FEWEST_DAYS = 5  # below this an interval is too rough for a verdict; of one day there is none


def band_matrix(latitude: Sequence[float], height: int) -> np.ndarray:
  """float32 `[H, 5]`: in which band a row is; padding rows are in none."""
  result = np.zeros((height, len(BANDS)), np.float32)
  for row, lat in enumerate(latitude):
    for k, (low, high) in enumerate(BANDS.values()):
      inside = low <= lat <= high if low < 0 < high else (
          low < lat <= high if low > 0 else low <= lat < high)
      result[row, k] = inside
  return result


def time_matrix(times: np.ndarray, longitude: Sequence[float] | None, width: int) -> np.ndarray:
  """float32 `[..., W, 4]`: the quarter of local solar time at `times` `[...]`; without longitudes
  that of universal time."""
  times = np.asarray(times, 'datetime64[m]')
  hour = (times - times.astype('datetime64[D]')).astype(float) / 60
  lon = np.zeros(width) if longitude is None else np.asarray(longitude, float)
  lon = np.pad(lon, (0, width - len(lon)))  # padding columns: never counted
  local = (hour[..., None] + lon / 15) % 24
  return np.eye(len(TIMES), dtype=np.float32)[np.floor(local / 6).astype(int) % 4]


def sums(prediction: Array, truth: Array, valid: Array, weights: Array, bands: Array, slots: Array
         ) -> Array:
  """Sums of a batch, on the device.

  Args:
    prediction, truth, valid: `[B, T, H, W]`; what is not valid, or not finite, is left out.
    weights: `[H]` cosine of the latitude, 0 in padding rows. bands: `[H, K]`.
    slots: `[B, T, W, L]`.

  Returns:
    float32 `[B, T, K, L, 18]`: STATS, plain and weighted.
  """
  there = valid & jnp.isfinite(prediction) & jnp.isfinite(truth) & (weights > 0)[:, None]
  p, t = (jnp.where(there, x, 0) for x in (prediction, truth))
  e = p - t
  one = there.astype(jnp.float32)
  stack = jnp.stack([one, e, jnp.abs(e), e * e, p, t, p * p, t * t, p * t], -1)
  plain = jnp.einsum('bthws,hk,btwl->btkls', stack, bands, slots)
  cosine = jnp.einsum('bthws,hk,btwl->btkls', stack, bands * weights[:, None], slots)
  return jnp.concatenate([plain, cosine], -1)


class Table:
  """Sums by forecast, group and day.

    table = Table(); table.add('net', groups, days, values); table.scores('net', 'all')
  """

  def __init__(self):
    self._rows: dict[tuple[str, str], dict[int, np.ndarray]] = {}

  def add(self, forecast: str, group: str, day: int, values: np.ndarray) -> None:
    """Adds `[S]` sums of a day (days since 1970)."""
    rows = self._rows.setdefault((forecast, group), {})
    rows[day] = rows.get(day, 0) + np.asarray(values, np.float64)

  def groups(self, forecast: str) -> list[str]:
    return [g for f, g in self._rows if f == forecast]

  def days(self, forecast: str, group: str) -> np.ndarray:
    """Float64 `[D, S]`, in order of days; days without a pixel are left out."""
    rows = self._rows.get((forecast, group), {})
    kept = [rows[d] for d in sorted(rows) if rows[d][0] > 0]
    return np.array(kept) if kept else np.zeros((0, _BASE))


def scores(total: np.ndarray, kind: str = '') -> dict[str, np.ndarray]:
  """rmse, mae, bias, correlation from sums `[..., 18]`; `kind` 'cos_' takes the weighted ones."""
  start = len(STATS) if kind else 0
  n, e, ae, ee, p, t, pp, tt, pt = (total[..., start + i] for i in range(len(STATS)))
  with np.errstate(invalid='ignore', divide='ignore'):
    covariance = pt / n - p * t / n**2
    spread = (pp / n - (p / n)**2) * (tt / n - (t / n)**2)
    return dict(rmse=np.sqrt(ee / n), mae=ae / n, bias=e / n,
                correlation=covariance / np.sqrt(np.maximum(spread, 1e-30)))


def draws(days: int, count: int, seed: int = 0) -> np.ndarray:
  """How often each day is drawn, `[count, days]`; the same for the same numbers."""
  rng = np.random.default_rng(seed)
  return rng.multinomial(days, np.full(days, 1 / days), size=count).astype(np.float64)


def interval(days: np.ndarray, kind: str = '', *, count: int = 1000, level: float = 0.95,
             statistic: str = 'rmse') -> tuple[float, float] | None:
  """A bootstrap interval of a score from sums by day `[D, 18]`; None: of a single day."""
  if len(days) < 2:
    return None
  found = scores(draws(len(days), count) @ days, kind)[statistic]
  low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def compare(one: np.ndarray, other: np.ndarray, kind: str = '', *, count: int = 1000,
            level: float = 0.95) -> dict:
  """RMSE of `other` minus that of `one` over the same pixels, days drawn together.

  Args:
    one, other: sums by day `[D, 18]`, the same days.

  Returns:
    `difference` (positive: `one` is better), `interval` or None (of a single day), `verdict`:
    'better', 'worse', 'no difference shown', or below FEWEST_DAYS 'too few days'.
  """
  if len(one) != len(other):
    raise ValueError(f'{len(one)} and {len(other)} days cannot be compared')
  if not len(one):
    return dict(difference=None, interval=None, verdict='no common frames')
  rmse = lambda total: scores(total, kind)['rmse']
  difference = float(rmse(other.sum(0)) - rmse(one.sum(0)))
  if len(one) < 2:
    return dict(difference=difference, interval=None, verdict='too few days')
  drawn = draws(len(one), count)
  low, high = np.nanquantile(
      rmse(drawn @ other) - rmse(drawn @ one), [(1 - level) / 2, (1 + level) / 2])
  verdict = ('too few days' if len(one) < FEWEST_DAYS else
             'better' if low > 0 else 'worse' if high < 0 else 'no difference shown')
  return dict(difference=difference, interval=(float(low), float(high)), verdict=verdict)


def frame_groups(observed: Mapping[str, np.ndarray], cadence_hours: float, t_in: int
                 ) -> dict[str, np.ndarray]:
  """Which target frames are quiet, disturbed, of low or high solar activity.

  Args:
    observed: true drivers of whole windows `[B, T]`, those that there are of kp (x 10), ap, dst and
      f107.

  Returns:
    `{name: bool [B, T - t_in]}`. Storm phases by Dst: main while it is at most -50 nT and lower
    than 3 h (at least a frame) before, else recovery; by Kp: recovery is the day after Kp >= 5.
  """
  result = {}
  ahead = lambda x: x[:, t_in:]
  if 'kp' in observed:
    storm = observed['kp'] >= 50
    result |= {'Kp < 5': ahead(~storm & np.isfinite(observed['kp'])), 'Kp >= 5': ahead(storm)}
    size = max(1, round(24 / cadence_hours))
    before = np.zeros_like(storm)
    for back in range(1, size + 1):
      before[:, back:] |= storm[:, :-back]
    result['day after Kp >= 5'] = ahead(before & ~storm)
  if 'ap' in observed:
    result['ap >= 48'] = ahead(observed['ap'] >= 48)
  if 'dst' in observed:
    dst, size = observed['dst'], max(1, round(3 / cadence_hours))
    low = dst <= -50
    falling = np.zeros_like(low)
    falling[:, size:] = dst[:, size:] < dst[:, :-size]
    result |= {'Dst > -50': ahead(dst > -50), 'Dst <= -50, main phase': ahead(low & falling),
               'Dst <= -50, recovery': ahead(low & ~falling)}
  if 'f107' in observed:
    flux = observed['f107']
    result |= {'F10.7 < 100': ahead(flux < 100), 'F10.7 100-150': ahead(
        (flux >= 100) & (flux < 150)), 'F10.7 >= 150': ahead(flux >= 150)}
  return {k: v for k, v in result.items() if v.any()}
