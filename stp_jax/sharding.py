"""The mesh, and one rule that says where every array of the state lives."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stp_jax.typing import PyTree

AXES = ('data', 'fsdp')
# Smaller arrays cost more to gather than they save.
_MIN_SHARDED = 1 << 14


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


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, shapes: PyTree, min_size: int = _MIN_SHARDED) -> PyTree:
  """FSDP by one rule: the largest divisible axis of big leaves; the rest is replicated.

  Applied to `eval_shape` of the whole state, so optimizer moments follow their parameters.
  """
  parts = mesh.shape['fsdp']

  def rule(leaf):
    if parts > 1 and leaf.size >= min_size:
      for axis in np.argsort(leaf.shape)[::-1]:
        if leaf.shape[axis] % parts == 0:
          spec = ['fsdp' if i == axis else None for i in range(leaf.ndim)]
          return NamedSharding(mesh, PartitionSpec(*spec))
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree.map(rule, shapes)


def bytes_per_device(shapes: PyTree, shardings: PyTree) -> int:
  """Bytes of a sharded tree on one device; shapes: arrays, or what `eval_shape` returns."""
  def one(leaf, sharding):
    # The data of a typed key are opaque here and tiny.
    size = 0 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf.dtype.itemsize
    return math.prod(sharding.shard_shape(leaf.shape)) * size

  return sum(jax.tree.leaves(jax.tree.map(one, shapes, shardings)))
