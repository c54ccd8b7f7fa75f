"""Train, then evaluate: `python -m stp_jax.main --config=configs/iono_mixer.py:word,key=value`.

Any field can be changed too: `--config.optimizer.learning_rate=3e-4`. `--help` lists the words of
the config files. The same command continues a run that stopped.
"""

import pathlib
import sys
import traceback

import jax
import ml_collections
from absl import app, flags, logging

from stp_jax import cluster, evaluate, train
from stp_jax import config as config_files

_CONFIG = flags.DEFINE_string('config', None, 'Config file and its words, path.py:a=1,smoke.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Checkpoints, metrics, report; runs/<config>.')
_STORE = flags.DEFINE_list('store', [], 'Clip stores to train and evaluate on.')
_EVALUATE = flags.DEFINE_bool('evaluate', True, 'Score the result and write the report.')
_COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'host:port of process 0; SLURM and TPU pods need no flag.')
_PROCESSES = flags.DEFINE_integer('processes', None, 'Number of processes, with --coordinator.')
_PROCESS = flags.DEFINE_integer('process', None, 'Index of this process, with --coordinator.')
_CLUSTER = flags.DEFINE_enum('cluster', 'auto', cluster.KINDS, 'How processes join.')


def words_help(folder: pathlib.Path) -> str:
  """The words of every config file in `folder`, with defaults."""
  lines = []
  for file in sorted(folder.glob('*.py')):
    known = config_files.module(file)
    if hasattr(known, 'WORDS'):  # others are parts of config files
      lines.append(f'{file}: {known.__doc__.strip().splitlines()[0]}')
      lines += [f'  {name}={default}' for name, default in known.WORDS.items()]
  return '\n'.join(lines)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path, evaluation: bool = True) -> None:
  """Trains, then scores what was trained."""
  train.train(config, workdir)
  if evaluation:
    # Where a best checkpoint is kept, that one is the result.
    with cluster.stoppable():
      evaluate.evaluate(workdir, step='best' if config.validation.metric else None)
    if jax.process_index() == 0:
      print((workdir / 'report' / 'score_card.md').read_text())
      print(f'report: {workdir / "report"}')


def main(overrides: dict[str, str]):
  def body(_):
    logging.set_verbosity(logging.WARNING)  # Orbax tells its life story at INFO
    try:
      cluster.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _CLUSTER.value)
      config = config_files.load(_CONFIG.value, overrides)
      if _STORE.value:
        with config.unlocked():
          config.data.stores = tuple(_STORE.value)
          if config.data.frame_size and len(config.data.domains) != len(_STORE.value):
            config.data.domains = tuple(pathlib.Path(s).name for s in _STORE.value)
      run(config, pathlib.Path(_WORKDIR.value or f'runs/{config.name}'), _EVALUATE.value)
    except Exception as error:
      # A wrong keyword of a backbone is the user's; any other TypeError is ours.
      ours = not isinstance(error, (ValueError, OSError, ImportError, train.NonFiniteError)) and (
          not isinstance(error, TypeError) or 'unknown field' not in str(error))
      if not ours:
        print(f'stp_jax: {error}', file=sys.stderr)
      elif jax.distributed.is_initialized():
        traceback.print_exc()
      cluster.leave(1)
      if ours:
        raise
      sys.exit(1)
  return body


if __name__ == '__main__':
  if {'-h', '--help'} & set(sys.argv):
    print(f'{__doc__}\nflags: --config --workdir --store --[no]evaluate --cluster --coordinator '
          f'--processes --process\n\n{words_help(pathlib.Path("configs"))}')
    sys.exit(0)
  try:
    sys.argv, _overrides = config_files.split_overrides(sys.argv)
  except ValueError as error:
    sys.exit(f'stp_jax: {error}')
  flags.mark_flag_as_required('config')
  app.run(main(_overrides))
