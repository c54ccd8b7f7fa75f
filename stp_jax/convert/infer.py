"""Sizes that the weights themselves tell, so that no config need repeat them."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np


def _numbers(weights: Mapping[str, np.ndarray], pattern: str) -> list[int]:
  """The sorted distinct numbers that the pattern's group takes in the keys."""
  found = (re.match(pattern, key) for key in weights)
  return sorted({int(match[1]) for match in found if match})


def _convlstm(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
  layers = _numbers(weights, r'cell_list\.(\d+)\.conv_h\.0\.weight')
  hidden = [weights[f'cell_list.{i}.conv_h.0.weight'] for i in layers]
  return {
      'model.backbone.features': tuple(int(w.shape[1]) for w in hidden),
      'model.backbone.kernel_size': int(hidden[0].shape[-1]),
      'model.backbone.layer_norm': 'cell_list.0.conv_x.1.weight' in weights,
      'model.patch': math.isqrt(weights['conv_last.weight'].shape[0])}


def _simvp(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
  first = weights['enc.enc.0.conv.conv.weight']
  hidden = int(first.shape[0])
  fields = {
      'model.backbone.hid_S': hidden,
      'model.backbone.N_S': len(_numbers(weights, r'enc\.enc\.(\d+)\.')),
      'model.backbone.N_T': len(_numbers(weights, r'hid\.enc\.(\d+)\.')),
      'model.backbone.spatio_kernel_enc': int(first.shape[-1]),
      'model.backbone.spatio_kernel_dec': int(weights['dec.dec.1.conv.conv.weight'].shape[-1])}
  block = 'hid.enc.0.block.'
  if f'{block}layer_scale_1' in weights:  # gsta, tau: the width of the first block is t_in * hid_S
    width = len(weights[f'{block}layer_scale_1'])
    fields['data.t_in'] = width // hidden
    reduction = weights.get('hid.enc.0.reduction.weight')
    fields['model.backbone.hid_T'] = width if reduction is None else int(reduction.shape[0])
    fields['model.backbone.mlp_ratio'] = len(weights[f'{block}mlp.fc1.bias']) / width
  return fields


_READERS = dict(convlstm=_convlstm, simvp=_simvp)


def fields(model: str, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Dotted config field -> value, as the shapes of `weights` say; {} where they do not.

  Weights of another model give {}: the strict conversion that follows names what does not fit.
  """
  try:
    return _READERS[model](weights) if model in _READERS else {}
  except (KeyError, IndexError):
    return {}
