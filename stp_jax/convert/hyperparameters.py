"""The arguments that an OpenSTL run was started with, as fields of our config.

Its trainers write them to `model_param.json` in the experiment's folder; Lightning puts them into
the checkpoint as well.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from stp_jax.convert.rules import ConversionError

FILE = 'model_param.json'
_RECURRENT = ('convlstm', 'predrnn', 'predrnnpp', 'predrnnv2', 'mim', 'e3dlstm', 'mau')
# Upstream's argument -> ours, where nothing but the name differs: of every model, and of some.
_SAME = dict(
    pre_seq_length='data.t_in', aft_seq_length='data.t_out', batch_size='data.batch_size',
    val_batch_size='data.eval_batch_size', seed='seed', ex_name='name')
_OWN: dict[str, dict[str, str]] = dict(
    simvp={k: k for k in ('hid_S', 'hid_T', 'N_S', 'N_T', 'spatio_kernel_enc',
                          'spatio_kernel_dec')}
    | dict(mlp_ratio='mlp_ratio', drop='drop', drop_path='drop_path'),
    mau={k: k for k in ('tau', 'sr_size', 'cell_mode', 'model_mode')},
    prednet=dict(R_stack_sizes='r_features', R_filt_sizes='kernel_size',
                 A_filt_sizes='a_kernel_size', Ahat_filt_sizes='ahat_kernel_size',
                 pixel_max='pixel_max', A_activation='activation'),
    crevnet=dict(predictor_rnn_layers='layers'),
    dmvfn=dict(num_features='features', scale='scales', routing_out_channels='routing_features',
               beta='beta', gamma='gamma'))
_SAMPLING = dict(sampling_changing_rate='rate', sampling_stop_iter='stop_step',
                 r_sampling_step_1='step_1', r_sampling_step_2='step_2', r_exp_alpha='alpha')
SCHEDULES = ('onecycle', 'cosine', 'tanh', 'step')


@dataclasses.dataclass(frozen=True)
class Told:
  """What a run's arguments say.

  Attributes:
    fields: dotted config field -> value.
    model: our name of its method, or None.
    frame: (H, W), or None. image: channels of a frame, 0 where it is not said.
    dataname: the data set's name there, or ''.
    fork: whether these are the arguments of the Channel Mixer Layer's fork.
    epochs: of the whole run, or None.
  """
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  model: str | None = None
  frame: tuple[int, int] | None = None
  image: int = 0
  dataname: str = ''
  fork: bool | None = None
  epochs: int | None = None


def find(source: str | pathlib.Path) -> dict[str, Any]:
  """The arguments in `model_param.json` beside a file or in the folder above; {} without one.

  Raises:
    ConversionError: a file that is no JSON object.
  """
  source = pathlib.Path(source).resolve()
  for folder in (source.parent, source.parent.parent):
    path = folder / FILE
    if path.is_file():
      try:
        tree = json.loads(path.read_text())
      except (ValueError, OSError) as error:
        raise ConversionError(f'{path}: not JSON: {error}') from error
      if not isinstance(tree, dict):
        raise ConversionError(f'{path}: holds a {type(tree).__name__}, not an object of arguments')
      return tree
  return {}


def optimizer(arguments: Mapping[str, Any]) -> dict[str, Any]:
  """Our fields of `optimizer` from upstream's arguments (`opt`, `lr`, `sched`, ...).

  Raises:
    ConversionError: a schedule, optimizer or clipping that is not built here.
  """
  c = {k: v for k, v in arguments.items() if v is not None}
  kind, name = c.get('sched', 'onecycle'), str(c.get('opt', 'adam')).lower()
  if kind not in SCHEDULES:
    raise ConversionError(f'schedule {kind}')
  if name not in ('adam', 'adamw'):
    raise ConversionError(f'optimizer {c["opt"]}')
  if c.get('clip_grad') and c.get('clip_mode', 'norm') != 'norm':
    raise ConversionError(f'clip_mode {c["clip_mode"]}')
  betas = c.get('opt_betas') or (0.9, 0.999)
  return dict(
      name=name, learning_rate=c.get('lr', 1e-3), b1=betas[0], b2=betas[1],
      eps=c.get('opt_eps') or 1e-8, weight_decay=c.get('weight_decay', 0.0),
      skip_decay_1d=c.get('filter_bias_and_bn', False), clip_norm=c.get('clip_grad') or 0.0,
      schedule=kind, final_div_factor=c.get('final_div_factor', 1e4), min_lr=c.get('min_lr', 1e-6),
      warmup_lr=c.get('warmup_lr', 1e-5),
      # Upstream's onecycle has a warm-up of its own and does not read this one.
      warmup_epochs=0 if kind == 'onecycle' else c.get('warmup_epoch', 0),
      k_decay=c.get('lr_k_decay', 1.0), decay_epochs=c.get('decay_epoch', 100.0),
      decay_rate=c.get('decay_rate', 0.1), by_epoch=True)


def _shape(c: Mapping[str, Any]) -> tuple[tuple[int, int] | None, int]:
  """(H, W) and image channels: `in_shape` is [H, W] in the fork, [T, C, H, W] elsewhere."""
  shape = c.get('in_shape') or ()
  frame = (int(shape[-2]), int(shape[-1])) if len(shape) >= 2 else None
  return frame, int(c.get('img_channel') or (shape[1] if len(shape) == 4 else 0))


def _model(c: Mapping[str, Any], known: tuple[str, ...]) -> str | None:
  method = str(c.get('method', '')).lower()
  name = {'tau': 'simvp'}.get(method, method)
  if name and name not in known:
    raise ConversionError(f'method {c["method"]!r}: not built here; known: {" ".join(known)} tau')
  return name or None


def _backbone(c: Mapping[str, Any], model: str | None) -> dict[str, Any]:
  fields = {ours: c[theirs] for theirs, ours in _OWN.get(model, {}).items() if theirs in c}
  if model in _RECURRENT and 'num_hidden' in c:
    fields['features'] = tuple(int(n) for n in str(c['num_hidden']).split(','))
  if model in _RECURRENT and model != 'e3dlstm' and 'filter_size' in c:
    fields['kernel_size'] = c['filter_size']  # E3D-LSTM never reads its own
  if model in _RECURRENT and model != 'mau' and 'layer_norm' in c:
    fields['layer_norm'] = bool(c['layer_norm'])
  if model == 'simvp':
    tau = str(c.get('method', '')).lower() == 'tau'
    fields['translator'] = 'tau' if tau else str(c.get('model_type') or 'gsta').lower()
  if model == 'prednet' and 'stack_sizes' in c:
    fields['features'] = c['stack_sizes'][1:]
  if model == 'prednet' and 'error_activation' in c:
    fields['error_activation'] = str(c['error_activation']).lower()
  if model == 'phydnet':
    fields['downscale'] = 2 if c.get('patch_size') == 2 else 4  # any other is read as 4
  return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def _fusion(c: Mapping[str, Any]) -> dict[str, Any]:
  """How forcings joined; the only word that upstream compares with is 'mix'."""
  image = int(c.get('img_channel') or 1)
  total = int(c.get('total_channel') or image + int(c.get('aux_channel') or 0))
  if total <= image:
    return {'model.fusion': 'none'}
  return {'model.fusion': 'mix' if c.get('fusion_method') == 'mix' else 'concatenate',
          'data.channels': str(total)}


def read(arguments: Mapping[str, Any], known: tuple[str, ...]) -> Told:
  """Upstream's arguments as ours; those that we have no use for are passed over.

  Args:
    known: models that we have.

  Raises:
    ConversionError: a method, stride, schedule or optimizer that is not built here.
  """
  if not arguments:
    return Told()
  c = {k: v for k, v in arguments.items() if v is not None}
  model = _model(c, known)
  if model in _RECURRENT and c.get('stride', 1) != 1:
    raise ConversionError(f'stride {c["stride"]}: the recurrent sum needs 1')
  fields = {ours: c[theirs] for theirs, ours in _SAME.items() if theirs in c} | _fusion(c)
  fields['name'] = str(fields.get('name', 'converted')).strip('/')
  if model:
    fields['model.name'] = model
  if model in _RECURRENT:
    fields['model.patch'] = int(c.get('patch_size', 1))
    on = c.get('scheduled_sampling', 1)
    reverse = c.get('reverse_scheduled_sampling', 0) and model != 'mau'
    fields['sampling.name'] = 'reverse' if reverse else 'standard' if on else 'off'
    fields |= {f'sampling.{ours}': c[k] for k, ours in _SAMPLING.items() if k in c}
  fields |= {f'model.backbone.{k}': v for k, v in _backbone(c, model).items()}
  if 'sched' in c or 'lr' in c:
    fields |= {f'optimizer.{k}': v for k, v in optimizer(c).items()}
  # They matter only if it is trained further.
  if model == 'predrnnv2' and 'decouple_beta' in c:
    fields['task.term_weights.decouple'] = c['decouple_beta']
  if str(c.get('method', '')).lower() == 'tau':
    fields['task.term_weights.diff_div'] = c.get('alpha', 0.1)
  frame, image = _shape(c)
  return Told(
      fields=fields, model=model, frame=frame, image=image, dataname=str(c.get('dataname', '')),
      fork=bool({'fusion_method', 'total_channel', 'aux_channel'} & set(arguments)),
      epochs=int(c['epoch']) if 'epoch' in c else None)
