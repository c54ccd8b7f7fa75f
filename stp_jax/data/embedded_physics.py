"""The embedded ionosphere's physics: climatology, storm response and seeded variability.

Everything made here is SIMULATED: climatology moved by the real F10.7 and ap of the day, times
random fields whose scales were chosen to resemble real maps. It is no measured ionosphere.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from stp_jax.data import embedded_indices, embedded_iri

# STORM, ratio of storm-time to quiet foF2: Fuller-Rowell, Araujo-Pradere & Codrescu 2000,
# Adv. Space Res. 25, 139 and Araujo-Pradere, Fuller-Rowell & Codrescu 2002,
# doi:10.1029/2001RS002467. Cubic in the ap integral: c0 + c1 r + c2 r^2 + c3 r^3; rows are
# geomagnetic latitudes 10, 30, 50, 70, columns summer, between, equinox, between, winter.
_STORM = np.array([
    [[1.0136, 1.0478, 1.0, 1.0258, 1.0],
     [1.077, 1.0543, 1.0103, 0.99927, 0.96876],
     [1.0971, 1.0971, 1.0777, 1.1134, 1.0237],
     [1.0703, 1.0248, 1.0945, 1.1622, 1.1393]],
    [[-9.17e-5, -1.37e-5, 0.0, 7.14e-5, 0.0],
     [-3.21e-4, -1.66e-4, -4.10e-5, 1.36e-4, 2.29e-4],
     [-3.89e-4, -3.08e-4, -2.81e-4, -1.90e-4, 4.76e-5],
     [-2.80e-4, -2.07e-4, -2.91e-4, -3.30e-4, -4.04e-4]],
    [[1.16e-8, 0.0, 0.0, -1.46e-8, 0.0],
     [9.86e-8, 2.25e-8, -1.67e-8, -1.62e-8, -9.42e-8],
     [1.17e-7, 4.32e-8, 3.97e-8, 3.13e-8, -8.04e-8],
     [3.91e-8, 2.58e-8, 3.45e-8, 4.76e-8, 1.13e-7]],
    [[0.0, 0.0, 0.0, 0.0, 0.0],
     [-9.44e-12, 0.0, 3.04e-12, 0.0, 9.32e-12],
     [-1.07e-11, 0.0, 0.0, 0.0, 1.09e-11],
     [0.0, 0.0, 0.0, 0.0, -1.01e-11]]])
# Eight seasons from the March equinox (day 82) on, as columns of the above.
_SEASONS = np.array([2, 1, 0, 1, 2, 3, 4, 3])
# Fitted to nine real days and spans (CODE, IGS, JPL; 2010-2022, F10.7 of 72..151): maps lie above
# IRI by a factor that is smaller when the Sun is quiet, and by an offset: the plasmasphere is not
# in IRI, and the real daily swing exceeds IRI's by less than the real mean does.
_LEVEL, _QUIET_SLOPE, _QUIET_BELOW, _PLASMASPHERE = 1.4, 0.006, 115, 2.6  # -, 1/sfu, sfu, TECU
# Variability: see `simulate`.
_AMPLITUDE, _SLOW, _GLOBAL = 0.083, 0.95, 0.5
_CHUNK = 360  # frames at a time, 30 days
# Weight of the ap of 0, 1, 2... hours ago in the integral r.
_STORM_WEIGHTS = np.concatenate([
    [0.7, 1, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3], np.arange(27, 0, -1) / 27])

def storm_factor(
    integral: np.ndarray, day_of_year: np.ndarray, latitude: np.ndarray) -> np.ndarray:
  """STORM's ratio of storm-time to quiet foF2.

  Args:
    integral: weighted ap `[T]` (`hourly_ap(...) @ weights`, ap hours).
    day_of_year: `[T]`, 1..366.
    latitude: geomagnetic, degrees, `[H, W]`.

  Returns:
    `[T, H, W]` float32; exactly 1 where the integral is at most 200.
  """
  r = np.maximum(integral, 300)
  factors = np.einsum('kt,kls->tls', np.stack([r ** k for k in range(4)]), _STORM)
  onset = np.clip((integral - 200) / 100, 0, 1)[:, None, None]
  by_season = 1 + (factors[..., _SEASONS] - 1) * onset  # [T, 4 bands, 8 seasons]
  # Nodes -10 (the other hemisphere's season), 10, 30, 50, 70, 90 degrees.
  nodes = np.concatenate(
      [np.roll(by_season[:, :1], -4, -1), by_season, by_season[:, -1:]], axis=1)
  result = np.empty((len(r), *latitude.shape), np.float32)
  place = (np.abs(latitude) + 10) / 20
  low = np.minimum(place.astype(int), 4)
  for south in (False, True):
    day = np.where(day_of_year + 172 > 365, day_of_year - 193, day_of_year + 172) \
        if south else day_of_year
    season = (day - 82) % 365 / 45.6 % 8
    s = season.astype(int)
    now, then = (np.take_along_axis(nodes, k[:, None, None] % 8, 2)[..., 0] for k in (s, s + 1))
    profile = now + (then - now) * (season - s)[:, None]  # [T, 6]
    where = (latitude < 0) == south
    w = (place - low)[where]
    result[:, where] = profile[:, low[where]] * (1 - w) + profile[:, low[where] + 1] * w
  return result


def season_weights(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Months before and after each time (1..12) and the latter's weight, linear from mid to mid."""
  month = times.astype('datetime64[M]')
  before = np.where(times - month < np.timedelta64(14, 'D'), month - 1, month)
  middle = lambda m: m.astype('datetime64[m]') + np.timedelta64(14, 'D')
  weight = (times - middle(before)) / (middle(before + 1) - middle(before))
  return before.astype(int) % 12 + 1, (before + 1).astype(int) % 12 + 1, weight


