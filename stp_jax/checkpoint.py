"""Checkpoints: model, training state, data position, config and data spec in one Orbax step.

  <workdir>/checkpoints/<step>/model   params, model_state, ema: all that evaluation reads
                              /train   step, opt_state, rng, skipped
                              /data    position of the Grain iterator (training runs)
                              /unused  upstream tensors that nothing reads (converted runs)
                              /info    config, data spec and what validation told, JSON
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import grain
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from stp_jax import config as config_files
from stp_jax.data.spec import DataSpec
from stp_jax.state import TrainState
from stp_jax.typing import PyTree, Variables


class CheckpointError(ValueError):
  """A checkpoint that is absent, damaged or of another architecture."""


@dataclasses.dataclass
class Loaded:
  """A checkpoint read for evaluation."""
  config: ml_collections.ConfigDict
  spec: DataSpec
  variables: Variables
  step: int
  path: pathlib.Path


class _Newest:
  """Which checkpoints stay, an Orbax preservation policy: the newest, and the best one."""

  def __init__(self, keep: int, best: Callable[[], int | None]):
    self._keep, self._best = keep, best

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    del context
    first = len(checkpoints) - self._keep
    return [i >= first or c.step == self._best() for i, c in enumerate(checkpoints)]


def manager(workdir, keep: int = 2, every: int = 1, best: Callable[[], int | None] = lambda: None,
            ) -> ocp.CheckpointManager:
  """The checkpoints of a run; use as a context, or the last asynchronous save may be lost.

  Args:
    keep: so many of the newest stay. best: the step that stays as well, asked at every save.
  """
  folder = pathlib.Path(workdir).resolve() / 'checkpoints'
  standard = ocp.StandardCheckpointHandler
  handlers = dict(model=standard(), train=standard(), unused=standard(),
                  data=grain.checkpoint.CheckpointHandler(), info=ocp.JsonCheckpointHandler())
  return ocp.CheckpointManager(folder, item_handlers=handlers, options=(
      ocp.CheckpointManagerOptions(
          preservation_policy=_Newest(keep, best), save_interval_steps=every,
          enable_async_checkpointing=True)))


def _model_item(state: TrainState) -> dict[str, PyTree]:
  item = {'params': state.params, 'model_state': state.model_state}
  return item if state.ema is None else item | {'ema': state.ema}


def _train_item(state: TrainState) -> dict[str, PyTree]:
  return dict(step=state.step, opt_state=state.opt_state, rng=state.rng, skipped=state.skipped)


def save(
    checkpoints: ocp.CheckpointManager, state: TrainState, iterator: grain.DatasetIterator | None,
    config: ml_collections.ConfigDict, spec: DataSpec, *, step: int, force: bool = False,
    watched: Mapping[str, Any] | None = None,
) -> bool:
  """Starts writing step `step`, if it is due; the arrays are copied before this returns.

  Args:
    watched: of `monitor.Monitor.state`, or nothing.
  """
  items = dict(
      model=ocp.args.StandardSave(_model_item(state)),
      train=ocp.args.StandardSave(_train_item(state)),
      info=ocp.args.JsonSave(dict(config=_plain(config), spec=spec.to_json(),
                                  watched=dict(watched or {}))))
  if iterator is not None:
    items['data'] = grain.checkpoint.CheckpointSave(iterator)
  return checkpoints.save(step, args=ocp.args.Composite(**items), force=force)


def restore(
    checkpoints: ocp.CheckpointManager, step: int, shapes: TrainState, shardings: TrainState,
    iterator: grain.DatasetIterator | None,
) -> TrainState:
  """Restores a whole training state onto any mesh; moves `iterator` to where it stood.

  Raises:
    CheckpointError: another architecture or optimizer; the differing keys are listed.
  """
  target = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
  path = pathlib.Path(checkpoints.directory) / str(step)
  if not (path / 'train').is_dir():
    raise CheckpointError(
        f'{path}: weights without a training state; start from them with config.init_from='
        f'{path.parent.parent} and another --workdir')
  _check(path, _metadata(checkpoints, step, 'model'), _model_item(target))
  items = dict(model=ocp.args.StandardRestore(_model_item(target)),
               train=ocp.args.StandardRestore(_train_item(target)))
  # A run that another system began has no position in our data: it starts at the first batch.
  if iterator is not None and (path / 'data').is_dir():
    items['data'] = grain.checkpoint.CheckpointRestore(iterator)
  try:
    found = checkpoints.restore(step, args=ocp.args.Composite(**items))
  except (ValueError, KeyError) as error:
    reason = str(error).strip().splitlines()[0][:300]
    raise CheckpointError(
        f'{path}: does not restore with this config ({reason}); use another --workdir') from error
  model, rest = found['model'], found['train']
  return shapes.replace(
      params=model['params'], model_state=model['model_state'], ema=model.get('ema'), **rest)


def watched(checkpoints: ocp.CheckpointManager, step: int) -> dict:
  """What validation had told when this step was saved, see `monitor.Monitor.state`; or {}."""
  found = checkpoints.restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore()))
  return found['info'].get('watched') or {}


def _chosen(run, checkpoints: ocp.CheckpointManager, step: int | str | None) -> int:
  newest = checkpoints.latest_step()
  if newest is None:
    raise CheckpointError(f'{run}/checkpoints: no whole checkpoint; train or convert first')
  if step in (None, '', 'latest'):
    return newest
  there = sorted(checkpoints.all_steps())
  if step == 'best':
    best = watched(checkpoints, newest).get('best_step')
    if best is None:
      raise CheckpointError(f'{run}: step=best: this run kept no best checkpoint; train with '
                            '--config.validation.metric=loss (or another score)')
    step = best
  if str(step) not in map(str, there):
    raise CheckpointError(f'{run}: no checkpoint of step {step}; there are '
                          f'{" ".join(map(str, there))}, latest, or best where one is kept')
  return int(step)


def load(run, *, raw: bool = False, step: int | str | None = None) -> Loaded:
  """Reads config, spec and variables of a run or converted checkpoint, onto one device.

  Args:
    run: a workdir. raw: the parameters as trained, not their average. step: a number, 'best' (of
      the validations, see `config.validation`), or the newest.

  Raises:
    CheckpointError: no checkpoint there, or not this one.
  """
  run = pathlib.Path(run)
  if not (run / 'checkpoints').is_dir():
    raise CheckpointError(f'{run}: no checkpoints folder; name the --workdir of a run')
  with manager(run) as checkpoints:
    step = _chosen(run, checkpoints, step)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device),
        _metadata(checkpoints, step, 'model'))
    items = dict(model=ocp.args.StandardRestore(target), info=ocp.args.JsonRestore())
    found = checkpoints.restore(step, args=ocp.args.Composite(**items))
  model, info = found['model'], found['info']
  params = model['params'] if raw or 'ema' not in model else model['ema']
  return Loaded(
      config=config_files.complete(
          ml_collections.ConfigDict(_tuples(info['config']), type_safe=False)),
      spec=DataSpec.from_json(info['spec']), step=step, path=run,
      variables={'params': params, **model['model_state']})


def save_converted(
    out, config: ml_collections.ConfigDict, variables: Variables, spec: DataSpec,
    unused: Mapping[str, np.ndarray] | None = None, state: TrainState | None = None,
) -> None:
  """Writes converted weights as a run, which evaluation and `init_from` read.

  Args:
    state: with the optimizer's, the run is at its step and can be continued; None: at step 0.
  """
  params = variables['params']
  model = {'params': params, 'model_state': {k: v for k, v in variables.items() if k != 'params'}}
  items = dict(model=ocp.args.StandardSave(model), info=ocp.args.JsonSave(
      dict(config=_plain(config), spec=spec.to_json())))
  if unused:
    items['unused'] = ocp.args.StandardSave({k: np.asarray(v) for k, v in unused.items()})
  if state is not None:
    items['train'] = ocp.args.StandardSave(_train_item(state))
  with manager(out) as checkpoints:
    if checkpoints.latest_step() is not None:
      raise CheckpointError(f'{out}: holds a checkpoint already; choose another --out')
    step = 0 if state is None else int(state.step)
    checkpoints.save(step, args=ocp.args.Composite(**items), force=True)


def check_architecture(path, found: Variables, expected: Variables) -> None:
  """Raises CheckpointError listing keys that are missing, unexpected or of another shape."""
  _check(path, found, expected)


def _metadata(checkpoints: ocp.CheckpointManager, step: int, item: str) -> PyTree:
  tree = checkpoints.item_metadata(step)[item]
  return getattr(tree, 'tree', tree)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _check(path, found: PyTree, expected: PyTree) -> None:
  have, want = _shapes(found), _shapes(expected)
  problems = [f'missing {k}' for k in want if k not in have]
  problems += [f'unexpected {k}' for k in have if k not in want]
  problems += [f'{k} is {have[k]}, not {want[k]}' for k in want if have.get(k, want[k]) != want[k]]
  if problems:
    more = f' and {len(problems) - 6} more' if len(problems) > 6 else ''
    raise CheckpointError(
        f'{path}: a checkpoint of another architecture: {"; ".join(problems[:6])}{more}')


def _plain(config: ml_collections.ConfigDict) -> Any:
  tree = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
  return jax.tree.map(lambda x: x, tree, is_leaf=lambda x: not isinstance(x, dict))


def _tuples(tree: Any) -> Any:
  if isinstance(tree, dict):
    return {k: _tuples(v) for k, v in tree.items()}
  return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree
