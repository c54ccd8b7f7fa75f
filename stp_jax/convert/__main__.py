"""PyTorch weights to one of our checkpoints, and back.

    python -m stp_jax.convert latest.pth --config=configs/iono_mixer.py:model=simvp,scale=paper \\
        --out=RUN [--store=STORE]
    python -m stp_jax.convert --to-torch --checkpoint=RUN --out=weights.pth

The config says which model the weights belong to; sizes that the weights tell and fields of the
published behaviour are set on it (and printed). `--config.a.b=v` sets others. RUN then evaluates,
predicts, and starts training (`init_from=RUN`) like any run.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp

from stp_jax import checkpoint, convert, tasks
from stp_jax import config as config_files
from stp_jax.config import split_overrides
from stp_jax.convert import infer, published, rules, torch_checkpoint
from stp_jax.data import clip_store
from stp_jax.data import spec as data_spec


def to_ours(source: str, config, out: str, *, stores: Sequence[str] = (),
            upstream: str = 'channel_mixer') -> str:
  """Converts `source` into a checkpoint in the folder `out`.

  Args:
    source: a `.pth` or `.npz`. config: of the model the weights belong to; published fields are set
      on it. stores: the data's scaling and means; none: those of `iono_electron`.

  Returns:
    A summary in one line.

  Raises:
    CheckpointError, ConversionError: one line each; nothing is written then.
  """
  read = torch_checkpoint.load(source)
  published.apply_fields(config, infer.fields(config.model.name, read.weights))
  published.apply_fields(config, published.published_fields(config, upstream))
  if stores:
    spec = data_spec.make([clip_store.ClipStore(s) for s in stores], config.data,
                          config.data.train_splits)
  else:
    spec = published.data_spec(config.data.channels)
  # What the weights were trained on is not at hand: no set made here must stand in for it.
  published.apply_fields(config, {'data.dataset': '', 'data.stores': tuple(stores)})
  task = tasks.build(config, spec)
  family = convert.family_of(config.model.name)
  template = jax.eval_shape(task.init, jax.random.key(0))
  try:
    variables, unused = rules.to_flax(family, read.weights, template)
  except rules.ConversionError as error:
    raise rules.ConversionError(f'{source}: {error}') from error
  checkpoint.save_converted(out, config, variables, spec, unused)
  live = rules.parameter_count(family, variables['params'], {})
  total = rules.parameter_count(family, variables['params'], unused)
  epoch = '' if read.epoch is None else f', after {read.epoch} epochs'
  return (f'{out}: {config.model.name}, {live} parameters and {total - live} that nothing uses '
          f'(kept){epoch}')


def to_torch(run: str, out: str) -> str:
  """Writes the weights of a run as a bare state_dict (`.pth`), or as `.npz`, under PyTorch's keys.

  Returns:
    A summary in one line.

  Raises:
    CheckpointError, ConversionError: one line each.
  """
  loaded = checkpoint.load(run)
  family = convert.family_of(loaded.config.model.name)
  path = pathlib.Path(out)
  if path.suffix not in ('.pth', '.npz'):
    raise rules.ConversionError(f'--out={out}: name a .pth or .npz file')
  weights = rules.to_torch(family, loaded.variables, _unused(loaded))
  partial = path.with_name(f'.{path.name}.partial')
  with open(partial, 'wb') as file:
    if path.suffix == '.npz':
      np.savez(file, **weights)
    else:
      import torch
      torch.save({k: torch.from_numpy(np.array(v)) for k, v in weights.items()}, file)
  os.replace(partial, path)
  return f'{out}: {len(weights)} tensors'


def _unused(loaded: checkpoint.Loaded) -> dict[str, np.ndarray]:
  """Tensors that the conversion set aside; none in a run that was trained here."""
  with checkpoint.manager(loaded.path) as checkpoints:
    if not (pathlib.Path(checkpoints.directory) / str(loaded.step) / 'unused').is_dir():
      return {}
    items = ocp.args.Composite(unused=ocp.args.StandardRestore())
    found = checkpoints.restore(loaded.step, args=items)['unused']
  return {k: np.asarray(v) for k, v in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
  """Converts; a bad input is one line on stderr and exit code 1."""
  parser = argparse.ArgumentParser(
      prog='python -m stp_jax.convert', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('source', nargs='?', help='.pth or .npz of a PyTorch state_dict')
  add('--config', help='config file and words of the model')
  add('--out', required=True, help='folder of the new run, or file with --to-torch')
  add('--store', default='', help='clip store(s), joined by commas: scaling and training means')
  add('--upstream', default='channel_mixer', choices=published.UPSTREAMS,
      help='whose code trained the weights')
  add('--to-torch', action='store_true', help='the other way')
  add('--checkpoint', help='run to write as PyTorch weights')
  try:
    rest, overrides = split_overrides(list(sys.argv[1:] if argv is None else argv))
  except ValueError as error:
    parser.error(str(error))
  args = parser.parse_args(rest)
  if args.to_torch and not args.checkpoint:
    parser.error('--to-torch needs --checkpoint=RUN')
  if not args.to_torch and not (args.source and args.config):
    parser.error('name a PyTorch file and a --config')
  try:
    if args.to_torch:
      print(to_torch(args.checkpoint, args.out))
    else:
      config = config_files.load(args.config, overrides)
      stores = [s for s in args.store.split(',') if s]
      print(to_ours(args.source, config, args.out, stores=stores, upstream=args.upstream))
      for name, value in published.published_fields(config, args.upstream).items():
        print(f'  {name} = {value}')
  except (ValueError, OSError, ImportError) as error:
    print(f'convert: {str(error).splitlines()[0]}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
