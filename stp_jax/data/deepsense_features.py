"""What a network sees of positions and beams; mirrored scenes. All on the device, but upstream's.

Facts follow github.com/szy4017/DeepSense6G_TII.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.data.deepsense_sensors import FIELD, WIDE
from stp_jax.typing import Array, Batch

# arctan(north / east) of the boresight, degrees, by scenario; the others have 0.
HEADING = {31: -50.52, 32: 44.8, 33: 55.6, 34: -60.0}
LOW, HIGH = (-7.18029715, -97.55563452), (40.20955233, 52.31386139)  # metres east, north


def _by_scenario(scenario: Array, table: Mapping, default) -> Array:
  """`table[scenario]` of integers `[B]`, float `[B, ...]`."""
  keys = jnp.asarray(list(table))
  values = jnp.asarray([default, *table.values()], jnp.result_type(float))
  hit = jnp.asarray(scenario)[:, None] == keys
  return values[jnp.where(hit.any(1), jnp.argmax(hit, 1) + 1, 0)]


def gps_angle(metres: Array, scenario: Array, offsets: Mapping | None = None) -> Array:
  """Bearing from the boresight, radians in +-pi/2, `[B, 2]` of positions `[B, 2, 2]` (east, north).

  An angle modulo 180 degrees: what lies behind the station looks as if before it.
  """
  east, north = metres[..., 0], metres[..., 1]
  # arctan of the quotient, without dividing: a user due north has one too.
  sign = jnp.where(east < 0, -1, 1)
  degrees = jnp.rad2deg(jnp.arctan2(sign * north, sign * east))
  degrees -= _by_scenario(scenario, offsets or HEADING, 0.0)[:, None].astype(degrees.dtype)
  degrees = jnp.where(degrees > 90, degrees - 180, jnp.where(degrees < -90, degrees + 180, degrees))
  return jnp.deg2rad(degrees)


def gps_features(
    metres: Array, scenario: Array, angle: bool = True, offsets: Mapping | None = None,
    low: tuple[float, float] = LOW, high: tuple[float, float] = HIGH,
) -> Array:
  """Positions as the network sees them: `[B, 2 fixes, 2]`.

  Args:
    metres: `[B, 2, 2]` from the base station, east and north. scenario: int `[B]`.
    angle: the bearing, twice (as published, where both columns hold it); False: both coordinates,
      0 to 1 between `low` and `high`.
  """
  if angle:
    return jnp.repeat(gps_angle(metres, scenario, offsets)[..., None], 2, -1)
  low, high = jnp.asarray(low, metres.dtype), jnp.asarray(high, metres.dtype)
  return (metres - low) / (high - low)


def soft_labels(
    beam: Array, sigma: float = 0.5, halfwidth: int = 5, scale: float = 1.25, beams: int = 64,
) -> Array:
  """A narrow bell around each beam: `[..., beams]`, about 1 at the beam and .135 beside it.

  It sums to 1.268 (less at the ends), not to 1. An unknown beam (-1) gives zeros.
  """
  away = jnp.arange(beams) - jnp.asarray(beam)[..., None]
  bell = jnp.exp(-0.5 * jnp.square(away / sigma)) * (scale / (sigma * np.sqrt(2 * np.pi)))
  return jnp.where((jnp.abs(away) <= halfwidth) & (jnp.asarray(beam)[..., None] >= 0), bell, 0)


def mirror(batch: Batch, upstream: bool = False, wide: bool = False, beams: int = 64) -> Batch:
  """The same scenes seen in a mirror that stands along the boresight.

  Sound: pictures by their width; the lidar's y changes its sign, whatever the field of view; the
  angle map's columns k become -k modulo their number (angle 0 stays) and velocities stay; positions
  are reflected in metres; beam b becomes beams - 1 - b.

  `upstream=True`: lidar and both radar maps are plainly reversed, which moves the angle by a bin,
  the lidar by the field of view's asymmetry, and turns velocities around. Positions are left alone:
  upstream negates the second column of its normalised ones, see `upstream_flip`.

  Args:
    batch: image, lidar, radar `[B, T, H, W, C]`, gps `[B, 2, 2]` metres, beam `[B, K]`, scenario
      `[B]`, power `[B, K, 64]` if there. wide: the lidar's field of view of `prepare --wide`.
  """
  out = dict(batch)
  out['image'] = jnp.flip(batch['image'], 3)
  out['beam'] = jnp.where(batch['beam'] < 0, batch['beam'], beams - 1 - batch['beam'])
  if 'power' in batch:
    out['power'] = jnp.flip(batch['power'], -1)
  if upstream:
    out['lidar'] = jnp.flip(batch['lidar'], 3)
    out['radar'] = jnp.flip(batch['radar'], 3)
    return out
  cells = batch['lidar'].shape[3]
  table = {k: y for k, (_, y) in FIELD.items()} if not wide else {}
  low, high = _by_scenario(batch['scenario'], table, WIDE[1]).T
  # Cell j has its centre at low + (j + 1/2) w; its mirror image lies at cells - 1 - j + shift.
  shift = jnp.round(-(low + high) / ((high - low) / cells)).astype(jnp.int32)
  place = cells - 1 - jnp.arange(cells) + shift[:, None]
  inside = (place >= 0) & (place < cells)

  def one(maps, place, inside):  # [T, X, Y, C]
    return jnp.where(inside[:, None], maps[:, :, jnp.clip(place, 0, cells - 1)], 0)

  out['lidar'] = jax.vmap(one)(batch['lidar'], place, inside)
  angle = jnp.roll(jnp.flip(batch['radar'][..., :1], 3), 1, 3)
  out['radar'] = jnp.concatenate([angle, batch['radar'][..., 1:]], -1)
  # A reflection in the line through the station at `heading` from east.
  twice = 2 * jnp.deg2rad(_by_scenario(batch['scenario'], HEADING, 0.0)).astype(batch['gps'].dtype)
  c, s = jnp.cos(twice)[:, None], jnp.sin(twice)[:, None]
  east, north = batch['gps'][..., 0], batch['gps'][..., 1]
  out['gps'] = jnp.stack([c * east + s * north, s * east - c * north], -1)
  return out


def upstream_flip(sample: Mapping[str, np.ndarray], reads: int = 1, beams: int = 64) -> dict:
  """A sample as upstream's `flip` gives it when it is read for the n-th time, on the host.

  Not a mirror image: the unshifted maps move by a bin and velocities turn around, the lidar's field
  of view is not symmetric, and of the two equal columns of the angle only the second changes its
  sign, in place, so that the sign alternates with every read.

  Args:
    sample: any of image, lidar, radar `[T, H, W, C]`, gps `[2, 2]` normalised, beam `[K]`, label
      `[K, 64]`. reads: n.
  """
  out = dict(sample)
  for name in ('image', 'lidar', 'radar'):
    if name in out:
      out[name] = out[name][:, :, ::-1]
  if 'gps' in out:
    out['gps'] = out['gps'] * np.array([1.0, (-1.0) ** reads], out['gps'].dtype)
  if 'beam' in out:
    out['beam'] = beams - 1 - out['beam']
  if 'label' in out:
    out['label'] = out['label'][..., ::-1]
  return out