def climatology(cube: Mapping[int, np.ndarray], times: np.ndarray, f107: np.ndarray) -> np.ndarray:
  """IRI's vertical TEC `[T, 71, 72]` float32 at `times` for the effective F10.7 of each.

  Cubic in F10.7 (exact at the nodes), linear in the month; hours are those of the cube.
  """
  months = sorted(cube)
  nodes = np.array(embedded_iri.F107)
  f107 = np.clip(f107, 63, 260)[:, None]
  activity = np.stack([
      np.prod((f107 - np.delete(nodes, i)) / (nodes[i] - np.delete(nodes, i)), 1)
      for i in range(len(nodes))], 1)
  before, after, weight = season_weights(times)
  month = np.zeros((len(times), len(months)))
  np.add.at(month, (np.arange(len(times)), np.searchsorted(months, before)), 1 - weight)
  np.add.at(month, (np.arange(len(times)), np.searchsorted(months, after)), weight)
  weights = (month[:, :, None] * activity[:, None]).reshape(len(times), -1).astype(np.float32)
  slots = hour_slots(times)
  result = np.empty((len(times), *cube[months[0]].shape[2:]), np.float32)
  for slot in np.unique(slots):
    values = np.stack([cube[m][:, slot] for m in months]).reshape(weights.shape[1], -1)
    result[slots == slot] = (weights[slots == slot] @ values).reshape(-1, *result.shape[1:])
  return result


def hour_slots(times: np.ndarray) -> np.ndarray:
  """Index into `embedded_iri.HOURS` of each time."""
  minutes = (times - times.astype('datetime64[D]')).astype('timedelta64[m]').astype(int)
  return minutes // int(60 * embedded_iri.HOURS[1])


class Field:
  """A Gaussian random field of unit variance, AR(1) in time, smooth on the sphere.

  Correlation is Gaussian in latitude (scale `north`) and in longitude (scale `east` / cos latitude,
  at most 150 degrees; all in degrees) and falls by 1/e in `hours`.
  """

  def __init__(self, rng: np.random.Generator, *, hours: float, north: float, east: float):
    self._rng, self._decay = rng, float(np.exp(-embedded_iri.HOURS[1] / hours))
    latitude, longitude = embedded_iri.LATITUDE, np.radians(embedded_iri.LONGITUDE)
    # Nodes beyond the poles keep the variance of the first and last rows; a kernel of width
    # north / sqrt 2 on white nodes gives correlation of width north.
    nodes = np.arange(-90 - 2 * north, 90 + 2.5 * north, north / 2)
    kernel = np.exp(-((latitude[:, None] - nodes) / north) ** 2)
    self._kernel = (kernel / np.linalg.norm(kernel, axis=1, keepdims=True)).astype(np.float32)
    waves = np.arange(int(np.ceil(2.7 / np.radians(east))) + 1)
    scale = np.radians(np.minimum(east / np.cos(np.radians(latitude)), 150))
    power = np.exp(-(waves * scale[:, None]) ** 2 / 2) * np.where(waves, 2, 1)
    amplitude = np.sqrt(power / power.sum(1, keepdims=True))
    self._amplitude = np.repeat(amplitude, 2, 1)[:, 1:].astype(np.float32)
    angles = waves[1:, None] * longitude
    waves_pairs = np.stack([np.cos(angles), np.sin(angles)], 1).reshape(-1, len(longitude))
    self._basis = np.concatenate([np.ones((1, len(longitude))), waves_pairs]).astype(np.float32)
    self._state = self._draw(1)[0]

  def _draw(self, count: int) -> np.ndarray:
    shape = (count, self._kernel.shape[1], len(self._basis))
    return self._rng.standard_normal(shape, np.float32)

  def __call__(self, count: int) -> np.ndarray:
    """The next `count` frames, float32 `[count, 71, 72]`."""
    series = self._draw(count) * np.float32(np.sqrt(1 - self._decay ** 2))
    for frame in series:
      frame += np.float32(self._decay) * self._state
      self._state = frame.copy()
    coefficients = (self._kernel @ series) * self._amplitude
    return coefficients @ self._basis


