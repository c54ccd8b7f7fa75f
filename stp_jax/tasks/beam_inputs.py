"""What happens to a batch of beam samples before the network: scaling, lost sensors.

All on the device and inside the jitted step, so that a lost sensor is a mask and no other program:
one compiled evaluation serves every subset of the modalities.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from stp_jax.data import deepsense_features
from stp_jax.models.beam.inputs import MODALITIES
from stp_jax.typing import Array, Batch

FILLS, GPS = ('zero', 'random'), ('angle', 'extremes')
# One image value before ImageNet's normalisation is this times that after it, and this offset.
_STD, _MEAN = (58.395, 57.12, 57.375), (123.675, 116.28, 103.53)


def physical(batch: Batch, streams: Mapping[str, Mapping], gps: str = 'angle') -> dict[str, Array]:
  """Stored integers as the network reads them: pixels 0..255, lidar and radar 0..1, positions.

  Args:
    batch: raw, `[B, T, H, W, C]` each, `gps` `[B, 2, 2]` metres with `scenario` `[B]`.
    streams: of the DataSpec. gps: 'angle' or 'extremes', see `data.deepsense_features`.

  Raises:
    ValueError: another `gps`.
  """
  if gps not in GPS:
    raise ValueError(f'task.beam.gps={gps!r}: choose one of {" ".join(GPS)}')
  found = {}
  for name in MODALITIES:
    if name not in batch:
      continue
    x = batch[name]
    if name == 'gps':
      x = deepsense_features.gps_features(x, batch['scenario'], gps == 'angle')
    elif name != 'image':  # the network normalises pixels; floats earlier would cost memory
      x = x.astype(jnp.float32) * streams[name].get('scale', 1.0)
    found[name] = x
  return found


def present(names: Sequence[str], missing: Sequence[str], batch: int, rate: float = 1.0,
            rng: jax.Array | None = None) -> Array:
  """`[B, M]`, 1 where an example has the modality, in the order of `names`.

  Args:
    missing: modalities that are lost, each with probability `rate` in each example (1: always).

  Raises:
    ValueError: a modality that is not in `names`.
  """
  check_names(missing, names)
  lost = jnp.broadcast_to(jnp.array([n in missing for n in names]), (batch, len(names)))
  if rate < 1:
    lost &= jax.random.uniform(rng, lost.shape) < rate
  return 1.0 - lost


def check_names(missing: Sequence[str], names: Sequence[str]) -> None:
  """Raises ValueError, one line, where `missing` names what the run does not have."""
  wrong = [m for m in missing if m not in names]
  if wrong:
    raise ValueError(f'missing={"+".join(missing)}: the run has no {wrong[0]!r}; '
                     f'choose some of {" ".join(names)}, joined by +')


def hide(inputs: Mapping[str, Array], names: Sequence[str], there: Array, fill: str,
         rng: jax.Array | None = None, index: Array | None = None) -> dict[str, Array]:
  """Replaces lost modalities by zeros or noise, as the network sees them (after normalisation).

  Args:
    inputs: of `physical`. names: their order in `there` `[B, M]`.
    fill: 'zero' or 'random', uniform in 0..1. rng: for 'random'.
    index: `[B]`, numbers of the examples, on which alone their noise depends; None: their places.

  Raises:
    ValueError: another fill.
  """
  if fill not in FILLS:
    raise ValueError(f'task.beam.fill={fill!r}: choose one of {" ".join(FILLS)}')
  found = dict(inputs)
  index = jnp.arange(len(there)) if index is None else index
  for i, name in enumerate(names):
    x = jnp.asarray(inputs[name])
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    noise = jnp.zeros_like(x)
    if fill == 'random':
      key = jax.random.fold_in(rng, i)
      draw = lambda j, key=key, x=x: jax.random.uniform(
          jax.random.fold_in(key, j), x.shape[1:], x.dtype)
      noise = jax.vmap(draw)(index)
    if name == 'image':  # the network normalises: give it what that turns into zero, or noise
      noise = noise * jnp.asarray(_STD, x.dtype) + jnp.asarray(_MEAN, x.dtype)
    keep = there[:, i].reshape(-1, *[1] * (x.ndim - 1))
    found[name] = jnp.where(keep > 0, x, noise)
  return found
