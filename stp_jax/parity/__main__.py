"""python -m stp_jax.parity DIR...    compares with published numbers (DIR = case, group or tree).

A line per case: group/case, the largest difference of an output, of a gradient (relative), ok or
FAIL with the reason; then the count. Exit code 1 on a failure, or on a case it cannot build.
"""

import os
import sys
from collections.abc import Sequence

# Before jax is imported: the numbers were measured on a CPU and are compared there.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from absl import app, flags

from stp_jax.parity import case as cases
from stp_jax.parity import runtime
from stp_jax.parity.compare import Verdict

_VERBOSE = flags.DEFINE_bool('verbose', False, 'stop at the first case that crashes, and say where')


def line(name: str, verdict: Verdict) -> str:
  """`group/case  max|dy|  max rel grad  ok|FAIL reason`."""
  grad = '-' if verdict.max_rel_grad is None else f'{verdict.max_rel_grad:.1e}'
  more = len(verdict.failures) - 3
  reason = '; '.join(verdict.failures[:3]) + (f'; and {more} more' if more > 0 else '')
  end = 'ok' if verdict.ok else f'FAIL {reason}'
  return f'{name:<48} {verdict.max_dy:8.1e} {grad:>8}  {end}'


def main(argv: Sequence[str]) -> None:
  """Runs the folders given as arguments."""
  if len(argv) < 2:
    raise app.UsageError('name a case, a group or a tree of parity cases')
  known, passed, failed, unclaimed = runtime.families(), 0, 0, {}
  for argument in argv[1:]:
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
        name = f'{group}/{folder.resolve().name}'
        try:
          case = cases.Case(folder)
          if group not in known:
            raise cases.Unsupported(f'no module here claims the group {group}')
          verdict = runtime.run_case(case, known[group], _VERBOSE.value)
        except cases.CaseError as error:
          verdict = Verdict([str(error)])
        print(line(name, verdict), flush=True)
        passed, failed = passed + verdict.ok, failed + (not verdict.ok)
  for group, count in unclaimed.items():
    print(f'unclaimed: {group} ({count} cases)')
  print(f'{passed} passed, {failed} failed')
  if failed:
    sys.exit(1)


if __name__ == '__main__':
  app.run(main)
