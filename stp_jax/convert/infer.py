"""Which model a state_dict belongs to, and the sizes that its shapes tell."""

import math
from collections.abc import Callable

from stp_jax.convert import (
    beam,
    encoder_forecaster,
    gs2pm,
    infer_compared,
    infer_gs2pm,
    infer_simvp,
    infer_video,
)
from stp_jax.convert.shapes import BACKBONE, Fields, Weights, kernels, numbers

# The first family all of whose keys are there; the more special ones stand first.
_SIGNS: dict[str, tuple[str, ...]] = dict(
    gs2pm=('enc.enc.0.conv.conv.weight', 'translator.enc.0.block.norm1.weight'),
    ms2p_v1=('enc_target.enc.0.conv.conv.weight',),
    simvp_v1=('dec.dec.0.conv.conv.weight', 'hid.enc.0.conv1.weight'),
    simvp=('enc.enc.0.conv.conv.weight', 'dec.readout.weight'),
    mim=('stlstm_layer.0.conv_x.0.weight',),
    e3dlstm=('cell_list.0.conv_x.0.conv3d.weight',),
    mau=('cell_list.0.conv_t_next.0.weight',),
    predrnnpp=('gradient_highway.x_concat.0.weight',),
    predrnnv2=('adapter.weight', 'cell_list.0.conv_m.0.weight'),
    predrnn=('cell_list.0.conv_m.0.weight',),
    convlstm=('cell_list.0.conv_h.0.weight',),
    prednet=('Ahat.0.weight', 'i.0.weight'),
    phydnet=('phycell.cell_list.0.F.conv1.weight',),
    crevnet=('encoder.stack.0.bottleneck_block.0.weight',),
    dmvfn=('stu.0.conv0.0.0.weight',),
    motionrnn=('motion_gru.0.transient.conv_u.weight',),
    trajgru=('encoder.layer1.gammma_h.weight',),
    lmc=('memory.memory_w',),
    unet=('embed.0.weight', 'us.0.0.weight'),
    ed_convgru=('encoder.rnn1.conv1.0.weight',),
    ed_convlstm=('encoder.rnn1.conv.0.weight',),
    mambafusion=('encoder.mambafusion1.pos_emb', 'join.0.weight'),
    transfuser=('encoder.transformer1.pos_emb', 'join.0.weight'),
    # ESCL has the same tensors; that has to be told.
    convlstmnet=('layers.output.weight',),
    gs2pm_mim=('cell_list.1.mim_n.conv_n.weight',),
    gs2pm_predrnnpp=('ghu.conv_x.weight', 'cell_list.0.conv_w1.weight'),
    gs2pm_e3dlstm=('cell_list.0.conv3d_x.weight',),
    peephole_convlstm=('encoder.encoder.0.w_ci', 'forecast.conv_last.weight'),
    gs2pm_predrnn=('cell_list.0.conv1x1.weight', 'conv_last.weight'))


# Networks that see whole frames, and the channels of these.
_WHOLE = (infer_video.READERS | infer_compared.READERS | encoder_forecaster.READERS
          | dict.fromkeys(beam.MODELS, beam.fields))
_CHANNELS = (infer_video.CHANNELS | infer_compared.CHANNELS | encoder_forecaster.CHANNELS
             | dict.fromkeys(beam.MODELS, lambda weights: 3))


def model_of(weights: Weights) -> str | None:
  """The model whose keys these are, by name; None: of none that we know."""
  return next((m for m, keys in _SIGNS.items() if all(k in weights for k in keys)), None)


