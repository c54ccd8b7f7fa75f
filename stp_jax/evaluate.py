"""Scores of a checkpoint: `python -m stp_jax.evaluate --checkpoint=RUN [--store=S] [--split=S]`.

Every forecast is scored beside its baselines, in physical units; what kind of scores, the task of
the run decides.
"""

import argparse
import importlib
import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import flags

from stp_jax import checkpoint, cluster, tasks

# By task: the module here that has `evaluate` and `validate` for it.
_MODULES = {'forecast': 'evaluate_forecast', 'domains': 'evaluate_domains', 'beam': 'evaluate_beam',
            'rebuild': 'evaluate_beam', 'custom': 'evaluate_task'}


def kind(config) -> str:
  """The task, or 'domains' where frames of several stores or a masked network are scored."""
  domains = config.task.name == 'masked' or config.data.domains
  return 'domains' if domains else tasks.kind(config.task.name)


def _module(config):
  return importlib.import_module(f'stp_jax.{_MODULES[kind(config)]}')


def validate(task, state, stores, mesh) -> dict[str, float]:
  """Validation scores during training, on at most `validation_windows`; {} without such a split."""
  return _module(task.config).validate(task, state, stores, mesh)


def evaluate(
    run, *, store: Sequence[str] = (), split: Sequence[str] = (), raw: bool = False,
    future_forcings: str = '', limit: int = 0, out=None, batch_size: int = 0, lpips: str = '',
    step: int | str | None = None, protocol: str = '',
) -> dict:
  """Scores a run or converted checkpoint and writes its report.

  Args:
    run: workdir, or over domains several. store: clip stores, default those of the config.
    split: default the test splits. raw: parameters as trained, not their average.
    future_forcings: overrides the config's mode. limit: windows per split, 0 = all.
    out: report folder, default `<run>/report`. lpips: its weights, for runs over domains.
    step: of the checkpoint: a number, 'best', or the newest.
    protocol: 'standard' or 'upstream' instead of the config's: whose scores head the card; upstream
      sets future_forcings to 'observed' where that is not given.

  Returns:
    The score card as written to scores.json.
  """
  runs = [run] if isinstance(run, (str, pathlib.Path)) else list(run)
  loaded, *others = (checkpoint.load(r, raw=raw, step=step) for r in runs)
  config = loaded.config
  config.protocol = protocol or config.protocol
  if config.protocol not in ('standard', 'upstream'):
    raise ValueError(f'protocol={config.protocol!r}: choose standard or upstream')
  future_forcings = future_forcings or ('observed' if protocol == 'upstream' else '')
  if future_forcings:
    config.data.future_forcings = future_forcings
  if batch_size:
    config.data.eval_batch_size = batch_size
  out = pathlib.Path(out or loaded.path / 'report')
  if lpips and kind(config) != 'domains':
    raise ValueError(f'lpips={lpips}: only runs over domains are scored by it')
  more = dict(lpips=lpips) if lpips else {}
  return _module(config).evaluate(
      [loaded, *others] if others else loaded, store=store, split=split, limit=limit, out=out,
      **more)


def arguments() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.evaluate', description=__doc__)
  add = parser.add_argument
  add('--checkpoint', required=True,
      help='workdir of a run or converted checkpoint; over domains several, joined by commas')
  add('--store', default='',
      help='clip stores (domains: name:STORE), joined by a comma; default: those of the config')
  add('--split', default='', help="splits, joined by '+'; default: the config's test splits")
  add('--raw', action='store_true', help='parameters as trained instead of their average')
  add('--step', default='', help='of the checkpoint: a number, best, or latest (default)')
  add('--future-forcings', default='', help='persist | observed | forecast | none')
  add('--protocol', default='', choices=['', 'standard', 'upstream'],
      help="whose scores head the card; upstream: unweighted, every pixel, observed drivers")
  add('--limit', type=int, default=0, help='windows per split, evenly spread; 0 = all')
  add('--batch-size', type=int, default=0, help='windows in a batch; scores do not depend on it')
  add('--lpips', default='', help='weights written by stp_jax.convert lpips, for domains')
  add('--out', default=None, help='report folder; default <checkpoint>/report')
  add('--cluster', default='auto', choices=cluster.KINDS, help='how several processes join')
  add('--coordinator', default=None, help='host:port of process 0; SLURM and pods need no flag')
  add('--processes', type=int, default=None, help='number of processes, with --coordinator')
  add('--process', type=int, default=None, help='index of this one, with --coordinator')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the score card; a bad input is one line on stderr and exit code 1."""
  flags.FLAGS.mark_as_parsed()
  args = arguments().parse_args(argv)
  runs = args.checkpoint.split(',')
  out = pathlib.Path(args.out or pathlib.Path(runs[-1]) / 'report')
  try:
    cluster.join(args.coordinator, args.processes, args.process, args.cluster)
    evaluate(
        runs, store=[s for s in args.store.split(',') if s],
        split=[s for s in args.split.split('+') if s], raw=args.raw,
        future_forcings=args.future_forcings, limit=args.limit, out=out,
        batch_size=args.batch_size, lpips=args.lpips, step=args.step, protocol=args.protocol)
  except (ValueError, OSError) as error:
    print(f'evaluate: {error}', file=sys.stderr)
    cluster.leave(1)
    return 1
  if jax.process_index() == 0:
    print((out / 'score_card.md').read_text())
  return 0


if __name__ == '__main__':
  sys.exit(main())
