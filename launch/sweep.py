#!/usr/bin/env python
"""Runs every setting of a config file's `get_sweep`, here or on SLURM.

  python launch/sweep.py --config=configs/iono_mixer.py --dry-run
  python launch/sweep.py --config=configs/iono_mixer.py:sweep=seeds,steps=100 --jobs=2
  python launch/sweep.py --config=configs/iono_mixer.py --backend=slurm --gpus=4 -- --noevaluate

The word `sweep=NAME` chooses one of the file's sweeps; other words, and all after `--`, go to every
run. The same command goes on with runs that stopped; those that are complete end at once. Paths
are relative to the folder that it is called in.
"""

import argparse
import concurrent.futures
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

from stp_jax import files, sweep  # noqa: E402

# For slurm.sbatch: what each run asks for.
_ASKED = dict(nodes='nodes of a run', gpus='GPUs of a node', per='node or gpu: a process on each',
              cpus='CPU cores of a process', mem='memory of a node', time='longest run',
              partition='partition', sbatch='more options of sbatch')


def parser() -> argparse.ArgumentParser:
  made = argparse.ArgumentParser(
      prog='launch/sweep.py', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  add = made.add_argument
  add('--config', default='configs/iono_mixer.py', help='config file, words; sweep=NAME chooses')
  add('--out', default='', help='folder of the runs; default runs/sweep/<config>[-<sweep>], '
      'or runs/ for settings that name themselves')
  add('--backend', choices=['local', 'slurm'], default='local')
  add('--jobs', type=int, default=1, help='local: runs at the same time')
  for name, what in _ASKED.items():
    add(f'--{name}', default='1' if name == 'nodes' else '', help=f'slurm: {what}')
  add('--dry-run', action='store_true', help='print one command a line, run nothing')
  add('--list', action='store_true', help='the runs and the step that each has reached')
  add('--logs', action='store_true', help='the last lines that every run wrote')
  add('--delete', action='store_true', help='cancel (slurm) and remove the folders of the runs')
  return made


def newest_step(workdir: pathlib.Path) -> int | None:
  """The newest saved step of a run; None before the first."""
  steps = [int(p.name) for p in (workdir / 'checkpoints').glob('*') if p.name.isdigit()]
  return max(steps, default=None)


def _environment() -> dict[str, str]:
  """Of the runs: the code that this file belongs to, installed or not."""
  paths = [str(_ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
  return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}


def _local(commands: dict[pathlib.Path, list[str]], jobs: int) -> int:
  """Runs commands, `jobs` at a time, each with a log; the worst exit code."""
  def run(item) -> int:
    workdir, command = item
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / 'log.txt').open('a') as log:
      code = subprocess.run(
          command, stdout=log, stderr=subprocess.STDOUT, env=_environment()).returncode
    words = 'done' if code == 0 else f'exit code {code}, see {workdir / "log.txt"}'
    print(f'{workdir}: {words}', file=sys.stderr, flush=True)
    return code

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    return max(pool.map(run, commands.items()), key=abs)


def _cancel(job: str, dry: bool) -> None:
  """Cancels SLURM's jobs of a name, and waits for their end: they may be saving."""
  command = ['scancel', f'--name={job}']
  if dry:
    print(shlex.join(command))
    return
  subprocess.run(command, check=False)
  look = ['squeue', f'--name={job}', '--noheader']
  for _ in range(60):
    if not subprocess.run(look, check=False, capture_output=True, text=True).stdout.strip():
      return
    time.sleep(2)


def _delete(workdir: pathlib.Path, dry: bool) -> None:
  """Removes a run's folder.

  Raises:
    OSError: a process writes there.
  """
  print(f'rm -r {workdir}')
  if not dry:
    with files.only_one(workdir / '.lock'):
      shutil.rmtree(workdir)


def main(argv: list[str] | None = None) -> int:
  argv = list(sys.argv[1:] if argv is None else argv)
  cut = argv.index('--') if '--' in argv else len(argv)
  args, rest = parser().parse_args(argv[:cut]), argv[cut + 1:]
  try:
    path, common, name, settings = sweep.read(args.config)
  except (sweep.SweepError, OSError) as error:
    print(f'sweep: {error}', file=sys.stderr)
    return 1
  if args.jobs < 1:
    print('sweep: --jobs is at least 1', file=sys.stderr)
    return 1
  stem = pathlib.Path(path).stem
  own = all('name' in s for s in settings)  # runs that look for each other in runs/<name>
  out = pathlib.Path(args.out or ('runs' if own else
                                  f'runs/sweep/{stem}{"-" if name else ""}{name}'))
  runs = {out / label: sweep.arguments(path, common, s)
          for label, s in zip(sweep.labels(settings), settings, strict=True)}
  jobs = {d: f'{out.name}-{d.name}' for d in runs}
  if args.list:
    for workdir in runs:
      step = newest_step(workdir)
      state = 'not begun' if step is None else f'step {step}'
      if (workdir / 'report' / 'score_card.md').exists():
        state += ', scored'
      print(f'{workdir}  {state}')
    return 0
  if args.logs:
    for workdir in runs:
      log = workdir / 'log.txt'
      lines = log.read_text(errors='replace').splitlines()[-3:] if log.exists() else ['no log']
      print(f'== {workdir}', *lines, sep='\n')
    return 0
  if args.delete:
    for workdir in runs:
      if args.backend == 'slurm':
        _cancel(jobs[workdir], args.dry_run)
      if workdir.is_dir():
        try:
          _delete(workdir, args.dry_run)
        except OSError as error:
          print(f'sweep: {error}', file=sys.stderr)
          return 1
    return 0
  commands = {
      workdir: ['python', '-m', 'stp_jax.main', *arguments, f'--workdir={workdir}', *rest]
      for workdir, arguments in runs.items()}
  if args.backend == 'slurm':
    asked = [f'--{n}={getattr(args, n)}' for n in _ASKED if getattr(args, n)]
    commands = {
        workdir: [str(_ROOT / 'launch' / 'slurm.sbatch'), f'--job={jobs[workdir]}', *asked,
                  f'--log={workdir / "log.txt"}', '--', *command[3:]]
        for workdir, command in commands.items()}
  if args.dry_run:
    print(*map(shlex.join, commands.values()), sep='\n')
    return 0
  if args.backend == 'slurm':
    environment = {'STP_PYTHON': sys.executable, **_environment()}
    return max(subprocess.run(c, env=environment).returncode for c in commands.values())
  # The interpreter that runs this, whatever 'python' means on this path.
  return _local({d: [sys.executable, *c[1:]] for d, c in commands.items()}, args.jobs)


if __name__ == '__main__':
  sys.exit(main())
