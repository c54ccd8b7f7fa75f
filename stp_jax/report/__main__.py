"""Makes a run's report again: `python -m stp_jax.report --workdir RUN [--out DIR]`.

Reads `RUN/report/scores.json`, `RUN/report/example.npz` and `RUN/metrics.jsonl`; nothing is
computed by the model.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from stp_jax import report


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the files; a run without scores is one line on stderr and exit code 1."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.report', description=__doc__)
  parser.add_argument('--workdir', required=True, help='folder of the run')
  parser.add_argument('--out', help='report folder; default RUN/report')
  args = parser.parse_args(argv)
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
