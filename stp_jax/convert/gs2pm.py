"""GS2PM and the first MS2P: names, and what the keys and shapes of a file tell.

`translator.enc.0.block.conv1.weight` is backbone/translator/enc_0/block/conv1/kernel; the equal
blocks from 1 on, `translator.enc.3.block.gamma_1`, are layers of backbone/translator/stack/gamma_1.
"""

from stp_jax.convert import rules
from stp_jax.convert.infer_simvp import mlp_ratio
from stp_jax.convert.shapes import BACKBONE, Fields, Weights, numbers

# Where the blocks that read the encoded frames are, by model.
_TRANSLATOR = dict(gs2pm='translator', ms2p_v1='hid_target')
_ENCODER = dict(gs2pm='enc', ms2p_v1='enc_target')
MODELS = tuple(_TRANSLATOR)


def key(path: rules.Path) -> str:
  """Names follow PyTorch but for lists, of which the stack of the equal blocks is one."""
  if 'stack' in path:
    at = path.index('stack')
    path = (*path[:at], 'enc', '{}', 'block', *path[at + 1:])
  return rules.spell(path, ('enc', 'dec', 'conv'))


# Pictures of the border, [1, C, H, W] there.
_LAYOUTS = ((r'prompt\.pad_\w+', 'planes'),)
FAMILIES = {name: rules.Family(name, key, first_layer=1, layouts=_LAYOUTS) for name in MODELS}


def channels(model: str, weights: Weights) -> tuple[int, int]:
  """Channels of a predicted frame, and of what the network reads."""
  first = weights[f'{_ENCODER[model]}.enc.0.conv.conv.weight']
  return int(weights['dec.readout.weight'].shape[0]), int(first.shape[1])


def frame_size(weights: Weights) -> tuple[int, int] | None:
  """(H, W) that the border goes round; None without one."""
  if 'prompt.pad_up' not in weights:
    return None
  size, width = weights['prompt.pad_up'].shape[2:]
  return int(weights['prompt.pad_left'].shape[2] + 2 * size), int(width)


def fields(model: str, weights: Weights) -> Fields:
  """Dotted config fields. KeyError: weights of another model."""
  prefix, first = _TRANSLATOR[model], weights[f'{_ENCODER[model]}.enc.0.conv.conv.weight']
  last = weights.get('dec.dec.0.conv.conv.0.weight')
  hidden, width = int(first.shape[0]), len(weights[f'{prefix}.enc.0.block.norm1.weight'])
  reduction = weights.get(f'{prefix}.enc.0.reduction.weight')
  blocks = numbers(weights, rf'{prefix}\.enc\.(\d+)\.')
  sizes = [(len(weights[f'{prefix}.enc.{i}.block.norm1.weight']),
            len(weights[f'{prefix}.enc.{i}.block.mlp.fc1.bias'])) for i in blocks]
  result = dict(
      hid_S=hidden, hid_T=width if reduction is None else int(reduction.shape[0]),
      N_S=len(numbers(weights, rf'{_ENCODER[model]}\.enc\.(\d+)\.')), N_T=len(blocks),
      mlp_ratio=mlp_ratio(*zip(*sizes)), spatio_kernel_enc=int(first.shape[-1]))
  if last is not None:
    result['spatio_kernel_dec'] = int(last.shape[-1])
  if model == 'gs2pm':
    up = weights.get('prompt.pad_up')
    result['prompt_size'] = 0 if up is None else int(up.shape[2])
  frames = width // hidden  # a prediction is as long as its input
  return {f'{BACKBONE}{k}': v for k, v in result.items()} | {
      'data.t_in': frames, 'data.t_out': frames}
