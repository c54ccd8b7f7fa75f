"""Recurrent networks in the common frame-by-frame protocol.

Another backbone adds its line to `_BACKBONES`, its group to `GROUPS`, and a loss if it has its own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import convert, models
from stp_jax.convert import rules
from stp_jax.models.layers.patches import patchify
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last, fusion_of, use_true_of

GROUPS = ('convlstm',)


def _convlstm(c: Mapping[str, Any], variant: str) -> dict[str, Any]:
  return dict(
      features=tuple(int(n) for n in str(c['num_hidden']).split(',')),
      kernel_size=c['filter_size'], layer_norm=bool(c['layer_norm']),
      cell={'openstl': 'convlstm'}.get(variant, variant))


# Model -> (config, variant) -> our backbone's keywords.
_BACKBONES: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    'convlstm': _convlstm,
}


def _frames(case: Case) -> tuple[np.ndarray, np.ndarray | None, int]:
  """Image `[B, T, H, W, C]`, forcing planes or None, and C.

  The fork has one image channel and appends forcings; OpenSTL's channels are all image.
  """
  c, frames = case.config, channels_last(case.input('frames'))
  image = c.get('img_channel', frames.shape[-1])
  return frames[..., :image], frames[..., image:] if frames.shape[-1] > image else None, image


def _model(case: Case, height: int, width: int, image: int, planes: int) -> models.Forecaster:
  c, name = case.config, case.spec['model']
  if name not in _BACKBONES or name not in models.BACKBONES:
    raise Unsupported(f'model {name}')
  if c.get('stride', 1) != 1:
    raise Unsupported(f'stride {c["stride"]}; the recurrent sum needs 1')
  fuse = fusion_of(c.get('fusion_method'), image, image + planes, c['patch_size'])
  return models.build(
      dict(name=name, fusion=fuse.kind, mix='upstream', patch=c['patch_size'],
           backbone=_BACKBONES[name](c, case.spec['variant'])),
      shape=(height, width, image), forcings=planes, t_in=c['pre_seq_length'],
      t_out=c['aft_seq_length'])


def run(case: Case) -> Result:
  """All predictions, their mean squared error, and its gradients, from one call."""
  if case.spec['kind'] != 'model':
    raise Unsupported(f'{case.spec["kind"]} {case.spec["model"]}')
  c, family = case.config, convert.family_of(case.spec['model'])
  frames, planes, image = _frames(case)
  model = _model(case, *frames.shape[2:4], image, 0 if planes is None else planes.shape[-1])
  use = use_true_of(case.input('mask'), model.t_in, frames.shape[1],
                    bool(c['reverse_scheduled_sampling']))
  variables, unused = weights.load(
      case, family, lambda: model.init(jax.random.key(0), frames, planes))
  if case.double:
    frames, planes = (None if x is None else x.astype(np.float64) for x in (frames, planes))

  def loss_of(params):
    out = model.apply({'params': params}, frames, planes, use)
    every = jnp.concatenate([out.context, out.prediction], 1)
    return jnp.mean(jnp.square(every - frames[:, 1:])), (every, out.prediction)

  (loss, (every, pred)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  truth = np.asarray(frames[:, model.t_in:], np.float64)
  return Result(
      {'next_frames': np.asarray(patchify(every, c['patch_size'])),
       'pred': channels_first(pred), 'loss': np.asarray(loss),
       'val_mse': np.mean(np.square(np.asarray(pred, np.float64) - truth))},
      loss=float(loss), grads=weights.gradients(family, grads),
      n_params=rules.parameter_count(family, variables['params'], unused),
      notes=weights.checkpoint_notes(case))
