"""The mesh, and one rule that says where every array of the state lives."""

import contextlib
import contextvars
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stp_jax.models.layers import across
from stp_jax.models.layers.context import held
from stp_jax.typing import PyTree

AXES = ('data', 'fsdp')
# Smaller arrays cost more to gather than they save.
_MIN_SHARDED = 1 << 14
_TRAINING: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar('mesh', default=None)


def make_mesh(data: int = -1, fsdp: int = 1, devices=None) -> Mesh:
  """A mesh `('data', 'fsdp')`; one size may be -1, all devices that are left.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [data, fsdp]
  if -1 in sizes:
    sizes[sizes.index(-1)] = len(devices) // max(1, -data * fsdp if data == -1 else -fsdp * data)
  if min(sizes) < 1 or np.prod(sizes) != len(devices):
    raise ValueError(f'mesh.data={data} mesh.fsdp={fsdp}: does not fit {len(devices)} devices')
  return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec(AXES))


def parts_sharding(mesh: Mesh) -> NamedSharding:
  """Of a batch in parts, `[parts, B, ...]`: each part is split over all devices."""
  return NamedSharding(mesh, PartitionSpec(None, AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
  """Every array whole on every device: host arrays, or arrays that live on devices already.

  Each process must give the same values; nothing is moved from process to process that it has.
  """
  where = replicated(mesh)
  if jax.process_count() == 1:
    return jax.device_put(tree, where)
  spread = jax.jit(lambda x: x, out_shardings=where)
  return jax.tree.map(
      lambda x: spread(x) if isinstance(x, jax.Array) and not x.is_fully_addressable
      else jax.device_put(np.asarray(x), where), tree)


def _divided(leaf, parts: int, min_size: int) -> int | None:
  """The axis that is divided: the largest that can be, of big leaves; else None."""
  if parts > 1 and leaf.size >= min_size:
    for axis in np.argsort(leaf.shape)[::-1]:
      if leaf.shape[axis] % parts == 0:
        return int(axis)
  return None


def state_shardings(mesh: Mesh, shapes: PyTree, min_size: int = _MIN_SHARDED) -> PyTree:
  """FSDP by one rule: the largest divisible axis of big leaves; the rest is replicated.

  Applied to `eval_shape` of the whole state, so optimizer moments follow their parameters.
  """
  def rule(leaf):
    axis = _divided(leaf, mesh.shape['fsdp'], min_size)
    spec = [] if axis is None else ['fsdp' if i == axis else None for i in range(leaf.ndim)]
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(rule, shapes)


def better_fsdp(mesh: Mesh, shapes: PyTree) -> tuple[int, int] | None:
  """A smaller `mesh.fsdp` under which a device holds less, and its bytes; None: there is none.

  Where a size does not divide an array it stays whole: more parts can mean more on each device.
  """
  def held(parts):
    return sum(
        leaf.size * leaf.dtype.itemsize
        // (1 if _divided(leaf, parts, _MIN_SHARDED) is None else parts)
        for leaf in jax.tree.leaves(shapes)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended))

  now = mesh.shape['fsdp']
  best = min((p for p in range(1, now + 1) if now % p == 0), key=held)
  return (best, held(best)) if held(best) < held(now) else None


def bytes_per_device(shapes: PyTree, shardings: PyTree) -> int:
  """Bytes of a sharded tree on one device; shapes: arrays, or what `eval_shape` returns."""
  def one(leaf, sharding):
    # The data of a typed key are opaque here and tiny.
    size = 0 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf.dtype.itemsize
    return math.prod(sharding.shard_shape(leaf.shape)) * size

  return sum(jax.tree.leaves(jax.tree.map(one, shapes, shardings)))


def training_on(mesh: Mesh) -> contextlib.AbstractContextManager[None]:
  """While a step is traced: `per_shard` splits batches over the devices of `mesh`."""
  return held(_TRAINING, mesh)


def keeps_order(mesh: Mesh) -> bool:
  """Whether all devices run the collectives of a program in one order.

  A host that plays several devices does not: two all-reduces that do not depend on each other wait
  for its few threads, some devices in one, some in the other, for ever.
  """
  return mesh.devices.flat[0].platform != 'cpu'


def mesh_in_training() -> Mesh | None:
  """The mesh of `training_on`, None outside."""
  return _TRAINING.get()


def draws(function: Callable, *args) -> bool:
  """Whether a function draws random numbers; traces it."""
  def found(jaxpr) -> bool:
    return any(
        e.primitive.name in ('random_bits', 'threefry2x32', 'rng_bit_generator')
        or any(found(getattr(v, 'jaxpr', v)) for p in e.params.values()
               for v in (p if isinstance(p, (tuple, list)) else (p,))
               if hasattr(v, 'eqns') or hasattr(v, 'jaxpr'))
        for e in jaxpr.eqns)

  return found(jax.make_jaxpr(function)(*args).jaxpr)


def per_shard(function: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], whole: PyTree,
              batched: PyTree) -> tuple[PyTree, PyTree]:
  """`function(whole, batched)`, on each device for its own rows of the batch.

  Left to itself, the compiler adds up the gradient of a parameter over the devices in every step of
  a time loop. Here a loop runs on one device and knows of no other (but for batch statistics, see
  `models.layers.across`); the gradient of `whole` is added up once, where it leaves the loop.

  Args:
    function: returns (arrays `[B, ...]`, arrays that are the same on every device); its rows do not
      depend on each other. whole: arrays that every device has. batched: arrays `[B, ...]`, None.

  Outside of `training_on`, on one device, or where the rows do not divide: a plain call.
  """
  mesh = _TRAINING.get()
  rows = {x.shape[0] for x in jax.tree.leaves(batched)}
  if mesh is None or mesh.devices.size == 1 or any(n % mesh.devices.size for n in rows):
    return function(whole, batched)

  def local(whole, batched) -> tuple[Any, Any]:
    with across.devices_on(AXES):
      return function(whole, batched)

  split, same = PartitionSpec(AXES), PartitionSpec()
  # The types of values that differ between devices are not tracked: custom gradients and scans of
  # Flax would have to declare them. Tests compare losses and gradients with one device.
  return jax.shard_map(local, mesh=mesh, in_specs=(same, split), out_specs=(split, same),
                       check_vma=False)(whole, batched)
