"""Reads PyTorch checkpoints as NumPy arrays, refusing every pickle that holds more than tensors."""

import argparse
import contextlib
import dataclasses
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from stp_jax.data import archives
from stp_jax.data.clip_store import StoreError

# Where trainers put the weights, tried in order; a bare state_dict has none of these.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')
_LIGHTNING = 'pytorch-lightning_version'
# Nothing that trainers write comes near these.
_DEEPEST, _MOST_VALUES = 64, 1 << 20
_SLACK = 1 << 20  # bytes that a tensor which repeats its values may have
_SHARED = 16  # times that tensors may share the bytes of the file


class CheckpointError(ValueError):
  """A checkpoint file that is missing, damaged, unsafe, or holds no weights."""


@dataclasses.dataclass(frozen=True)
class TorchCheckpoint:
  """The weights of a checkpoint, and what its wrapper says.

  Attributes:
    weights: PyTorch key -> array in PyTorch's layout, in the file's order, without a `module.`
      prefix (and, from Lightning, without `model.`).
    epoch: epochs trained when the file was written, or None.
    wrapper: the key that the weights stood under, or '' for a bare state_dict.
    optimizer, scheduler: their state_dicts with arrays for tensors; {} without.
    hyperparameters: of the trainer, where it puts them into the file (Lightning); {} without.
    lightning: whether Lightning wrote it.
    left_out: keys of tensors that are not the model's (Lightning: those of the trainer).
  """
  weights: dict[str, np.ndarray]
  epoch: int | None = None
  wrapper: str = ''
  optimizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  scheduler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  lightning: bool = False
  left_out: tuple[str, ...] = ()


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0]


def _load_torch(path: pathlib.Path) -> object:
  try:
    import torch
  except ImportError as error:
    raise CheckpointError(
        f'{path}: reading a PyTorch file needs PyTorch: pip install "stp_jax[convert]"; '
        'an .npz of its arrays is read without') from error
  try:
    if zipfile.is_zipfile(path):
      with zipfile.ZipFile(path) as archive:
        archives.check_sizes(path, archive)
  except StoreError as error:
    raise CheckpointError(str(error)) from error
  except archives.ERRORS as error:
    raise CheckpointError(f'{path}: damaged: {_first_line(error)}') from error
  # Trainers keep their arguments in one; it holds values and runs nothing.
  allow = getattr(torch.serialization, 'safe_globals', lambda _: contextlib.nullcontext())
  try:
    with warnings.catch_warnings(), allow([argparse.Namespace]):
      warnings.simplefilter('ignore')  # about odd pickles, which are refused or read right
      return torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    raise CheckpointError(
        f'{path}: refused: not a PyTorch checkpoint, or one with Python objects beside tensors, '
        'which could run code when read; save its state_dict alone') from error
  except Exception as error:  # whatever the readers of a damaged pickle trip over
    raise CheckpointError(f'{path}: damaged: {_first_line(error)}') from error


def _load_safetensors(path: pathlib.Path) -> object:
  try:
    import safetensors.numpy
  except ImportError as error:
    raise CheckpointError(f'{path}: reading it needs safetensors: pip install "stp_jax[convert]"'
                          ) from error
  try:
    return safetensors.numpy.load_file(path)
  except Exception as error:  # its own type, which changed its name between versions
    raise CheckpointError(f'{path}: not a safetensors file: {_first_line(error)}') from error


def _array(path: pathlib.Path, key: str, value: object) -> np.ndarray:
  if isinstance(value, np.ndarray):
    return value
  if not hasattr(value, 'detach'):
    raise CheckpointError(f'{path}: {key} is a {type(value).__name__}, not a tensor')
  try:
    value = value.detach()
    claimed = value.numel() * value.element_size()
    have = value.untyped_storage().nbytes()
    if claimed <= max(have, _SLACK):
      value = value.resolve_conj().resolve_neg()
      # NumPy has no bfloat16.
      return (value.float() if str(value.dtype) == 'torch.bfloat16' else value).numpy()
  except Exception as error:  # sparse, quantised, on no device, of 8 bits, ...: each its own
    kind = ' '.join(str(getattr(value, n, '')) for n in ('layout', 'dtype', 'device'))
    raise CheckpointError(f'{path}: {key} is a tensor that NumPy has no array for ({kind}); save '
                          'it dense, as float32, on the CPU') from error
  raise CheckpointError(f'{path}: {key} says that it is {tuple(value.shape)} {value.dtype}, which '
                        f'its {have:,} bytes are not; refused')


