"""Weights between PyTorch and Flax, both ways: total or fail.

A family says how a Flax path is spelt in PyTorch and which PyTorch tensors nothing uses; layouts
follow from the leaf's name and rank. Every tensor is used or declared unused, every leaf is filled,
every shape agrees, or nothing is converted.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from stp_jax.typing import PyTree

Path = tuple[str, ...]
_COLLECTIONS = ('params', 'batch_stats')
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}


class ConversionError(ValueError):
  """Weights that do not fit the model; one line that names the keys."""


@dataclasses.dataclass(frozen=True)
class Family:
  """How one family of models spells its weights.

  Attributes:
    name: for messages.
    key: Flax path below 'backbone' -> PyTorch key; with `{}` for the number of a layer where the
      leaf is a stack of equal ones (a scan's) along its first axis.
    first_layer: the number of the first layer of a stack.
    unused: patterns of PyTorch parameters that no output depends on. They are not parameters of
      ours, are kept beside a converted checkpoint, and count in `parameter_count`.
    buffers: patterns of PyTorch buffers that we derive or do not need; kept, not counted.
    layouts: (pattern of PyTorch keys, layout) where the rank does not tell it; see `layout_of`.
    aliases: (prefix, prefix of the same tensors): a module that PyTorch reaches by two names is
      listed twice. Read if there and equal, not counted, and written back from the first.
    constants: PyTorch buffers that never change, written where the conversion kept none.
    dead: (live tensors by PyTorch key, (H, W) of a frame) -> the unused tensors and the buffers
      that belong to them, as PyTorch would have them at the start; see `complete`.
  """
  name: str
  key: Callable[[Path], str]
  first_layer: int = 0
  unused: tuple[str, ...] = ()
  buffers: tuple[str, ...] = (r'.*\.num_batches_tracked',)
  layouts: tuple[tuple[str, str], ...] = ()
  aliases: tuple[tuple[str, str], ...] = ()
  constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  dead: Callable[[Mapping[str, np.ndarray], tuple[int, int]], dict[str, np.ndarray]] = (
      lambda weights, frame: {})


def spell(path: Path, indexed: Iterable[str] = ()) -> str:
  """Joins a Flax path into a PyTorch key.

  `<name>_<i>` becomes `<name>.<i>` where `name` is in `indexed` (a list of modules in PyTorch;
  other names may end in a number of their own, `proj_1`); the leaf takes PyTorch's word.
  """
  indexed = set(indexed)
  parts = []
  for part in path[:-1]:
    name, _, number = part.rpartition('_')
    parts += [name, number] if name in indexed and number.isdigit() else [part]
  return '.'.join([*parts, _LEAVES.get(path[-1], path[-1])])


def layout_of(family: Family, key: str, leaf: str, rank: int) -> str:
  """How a tensor lies in PyTorch and here; `rank` is ours.

  conv: `[O, I, k...]` and `[k..., I, O]`, depthwise (I = 1) included. linear: `[O, I]` and
  `[I, O]`, or `[1, 1, I, O]` where it is a 1 x 1 convolution here. pointwise: `[O, I, 1, 1]` and
  `[I, O]`. transposed: `[I, O, k...]` and `[k..., I, O]`, flipped in space, as
  `jax.lax.conv_transpose` wants it. volume: `[C, H, W]` and `[H, W, C]`, the norm over all three.
  planes: `[1, C, 1, 1]` and `[1, 1, 1, C]`, a factor per channel; a vector stays one. same: alike.
  """
  for pattern, layout in family.layouts:
    if re.fullmatch(pattern, key):
      return layout
  if leaf == 'kernel':
    return 'linear' if rank == 2 else 'conv'
  return 'volume' if rank >= 3 else 'same'


def _flip(array: np.ndarray) -> np.ndarray:
  return array[(slice(None), slice(None), *[slice(None, None, -1)] * (array.ndim - 2))]


def from_torch(layout: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
  """`array` in our layout, or None where it cannot have `shape`."""
  least = {'conv': 3, 'transposed': 3, 'linear': 2, 'pointwise': 4, 'volume': 1}
  if array.ndim < least.get(layout, 0):
    return None
  if layout == 'transposed':
    array = np.swapaxes(_flip(array), 0, 1)
  if layout in ('conv', 'transposed'):
    array = np.transpose(array, (*range(2, array.ndim), 1, 0))
  elif layout == 'linear':
    array = array.T.reshape((1,) * (len(shape) - 2) + array.T.shape)
  elif layout == 'pointwise':
    array = array.reshape(array.shape[:2] if array[0, 0].size == 1 else array.shape).T
  elif layout == 'volume':
    array = np.moveaxis(array, 0, -1)
  elif layout == 'planes' and array.ndim > 2:
    array = np.moveaxis(array, 1, -1)
  return array if array.shape == tuple(shape) else None


def into_torch(layout: str, array: np.ndarray) -> np.ndarray:
  """The inverse of `from_torch`."""
  if layout in ('conv', 'transposed'):
    array = np.transpose(array, (array.ndim - 1, array.ndim - 2, *range(array.ndim - 2)))
    return _flip(np.swapaxes(array, 0, 1)) if layout == 'transposed' else array
  if layout == 'linear':
    return array.reshape(array.shape[-2:]).T
  if layout == 'pointwise':
    return array.T[:, :, None, None]
  if layout == 'planes':
    return np.moveaxis(array, -1, 1) if array.ndim > 2 else array
  return np.moveaxis(array, -1, 0) if layout == 'volume' else array


def leaves(family: Family, variables: PyTree) -> dict[tuple[str, Path, int | None], str]:
  """(collection, path, layer of a stacked leaf or None) -> PyTorch key, of what PyTorch has too."""
  found = {}
  for collection in _COLLECTIONS:
    for path, leaf in flax.traverse_util.flatten_dict(dict(variables.get(collection, {}))).items():
      key = family.key(path[1:] if path[0] == 'backbone' else path)
      for layer in range(leaf.shape[0]) if '{}' in key else (None,):
        found[collection, path, layer] = key.format(family.first_layer + (layer or 0))
  twice = [k for k, n in collections.Counter(found.values()).items() if n > 1]
  if twice:
    raise ConversionError(f'{family.name}: two leaves are called {_short(twice)}')
  return found


def _short(items: Iterable[str], count: int = 4) -> str:
  items = list(items)
  more = f' and {len(items) - count} more' if len(items) > count else ''
  return ', '.join(items[:count]) + more


def matches(patterns: Iterable[str], key: str) -> bool:
  """Whether any of the patterns is the whole key."""
  return any(re.fullmatch(p, key) for p in patterns)


def first_name(family: Family, key: str) -> str:
  """The name under which a tensor is read that PyTorch lists twice; others keep theirs."""
  for alias, first in family.aliases:
    if key.startswith(alias):
      return first + key.removeprefix(alias)
  return key


def to_flax(family: Family, weights: Mapping[str, np.ndarray], template: PyTree
            ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """PyTorch weights as Flax variables.

  Args:
    family: the name map.
    weights: PyTorch key -> array.
    template: the model's variables or their shapes (`jax.eval_shape` of its init). Collections
      other than params and batch_stats are passed over.

  Returns:
    {'params', 'batch_stats'} with the template's shapes and dtypes, and the unused tensors.

  Raises:
    ConversionError: missing, left-over or misshaped keys, all named (shortened) in one line.
  """
  names = leaves(family, template)
  again = [k for k in weights if first_name(family, k) in weights and first_name(family, k) != k]
  differ = [k for k in again if not np.array_equal(weights[k], weights[first_name(family, k)])]
  weights = {k: v for k, v in weights.items() if k not in again}
  missing = [key for key in names.values() if key not in weights]
  extra = [k for k in weights if k not in set(names.values())
           and not matches(family.unused + family.buffers, k)]
  flat: dict[str, dict] = {c: {} for c in _COLLECTIONS}
  shapes = {c: flax.traverse_util.flatten_dict(dict(template.get(c, {}))) for c in _COLLECTIONS}
  wrong = []
  for (collection, path, layer), key in names.items():
    if key in weights:
      want = shapes[collection][path]
      shape = want.shape if layer is None else want.shape[1:]
      layout = layout_of(family, key, path[-1], len(shape))
      array = from_torch(layout, np.asarray(weights[key]), shape)
      if array is None:
        wrong.append(f'{key} {np.shape(weights[key])} for {"/".join(path)} {tuple(shape)}')
      else:
        whole = flat[collection].setdefault(path, np.empty(want.shape, want.dtype))
        whole[() if layer is None else layer] = array
  problems = [f'{label}: {_short(keys)}' for label, keys in (
      ('missing', missing), ('nothing uses', extra), ('wrong shape', wrong),
      ('differs from its other name', differ)) if keys]
  if problems:
    raise ConversionError(f'{family.name}: the weights do not fit: {"; ".join(problems)}')
  used = set(names.values())
  unused = {k: np.asarray(v) for k, v in weights.items() if k not in used}
  return {c: flax.traverse_util.unflatten_dict(v) for c, v in flat.items() if v}, unused


def to_torch(family: Family, variables: PyTree, unused: Mapping[str, np.ndarray] | None = None
             ) -> dict[str, np.ndarray]:
  """Flax variables (or gradients, which have the same tree) under PyTorch's keys and layouts.

  Args:
    family: the name map.
    variables: {'params', 'batch_stats'}; other collections are passed over.
    unused: tensors that `to_flax` set aside, written back as they are.
  """
  out = {}
  for (collection, path, layer), key in leaves(family, variables).items():
    node = variables[collection]
    for part in path:
      node = node[part]
    array = np.asarray(node) if layer is None else np.asarray(node)[layer]
    array = into_torch(layout_of(family, key, path[-1], array.ndim), array)
    out[key] = np.ascontiguousarray(array) if array.ndim else array
  twice = {alias + k.removeprefix(first): v for alias, first in family.aliases
           for k, v in out.items() if k.startswith(first)}
  return dict(family.constants) | out | twice | dict(unused or {})


def complete(family: Family, weights: Mapping[str, np.ndarray], frame: tuple[int, int]
             ) -> dict[str, np.ndarray]:
  """`weights` and whatever else PyTorch's model has, so that it loads them strictly.

  A run trained here has no tensors that nothing uses: convolutions are filled with zeros, norms
  with ones, counters with 0. Tensors that are there stay.

  Args:
    frame: (H, W) of the frames.
  """
  counters = {f'{k.removesuffix("running_mean")}num_batches_tracked': np.zeros((), np.int64)
              for k in weights if k.endswith('.running_mean')}
  return counters | family.dead(weights, frame) | dict(weights)


def parameter_count(family: Family, params: PyTree, unused: Mapping[str, np.ndarray]) -> int:
  """Parameters as PyTorch counts them: ours and the unused ones, without buffers."""
  flat = flax.traverse_util.flatten_dict(dict(params))
  return (sum(int(np.prod(v.shape)) for v in flat.values())
          + sum(v.size for k, v in unused.items() if not matches(family.buffers, k)))
