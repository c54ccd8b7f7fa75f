"""What a run's checkpoints hold: `python -m stp_jax.checkpoint inspect DIR`.

Shapes, config and versions are read, not arrays: no accelerator is needed, or touched.
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax

from stp_jax import checkpoint, checkpoint_health


def _leaves(tree: Any) -> dict[str, tuple[list[int], str]]:
  """path -> shape, dtype of a metadata tree."""
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    found[name] = list(getattr(leaf, 'shape', ()) or ()), str(getattr(leaf, 'dtype', '') or '')
  return found


def read(run, step: int | None = None, verify: bool = True) -> dict[str, Any]:
  """Everything `inspect` prints, as plain JSON; reads shapes, not arrays.

  Args:
    run: a workdir. step: whose shapes and config; default the newest whole one. verify: compare
      checksums, which reads all files.

  Raises:
    CheckpointError: no checkpoint there, or not that step.
  """
  run = pathlib.Path(run)
  there = checkpoint_health.steps(run)
  if not there:
    raise checkpoint.CheckpointError(
        f'{run}: no checkpoint (no step in {run / "checkpoints"}); name the --workdir of a run')
  state = {s: checkpoint_health.damage(run, s) if verify else '' for s in there}
  whole = [s for s in there if not state[s]]
  shown = step if step is not None else (whole or [None])[-1]
  result = dict(run=str(run), verified=verify, steps=[dict(
      step=s, bytes=sum(p.stat().st_size for p in (run / 'checkpoints' / str(s)).rglob('*')
                        if p.is_file()), damage=state[s]) for s in there])
  if shown is None:
    return result
  if shown not in there:
    raise checkpoint.CheckpointError(
        f'{run}: no step {shown}; there are {" ".join(map(str, there))}')
  folder = run / 'checkpoints' / str(shown)
  with checkpoint.manager(run) as checkpoints:
    items = sorted(p.name for p in folder.iterdir() if p.is_dir())
    trees = {name: _leaves(checkpoint.item_metadata(checkpoints, shown, name))
             for name in items if name in ('model', 'train', 'unused')}
  info = checkpoint.read_info(folder)
  return result | dict(step=shown, items=items, arrays=trees, config=info.get('config'),
                       spec=info.get('spec'), made=info.get('made', {}))


def text(found: dict[str, Any], arrays: bool) -> str:
  """The lines that `inspect` prints."""
  lines = [f'{found["run"]}: {len(found["steps"])} checkpoint(s)']
  for s in found['steps']:
    state = ('not verified' if not found['verified'] else
             f'DAMAGED: {s["damage"]}' if s['damage'] else 'whole')
    lines.append(f'  step {s["step"]:>8}  {s["bytes"] / 2 ** 20:10.2f} MiB  {state}')
  if 'step' not in found:
    return '\n'.join([*lines, 'no whole checkpoint'])
  made = found['made']
  lines.append(f'step {found["step"]}: {" ".join(found["items"])}')
  if made:
    lines.append(f'  saved {made["time"]} by {made["processes"]} process(es) of '
                 f'{made["devices"]} {made["platform"]} device(s), sample {made["position"]}')
    lines.append('  versions ' + ' '.join(f'{k} {v}' for k, v in made['versions'].items()))
  for item, leaves in found['arrays'].items():
    count = sum(math.prod(shape) for shape, _ in leaves.values())
    lines.append(f'  {item}: {len(leaves)} arrays, {count:,} numbers')
    lines += [f'    {name}  {dtype}{shape}' for name, (shape, dtype) in leaves.items()] \
        if arrays else []
  spec, config = found['spec'] or {}, found['config'] or {}
  lines.append(f'  data {spec.get("name")}: {spec.get("dtype")}{list(spec.get("shape", []))} '
               f'{spec.get("units")}')
  lines.append('  config ' + json.dumps(config, default=str))
  return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
  """The command; a run without a whole checkpoint is exit code 1."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.checkpoint', description=__doc__)
  parser.add_argument('command', choices=['inspect'])
  parser.add_argument('run', help='workdir of a run or converted checkpoint')
  parser.add_argument('--step', type=int, default=None, help='default: the newest whole one')
  parser.add_argument('--arrays', action=argparse.BooleanOptionalAction, default=True,
                      help='name, type and shape of every array')
  parser.add_argument('--verify', action=argparse.BooleanOptionalAction, default=True,
                      help='read all files and compare checksums')
  parser.add_argument('--json', action='store_true', help='one JSON object')
  args = parser.parse_args(argv)
  # A checkpoint of a pod is looked at on a laptop, or beside a job that holds the accelerator.
  jax.config.update('jax_platforms', 'cpu')
  try:
    found = read(args.run, args.step, args.verify)
  except (ValueError, OSError) as error:
    print(f'checkpoint: {error}', file=sys.stderr)
    return 1
  print(json.dumps(found, default=str) if args.json else text(found, args.arrays))
  return 0 if 'step' in found else 1
