"""Trunks that start from ImageNet weights (see `stp_jax.convert.resnet`)."""

import pathlib
from collections.abc import Mapping

import flax.traverse_util
import numpy as np

from stp_jax.data import archives
from stp_jax.typing import PyTree


def insert(variables: PyTree, files: Mapping[str, str | pathlib.Path]) -> dict[str, PyTree]:
  """`variables` with the trunks of some sensors replaced; `files`: sensor -> `.npz`.

  The first convolution stays as it is where its channels differ (lidar and radar).

  Raises:
    ValueError: a sensor without a trunk; a file that does not fit it; one line.
  """
  flat = {c: flax.traverse_util.flatten_dict(dict(v)) for c, v in variables.items()}
  for sensor, file in files.items():
    trunk = f'{sensor}_encoder'
    own = {(c, *path) for c, tree in flat.items() for path in tree if path[0] == trunk}
    if not own:
      raise ValueError(f'{file}: the network has no trunk for {sensor!r}')
    try:
      archives.check_npz(file)
      with np.load(file, allow_pickle=False) as data:
        arrays = {tuple(k.split('/')): v for k, v in data.items()}
    except archives.ERRORS as error:
      raise ValueError(f'{file}: not an .npz that `stp_jax.convert resnet` wrote') from error
    given = {(c, trunk, *path) for c, *path in arrays}
    if given != own:
      odd = sorted('/'.join(p) for p in given ^ own)
      raise ValueError(f'{file}: not the trunk of {sensor}: {len(odd)} arrays differ ({odd[0]})')
    for (collection, *path), array in arrays.items():
      path = (trunk, *path)
      shape = flat[collection][path].shape
      if array.shape == shape:
        flat[collection][path] = array.astype(flat[collection][path].dtype)
      elif path[1] != 'conv1':
        raise ValueError(f'{file}: {"/".join(path)} is {array.shape}, the network has {shape}')
  return {c: flax.traverse_util.unflatten_dict(tree) for c, tree in flat.items()}
