"""Checkpoints: model, training state, data position, config and data spec in one Orbax step.

  <workdir>/checkpoints/<step>/model   params, model_state, ema: all that evaluation reads
                              /train   step, opt_state, rng, skipped
                              /unused  upstream tensors that nothing reads (converted runs)
                              /info    config, data spec, position in the data, what validation
                                       told, versions: JSON

`python -m stp_jax.checkpoint inspect DIR` lists them; checkpoint_health.py says if they are whole.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from stp_jax import checkpoint_health
from stp_jax import config as config_files
from stp_jax.data.spec import DataSpec
from stp_jax.state import TrainState
from stp_jax.typing import PyTree, Variables

CheckpointError = checkpoint_health.CheckpointError


@dataclasses.dataclass
class Loaded:
  """A checkpoint read for evaluation."""
  config: ml_collections.ConfigDict
  spec: DataSpec
  variables: Variables
  step: int
  path: pathlib.Path

  def check(self, task) -> None:
    """Raises CheckpointError, listing keys, unless the variables are those of the task's model."""
    check_architecture(self.path, self.variables, jax.eval_shape(task.init, jax.random.key(0)))


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
                  info=ocp.JsonCheckpointHandler())
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
    checkpoints: ocp.CheckpointManager, state: TrainState, iterator,
    config: ml_collections.ConfigDict, spec: DataSpec, *, step: int, force: bool = False,
    watched: Mapping[str, Any] | None = None,
) -> bool:
  """Starts writing step `step`, if it is due; the arrays are copied before this returns.

  Args:
    iterator: what the batches come from; its `position` is kept.
    watched: of `monitor.Monitor.state`, or nothing.

  Raises:
    CheckpointError: this step, or the one before, cannot be written: a full disk.
  """
  items = dict(
      model=ocp.args.StandardSave(_model_item(state)),
      train=ocp.args.StandardSave(_train_item(state)),
      info=ocp.args.JsonSave(dict(config=_plain(config), spec=spec.to_json(),
                                  made=_made(iterator.position), watched=dict(watched or {}))))
  with checkpoint_health.naming_failures(checkpoints.directory, step):
    return checkpoints.save(step, args=ocp.args.Composite(**items), force=force)


def _made(position: int) -> dict[str, Any]:
  """By what a checkpoint was written."""
  names = ('stp_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
  versions = {}
  for name in names:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = 'not installed'  # run from a checkout
  return dict(
      position=int(position), processes=jax.process_count(), devices=jax.device_count(),
      platform=jax.default_backend(), versions=versions | dict(python=sys.version.split()[0]),
      time=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'))


def read_info(folder: pathlib.Path) -> dict[str, Any]:
  """The JSON of a step's folder: config, spec, made, watched.

  Raises:
    CheckpointError: it is absent or no JSON.
  """
  try:
    return json.loads((folder / 'info' / 'metadata').read_text())
  except (OSError, ValueError) as error:
    raise CheckpointError(f'{folder / "info"}: unreadable ({error})') from error


def _reason(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def restore(
    checkpoints: ocp.CheckpointManager, step: int, shapes: TrainState, shardings: TrainState,
    iterator, batch_size: int = 0,
) -> TrainState:
  """Restores a whole training state onto any mesh; moves `iterator` to where it stood.

  Args:
    iterator: has `seek(position)`; or None. batch_size: an older run kept no such position; it
      is the step times this.

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
  _check(path, item_metadata(checkpoints, step, 'model'), _model_item(target))
  items = dict(model=ocp.args.StandardRestore(_model_item(target)),
               train=ocp.args.StandardRestore(_train_item(target)))
  try:
    found = checkpoints.restore(step, args=ocp.args.Composite(**items))
  except Exception as error:  # Orbax passes on what TensorStore raises, of no class of its own
    raise CheckpointError(
        f'{path}: does not restore with this config ({_reason(error)}); use another --workdir, or '
        'move that folder away to go on from the step before') from error
  if iterator is not None:
    # A run that another system began has no position in our data: it starts at the first sample.
    older = step * batch_size if (path / 'data').is_dir() else 0
    iterator.seek(read_info(path).get('made', {}).get('position', older))
  model, rest = found['model'], found['train']
  return shapes.replace(
      params=model['params'], model_state=model['model_state'], ema=model.get('ema'), **rest)


def watched(checkpoints: ocp.CheckpointManager, step: int) -> dict:
  """What validation had told when this step was saved, see `monitor.Monitor.state`; or {}."""
  found = checkpoints.restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore()))
  return found['info'].get('watched') or {}


def _chosen(run, checkpoints: ocp.CheckpointManager, step: int | str | None,
            newest: int | None) -> int:
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
  newest = None
  if step in (None, '', 'latest', 'best'):
    newest, lines = checkpoint_health.choose(run, repair=False)
    for line in lines:
      print(f'{run}: {line}', file=sys.stderr)
    if newest is None or newest < 0:
      raise CheckpointError(f'{run}/checkpoints: no whole checkpoint; train or convert first')
  with manager(run) as checkpoints:
    step = _chosen(run, checkpoints, step, newest)
    if step != newest and (problem := checkpoint_health.damage(run, step)):
      raise CheckpointError(f'{run}: checkpoint {step} is damaged: {problem}; choose another step')
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device),
        item_metadata(checkpoints, step, 'model'))
    items = dict(model=ocp.args.StandardRestore(target), info=ocp.args.JsonRestore())
    try:
      found = checkpoints.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:
      raise CheckpointError(f'{run}: checkpoint {step} cannot be read ({_reason(error)}); choose '
                            'another step') from error
  model, info = found['model'], found['info']
  if lacking := [k for k in ('config', 'spec') if not isinstance(info.get(k), dict)]:
    raise CheckpointError(f'{run}: checkpoint {step} has no {" ".join(lacking)} in its info; '
                          'choose another step')
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
    with checkpoint_health.naming_failures(checkpoints.directory, step):
      checkpoints.save(step, args=ocp.args.Composite(**items), force=True)
      checkpoints.wait_until_finished()
  checkpoint_health.seal(out, step)


def check_architecture(path, found: Variables, expected: Variables) -> None:
  """Raises CheckpointError listing keys that are missing, unexpected or of another shape."""
  _check(path, found, expected)


def item_metadata(checkpoints: ocp.CheckpointManager, step: int, item: str) -> PyTree:
  """Shapes and types of an item's arrays; nothing is read of them."""
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


if __name__ == '__main__':
  from stp_jax import checkpoint_inspect
  sys.exit(checkpoint_inspect.main())
