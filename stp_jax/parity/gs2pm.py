"""GS2PM and its predecessors, their metrics, and the folder of samples they read (group gs2pm)."""

import fnmatch
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stp_jax import optimizers
from stp_jax.convert import rules
from stp_jax.convert.gs2pm import FAMILIES
from stp_jax.metrics import gs2pm as protocol
from stp_jax.metrics import nowcast
from stp_jax.models.gs2pm import GS2PM, MS2P
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last

GROUPS = ('gs2pm',)
_FAMILY = dict(gs2pm='gs2pm', gs2pm_v2='gs2pm', gs2pm_v1='ms2p_v1')
_FIELDS = dict(
    C='channels', hid_S='hid_S', hid_T='hid_T', N_S='N_S', N_T='N_T', mlp_ratio='mlp_ratio',
    num_heads='heads', spatio_kernel_enc='spatio_kernel_enc',
    spatio_kernel_dec='spatio_kernel_dec')


def _cost(y: Any, truth: Any) -> Any:
  return jnp.mean(jnp.square(y - truth)) + jnp.mean(jnp.abs(y - truth))


class _Network:
  """The module of a case, what its call emits, and the loss of that."""

  def __init__(self, case: Case):
    name, c = case.spec['model'], case.config
    if name not in _FAMILY:
      raise Unsupported(f'{case.spec["kind"]} {name}')
    # Drop path is off in every case, whatever rates the constructor would set.
    fields = {ours: c[theirs] for theirs, ours in _FIELDS.items() if theirs in c}
    self.family, self.first = FAMILIES[_FAMILY[name]], name == 'gs2pm_v1'
    self.both = name == 'gs2pm_v2' or case.spec['variant'] == 'pretrain'
    if self.first:
      self.module = MS2P(attention='upstream', **fields)
    else:
      translate = 'reconstruction' if name == 'gs2pm_v2' else 'prediction'
      self.module = GS2PM(prompt_size=c['prompt_size'], translate=translate, **fields)
    self.x, self.target = (channels_last(case.input(k)) for k in ('x', 'target'))
    self.mask = case.input('mask') if self.both else None
    self.query = channels_last(case.input('query')) if self.first else None

  def init(self) -> Any:
    return self.module.init(jax.random.key(0), self.x)

  def outputs(self, variables: Any, train: bool) -> tuple[dict[str, Any], Any]:
    """Output name -> array, losses included, channels last; the updated collections."""
    apply = lambda *args, **more: self.module.apply(
        variables, self.x, *args, train=train, mutable=['batch_stats'], **more)
    if self.first:
      (y, _), _ = apply(query=self.query)
      (zero, _), updated = apply()
      return dict(y=y, y_zero_query=zero, loss=_cost(zero, self.target)), updated
    if not self.both:
      (pred, _), updated = apply()
      return dict(pred=pred, loss=_cost(pred, self.target)), updated
    out, updated = apply(self.mask, method='both')
    losses = dict(loss_pred=_cost(out.prediction, self.target),
                  loss_recon=_cost(out.reconstruction, self.x))
    return dict(pred=out.prediction, recon=out.reconstruction, **losses,
                loss=sum(losses.values())), updated


def _modes(case: Case) -> bool:
  """Whether a case runs in training mode; all of its outputs and its loss agree on it."""
  modes = {rule['mode'] for rule in case.spec['compare']} | {case.spec['loss']['mode']}
  if len(modes) != 1:
    raise Unsupported(f'outputs of the modes {" ".join(sorted(map(str, modes)))} in one case')
  return modes == {'train'}


