"""SimVP's sizes and translator, from the names and shapes of its weights."""

import math
import re

import numpy as np

from stp_jax.convert.shapes import BACKBONE, Fields, Weights, numbers

# What only one translator has, tried in order; below `hid.enc.<i>.`.
_SIGNS = (
    ('incepu', 'conv1.weight'), ('convmixer', 'block.norm_1.weight'),
    ('convnext', 'block.gamma'), ('hornet', 'block.gnconv.proj_in.weight'),
    ('mlpmixer', 'block.mlp_tokens.fc1.weight'), ('moga', 'block.attn.sigma'),
    ('swin', 'block.attn.relative_position_bias_table'), ('uniformer', 'block.pos_embed.weight'),
    ('vit', 'block.attn.qkv.weight'), ('tau', 'block.attn.spatial_gating_unit.fc.0.weight'),
    ('gsta', 'block.attn.spatial_gating_unit.conv1.weight'), ('poolformer', 'block.mlp.fc1.weight'))
_NORMS = ('norm1.weight', 'norm_1.weight', 'norm.weight')
_HIDDEN = ('mlp.fc1.bias', 'mlp_channels.fc1.bias', 'pwconv1.bias')


def translator(weights: Weights) -> str:
  """Its name. KeyError: none of ours."""
  name = next((n for n, key in _SIGNS if f'hid.enc.0.{key}' in weights), None)
  if name is None:
    raise KeyError('hid.enc.0')
  if name == 'gsta':
    # gSTA's last convolution makes a value and its gate; VAN's a factor of the input.
    conv = weights['hid.enc.0.block.attn.spatial_gating_unit.conv1.weight']
    return 'gsta' if conv.shape[0] == 2 * conv.shape[1] else 'van'
  return name


def _first(weights: Weights, prefix: str, names: tuple[str, ...]) -> np.ndarray | None:
  return next((weights[prefix + n] for n in names if prefix + n in weights), None)


def mlp_ratio(widths: list[int], hidden: list[int]) -> float:
  """A ratio that gives every block its hidden width, int(width * ratio)."""
  ratio = max(h / w for h, w in zip(hidden, widths))
  while any(int(w * ratio) < h for h, w in zip(hidden, widths)):
    ratio = math.nextafter(ratio, math.inf)  # the quotient was rounded down
  return ratio


def fields(weights: Weights) -> Fields:
  """Dotted config fields. KeyError: weights of another model."""
  first = weights['enc.enc.0.conv.conv.weight']
  hidden, name = int(first.shape[0]), translator(weights)
  blocks = numbers(weights, r'hid\.enc\.(\d+)\.')
  result = {
      'translator': name, 'hid_S': hidden, 'N_T': len(blocks),
      'N_S': len(numbers(weights, r'enc\.enc\.(\d+)\.')),
      'spatio_kernel_enc': int(first.shape[-1]),
      'spatio_kernel_dec': int(next(
          v for k, v in weights.items()
          if re.fullmatch(r'dec\.dec\.0\.conv\.conv(\.0)?\.weight', k)).shape[-1])}
  if name == 'incepu':
    width = int(weights['hid.enc.0.conv1.weight'].shape[1])
    result['hid_T'] = int(weights['hid.enc.0.layers.0.conv.weight'].shape[0])
  else:
    norms = [_first(weights, f'hid.enc.{i}.block.', _NORMS) for i in blocks]
    mlps = [_first(weights, f'hid.enc.{i}.block.', _HIDDEN) for i in blocks]
    widths = [len(n) for n in norms if n is not None]
    width, reduction = widths[0], weights.get('hid.enc.0.reduction.weight')
    result['hid_T'] = width if reduction is None else int(reduction.shape[0])
    if all(m is not None for m in mlps):
      result['mlp_ratio'] = mlp_ratio(widths, [len(m) for m in mlps])
  if name == 'swin':
    # One bias for each offset within a window: (2 n - 1) ** 2 of them.
    table = weights['hid.enc.0.block.attn.relative_position_bias_table']
    result['window_size'] = (math.isqrt(len(table)) + 1) // 2
  # The translator reads all input frames at once.
  return {f'{BACKBONE}{k}': v for k, v in result.items()} | {'data.t_in': width // hidden}
