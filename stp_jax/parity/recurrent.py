"""Recurrent networks in the common frame-by-frame protocol.

Another backbone adds its line to `_BACKBONES`, its group to `GROUPS`, and a loss if it has its own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import convert, models
from stp_jax.convert import rules
from stp_jax.models.layers.patches import patchify, unpatchify
from stp_jax.models.rollout import rollout_frames
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last, fusion_of, use_true_of
from stp_jax.typing import Array, PyTree

GROUPS = (
    'convlstm', 'e3dlstm', 'mau',
    'mim', 'predrnn', 'predrnnpp', 'predrnnv2',
)


def _plain(c: Mapping[str, Any], variant: str) -> dict[str, Any]:
  del variant
  return dict(
      features=tuple(int(n) for n in str(c['num_hidden']).split(',')),
      kernel_size=c['filter_size'], layer_norm=bool(c['layer_norm']))


def _convlstm(c: Mapping[str, Any], variant: str) -> dict[str, Any]:
  return dict(_plain(c, variant), cell={'openstl': 'convlstm'}.get(variant, variant))


def _predrnnpp(c: Mapping[str, Any], variant: str) -> dict[str, Any]:
  return dict(_plain(c, variant), cell={'openstl': 'predrnnpp'}.get(variant, variant))


def _e3dlstm(c: Mapping[str, Any], variant: str) -> dict[str, Any]:
  # Upstream never reads its filter_size.
  return dict(_plain(c, variant), kernel_size=5, memory='upstream', attention='upstream')


def _mau(c: Mapping[str, Any], variant: str) -> dict[str, Any]:
  # Its layer norm is always there.
  fields = {k: c[k] for k in ('tau', 'sr_size', 'cell_mode', 'model_mode')}
  head = 'pointwise' if variant == 'openstl' else 'transposed'
  plain = _plain(c, variant)
  return dict(features=plain['features'], kernel_size=plain['kernel_size'], head=head, **fields)


# Model -> (config, variant) -> our backbone's keywords.
_BACKBONES: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    'convlstm': _convlstm,
    'e3dlstm': _e3dlstm,
    'mau': _mau,
    'mim': _plain,
    'predrnn': _plain,
    'predrnnpp': _predrnnpp,
    'predrnnv2': _plain,
}
# Model -> what its loss has beside the mean squared error: (config, terms, error) -> [].
_LOSSES: dict[str, Callable[[Mapping[str, Any], Mapping[str, Array], Array], Array]] = {
    'e3dlstm': lambda c, terms, error: jnp.mean(jnp.abs(error)),
    'predrnnv2': lambda c, terms, error: c['decouple_beta'] * jnp.mean(terms['decouple']),
}


def _frames(case: Case, name: str = 'frames') -> tuple[np.ndarray, np.ndarray | None, int]:
  """Image `[B, T, H, W, C]`, forcing planes or None, and C.

  The fork has one image channel and appends forcings; OpenSTL's channels are all image.
  """
  c, frames = case.config, channels_last(case.input(name))
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


class _Loop(nn.Module):
  """The time loop alone, which takes and returns the state."""
  backbone: nn.Module
  fuse: models.Fusion

  def __call__(self, frames, planes, use, carry):
    predictions, _, carry = rollout_frames(
        self.backbone, frames, planes, use, fuse=self.fuse, carry=carry)
    return predictions, carry


def _second_call(case: Case, model: models.Forecaster, variables: PyTree, use: np.ndarray
                 ) -> dict[str, np.ndarray]:
  """A forecast that goes on with the memory left by the one before, and one that does not."""
  patch, t_in = model.fusion.patch, model.t_in

  def patched(name):
    both = _frames(case, name)[:2]
    kind = np.float64 if case.double else np.float32
    return tuple(None if x is None else patchify(x.astype(kind), patch) for x in both)

  loop = _Loop(model.backbone, model.fusion)
  go = runtime.compiled(lambda *args: loop.apply(variables, *args))
  frames, planes = patched('frames')
  first = model.fusion(frames[:, 0], None if planes is None else planes[:, 0])
  fresh = model.backbone.initial_carry(first, frames.shape[1] - 1)
  _, left = go(frames, planes, use, fresh)
  second = patched('frames_second_call')
  alone = (np.arange(use.shape[1]) < t_in).astype(use.dtype)[None].repeat(use.shape[0], 0)
  forecast = lambda carry: channels_first(
      unpatchify(go(*second, alone, carry)[0][:, t_in - 1:], patch))
  return {'pred_second_call': forecast(model.backbone.next_carry(left)),
          'pred_second_input_fresh_state': forecast(fresh)}


def run(case: Case) -> Result:
  """All predictions, their mean squared error, and its gradients, from one call."""
  if case.spec['kind'] != 'model':
    raise Unsupported(f'{case.spec["kind"]} {case.spec["model"]}')
  c, family = case.config, convert.family_of(case.spec['model'])
  frames, planes, image = _frames(case)
  model = _model(case, *frames.shape[2:4], image, 0 if planes is None else planes.shape[-1])
  use = use_true_of(case.input('mask'), model.t_in, frames.shape[1],
                    bool(c['reverse_scheduled_sampling']) and case.spec['model'] != 'mau')
  variables, unused = weights.load(
      case, family, lambda: model.init(jax.random.key(0), frames, planes))
  if case.double:
    frames, planes = (None if x is None else x.astype(np.float64) for x in (frames, planes))

  more = _LOSSES.get(case.spec['model'], lambda c, terms, error: 0.0)

  def loss_of(params):
    out = model.apply({'params': params}, frames, planes, use)
    every = jnp.concatenate([out.context, out.prediction], 1)
    error = every - frames[:, 1:]
    loss = jnp.mean(jnp.square(error)) + more(c, out.terms, error)
    return loss, (every, out.prediction)

  (loss, (every, pred)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  truth = np.asarray(frames[:, model.t_in:], np.float64)
  # MAU has no patches of its own, and leaves channels where torch has them.
  layout = channels_first if case.spec['model'] == 'mau' else (
      lambda x: np.asarray(patchify(x, c['patch_size'])))
  return Result(
      {'next_frames': layout(every),
       'pred': channels_first(pred), 'loss': np.asarray(loss),
       'val_mse': np.mean(np.square(np.asarray(pred, np.float64) - truth)),
       **(_second_call(case, model, variables, use) if case.wants('pred_second_call') else {})},
      loss=float(loss), grads=weights.gradients(family, grads),
      n_params=rules.parameter_count(family, variables['params'], unused),
      notes=weights.checkpoint_notes(case))
