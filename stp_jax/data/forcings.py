"""Forcings: the auxiliary channels of a forecast, and what of their future may be seen.

The 20 channels and their scaling are those of the Channel Mixer Layer (channel 0 is the image).
A store keeps physical values; scaling and broadcasting to planes happen on the device.

A driver's future is not known at issue time. `select` replaces, by `mode`, every value that had not
been published when the forecast was issued, in training and in test alike:

  persist   the newest value available at issue time (the default)
  observed  the value that was measured later: the originals' protocol, for comparison only
  forecast  the driver file's own prediction for frames after the input; a file holds some for the
            days behind its observations, none for the past, so that no run can be trained on them
  none      the training mean
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from stp_jax.data import magnetic
from stp_jax.typing import Array

MODES = ('persist', 'observed', 'forecast', 'none')


@dataclasses.dataclass(frozen=True)
class Channel:
  """Model value = (physical + offset) / divisor; `plane`: image, column, row, grid or scalar."""
  name: str
  divisor: float = 1.0
  offset: float = 0.0
  plane: str = 'scalar'


CHANNELS = {c.name: c for c in (
    Channel('tec', 200.0, plane='image'),
    Channel('longitude', plane='column'),
    Channel('latitude', plane='row'),
    Channel('year', 2500), Channel('f107', 400), Channel('r', 400), Channel('day', 367),
    Channel('hour', 24), Channel('month', 13), Channel('date', 32), Channel('kp', 100),
    Channel('ap', 400), Channel('dst', 600, 500), Channel('plasma_speed', 1200),
    Channel('field_magnitude', 70), Channel('sigma_b', 50), Channel('proton_density', 140),
    Channel('flow_pressure', 80), Channel('electric_field', 100, 50),
    Channel('magnetosonic_mach', 15),
    # Not of the Channel Mixer Layer: by name only.
    Channel('magnetic_latitude', 180, 90, plane='grid'))}
COUNTED = 20  # channels that a count may choose


def channel_names(channels: int | str | Sequence[str]) -> tuple[str, ...]:
  """The channels of a run: a count (a prefix of the 20), or names joined by '+'.

  Raises:
    ValueError: an unknown name (the known ones are listed), or a first channel that is no image.
  """
  known = tuple(CHANNELS)
  if isinstance(channels, int) or (isinstance(channels, str) and channels.isdigit()):
    count = int(channels)
    if not 1 <= count <= COUNTED:
      raise ValueError(f'channels={count}: choose 1 to {COUNTED}, or names joined by +')
    return known[:count]
  names = tuple(channels.split('+') if isinstance(channels, str) else channels)
  for name in names:
    if name not in CHANNELS:
      raise ValueError(f'channels: unknown channel {name!r}; known: {" ".join(known)}')
  if names[0] != known[0] or len(set(names)) != len(names):
    raise ValueError(f'channels={"+".join(names)}: name {known[0]} first, and no channel twice')
  return names


def scalars(names: Sequence[str]) -> tuple[str, ...]:
  """The channels among `names` (the image first, whatever it shows) that need a forcing."""
  return tuple(n for n in names[1:] if CHANNELS[n].plane == 'scalar')


def _magnetic(grid: Mapping[str, Any], height: int, width: int) -> np.ndarray:
  """Quasi-dipole latitude `[H, W]` [deg] of a grid; padding rows and columns repeat the last."""
  if not {'latitude', 'longitude'} <= set(grid):
    raise ValueError('the channel magnetic_latitude needs frames whose latitudes and longitudes '
                     'are known; choose other channels')
  found = magnetic.latitude(grid['latitude'], grid['longitude'])
  return np.pad(found, [(0, n - m) for n, m in zip((height, width), found.shape)], 'edge')


def planes(values: Array, columns: Sequence[str], names: Sequence[str], height: int, width: int,
           grid: Mapping[str, Any] | None = None) -> Array | None:
  """Forcings as planes `[B, T, H, W, A]` in model units, float32; None when A is 0.

  Args:
    values: `[B, T, F]` physical values.
    columns: the F names of `values`.
    names: channels of the run, the image first; it is left out.
    height, width: the frame; longitude and latitude planes are column / width and row / height.
    grid: `latitude`, `longitude` [deg] of rows and columns, for magnetic_latitude.

  Raises:
    ValueError: magnetic_latitude of frames without a grid.
  """
  shape = (*values.shape[:2], height, width)
  result = []
  for name in names[1:]:
    channel = CHANNELS[name]
    if channel.plane == 'column':
      plane = jnp.arange(width, dtype=jnp.float32) / width
    elif channel.plane == 'row':
      plane = jnp.arange(height, dtype=jnp.float32)[:, None] / height
    elif channel.plane == 'grid':
      plane = (_magnetic(grid or {}, height, width) + channel.offset) / channel.divisor
    else:
      value = values[..., columns.index(name)].astype(jnp.float32)
      plane = ((value + channel.offset) / channel.divisor)[..., None, None]
    result.append(jnp.broadcast_to(plane, shape))
  return jnp.stack(result, -1) if result else None


def select(
    mode: str, *, values: np.ndarray, known: np.ndarray, delay: np.ndarray, forecast: np.ndarray,
    known_ahead: np.ndarray, mean: np.ndarray, t_in: int, cadence_hours: float,
) -> np.ndarray:
  """What a forecast issued with input frame `t_in - 1` may see, `[B, T, F]` float32.

  Args:
    mode: one of MODES.
    values, known, delay, forecast: `[B, T, F]`, the columns of the clip store.
    known_ahead: `[F]` bool, calendar values, kept in every mode.
    mean: `[F]` training mean, for 'none'.
    t_in: frames before the issue time, which is the time of the last of them.
    cadence_hours: hours between frames.

  Raises:
    ValueError: an unknown mode, or 'forecast' where the driver file holds no prediction.
  """
  if mode not in MODES:
    raise ValueError(f'future_forcings={mode!r}: choose one of {" ".join(MODES)}')
  if mode == 'observed':
    return values.astype(np.float32)
  hours = np.arange(values.shape[1], dtype=np.float32)[:, None] * cadence_hours
  available = known_ahead | (hours + delay <= (t_in - 1) * cadence_hours)
  unseen = np.broadcast_to(known[:, t_in - 1:t_in], values.shape)
  if mode == 'none':
    unseen = np.broadcast_to(mean, values.shape)
  elif mode == 'forecast':
    future = np.arange(values.shape[1])[:, None] >= t_in
    unseen = np.where(future, forecast, unseen)
    if np.isnan(unseen[~available & future]).any():
      raise ValueError(
          'future_forcings=forecast: no prediction for some frames ahead; a driver file holds '
          'them behind its last observation only, history has none: train and score with '
          'future=persist (--config.data.future_forcings=persist, --future-forcings=persist)')
  return np.where(available, values, unseen).astype(np.float32)
