"""Beam prediction: fusions, heads and trunks on their own, whole networks, and training steps."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.convert import beam, resnet, rules
from stp_jax.models.beam import BeamFusion
from stp_jax.models.beam.ffm import MambaFusion
from stp_jax.models.beam.gpt import GPTFusion
from stp_jax.models.beam.heads import Head
from stp_jax.models.beam.inputs import MODALITIES
from stp_jax.models.beam.maps import SENSORS
from stp_jax.models.beam.resnet import DEPTHS, ResNet
from stp_jax.models.beam.tfm import TimeMamba
from stp_jax.parity import by_rule, runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last
from stp_jax.tasks import beam_losses

# A module of the network on its own: the names it has there, without what stands before them.
_PARTS = dict(ffm='mambafusion1', time_mamba='time_mamba', gpt_fusion='transformer1',
              gru_head='head')


def _part(name: str) -> rules.Family:
  def key(path):
    return beam.key((_PARTS[name], *path)).removeprefix(f'encoder.{_PARTS[name]}.')
  return rules.Family(name, key, layouts=beam.LAYOUTS)


def _scan_fields(c: Mapping[str, Any]) -> dict[str, int]:
  return {k: c[k] for k in ('d_state', 'd_conv', 'expand')}


def _one_view(c: Mapping[str, Any]) -> None:
  if c['n_views'] != 1:
    raise Unsupported(f'{c["n_views"]} views; published with 1')


def _ffm(c: Mapping[str, Any]) -> nn.Module:
  _one_view(c)
  return MambaFusion(n_layer=c['n_layer'], drop=0.0, channel_swap=c['channel_swap'],
                     align='upstream', residual=False, **_scan_fields(c))


def _gpt(c: Mapping[str, Any]) -> nn.Module:
  _one_view(c)
  return GPTFusion(n_layer=c['n_layer'], drop=0.0, heads=c['n_head'], expand=c['block_exp'])


def _fused(case: Case, make: Callable[[Mapping[str, Any]], nn.Module]) -> Result:
  """Maps of three sensors and the fixes, through one fusion."""
  c = case.config

  def frames(name):
    x = channels_last(case.input(name))
    return x.reshape(-1, c['seq_len'], *x.shape[1:])

  maps, gps = {s: frames(s) for s in SENSORS}, case.input('gps')
  apply = lambda module, variables: module.apply(variables, maps, gps, False)
  flat = lambda x: channels_first(x).reshape(-1, *x.shape[-1:], *x.shape[2:-1])
  return _block(case, make(c), (maps, gps, False), apply,
                lambda y: {**{s: flat(y[0][s]) for s in SENSORS}, 'gps': np.asarray(y[1])},
                lambda y: {**y[0], 'gps': y[1]},
                {**{s: frames(f'target_{s}') for s in SENSORS}, 'gps': case.input('target_gps')})


def _block(case: Case, module: nn.Module, example: tuple, apply: Callable, show: Callable,
           parts: Callable, targets: Mapping[str, np.ndarray]) -> Result:
  """Squared error of each output against its target, summed, and its gradient."""
  family = _part(case.spec['model'])
  variables, unused = weights.load(case, family, lambda: module.init(jax.random.key(0), *example))

  def loss_of(params):
    y = apply(module, {'params': params})
    found = parts(y)
    return sum(jnp.mean(jnp.square(found[k] - t)) for k, t in targets.items()), y

  (loss, y), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  return Result(show(y), loss=float(loss), grads=weights.gradients(family, grads),
                n_params=rules.parameter_count(family, variables['params'], unused))


def _vector(case: Case, module: nn.Module, example: tuple, output: str) -> Result:
  return _block(case, module, example, lambda m, v: m.apply(v, *example),
                lambda y: {output: np.asarray(y)}, lambda y: {output: y},
                {output: case.input('target')})


def _time_mamba(case: Case) -> Result:
  example = ({s: case.input(s) for s in SENSORS}, case.input('gps'))
  return _vector(case, TimeMamba(**_scan_fields(case.config)), example, 'y')


def _gru_head(case: Case) -> Result:
  *hidden, beams = case.config['head']
  module = Head(tuple(hidden), beams, case.config['pred_len'])
  return _vector(case, module, (case.input('fused'),), 'logits')


def _trunk(case: Case) -> Result:
  """Pooled features in the case's mode, and the running statistics that they leave."""
  c, family, train = case.config, resnet.FAMILY, bool(case.spec['train_mode'])
  if c['depth'] not in DEPTHS:
    raise Unsupported(f'ResNet-{c["depth"]}')
  trunk = ResNet(DEPTHS[c['depth']], tuple(c['width'] * 2 ** i for i in range(4)))
  x = channels_last(case.input('x'))
  variables, unused = weights.load(
      case, family, lambda: trunk.init(jax.random.key(0), x, False))

  def loss_of(params):
    y, updated = trunk.apply({**variables, 'params': params}, x, train, mutable=['batch_stats'])
    return jnp.mean(jnp.square(y - case.input('target'))), (y, updated)

  (loss, (y, updated)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  after = {f'after/{k}': v for k, v in rules.to_torch(family, updated).items()}
  return Result({'y': np.asarray(y), **after}, loss=float(loss),
                grads=weights.gradients(family, grads),
                n_params=rules.parameter_count(family, variables['params'], unused))


def network(case: Case) -> BeamFusion:
  """The network of a case's config and variant, upstream's quirks included."""
  c, variant = case.config, case.spec['variant']
  if variant not in beam.VARIANTS:
    raise Unsupported(f'variant {variant}')
  fields = beam.variant_fields(variant)
  if not c['TFM']:
    fields['tfm'] = 'off'
  *hidden, beams = c['head']
  return BeamFusion(
      image_depths=tuple(c['image_depths']), depths=tuple(c['lidar_radar_depths']),
      widths=tuple(c['widths']), hidden=tuple(hidden), beams=beams,
      steps=c['pred_len'] if variant == 'mamba_30to5' else 0,
      anchors=(c['vert_anchors'], c['horz_anchors']), n_layer=c['n_layer'], n_head=c['n_head'],
      block_exp=c['block_exp'], dropout=0.0, **_scan_fields(c), **fields)


def batch_of(arrays: Mapping[str, np.ndarray], double: bool) -> dict[str, np.ndarray]:
  """Time-major, channels-first arrays as our batch."""
  kind = np.float64 if double else np.float32
  found = {s: np.swapaxes(channels_last(arrays[s]), 0, 1) for s in SENSORS}
  return {k: np.asarray(v, kind) for k, v in {**found, 'gps': arrays['gps']}.items()}


def focal(logits, target):
  """The published loss `[]`."""
  return jnp.mean(beam_losses.focal(logits, target))


def _lost(name: str) -> np.ndarray:
  """`lidar_radar` as flags in the order of MODALITIES; upstream knows sensors and that pair."""
  return np.array([m in name.split('_') for m in MODALITIES])


def _variants(case: Case, model: BeamFusion, variables: Any, batch: Mapping[str, Any]
              ) -> dict[str, np.ndarray]:
  """Logits with sensors lost, and with a rebuilt feature; upstream ignores one for a pair."""
  wanted = [e['output'] for e in case.spec['compare'] if e['output'] != 'logits']
  stored = case.io.get('input/rebuild_feat')
  rebuilt = {} if stored is None else {
      s: channels_last(stored).astype(batch['gps'].dtype) for s in model.sensors}

  @runtime.compiled
  def logits(lost, where):
    return model.apply(variables, batch, missing=lost, rebuilt=rebuilt, rebuilt_where=where)

  found = {}
  for output in wanted:
    kind, _, name = output.removeprefix('logits_').partition('_')
    if kind in ('zero', 'rebuild'):
      where = {s: np.array(kind == 'rebuild' and s == name) for s in rebuilt}
      found[output] = np.asarray(logits(_lost(name), where))
  return found


def _network(case: Case) -> Result:
  model, notes = network(case), []
  if 'rules' in case.spec and not case.weights:
    inputs, state = by_rule.generate_inputs(case), by_rule.generate_weights(case)
    notes = by_rule.disagreements(case, state, inputs)
  else:
    inputs, state = {k: case.input(k) for k in (*SENSORS, 'gps')}, case.weights
  batch = batch_of(inputs, case.double)
  template = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))
  variables, unused = rules.to_flax(beam.FAMILY, state, template)
  if case.double:
    variables = jax.tree.map(lambda x: x.astype(np.float64), variables)
  n_params = rules.parameter_count(beam.FAMILY, variables['params'], unused)
  notes += weights.checkpoint_notes(case)
  outputs = _variants(case, model, variables, batch)
  if not case.spec['loss']:
    found = runtime.compiled(lambda v: model.apply(v, batch))(variables)
    return Result({'logits': np.asarray(found), **outputs}, n_params=n_params, notes=notes)
  target, train = case.input('target'), case.spec['loss']['mode'] == 'train'

  def loss_of(params):
    logits, updated = model.apply(
        {**variables, 'params': params}, batch, train, mutable=['batch_stats'])
    return focal(logits, target), (logits, updated)

  (loss, (logits, updated)), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  outputs |= {f'after/{k}': v for k, v in rules.to_torch(beam.FAMILY, updated).items()}
  return Result({'logits': np.asarray(logits), **outputs}, loss=float(loss), n_params=n_params,
                grads=weights.gradients(beam.FAMILY, grads), notes=notes)


def run(case: Case) -> Result:
  """Runs a case by its kind and model."""
  kind, model = case.spec['kind'], case.spec['model']
  runs = {('block', 'ffm'): lambda c: _fused(c, _ffm),
          ('block', 'gpt_fusion'): lambda c: _fused(c, _gpt),
          ('block', 'time_mamba'): _time_mamba, ('block', 'gru_head'): _gru_head,
          ('block', 'resnet_trunk'): _trunk, ('model', 'beam_fusion'): _network}
  if (kind, model) == ('train_steps', 'beam_fusion'):
    from stp_jax.parity import mamba_training
    return mamba_training.run(case)
  if (kind, model) not in runs:
    raise Unsupported(f'{kind} {model}')
  return runs[kind, model](case)
