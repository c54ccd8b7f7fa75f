"""Reads PyTorch checkpoints as NumPy arrays, refusing every pickle that holds more than tensors."""

import dataclasses
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping

import numpy as np

# Where trainers put the weights, tried in order; a bare state_dict has none of these.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')


class CheckpointError(ValueError):
  """A checkpoint file that is missing, damaged, unsafe, or holds no weights."""


@dataclasses.dataclass(frozen=True)
class TorchCheckpoint:
  """The weights of a checkpoint, and what its wrapper says.

  Attributes:
    weights: PyTorch key -> array in PyTorch's layout, without a `module.` prefix.
    epoch: epochs trained when the file was written, or None.
    wrapper: the key that the weights stood under, or '' for a bare state_dict.
  """
  weights: dict[str, np.ndarray]
  epoch: int | None = None
  wrapper: str = ''


def _load_torch(path: pathlib.Path) -> object:
  try:
    import torch
  except ImportError as error:
    raise CheckpointError(
        f'{path}: reading a PyTorch file needs PyTorch: pip install "stp_jax[convert]"; '
        'an .npz of its arrays is read without') from error
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # about odd pickles, which are refused or read right
      return torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    raise CheckpointError(
        f'{path}: refused: not a PyTorch checkpoint, or one with Python objects beside tensors, '
        'which could run code when read; save its state_dict alone') from error
  except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
    reason = (str(error).splitlines() or ['it ends early'])[0]
    raise CheckpointError(f'{path}: damaged: {reason}') from error


def _array(path: pathlib.Path, key: str, value: object) -> np.ndarray:
  if isinstance(value, np.ndarray):
    return value
  if not hasattr(value, 'detach'):
    raise CheckpointError(f'{path}: {key} is a {type(value).__name__}, not a tensor')
  value = value.detach()
  # NumPy has no bfloat16.
  return (value.float() if str(value.dtype) == 'torch.bfloat16' else value).numpy()


def load(path: str | pathlib.Path) -> TorchCheckpoint:
  """Reads a `.pth` (bare state_dict or trainer's wrapper), or an `.npz` of the same arrays.

  Raises:
    CheckpointError: one line that names the file and the cure.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise CheckpointError(f'{path}: no such file')
  if path.suffix == '.npz':
    try:
      with np.load(path, allow_pickle=False) as file:
        tree: object = dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
      raise CheckpointError(f'{path}: not an .npz of plain arrays: {error}') from error
  else:
    tree = _load_torch(path)
  wrapper, epoch = '', None
  if isinstance(tree, Mapping):
    wrapper = next((k for k in _WRAPPERS if isinstance(tree.get(k), Mapping)), '')
    if wrapper:
      epoch = tree.get('epoch') if isinstance(tree.get('epoch'), int) else None
      tree = tree[wrapper]
  if not isinstance(tree, Mapping) or not tree:
    raise CheckpointError(f'{path}: holds no weights (a {type(tree).__name__}); expected a '
                          f'state_dict, alone or under {" or ".join(_WRAPPERS)}')
  weights = {k: _array(path, k, v) for k, v in tree.items()}
  # DistributedDataParallel puts `module.` before every key.
  if all(k.startswith('module.') for k in weights):
    weights = {k.removeprefix('module.'): v for k, v in weights.items()}
  return TorchCheckpoint(weights, epoch, wrapper)
