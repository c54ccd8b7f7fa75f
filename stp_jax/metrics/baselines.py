"""The forecasts that a net has to beat. They learn from training windows only.

  persistence           the same hour of the last day seen (the last frame if less than a day was)
  damped_persistence    hourly climatology + rho_k x (persistence - hourly climatology)
  hourly_climatology    the training mean at that hour
  scaled_climatology    month-hour climatology, linear in F10.7, at the level of the last day seen
  ar_blend              scaled climatology C + phi_k x (persistence - C of the same frame)

rho_k and phi_k: one number per lead, least squares over the training windows.
"""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.data.climatology import slot
from stp_jax.models import anchor
from stp_jax.typing import Array


def _last_day(t_in: int, t_out: int, frames_per_day: int) -> np.ndarray:
  """Which input frame stands for each forecast frame: 24 hours, or whole days, before it."""
  lag = frames_per_day if frames_per_day <= t_in else 1
  return t_in - lag + np.arange(t_out) % lag


def _parts(tables, frames, valid, calendar, driver, t_in, t_out, row_weights):
  """Persistence, the hourly and scaled climatology of the forecast and of the frames persisted.

  Only `frames[:, :t_in]` is read: whatever stands behind it cannot leak into a baseline.
  """
  frames = frames[:, :t_in]
  valid = jnp.isfinite(frames) if valid is None else valid[:, :t_in] & jnp.isfinite(frames)
  slots = tables['hourly'].shape[0]
  source = _last_day(t_in, t_out, slots)
  scaled, _ = anchor.scaled(tables, frames, valid, calendar, driver, t_in, row_weights)
  hourly = jnp.asarray(tables['hourly'])[slot(calendar[..., 1], slots)][..., None]
  return dict(
      # A gap in the last day is filled with the best thing known there.
      persistence=jnp.where(valid, frames, scaled[:, :t_in])[:, source], seen=valid[:, source],
      hourly=hourly[:, t_in:], hourly_source=hourly[:, source],
      scaled=scaled[:, t_in:], scaled_source=scaled[:, source])


def fit(
    batches: Iterable[Mapping[str, Array]], tables: Mapping[str, Array], *, t_in: int, t_out: int,
    row_weights: Array,
) -> dict[str, np.ndarray]:
  """Least-squares rho_k and phi_k over training windows, streaming.

  Args:
    batches: dicts of `frames` `[B, t_in + t_out, H, W, 1]` in physical units, `valid` alike (or
      absent: NaN marks what is missing), `calendar` `[B, T, 2]`, `driver` `[B]` (or absent),
      `mask` `[B]` (or absent).
    tables: from `data.climatology.fit` on the training clips.
    t_in, t_out: frames of input and forecast.
    row_weights: `[H]` from `metrics.tec.row_weights`.

  Returns:
    tables with `rho` and `phi`, float32 `[t_out]`, in 0..1. Without any batch both are 0.
  """
  sums = jax.jit(_fit_sums, static_argnames=('t_in', 't_out'))
  total = np.zeros((4, t_out))
  for batch in batches:
    total += np.asarray(sums(
        {k: jnp.asarray(tables[k]) for k in ('base', 'slope', 'driver_mean', 'hourly')},
        jnp.asarray(batch['frames']), batch.get('valid'), jnp.asarray(batch['calendar']),
        batch.get('driver'), batch.get('mask'), jnp.asarray(row_weights),
        t_in=t_in, t_out=t_out), np.float64)
  slope = lambda xy, xx: np.clip(xy / np.maximum(xx, 1e-12), 0, 1).astype(np.float32)
  return dict(tables, rho=slope(total[0], total[1]), phi=slope(total[2], total[3]))


def _fit_sums(tables, frames, valid, calendar, driver, mask, row_weights, *, t_in, t_out):
  parts = _parts(tables, frames, valid, calendar, driver, t_in, t_out, row_weights)
  target = frames[:, t_in:t_in + t_out]
  there = jnp.isfinite(target) if valid is None else (
      valid[:, t_in:t_in + t_out] & jnp.isfinite(target))
  weight = jnp.where(there & parts['seen'], row_weights[:, None, None], 0)
  if mask is not None:
    weight = weight * (mask > 0)[:, None, None, None, None]
  rows = []
  for name in ('hourly', 'scaled'):
    x = jnp.where(weight > 0, parts['persistence'] - parts[f'{name}_source'], 0)
    y = jnp.where(weight > 0, target - parts[name], 0)
    rows += [jnp.sum(weight * x * y, (0, 2, 3, 4)), jnp.sum(weight * x * x, (0, 2, 3, 4))]
  return jnp.stack(rows)


def apply(
    tables: Mapping[str, Array] | None, frames: Array, calendar: Array | None = None,
    driver: Array | None = None, *, t_in: int, t_out: int, valid: Array | None = None,
    row_weights: Array | None = None, frames_per_day: int | None = None,
) -> dict[str, Array]:
  """Every baseline's forecast.

  Args:
    tables: from `fit`; None (or no calendar): persistence alone, for frames without a clock.
    frames: `[B, t_in or more, H, W, C]`, physical units; frames behind t_in are never read.
    calendar: `[B, t_in + t_out, 2]` as in `models.anchor.climatology`.
    driver: `[B]`, the F10.7 known at issue time, or None.
    valid: bool like frames; None: what is finite.
    row_weights: `[H]`; None: ones.
    frames_per_day: for `tables` None; None: 1, the last frame.

  Returns:
    `{name: [B, t_out, H, W, C]}`, names as in the module's text, `persistence` first.
  """
  if tables is None or calendar is None:
    source = _last_day(t_in, t_out, frames_per_day or 1)
    frames = frames[:, source]
    there = jnp.isfinite(frames) if valid is None else jnp.isfinite(frames) & valid[:, source]
    # A hole keeps the mean of its frame, which is what the network is fed.
    count = jnp.maximum(there.sum((2, 3), keepdims=True), 1)
    mean = jnp.where(there, frames, 0).sum((2, 3), keepdims=True) / count
    return {'persistence': jnp.where(there, frames, mean)}
  weights = jnp.ones(frames.shape[2]) if row_weights is None else jnp.asarray(row_weights)
  parts = _parts(tables, frames, valid, calendar, driver, t_in, t_out, weights)
  rho = jnp.asarray(tables['rho'])[:, None, None, None]
  phi = jnp.asarray(tables['phi'])[:, None, None, None]
  persistence, hourly, scaled = parts['persistence'], parts['hourly'], parts['scaled']
  return {
      'persistence': persistence,
      'damped_persistence': hourly + rho * (persistence - parts['hourly_source']),
      'hourly_climatology': hourly,
      'scaled_climatology': scaled,
      'ar_blend': scaled + phi * (persistence - parts['scaled_source'])}