class _Reader:
  """Arrays for the tensors of one file, as long as they are no more than it can hold.

  A few bytes of a pickle can make a list that holds itself, one that holds the same list twice,
  which holds the same list twice, or a thousand tensors of the same bytes.
  """

  def __init__(self, path: pathlib.Path):
    self._path, self._values = path, _MOST_VALUES
    self._bytes = _SHARED * (path.stat().st_size + _SLACK)

  def array(self, key: str, value: object) -> np.ndarray:
    array = _array(self._path, key, value)
    if array is not value:
      self._bytes -= array.nbytes
    if self._bytes < 0:
      raise CheckpointError(f'{self._path}: its tensors up to {key} say that they have far more '
                            'bytes than the file; refused')
    return array

  def weights(self, tree: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    for key in tree:
      if not isinstance(key, str) or not key.isprintable():
        raise CheckpointError(f'{self._path}: the key {repr(key)[:80]} is no name of a weight')
    return {k: self.array(k, v) for k, v in tree.items()}

  def plain(self, name: str, tree: object, depth: int = 0) -> Any:
    """Arrays for tensors, dictionaries for mappings and namespaces, everywhere in `tree`."""
    self._values -= 1
    if depth > _DEEPEST or self._values < 0:
      what = f'nested {depth} deep' if depth > _DEEPEST else f'of {_MOST_VALUES:,} values and more'
      raise CheckpointError(f'{self._path}: {name}: {what}; refused: save its state_dict alone')
    if isinstance(tree, argparse.Namespace):
      tree = vars(tree)
    if isinstance(tree, Mapping):
      return {k: self.plain(name, v, depth + 1) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
      return [self.plain(name, v, depth + 1) for v in tree]
    return self.array(name, tree) if hasattr(tree, 'detach') else tree


def _beside(reader: _Reader, tree: Mapping[str, Any]) -> dict[str, Any]:
  """What a trainer's wrapper holds beside the weights."""
  def first(*names):
    kinds = Mapping, list, tuple, argparse.Namespace
    name = next((n for n in names if isinstance(tree.get(n), kinds) and tree[n]), '')
    found = tree[name] if name else {}
    found = found[0] if isinstance(found, (list, tuple)) else found
    found = reader.plain(name, found)
    return found if isinstance(found, dict) else {}

  epoch = tree.get('epoch') if isinstance(tree.get('epoch'), int) else None
  lightning = _LIGHTNING in tree
  if lightning and epoch is not None:
    epoch += 1  # the index of the epoch just trained
  return dict(
      epoch=epoch, lightning=lightning, optimizer=first('optimizer', 'optimizer_states'),
      scheduler=first('scheduler', 'lr_schedulers'), hyperparameters=first('hyper_parameters'))


def load(path: str | pathlib.Path) -> TorchCheckpoint:
  """Reads a `.pth` or `.ckpt` (bare state_dict or trainer's wrapper), `.npz` or `.safetensors`.

  Raises:
    CheckpointError: one line that names the file and the cure.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise CheckpointError(f'{path}: no such file')
  if path.suffix == '.npz':
    try:
      archives.check_npz(path)
      with np.load(path, allow_pickle=False) as file:
        tree: object = dict(file)
    except archives.ERRORS as error:
      raise CheckpointError(f'{path}: not an .npz of plain arrays: {_first_line(error)}'
                            ) from error
  else:
    tree = (_load_safetensors if path.suffix == '.safetensors' else _load_torch)(path)
  reader, wrapper, beside = _Reader(path), '', {}
  if isinstance(tree, Mapping):
    wrapper = next((k for k in _WRAPPERS if isinstance(tree.get(k), Mapping)), '')
    if wrapper:
      beside = _beside(reader, tree)
      tree = tree[wrapper]
  if not isinstance(tree, Mapping) or not tree:
    raise CheckpointError(f'{path}: holds no weights (a {type(tree).__name__}); expected a '
                          f'state_dict, alone or under {" or ".join(_WRAPPERS)}')
  weights = reader.weights(tree)
  left_out = ()
  if beside.get('lightning') and any(k.startswith('model.') for k in weights):
    left_out = tuple(k for k in weights if not k.startswith('model.'))
    weights = {k.removeprefix('model.'): v for k, v in weights.items() if k not in left_out}
  # DistributedDataParallel puts `module.` before every key.
  if all(k.startswith('module.') for k in weights):
    weights = {k.removeprefix('module.'): v for k, v in weights.items()}
  return TorchCheckpoint(weights, wrapper=wrapper, left_out=left_out, **beside)
