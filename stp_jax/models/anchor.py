"""What a forecast leans on: a climatology scaled to the last day seen.

A net that predicts the anomaly from this anchor starts from a good forecast; most of the skill of a
small net on maps of electron content is the anchor's, so score cards print it beside the net.
The tables come from `stp_jax.data.climatology.fit`; the functions here are pure and trace.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from stp_jax.data.climatology import slot
from stp_jax.typing import Array

# TECU. Far below any real global mean: it only keeps an all-missing day from dividing by zero.
FLOOR = 0.1


def calendar(month: Array, date: Array, hour: Array) -> Array:
  """`[..., 2]` (month counted from mid-month to mid-month, hour) of whole months, days and hours.

  On the device what `data.climatology.calendar` does on the host; months are taken as equally long.
  """
  position = month + (date - 1 + hour / 24) / 30.44 - 0.5
  return jnp.stack([(position - 1) % 12 + 1, jnp.broadcast_to(hour, position.shape)], -1)


def climatology(tables: Mapping[str, Array], calendar: Array, driver: Array | None) -> Array:
  """Month-and-hour climatology, linear in the driver (F10.7).

  Args:
    tables: `base` and `slope` `[12, P, H, W]`, `driver_mean` `[]`, physical units; P frames a day,
      see `data.climatology.slot`.
    calendar: `[B, T, 2]`, (month, hour UT). A whole month k reads table k (1 to 12); k + x blends
      the tables of k and k + 1 by x, so months may be counted from mid-month to mid-month
      (`data.climatology.calendar`): the value then has no jump at the end of a month.
    driver: `[B]`, F10.7 in solar flux units, or None: the training mean.

  Returns:
    float32 `[B, T, H, W, 1]` in physical units, at least FLOOR.
  """
  base, slope = jnp.asarray(tables['base']), jnp.asarray(tables['slope'])
  part = slot(calendar[..., 1], base.shape[1])
  whole = jnp.floor(calendar[..., 0])
  share = (calendar[..., 0] - whole)[..., None, None]
  first = (whole.astype(jnp.int32) - 1) % 12
  second = (first + 1) % 12

  def read(table):
    return table[first, part] * (1 - share) + table[second, part] * share

  value = level = read(base)
  if driver is not None:
    anomaly = jnp.asarray(driver, value.dtype) - tables['driver_mean']
    # A driver that is missing says nothing: the training mean.
    anomaly = jnp.where(jnp.isfinite(anomaly), anomaly, 0)
    value += read(slope) * anomaly[:, None, None, None]
  # A line drawn beyond the fluxes it was fitted on may cross zero: keep the shape of the map there.
  return jnp.maximum(value, jnp.maximum(0.2 * level, FLOOR))[..., None]


def scaled(
    tables: Mapping[str, Array], frames: Array, valid: Array | None, calendar: Array,
    driver: Array | None, t_in: int, row_weights: Array,
) -> tuple[Array, Array]:
  """The climatology brought to the level of the last input day.

  Args:
    tables, calendar, driver: see `climatology`; calendar covers input and forecast.
    frames: `[B, T or t_in, H, W, 1]` in physical units; only frames `[:, :t_in]` are read.
    valid: bool, shaped like frames, False where a value is missing; None: all are there.
    t_in: input frames. A day is P frames, or t_in of them where the input is shorter.
    row_weights: `[H]`, cosine of the latitude, 0 for padding rows.

  Returns:
    C `[B, T, H, W, 1]`: the climatology times (mean of the last input day) / (its own mean over the
    same pixels); s `[B, 1, 1, 1, 1]`: the mean of the last input day, at least FLOOR. Without one
    valid pixel in that day C is the climatology and s its mean.
  """
  value = climatology(tables, calendar, driver)
  day = slice(max(0, t_in - tables['base'].shape[1]), t_in)
  last, own = frames[:, day], value[:, day]
  weight = jnp.broadcast_to(jnp.asarray(row_weights)[:, None, None], last.shape)
  seen = weight if valid is None else jnp.where(valid[:, day], weight, 0)
  axes = (1, 2, 3, 4)

  def average(values, weights):
    total = jnp.sum(weights, axes, keepdims=True)
    return jnp.sum(values * weights, axes, keepdims=True) / jnp.maximum(total, 1e-6), total

  # `where`, not a product: a missing value may be NaN.
  mean, total = average(jnp.where(seen > 0, last, 0), seen)
  own_mean, plain_mean = average(own, seen)[0], average(own, weight)[0]
  mean = jnp.where(total > 0, mean, plain_mean)
  own_mean = jnp.where(total > 0, own_mean, plain_mean)
  level = jnp.maximum(mean, FLOOR)
  return value * (level / jnp.maximum(own_mean, FLOOR)), level
