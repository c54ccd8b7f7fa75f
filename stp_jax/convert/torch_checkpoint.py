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

# Where trainers put the weights, tried in order; a bare state_dict has none of these.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')
_LIGHTNING = 'pytorch-lightning_version'


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


def _load_torch(path: pathlib.Path) -> object:
  try:
    import torch
  except ImportError as error:
    raise CheckpointError(
        f'{path}: reading a PyTorch file needs PyTorch: pip install "stp_jax[convert]"; '
        'an .npz of its arrays is read without') from error
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
  except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
    reason = (str(error).splitlines() or ['it ends early'])[0]
    raise CheckpointError(f'{path}: damaged: {reason}') from error


def _load_safetensors(path: pathlib.Path) -> object:
  try:
    import safetensors.numpy
  except ImportError as error:
    raise CheckpointError(f'{path}: reading it needs safetensors: pip install "stp_jax[convert]"'
                          ) from error
  try:
    return safetensors.numpy.load_file(path)
  except Exception as error:  # its own type, which changed its name between versions
    raise CheckpointError(f'{path}: not a safetensors file: {error}') from error


def _array(path: pathlib.Path, key: str, value: object) -> np.ndarray:
  if isinstance(value, np.ndarray):
    return value
  if not hasattr(value, 'detach'):
    raise CheckpointError(f'{path}: {key} is a {type(value).__name__}, not a tensor')
  value = value.detach()
  # NumPy has no bfloat16.
  return (value.float() if str(value.dtype) == 'torch.bfloat16' else value).numpy()


def _plain(path: pathlib.Path, tree: object) -> Any:
  """Arrays for tensors, dictionaries for mappings and namespaces, everywhere in `tree`."""
  if isinstance(tree, argparse.Namespace):
    tree = vars(tree)
  if isinstance(tree, Mapping):
    return {k: _plain(path, v) for k, v in tree.items()}
  if isinstance(tree, (list, tuple)):
    return [_plain(path, v) for v in tree]
  return _array(path, '', tree) if hasattr(tree, 'detach') else tree


def _beside(path: pathlib.Path, tree: Mapping[str, Any]) -> dict[str, Any]:
  """What a trainer's wrapper holds beside the weights."""
  def first(*names):
    found = next((tree[n] for n in names if tree.get(n)), {})
    found = found[0] if isinstance(found, (list, tuple)) else found
    found = _plain(path, found)
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
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
      raise CheckpointError(f'{path}: not an .npz of plain arrays: {error}') from error
  else:
    tree = (_load_safetensors if path.suffix == '.safetensors' else _load_torch)(path)
  wrapper, beside = '', {}
  if isinstance(tree, Mapping):
    wrapper = next((k for k in _WRAPPERS if isinstance(tree.get(k), Mapping)), '')
    if wrapper:
      beside = _beside(path, tree)
      tree = tree[wrapper]
  if not isinstance(tree, Mapping) or not tree:
    raise CheckpointError(f'{path}: holds no weights (a {type(tree).__name__}); expected a '
                          f'state_dict, alone or under {" or ".join(_WRAPPERS)}')
  weights = {k: _array(path, k, v) for k, v in tree.items()}
  left_out = ()
  if beside.get('lightning') and any(k.startswith('model.') for k in weights):
    left_out = tuple(k for k in weights if not k.startswith('model.'))
    weights = {k.removeprefix('model.'): v for k, v in weights.items() if k not in left_out}
  # DistributedDataParallel puts `module.` before every key.
  if all(k.startswith('module.') for k in weights):
    weights = {k.removeprefix('module.'): v for k, v in weights.items()}
  return TorchCheckpoint(weights, wrapper=wrapper, left_out=left_out, **beside)
