"""A PyTorch file as one of our runs, and a run as a PyTorch file."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from stp_jax import checkpoint, convert, files, optimizers, tasks
from stp_jax import config as config_files
from stp_jax.convert import beam, beam_rebuild, infer, moments, published, rules
from stp_jax.convert.source import Source, examine
from stp_jax.data import clip_store
from stp_jax.data import spec as data_spec
from stp_jax.state import TrainState

_COMMON = pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'common.py'


def base_config(source: str, given: ml_collections.ConfigDict | None
                ) -> ml_collections.ConfigDict:
  """The config given, or the defaults of all fields."""
  if given is not None:
    return given
  if not _COMMON.is_file():
    raise rules.ConversionError(f'{source}: name a --config; {_COMMON} is not here')
  return config_files.module(_COMMON).get_config().lock()


def _settle(config: ml_collections.ConfigDict, source: Source, overrides: Mapping[str, str]
            ) -> dict[str, Any]:
  """Sets on `config` what the file tells and what was published; returns it all."""
  try:
    published.apply_fields(config, source.fields)
  except TypeError as error:
    raise rules.ConversionError(f'{source.path}: its arguments: {error}') from error
  fields = published.published_fields(config, source.upstream)
  # Where arguments or shapes tell, they are right.
  fields = {k: v for k, v in fields.items() if k not in source.fields}
  published.apply_fields(config, fields)
  with config.unlocked():
    if 'layer_scale_init' in config.model.backbone:
      del config.model.backbone.layer_scale_init  # the scales are in the file
  config_files.override(config, overrides)
  return source.fields | fields


def _spec(config: ml_collections.ConfigDict, source: Source, stores: Sequence[str],
          frame: tuple[int, int] | None) -> data_spec.DataSpec:
  if source.model in beam.MODELS:
    found = [clip_store.ClipStore(s) for s in stores]
    return tasks.find(config.task.name).data_spec(config, found) if found else (
        beam.data_spec(frame or (256, 256), config.data.t_in, config.data.t_out))
  if stores:
    return data_spec.make([clip_store.ClipStore(s) for s in stores], config.data,
                          config.data.train_splits)
  frame = frame or source.told.frame or infer.frame_size(
      source.model, source.read.weights, config.model.patch)
  name = source.told.dataname
  iono = name.startswith('iono') if name else source.upstream == 'channel_mixer'
  if iono and source.image == 1:
    return published.data_spec(config.data.channels, frame)
  return published.image_spec(name or 'frames', (*(frame or (64, 64)), source.image))


def _training(config: ml_collections.ConfigDict, family: rules.Family, source: Source,
              template: Mapping[str, Any], variables: Mapping[str, Any],
              ) -> tuple[TrainState | None, str, dict[str, Any]]:
  """The training state with PyTorch's moments, or None and why there is none."""
  names = rules.leaves(family, {'params': template['params']})
  try:
    found = moments.read(family, source.read.weights, set(names.values()),
                         source.read.optimizer, source.read.scheduler)
    params = {'params': template['params']}
    first, second = (rules.to_flax(family, m, params)[0]['params'] if m else {}
                     for m in (found.first, found.second))
  except moments.OrderUnknown as error:
    return None, str(error), {}
  except rules.ConversionError as error:
    return None, f'moments that do not fit ({error})', {}
  fields = dict(found.fields)
  epochs, done = source.told.epochs, source.read.epoch
  if 'steps' not in fields and epochs and done and found.steps % done == 0:
    fields['steps'] = epochs * (found.steps // done)
  steps = fields.get('steps')
  if steps and epochs and steps % epochs == 0:
    fields['optimizer.steps_per_epoch'] = steps // epochs
  published.apply_fields(config, fields)
  try:
    tx, _ = optimizers.make(config.optimizer, config.steps, config.optimizer.steps_per_epoch)
  except ValueError as error:
    return None, str(error), {}
  count = jnp.asarray(found.steps, jnp.int32)
  to_array = lambda tree: jax.tree.map(jnp.asarray, tree)
  state = TrainState(
      step=count, params=variables['params'],
      model_state={k: v for k, v in variables.items() if k != 'params'}, ema=None,
      opt_state=optimizers.with_moments(
          tx.init(variables['params']), count, to_array(first), to_array(second)),
      rng=jax.random.split(jax.random.key(config.seed))[0], skipped=jnp.zeros((), jnp.int32))
  return state, '', fields


def to_ours(
    source: str, out: str, *, config: ml_collections.ConfigDict | None = None,
    stores: Sequence[str] = (), upstream: str = '', overrides: Mapping[str, str] | None = None,
    frame: tuple[int, int] | None = None, say: Callable[[str], None] = lambda line: None,
) -> str:
  """Converts `source` into a checkpoint in the folder `out`.

  Args:
    source: a `.pth`, `.ckpt` or `.npz`. config: of the model the weights belong to; None: what
      `model_param.json` beside it, the file and its shapes tell. stores: the data's scaling and
      means; none: those of `iono_electron`, or frames in 0..1. upstream: of `published.UPSTREAMS`;
      '': what the arguments tell, else channel_mixer. overrides: of the config, last of all.
    frame: (H, W) where nothing else tells. say: gets every further line.

  Returns:
    A summary in one line.

  Raises:
    CheckpointError, ConversionError: one line each; nothing is written then.
  """
  found = examine(source, config, upstream)
  config = base_config(source, config)
  overrides = dict(overrides or {})
  fields = _settle(config, found, overrides)
  spec = _spec(config, found, stores, frame)
  # What the weights were trained on is not at hand: no set made here must stand in for it.
  published.apply_fields(config, {'data.dataset': '', 'data.stores': tuple(stores)})
  task = tasks.build(config, spec)
  family = convert.family_of(config.model.name)
  template = jax.eval_shape(task.init, jax.random.key(0))
  try:
    variables, unused = rules.to_flax(family, found.read.weights, template)
  except rules.ConversionError as error:
    raise rules.ConversionError(f'{source}: {error}') from error
  state, why, optimizer = None, '', {}
  if found.read.optimizer:
    state, why, optimizer = _training(config, family, found, template, variables)
    config_files.override(config, overrides)
  checkpoint.save_converted(out, config, variables, spec, unused, state)
  (pathlib.Path(out) / 'config.json').write_text(
      json.dumps(config.to_dict(), indent=1, default=str) + '\n')
  live = rules.parameter_count(family, variables['params'], {})
  total = rules.parameter_count(family, variables['params'], unused)
  epoch = '' if found.read.epoch is None else f', after {found.read.epoch} epochs'
  for name, value in (fields | optimizer).items():
    say(f'  {name} = {value}')
  if found.read.left_out:
    say(f'  left out: {len(found.read.left_out)} tensors of the trainer')
  if state is not None:
    say(f'  training goes on from step {int(state.step)} of {config.steps}: python -m stp_jax.main '
        f'--config={out}/config.json --workdir={out} --store=STORE')
  elif why:
    say(f'  without the optimizer: {why}')
  return (f'{out}: {config.model.name}, {live} parameters and {total - live} that nothing uses '
          f'(kept){epoch}')


def to_torch(run: str, out: str) -> str:
  """Writes the weights of a run as a bare state_dict (`.pth`), or as `.npz`, under PyTorch's keys.

  Tensors that upstream has and nothing uses are those of the conversion, or as at the start of a
  training: upstream loads the file strictly.

  Returns:
    A summary in one line.

  Raises:
    CheckpointError, ConversionError: one line each.
  """
  loaded = checkpoint.load(run)
  model = loaded.config.model
  rebuild = loaded.config.task.name == 'rebuild'
  family = beam_rebuild.FAMILY if rebuild else convert.family_of(model.name)
  path = pathlib.Path(out)
  if path.suffix not in ('.pth', '.npz'):
    raise rules.ConversionError(f'--out={out}: name a .pth or .npz file')
  kept = unused(loaded)
  weights = rules.to_torch(family, loaded.variables, kept)
  if kept:  # a conversion kept whatever its file had
    complete = weights
  else:
    complete = rules.complete(family, weights, loaded.spec.shape[:2])
  with files.whole(path) as partial, partial.open('wb') as file:
    if path.suffix == '.npz':
      np.savez(file, **complete)
    else:
      import torch
      torch.save({k: torch.from_numpy(np.array(v)) for k, v in complete.items()}, file)
  note = '' if model.anchor == 'none' else (
      f'; upstream knows no anchor={model.anchor} and will forecast otherwise')
  return f'{out}: {len(complete)} tensors{note}'


def unused(loaded: checkpoint.Loaded) -> dict[str, np.ndarray]:
  """Tensors that the conversion set aside; none in a run that was trained here."""
  with checkpoint.manager(loaded.path) as checkpoints:
    if not (pathlib.Path(checkpoints.directory) / str(loaded.step) / 'unused').is_dir():
      return {}
    items = ocp.args.Composite(unused=ocp.args.StandardRestore())
    found = checkpoints.restore(loaded.step, args=items)['unused']
  return {k: np.asarray(v) for k, v in found.items()}
