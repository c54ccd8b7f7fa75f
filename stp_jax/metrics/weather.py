"""Scores of weather fields on a latitude-longitude grid, variable by variable.

  rmse   root of the mean squared error over all frames, weighted by the cosine of latitude
  acc    anomaly correlation: of forecast minus climatology with truth minus climatology, weighted
         alike, a frame at a time and averaged over frames (not centred, as WeatherBench 2)

Rasp et al. 2020, doi:10.1029/2020MS002203; 2024, doi:10.1029/2023MS004019. `protocol='upstream'`
is what OpenSTL's tables have: every grid point counts the same, so that poles count too much.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from stp_jax.metrics.events import plain
from stp_jax.metrics.sums import Sums
from stp_jax.typing import Array

PROTOCOLS = ('standard', 'upstream')
_AXES = (-3, -2)


def per_example(
    prediction: Array, truth: Array, valid: Array | None, row_weights: Array,
    climatology: Array | None = None,
) -> dict[str, Array]:
  """Sums of every frame, for `metrics.sums.Sums`.

  Args:
    prediction, truth: `[B, T, H, W, C]`, physical units. valid: bool, broadcastable; None: every
      finite pixel of the truth. row_weights: `[H]`, cosines of latitude; 0 in padding rows.
    climatology: alike; without it there is no acc.

  Returns:
    float32 `[B, T, C]` by name: for each protocol `<protocol>_weight`, `_sse`, `_sae`, `_se`; and
    with a climatology `_acc`, `_acc_count` (1, or 0 for a frame whose correlation is undefined).
  """
  there = jnp.isfinite(truth) if valid is None else jnp.isfinite(truth) & valid
  cosine = jnp.broadcast_to(jnp.asarray(row_weights)[:, None, None], truth.shape)
  there = there & (cosine > 0)
  error = jnp.where(there, prediction - truth, 0)
  result = {}
  for name, weight in (('standard', cosine), ('upstream', jnp.ones_like(cosine))):
    weight = jnp.where(there, weight, 0)
    total = lambda x, w=weight: jnp.sum(x * w, _AXES, dtype=jnp.float32)
    result |= {f'{name}_weight': total(1.0), f'{name}_sse': total(jnp.square(error)),
               f'{name}_sae': total(jnp.abs(error)), f'{name}_se': total(error)}
    if climatology is not None:
      forecast, observed = (
          jnp.where(there, x - climatology, 0) for x in (prediction, truth))
      size = jnp.sqrt(total(jnp.square(forecast)) * total(jnp.square(observed)))
      defined = size > 0
      result[f'{name}_acc'] = jnp.where(
          defined, total(forecast * observed) / jnp.where(defined, size, 1), 0)
      result[f'{name}_acc_count'] = defined.astype(jnp.float32)
  return result


def _scores(found: Mapping[str, np.ndarray], protocol: str) -> dict[str, np.ndarray]:
  get = lambda name: np.asarray(found[f'{protocol}_{name}'], np.float64)
  def ratio(top, bottom):
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)
  result = dict(rmse=np.sqrt(ratio(get('sse'), get('weight'))),
                mae=ratio(get('sae'), get('weight')), bias=ratio(get('se'), get('weight')))
  if f'{protocol}_acc' in found:
    result['acc'] = ratio(get('acc'), get('acc_count'))
  return result


def result(sums: Sums, variables: Sequence[Mapping[str, str]]) -> dict:
  """Everything as plain JSON; None where nothing counted.

  Args:
    variables: `name` and `units` of every channel.

  Returns:
    `variables`, `forecasts` {name: {protocol: {score: [C], 'by_lead': {score: [T][C]}}}}.
  """
  forecasts = {}
  for name, found in sums.totals.items():
    whole = {k: v.sum(0) for k, v in found.items()}
    forecasts[name] = {p: dict(
        {k: plain(v) for k, v in _scores(whole, p).items()},
        by_lead={k: plain(v) for k, v in _scores(found, p).items()}) for p in PROTOCOLS}
  return dict(variables=[dict(v) for v in variables], forecasts=forecasts)


def scores(
    prediction: np.ndarray, truth: np.ndarray, latitude: Sequence[float],
    climatology: np.ndarray | None = None, *, protocol: str = 'standard',
) -> dict[str, np.ndarray]:
  """`rmse`, `mae`, `bias` and with a climatology `acc` of a whole set, a value per variable `[C]`.

  Args:
    prediction, truth, climatology: `[N, T, H, W, C]`; NaN in the truth does not count.
    latitude: `[H]`, degrees. protocol: standard | upstream.

  Raises:
    ValueError: an unknown protocol, or shapes that differ.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(f'protocol={protocol!r}: choose one of {" ".join(PROTOCOLS)}')
  if np.shape(prediction) != np.shape(truth) or np.shape(truth)[2] != len(latitude):
    raise ValueError(f'prediction {np.shape(prediction)}, truth {np.shape(truth)}, '
                     f'{len(latitude)} latitudes: equal shapes [N, T, H, W, C]')
  weights = np.maximum(np.cos(np.deg2rad(np.asarray(latitude, float))), 1e-6)
  sums = Sums()
  sums.update({'': per_example(jnp.asarray(prediction), jnp.asarray(truth), None, weights,
                               climatology)})
  return _scores({k: v.sum(0) for k, v in sums.totals[''].items()}, protocol)