def patch_of(head: int, image: int) -> int:
  """Side of the patches of a head of `head` channels; 1 where `image` channels do not fit it."""
  return max(1, math.isqrt(head // image)) if head % image == 0 else 1


def _stack(weights: Weights, *, layer: str, norm: str, kernel: str | None = None) -> Fields:
  """Hidden channels, kernel size and norm of a stack, from a convolution of the hidden state."""
  hidden = kernels(weights, layer)
  return {
      f'{BACKBONE}features': tuple(int(w.shape[1]) for w in hidden),
      f'{BACKBONE}kernel_size': int((weights[kernel] if kernel else hidden[0]).shape[-1]),
      f'{BACKBONE}layer_norm': norm in weights}


def _recurrent(weights: Weights) -> Fields:
  return _stack(
      weights, layer='cell_list.{}.conv_h.0.weight', norm='cell_list.0.conv_x.1.weight')


def _e3dlstm(weights: Weights) -> Fields:
  return _stack(weights, layer='cell_list.{}.conv_h.0.conv3d.weight',
                norm='cell_list.0.conv_x.1.weight')


def _mim(weights: Weights) -> Fields:
  hidden = kernels(weights, 'stlstm_layer.{}.conv_last.weight')
  return _stack(
      weights, layer='stlstm_layer.{}.conv_h.0.weight', norm='stlstm_layer.0.conv_x.1.weight'
  ) | {f'{BACKBONE}features': tuple(int(w.shape[0]) for w in hidden)}


def _mau(weights: Weights) -> Fields:
  cells = kernels(weights, 'cell_list.{}.conv_s_next.0.weight')
  return {
      f'{BACKBONE}features': tuple(int(w.shape[0]) for w in cells),
      f'{BACKBONE}kernel_size': int(cells[0].shape[-1]),
      f'{BACKBONE}sr_size': 2 ** (len(numbers(weights, r'encoders\.(\d+)\.')) - 1),
      f'{BACKBONE}head': 'pointwise' if 'srcnn.0.weight' in weights else 'transposed'}


def _head(model: str, weights: Weights) -> int | None:
  """Channels that a recurrent network emits: patches times image channels."""
  if model == 'mau':
    if 'srcnn.0.weight' in weights:
      return int(weights['srcnn.0.weight'].shape[0])
    return int(kernels(weights, f'decoders.{{}}.c_decoder{_last_decoder(weights)}.weight')[0]
               .shape[1])
  key = 'conv_last.weight'
  return int(weights[key].shape[0]) if model in _RECURRENT and key in weights else None


def _last_decoder(weights: Weights) -> int:
  return numbers(weights, r'decoders\.(\d+)\.')[-1]


_RECURRENT: dict[str, tuple[Callable[[Weights], Fields], str]] = dict(
    convlstm=(_recurrent, 'cell_list.0.conv_x.0.weight'),
    predrnn=(_recurrent, 'cell_list.0.conv_x.0.weight'),
    predrnnpp=(_recurrent, 'cell_list.0.conv_x.0.weight'),
    predrnnv2=(_recurrent, 'cell_list.0.conv_x.0.weight'),
    mim=(_mim, 'stlstm_layer.0.conv_x.0.weight'),
    e3dlstm=(_e3dlstm, 'cell_list.0.conv_x.0.conv3d.weight'),
    mau=(_mau, 'encoders.0.encoder_t_conv-1.weight'))


def fields(model: str, weights: Weights, image: int = 1) -> Fields:
  """Dotted config field -> value, as the shapes of `weights` say; {} where they do not.

  Weights of another model give {}: the strict conversion that follows names what does not fit.

  Args:
    image: channels of a frame, which with the head's width give the patch of a recurrent network.
  """
  try:
    if model == 'simvp':
      return infer_simvp.fields(weights)
    if model == 'simvp_v1':
      return infer_gs2pm.simvp_v1(weights)
    if model in infer_gs2pm.READERS:
      patch = patch_of(infer_gs2pm.head(model, weights), image)
      return {**infer_gs2pm.fields(model, weights), 'model.patch': patch}
    if model in gs2pm.MODELS:
      return gs2pm.fields(model, weights)
    if model in _WHOLE:
      return {**_WHOLE[model](weights), 'model.patch': 1}
    if model in _RECURRENT:
      head = _head(model, weights)
      return {**_RECURRENT[model][0](weights), 'model.patch': patch_of(head, image)}
  except (KeyError, IndexError):
    pass
  return {}


def channels(model: str, weights: Weights, image: int = 0) -> tuple[int, int]:
  """Image channels, and channels per pixel of what the network reads (the image, forcings, mix).

  Args:
    image: image channels where they are known. 0: 1, or 3 where a recurrent head says so, or what
      other networks say.

  Raises:
    KeyError, IndexError: weights of another model.
  """
  if model in ('simvp', 'simvp_v1'):
    width = int(weights['enc.enc.0.conv.conv.weight'].shape[1])
    return int(weights['dec.readout.weight'].shape[0]), width
  if model in gs2pm.MODELS:
    return gs2pm.channels(model, weights)
  if model in _CHANNELS:
    own = _CHANNELS[model](weights)
    return own, own
  if model in infer_gs2pm.READERS:
    head, width = infer_gs2pm.head(model, weights), infer_gs2pm.width(model, weights)
  else:
    head = _head(model, weights)
    width = int(weights[_RECURRENT[model][1]].shape[1])
  if not image:
    fits = [n for n in (1, 3, 2) if head % n == 0 and math.isqrt(head // n) ** 2 == head // n]
    image = fits[0] if fits else 1
  return image, width // patch_of(head, image) ** 2


def fusion(image: int, width: int) -> tuple[str, int]:
  """The fusion and its number of channels, from the width that a network reads.

  The mixer takes a square number of channels and adds the image to them; any other width is a
  concatenation. (Five channels mixed look like six concatenated: that needs to be told.)
  """
  if width <= image:
    return 'none', image
  mixed = width - image
  square = math.isqrt(mixed) ** 2 == mixed
  return ('mix', mixed) if image == 1 and square and mixed > 1 else ('concatenate', width)


def frame_size(model: str, weights: Weights, patch: int = 1) -> tuple[int, int] | None:
  """(H, W) where parameters that cover the whole frame tell it."""
  if model in gs2pm.MODELS:
    return gs2pm.frame_size(weights)
  keys = dict(mim='stlstm_layer.1.ct_weight', e3dlstm='cell_list.0._norm_c_t.weight',
              mau='cell_list.0.conv_t.1.weight', peephole_convlstm='encoder.encoder.0.w_ci')
  found = weights.get(keys.get(model, 'cell_list.0.conv_h.1.weight'))
  if found is None:
    return None
  scale = patch * (2 ** _last_decoder(weights) * 2 if model == 'mau' and
                   numbers(weights, r'decoders\.(\d+)\.') else 1)
  return tuple(int(n) * scale for n in found.shape[-2:])
