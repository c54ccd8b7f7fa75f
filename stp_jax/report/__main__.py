"""Makes a run's report again: `python -m stp_jax.report --workdir RUN [--out DIR]`.

Reads `RUN/report/scores.json`, `RUN/report/example.npz` and `RUN/metrics.jsonl` (of a beam run
`score_card.json`, `samples_*.npz`); nothing is computed by the model. Several runs, `--workdir
RUN,RUN,... --out DIR`: their loss curves in one picture, a panel for every term. `--table1 RUN...`
prints them beside the published table of the Channel Mixer Layer.

`--compare RUN... --index=125 --leads=1,19,28,44,48` forecasts one window with every run and draws
truth, forecasts and errors into `--out` (default runs/compare): compare.png, compare.gif.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from stp_jax import report


def _is_beam(run: pathlib.Path) -> bool:
  return not (run / 'report' / 'scores.json').exists() and (
      run / 'report' / 'score_card.json').exists()


def _beam(runs: Sequence[pathlib.Path], out: str | None) -> int:
  """The report of one beam run, or the loss curves of several runs of any kind."""
  from stp_jax.report import beam
  try:
    if len(runs) > 1:
      from stp_jax.report import beam_plots
      print(beam_plots.overlay(runs, pathlib.Path(out or 'runs/report')))
      return 0
    for path in beam.again(runs[0], out):
      print(path)
  except (ValueError, OSError, ImportError) as error:
    print(f'report: {error}', file=sys.stderr)
    return 1
  return 0


def _compare(args) -> int:
  try:
    from stp_jax.report import compare
    print(compare.compare(
        args.compare, args.out or 'runs/compare', index=args.index, leads=args.leads,
        store=[s for s in args.store.split(',') if s], split=args.split, step=args.step,
        future_forcings=args.future_forcings, magnetic_equator=args.magnetic_equator,
        terminator=args.terminator))
  except ImportError as error:
    if (error.name or '').split('.')[0] not in ('matplotlib', 'PIL'):
      raise
    print(f'report: {report.EXTRA}', file=sys.stderr)
    return 1
  except (ValueError, OSError) as error:
    print(f'report: {error}', file=sys.stderr)
    return 1
  return 0


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the files; a run without scores is one line on stderr and exit code 1."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.report', description=__doc__)
  parser.add_argument('--workdir', help='folder of the run, or several joined by commas')
  parser.add_argument('--table1', nargs='+', metavar='RUN',
                      help="the Channel Mixer Layer's Table 1: runs beside the published ones")
  parser.add_argument('--out', help='report folder; default RUN/report, of --compare runs/compare')
  group = parser.add_argument_group('--compare')
  group.add_argument('--compare', nargs='+', metavar='RUN', help='runs to draw beside the truth')
  group.add_argument('--index', type=int, default=0,
                     help='number of the window in the split, from 0, every start counted')
  group.add_argument('--leads', default='', help='frames ahead, from 1; default five, evenly')
  group.add_argument('--store', default='', help="joined by commas; default: that of the runs")
  group.add_argument('--split', default='', help='default: the first test split of the config')
  group.add_argument('--step', default='', help='of the checkpoints: a number, best or latest')
  group.add_argument('--future-forcings', default='', help='persist | observed | forecast | none')
  group.add_argument('--magnetic-equator', action='store_true', help='quasi-dipole latitude 0')
  group.add_argument('--terminator', action='store_true', help='border of day and night')
  args = parser.parse_args(argv)
  if args.compare:
    return _compare(args)
  if args.table1:
    from stp_jax.report import table1
    try:
      print(table1.table(args.table1))
    except ValueError as error:
      print(f'report: {error}', file=sys.stderr)
      return 1
    return 0
  if not args.workdir:
    parser.error('--workdir: name the folder of the run')
  if ',' in args.workdir or _is_beam(pathlib.Path(args.workdir)):
    return _beam([pathlib.Path(r) for r in args.workdir.split(',') if r], args.out)
  run = pathlib.Path(args.workdir)
  source = run / 'report' / 'scores.json'
  try:
    scores = json.loads(source.read_text())
    if not scores.get('splits'):
      raise ValueError('holds no scores')
  except FileNotFoundError:
    print(f'report: {source}: not there; run python -m stp_jax.evaluate --checkpoint={run}',
          file=sys.stderr)
    return 1
  except ValueError as error:
    print(f'report: {source}: {error}; run python -m stp_jax.evaluate again', file=sys.stderr)
    return 1
  for path in report.write(
      args.out or run / 'report', scores, report.load_example(run / 'report'),
      run / 'metrics.jsonl'):
    print(path)
  return 0


if __name__ == '__main__':
  sys.exit(main())
