"""Compares this package with numbers measured on the published PyTorch code.

Prints a line per case: group/case, the largest difference of an output, of a gradient (relative),
ok or FAIL with the reason; then the count. Exit code 1 on a failure or a case it cannot build.
"""

import argparse
import os
import sys
from collections.abc import Sequence

# Before jax is imported: the numbers were measured on a CPU and are compared there.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from stp_jax.parity import case as cases
from stp_jax.parity import runtime
from stp_jax.parity.compare import Verdict


def line(name: str, verdict: Verdict) -> str:
  """`group/case  max|dy|  max rel grad  ok|FAIL reason`."""
  grad = '-' if verdict.max_rel_grad is None else f'{verdict.max_rel_grad:.1e}'
  more = len(verdict.failures) - 3
  reason = '; '.join(verdict.failures[:3]) + (f'; and {more} more' if more > 0 else '')
  end = 'ok' if verdict.ok else f'FAIL {reason}'
  return f'{name:<44} {verdict.max_dy:8.1e} {grad:>8}  {end}'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the folders named on the command line; returns the exit code."""
  parser = argparse.ArgumentParser(prog='python -m stp_jax.parity', description=__doc__)
  parser.add_argument('folders', nargs='+', metavar='DIR', help='a case, a group, or a tree')
  parser.add_argument('--verbose', action='store_true', help='stop where a case crashes, show how')
  args = parser.parse_args(argv)
  known, passed, failed, unclaimed = runtime.families(), 0, 0, {}
  for argument in args.folders:
    try:
      folders, named = cases.find(argument)
    except cases.CaseError as error:
      print(f'{argument}  FAIL {error}')
      failed += 1
      continue
    for group, members in cases.groups(folders):
      if group not in known and not named:
        unclaimed[group] = len(members)
        continue
      for folder in members:
        try:
          case = cases.Case(folder)
          if group not in known:
            raise cases.Unsupported(f'no module of stp_jax.parity claims the group {group}')
          verdict = runtime.run_case(case, known[group], args.verbose)
        except cases.CaseError as error:
          verdict = Verdict([str(error)])
        print(line(f'{group}/{folder.resolve().name}', verdict), flush=True)
        passed, failed = passed + verdict.ok, failed + (not verdict.ok)
  for group, count in unclaimed.items():
    print(f'unclaimed: {group} ({count} cases)')
  print(f'{passed} passed, {failed} failed')
  return int(failed > 0)


if __name__ == '__main__':
  sys.exit(main())