def _variability_pattern(dip: np.ndarray) -> np.ndarray:
  """Relative amplitude `[12, 71, 72]` by universal time: night, equatorial crests, auroral zone."""
  local = (embedded_iri.HOURS[:, None, None] + embedded_iri.LONGITUDE / 15) % 24
  night = (1 - np.cos(2 * np.pi * (local - 14) / 24)) / 2
  afternoon = np.maximum(np.cos(2 * np.pi * (local - 17) / 24), 0)
  crest = np.exp(-((np.abs(dip) - 18) / 10) ** 2)
  auroral = 1 / (1 + np.exp(-(np.abs(dip) - 57) / 4))
  return (1 + 0.8 * night) * (1 + 0.8 * crest * afternoon + 0.6 * auroral) / 1.35


def simulate(
    cube: Mapping[int, np.ndarray], dip: np.ndarray, table: embedded_indices.Drivers,
    times: np.ndarray, *, seed: int, year: int,
) -> Iterator[np.ndarray]:
  """SIMULATED vertical TEC at `times`, 2 hours apart, in pieces of 30 days.

  TEC = (k IRI(F) Phi^2 + 2.6) exp(v - var / 2), with F the effective F10.7, k 1.4 (less below
  F = 115) and Phi the storm factor of foF2 (density goes with its square). The variability is
  v = A (q + 0.95 s + 0.5 g), of variance var: q decays in 4 hours (9 degrees by 21), s and the
  global g in 4 days (s 20 by 45 degrees). A grows with F, held within 95..170 (real maps of
  January 2020 vary more than the lower bound gives, not less), and with ap.

  Args:
    cube: months of `embedded_iri.cube`; all that `times` lie between.
    dip: dip latitude `[71, 72]`, degrees.
    table: the indices.
    times: datetime64[m] `[T]`.
    seed, year: all the randomness; the same pair gives the same fields.

  Yields:
    float32 `[at most 360, 71, 72]`, TECU, within 0.1..200.
  """
  f107 = embedded_indices.effective_f107(table, times)
  ap = embedded_indices.hourly_ap(table, times, len(_STORM_WEIGHTS))
  integral, disturbed = ap @ _STORM_WEIGHTS, np.minimum(ap[:, :24].mean(1), 80)
  days = times.astype('datetime64[D]') - times.astype('datetime64[Y]')
  day_of_year, slots = days.astype(int) + 1, hour_slots(times)
  amplitude = _AMPLITUDE * np.clip(f107, 95, 170) / 120 * (1 + disturbed / 120)
  pattern = _variability_pattern(dip).astype(np.float32)
  streams = [np.random.default_rng([seed, year, i]) for i in range(3)]
  quick = Field(streams[0], hours=4, north=9, east=21)
  slow = Field(streams[1], hours=96, north=20, east=45)
  decay = np.exp(-embedded_iri.HOURS[1] / 96)
  overall = streams[2].standard_normal(len(times))
  for i in range(1, len(times)):
    overall[i] = decay * overall[i - 1] + np.sqrt(1 - decay ** 2) * overall[i]
  variance = 1 + _SLOW ** 2 + _GLOBAL ** 2
  for start in range(0, len(times), _CHUNK):
    now = slice(start, start + _CHUNK)
    level = _LEVEL - _QUIET_SLOPE * np.maximum(_QUIET_BELOW - f107[now], 0)
    tec = climatology(cube, times[now], f107[now])
    tec *= level.astype(np.float32)[:, None, None]
    storm = integral[now] > 200  # elsewhere the factor is 1
    if storm.any():
      tec[storm] *= storm_factor(integral[now][storm], day_of_year[now][storm], dip) ** 2
    tec += np.float32(_PLASMASPHERE)
    a = amplitude[now].astype(np.float32)[:, None, None] * pattern[slots[now]]
    v = quick(len(tec))
    v += np.float32(_SLOW) * slow(len(tec))
    v += (_GLOBAL * overall[now]).astype(np.float32)[:, None, None]
    v *= a
    v -= a * a * np.float32(variance / 2)
    tec *= np.exp(v, out=v)
    yield np.clip(tec, 0.1, 200, out=tec)