def _named(outputs: Mapping[str, Any], buffers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  arrays = {k: channels_first(v) if np.ndim(v) else np.asarray(v) for k, v in outputs.items()}
  return arrays | {f'running/{k}': v for k, v in buffers.items()}


def _model(case: Case) -> Result:
  network, train = _Network(case), _modes(case)
  variables, unused = weights.load(case, network.family, network.init)

  def loss_of(params):
    outputs, updated = network.outputs({**variables, 'params': params}, train)
    return outputs['loss'], (outputs, updated)

  (loss, (outputs, updated)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  return Result(
      _named(outputs, rules.to_torch(network.family, updated)), loss=float(loss),
      grads=weights.gradients(network.family, grads),
      n_params=rules.parameter_count(network.family, variables['params'], unused),
      notes=weights.checkpoint_notes(case))


def _train(case: Case) -> Result:
  """Steps on one batch, by our optimizer; what is not trainable is labelled frozen."""
  network, o = _Network(case), case.spec['optimizer']
  variables, unused = weights.load(case, network.family, network.init)
  patterns = ['*'] if o['trainable'] == 'all' else o['trainable']

  def label(path: str) -> str:
    key = network.family.key(tuple(path.split('/')))
    return 'main' if any(fnmatch.fnmatchcase(key, p) for p in patterns) else 'frozen'

  config = dict(
      name=o['name'], learning_rate=o['lr'], b1=o['beta1'], b2=o['beta2'], eps=o['eps'],
      weight_decay=o['weight_decay'] or 0.0, clip_norm=o['clip_norm'] or 0.0, schedule='constant')
  tx, _ = optimizers.make(config, o['steps'], o['steps'], label)

  def step(variables, state):
    def loss_of(params):
      outputs, updated = network.outputs({**variables, 'params': params}, True)
      return outputs['loss'], (outputs, updated)

    (loss, (outputs, updated)), grads = jax.value_and_grad(loss_of, has_aux=True)(
        variables['params'])
    updates, state = tx.update(grads, state, variables['params'])
    params = optax.apply_updates(variables['params'], updates)
    return {'params': params, **updated}, state, loss, outputs, grads

  compiled, state, first = runtime.compiled(step), tx.init(variables['params']), None
  count = rules.parameter_count(network.family, variables['params'], unused)
  for _ in range(o['steps']):
    variables, state, *found = compiled(variables, state)
    first = first or found
  loss, outputs, grads = first
  after = rules.to_torch(network.family, {'params': variables['params']})
  buffers = rules.to_torch(network.family, {'batch_stats': variables['batch_stats']})
  return Result(
      _named(outputs, buffers) | {f'after_step/{k}': v for k, v in after.items()},
      loss=float(loss), grads=weights.gradients(network.family, grads), n_params=count,
      notes=weights.checkpoint_notes(case))


def _metrics(case: Case) -> Result:
  c = case.config['weather']
  pred, target, weather_pred, weather_target = (
      channels_last(case.input(k)) for k in ('pred', 'target', 'weather_pred', 'weather_target'))
  frames = protocol.per_example(pred, target)
  outputs = dict(mse=frames['mse'].reshape(-1), psnr=frames['psnr'].reshape(-1),
                 ssim=frames['ssim'])
  counts = nowcast.counts(
      weather_pred * c['scale'], weather_target * c['scale'], low=c['low_dBZ'], high=c['high_dBZ'])
  scores, empty = nowcast.upstream(counts)
  outputs |= {f'weather_{k}': v for k, v in scores.items()} | {'weather_index': empty}
  outputs |= {
      f'weather_agg_{k}': nowcast.upstream_by_lead(v, empty) for k, v in scores.items()}
  outputs['weighted_l2_radar'] = protocol.weighted_squared_error(
      weather_pred, weather_target, scale=c['scale'])
  return Result({k: np.asarray(v) for k, v in outputs.items()})


def _data(case: Case) -> Result:
  from stp_jax.data import png_samples  # Pillow is an extra

  c, outputs = case.config, {}
  size = (c['img_height'], c['img_width'])
  for domain in c['domains']:
    folder = case.folder / 'data' / 'pam' / 'test' / domain
    for i, sample in enumerate(png_samples.samples(folder)):
      frames = png_samples.read_sample(sample, size=size, channels=3)[c['frames_kept']]
      outputs[f'{domain}/{i}_{sample.name}'] = channels_first(frames.astype(np.float32) / 255)
  return Result(outputs)


def run(case: Case) -> Result:
  """Runs a case by its kind."""
  runs = dict(model=_model, train_steps=_train, metrics=_metrics, data=_data)
  if case.spec['kind'] not in runs:
    raise Unsupported(f'{case.spec["kind"]} {case.spec["model"]}')
  return runs[case.spec['kind']](case)
