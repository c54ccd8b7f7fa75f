"""The launchers: dry runs, sweeps, and a two-process job under a stand-in for SLURM."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import textwrap

import pytest

from stp_jax import cluster, sweep
from stp_jax import config as config_files
from tests import processes, stores

pytestmark = pytest.mark.xdist_group('processes')
LAUNCH = processes.ROOT / 'launch'
SCRIPTS = sorted([*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')])
MINE = [LAUNCH / n for n in ('gke_xpk.sh', 'slurm.sbatch', 'tpu_pod.sh')]


def call(*command, code=0, cwd=processes.ROOT, **environment):
  # Nothing of a cluster that this test may itself run on.
  clean = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'STP_'))}
  done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300,
                        cwd=cwd, env=clean | environment)
  assert done.returncode == code, done.stdout + done.stderr
  return done.stdout if not code else done.stdout + done.stderr


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_clean(script):
  call('bash', '-n', script)
  if shutil.which('shellcheck'):
    call('shellcheck', script)


@pytest.mark.parametrize('script', MINE, ids=lambda p: p.name)
def test_dry_run_needs_nothing_and_calls_nothing(script):
  # A PATH without sbatch, gcloud, xpk: a dry run that called one would fail.
  out = call(script, '--dry-run', PATH='/usr/bin:/bin')
  assert '-m stp_jax.main' in ' '.join(shlex.split(out, comments=True))
  words = ['--config=configs/x.py:a=1,b', '--workdir=/some where', '--config.steps=3']
  flat = call(script, '--dry-run', '--', *words, PATH='/usr/bin:/bin')
  for _ in range(3):  # quoted once for the shell here, once for the one over there
    flat = ' '.join(shlex.split(flat.replace('\n', ' ')))
  assert all(w.split()[0] in flat for w in words) and 'where' in flat
  for what in ('--list', '--logs', '--delete'):
    line = call(script, '--dry-run', what, PATH='/usr/bin:/bin')
    assert len(line.splitlines()) == 1 and 'stp_jax.main' not in line
  assert 'Usage' in call(script, '--help')
  assert 'unknown option --nonsense' in call(script, '--nonsense', code=2)


def test_slurm_submits_what_was_asked():
  out = call(LAUNCH / 'slurm.sbatch', '--dry-run', '--job=a', '--nodes=3', '--gpus=4', '--per=gpu',
             '--time=1-00:00:00', '--', '--config=c.py', '--workdir=w')
  first, _, second = out.splitlines()
  assert ('--job-name=a --nodes=3 --ntasks-per-node=4 --output=runs/a.log --gpus-per-node=4 '
          '--time=1-00:00:00') in first
  assert second == (
      'srun --kill-on-bad-exit=0 --wait=60 python -m stp_jax.main --config=c.py --workdir=w')
  text = (LAUNCH / 'slurm.sbatch').read_text()
  for line in ('signal=TERM@120', 'requeue', 'dependency=singleton'):
    assert f'#SBATCH --{line}\n' in text
  out = call(LAUNCH / 'slurm.sbatch', '--dry-run', '--cpus=8', '--mem=200G',
             '--sbatch=--account=a --qos=b')
  assert '--cpus-per-task=8 --mem=200G --account=a --qos=b' in out
  # A shell inside an allocation submits as any other does, and is no job of that name.
  out = call(LAUNCH / 'slurm.sbatch', '--dry-run', '--nodes=2', SLURM_JOB_ID='9',
             SLURM_JOB_NAME='interactive')
  assert out.startswith('sbatch --job-name=stp_jax --nodes=2 ')
  assert 'needs --gpus' in call(LAUNCH / 'slurm.sbatch', '--per=gpu', '--dry-run', code=2)


@pytest.mark.parametrize('environment, place', [
    (dict(), None),
    (dict(SLURM_JOB_ID='7'), None),  # inside an allocation, not under srun
    (dict(n=1, i=0), None),
    (dict(n=2, i=1, nodes='gpu[007-009,12]'), ('gpu007:61447', 2, 1, None)),
    (dict(n=2, i=1, nodes='a1,b2'), ('a1:61447', 2, 1, None)),
    # A task per node sees all GPUs and takes them; tasks that share a node take one each.
    (dict(n=2, i=0, CUDA_VISIBLE_DEVICES='0,1,2,3'), ('n1:61447', 2, 0, None)),
    (dict(n=4, i=3, tasks='2(x2)', local='1', CUDA_VISIBLE_DEVICES='0,1'),
     ('n1:61447', 4, 3, (1,))),
    (dict(n=4, i=3, tasks='2(x2)', local='1', CUDA_VISIBLE_DEVICES='1'), ('n1:61447', 4, 3, None)),
])
def test_places_under_slurm(environment, place):
  if 'n' in environment:
    e = environment
    environment = dict(
        SLURM_JOB_ID='7', SLURM_STEP_NODELIST=e.get('nodes', 'n[1-2]'),
        SLURM_STEP_NUM_TASKS=str(e['n']), SLURM_PROCID=str(e['i']),
        SLURM_STEP_TASKS_PER_NODE=e.get('tasks', '1(x2)'), SLURM_LOCALID=e.get('local', '0'),
        CUDA_VISIBLE_DEVICES=e.get('CUDA_VISIBLE_DEVICES', ''))
  assert cluster.slurm(environment) == place


def test_places_of_gpu_nodes_under_xpk():
  names = 'JAX_COORDINATOR_ADDRESS', 'JAX_COORDINATOR_PORT', 'NNODES', 'NODE_RANK'
  place = lambda *values: cluster.xpk(dict(zip(names, values)))
  assert place('h.x', '3389', '2', '1') == place('h.x:3389', '3389', '2', '1')
  assert place('h.x', '3389', '2', '1') == ('h.x:3389', 2, 1, None)
  assert place('h.x', '3389', '1', '0') is place('h.x', '3389') is None
  with pytest.raises(cluster.ClusterError, match='are no numbers'):
    place('h', 'http', '2', '1')


def test_a_command_for_xpk_comes_through_its_yaml():
  import yaml
  words = ['--config=configs/x.py:a=1,b', '--workdir=/some where', '--config.steps=3']
  for more in ([], ['--device=h100-80gb-8', '--slices=2']):
    out = shlex.split(call(LAUNCH / 'gke_xpk.sh', '--dry-run', *more, '--', *words))
    command = dict(w[2:].split('=', 1) for w in out if w.startswith('--'))
    assert command['docker-image'] == f'REGISTRY/stp_jax:{"cuda12" if more else "tpu"}'
    seen = yaml.safe_load(f'value: "{command["command"]}"')['value']
    assert shlex.split(seen)[-3:] == words
  assert '--image=REGISTRY' in call(LAUNCH / 'gke_xpk.sh', '--workdir=w', code=2)
  assert 'no quotation marks' in call(LAUNCH / 'gke_xpk.sh', '--dry-run', '--', 'a"b', code=2)


@pytest.mark.parametrize('given, message', [
    (('h:1', None, None), '--processes --process missing'), (('h:1', 2, 2), 'from 0 to 1'),
    (('h', 2, 0), 'HOST:PORT'), (('h:1', 2, -1), 'from 0 to 1')])
def test_flags_that_do_not_fit_are_one_line(given, message):
  with pytest.raises(cluster.ClusterError, match=message):
    cluster.explicit(*given)
  assert cluster.explicit(None, None, None) is None


SBATCH = '''
  import os, shutil, subprocess, sys
  options, rest = {}, sys.argv[1:]
  while rest[0].startswith('--'):
    name, _, value = rest.pop(0)[2:].partition('=')
    options[name] = value
  print('Submitted batch job 42')
  tasks = int(options['nodes']) * int(options['ntasks-per-node'])
  environment = dict(os.environ, SLURM_JOB_ID='42', SLURM_JOB_NAME=options['job-name'],
                     FAKE_TASKS=str(tasks))
  spool = os.path.join(os.path.dirname(sys.argv[0]), 'slurm_script')  # what sbatch really runs
  shutil.copy(rest.pop(0), spool)
  with open(options['output'], 'a') as log:
    sys.exit(subprocess.run(['bash', spool, *rest], stdout=log, stderr=log,
                            env=environment).returncode)
'''
# As srun(1): --wait counts from the end of the first task, --kill-on-bad-exit looks at its code;
# who is left gets SIGTERM, then SIGKILL; a signal outweighs any code.
SRUN = '''
  import os, signal, subprocess, sys, time
  options = dict(a[2:].split('=') for a in sys.argv[1:3])
  count, short = int(os.environ['FAKE_TASKS']), float(os.environ.get('FAKE_SECOND', 1))
  children = [subprocess.Popen(sys.argv[3:], env=dict(
      os.environ, SLURM_STEP_NODELIST='127.0.0.1', SLURM_STEP_NUM_TASKS=str(count),
      SLURM_PROCID=str(i), SLURM_LOCALID=str(i), SLURM_STEP_TASKS_PER_NODE=str(count)))
      for i in range(count)]
  saved, first = os.environ.get('FAKE_TERM_AFTER'), None
  end = lambda how: [how(c) for c in children if c.poll() is None]
  try:
    while any(c.poll() is None for c in children):
      if saved and os.path.isdir(saved) and any(n.isdigit() for n in os.listdir(saved)):
        end(subprocess.Popen.terminate)
        saved = None
      ended = [c.poll() for c in children if c.poll() is not None]
      first = first or (ended and time.time())
      bad = options['kill-on-bad-exit'] != '0' and any(ended)
      if first and (bad or time.time() > first + short * int(options['wait'])):
        end(subprocess.Popen.terminate)
        time.sleep(short)
        end(subprocess.Popen.kill)
      time.sleep(.01)
  finally:
    end(subprocess.Popen.kill)
  signals = [128 - c.returncode for c in children if c.returncode < 0]
  sys.exit(max(signals or [c.returncode for c in children]))
'''
SCONTROL = '''
  import os, sys
  open(os.environ['FAKE_REQUEUED'], 'a').write(' '.join(sys.argv[1:]))
'''


def _program(path, text):
  path.parent.mkdir(exist_ok=True)
  path.write_text(textwrap.dedent(text).lstrip())
  path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path):
  """The PATH of a cluster: stand-ins for sbatch, srun and scontrol."""
  for name, text in dict(sbatch=SBATCH, srun=SRUN, scontrol=SCONTROL).items():
    _program(tmp_path / 'bin' / name, f'#!{sys.executable}\n' + textwrap.dedent(text))
  return f'{tmp_path / "bin"}:{os.environ["PATH"]}'


@pytest.mark.parametrize('tasks, environment, code, requeued', [
    ('exit 75', {}, 0, True),
    # The others are still writing: nobody cuts them short.
    ('if [ $SLURM_PROCID = 1 ]; then sleep .3; touch $DONE; fi; exit 75', {}, 0, True),
    ('exit 75', dict(SLURM_RESTART_COUNT='3'), 75, False),
    ('kill -TERM $$', dict(SLURM_JOB_END_TIME='1'), 0, True),  # the time is up
    # One fails and the other, which waits for it, is ended by srun: no reason to begin again.
    ('if [ $SLURM_PROCID = 0 ]; then exit 1; fi; exec sleep 60',
     dict(SLURM_JOB_END_TIME=str(10 ** 11)), 143, False),
    ('sleep .$SLURM_PROCID; exit 1', {}, 1, False),
    ('exit 0', {}, 0, False)])
def test_who_is_requeued(tmp_path, slurm, tasks, environment, code, requeued):
  _program(tmp_path / 'task', f'#!/bin/bash\n{tasks}')
  done = tmp_path / 'done'
  call(LAUNCH / 'slurm.sbatch', '--job=j', '--nodes=2', '--restarts=3', f'--log={tmp_path / "log"}',
       f'--python={tmp_path / "task"}', code=code, PATH=slurm, FAKE_SECOND='0.02', DONE=str(done),
       FAKE_REQUEUED=str(tmp_path / 'requeued'), **environment)
  assert (tmp_path / 'requeued').exists() == requeued
  assert done.exists() == ('DONE' in tasks)


def test_a_job_of_two_processes_is_preempted_requeued_and_ends(tmp_path, slurm):
  """The real script under stand-ins for sbatch, srun and scontrol; real training processes."""
  store = stores.make(tmp_path / 's')
  environment = processes.environment(
      1, PATH=slurm, FAKE_REQUEUED=tmp_path / 'requeued',
      JAX_COORDINATOR_PORT=processes.free_port())
  environment = {k: v for k, v in environment.items() if not k.startswith('SLURM_')}
  def submit(steps, **more):
    done = subprocess.run(
        [LAUNCH / 'slurm.sbatch', '--job=two', '--nodes=2', f'--log={tmp_path / "two.log"}',
         f'--python={sys.executable}', '--', f'--store={store.path}', '--noevaluate',
         f'--config=configs/iono_mixer.py:smoke,model=convlstm,channels=4,steps={steps}',
         f'--workdir={tmp_path / "run"}'],
        cwd=processes.ROOT, env=environment | more, capture_output=True, text=True, timeout=150)
    log = (tmp_path / 'two.log').read_text()
    assert done.returncode == 0, f'{done.stdout}{done.stderr}{log}'
    return done.stdout, log

  out, log = submit(3000, FAKE_TERM_AFTER=str(tmp_path / 'run' / 'checkpoints'))
  assert 'Submitted batch job 42' in out
  assert (tmp_path / 'requeued').read_text() == 'requeue 42'
  assert 'two stopped (exit code 75) and is requeued' in log and '2 device(s)' in log
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == list(range(1, len(lines) + 1))
  assert 2 <= len(lines) < 3000


def test_a_sweep_prints_a_command_a_line():
  out = call(sys.executable, LAUNCH / 'sweep.py', '--config=configs/iono_mixer.py', '--dry-run')
  lines = out.splitlines()
  assert len(lines) == 27 and len(set(lines)) == 27
  assert out == call(sys.executable, LAUNCH / 'sweep.py', '--dry-run')
  workdirs = set()
  for line in lines:
    command = shlex.split(line)
    assert command[:3] == ['python', '-m', 'stp_jax.main']
    config_files.load(command[3].removeprefix('--config='))  # every line is a config that exists
    workdirs.add(command[4])
  assert len(workdirs) == 27
  out = call(sys.executable, LAUNCH / 'sweep.py', '--dry-run', '--backend=slurm', '--nodes=2',
             '--config=configs/iono_mixer.py:sweep=rates,smoke,batch_size=2', '--', '--noevaluate')
  assert len(out.splitlines()) == 3 and '--nodes=2' in out
  assert 'smoke,batch_size=16,learning_rate=0.008' in out  # the swept value wins
  assert all(line.endswith(' --noevaluate') for line in out.splitlines())
  for words, message in [(':sweep=x', 'choose one of models'), ('x', 'no such config file')]:
    text = call(sys.executable, LAUNCH / 'sweep.py', f'--config=configs/iono_mixer.py{words}',
                '--dry-run', code=1)
    assert message in text and len(text.splitlines()) == 1


@pytest.mark.parametrize('name', ['beam_fusion', 'gs2pm', 'moving_frames', 'nowcast', 'video',
                                  'weather'])
def test_every_sweep_of_a_config_is_configs_that_exist(name):
  path = f'configs/{name}.py'
  with pytest.raises(sweep.SweepError, match='choose one of') as error:
    sweep.read(f'{path}:sweep=none')
  for chosen in str(error.value).rpartition('choose one of ')[2].split():
    _, _, _, settings = sweep.read(f'{path}:sweep={chosen}')
    assert len(set(sweep.labels(settings))) == len(settings) > 1
    for words, *_ in (sweep.arguments(path, '', s) for s in settings):
      config_files.load(words.removeprefix('--config='))


@pytest.mark.parametrize('name, folder', [
    ('video', 'runs/sweep/video/model-simvp'),
    ('beam_fusion', 'runs/table1_transfuser')])  # its runs find each other by name
def test_where_the_runs_of_a_sweep_are(name, folder):
  out = call(sys.executable, LAUNCH / 'sweep.py', f'--config=configs/{name}.py', '--dry-run')
  assert out.splitlines()[0].endswith(f' --workdir={folder}')


def test_a_sweep_that_fails_is_one_line(tmp_path):
  (tmp_path / 'x.py').write_text('def get_sweep(h):\n  raise ValueError("no such word")\n')
  with pytest.raises(sweep.SweepError, match=r'x.py: get_sweep\(h, name\) fails \(no such word'):
    sweep.read(str(tmp_path / 'x.py'))


def test_the_course_says_its_usage():
  script = LAUNCH / 'course.sbatch'
  assert 'sbatch launch/course.sbatch DATA' in call('bash', script, '--help')
  assert 'unknown option --list' in call('bash', script, '--dry-run', '--list', code=2)
  assert 'are numbers' in call(LAUNCH / 'slurm.sbatch', '--nodes=', '--dry-run', code=2)


@pytest.mark.parametrize('code, requeued', [(75, True), (143, True), (1, False)])
def test_the_course_is_requeued_when_it_was_stopped(tmp_path, slurm, code, requeued):
  _program(tmp_path / 'bin' / 'srun', f'#!/bin/bash\nexit {code}')
  call('bash', LAUNCH / 'course.sbatch', 'DATA', code=code, PATH=slurm, SLURM_JOB_ID='7',
       FAKE_REQUEUED=str(tmp_path / 'requeued'))
  assert (tmp_path / 'requeued').exists() == requeued


def test_a_sweep_of_a_config_of_ones_own(tmp_path):
  path = tmp_path / 'configs' / 'mine.py'
  path.parent.mkdir()
  path.write_text(textwrap.dedent('''
    def get_sweep(h):
      return h.chain(
          h.product(h.zip(a=[1, 2], b=['x', 'y']), h.sweep('optimizer.learning_rate', [.1, .2])),
          h.product(stages=[(1, 2)], flag=[True]))
  '''))
  _, common, name, settings = sweep.read(f'{path}:c=3')
  assert (common, name) == ('c=3', '') and len(settings) == 5
  assert sweep.arguments('p.py', common, settings[1]) == [
      '--config=p.py:c=3,a=1,b=x', '--config.optimizer.learning_rate=0.2']
  assert sweep.arguments('p.py', '', settings[4]) == ['--config=p.py:stages=1+2,flag=true']
  assert len(set(sweep.labels(settings))) == 5
  assert len(set(sweep.labels([dict(a=c * 300) for c in 'xyy']))) == 3
  with pytest.raises(sweep.SweepError, match='2, 1 values'):
    sweep.zip(a=[1, 2], b=[1])
  with pytest.raises(sweep.SweepError, match="'a' is swept twice"):
    sweep.product(sweep.sweep('a', [1]), a=[2])
  path.write_text('def get_sweep(h):\n  return []\n')
  with pytest.raises(sweep.SweepError, match='is empty'):
    sweep.read(str(path))
  path.write_text('x = 1\n')
  with pytest.raises(sweep.SweepError, match='has no get_sweep'):
    sweep.read(str(path))


@pytest.mark.slow
def test_a_local_sweep_runs_lists_and_deletes(tmp_path):
  store = stores.make(tmp_path / 's')
  command = [sys.executable, LAUNCH / 'sweep.py', f'--out={tmp_path / "out"}',
             '--config=configs/iono_mixer.py:sweep=rates,smoke,model=convlstm,channels=4,steps=1']
  assert call(*command, '--list').count('not begun') == 3
  call(*command, '--jobs=2', '--', f'--store={store.path}', '--noevaluate',
       '--config.data.batch_size=1', XLA_FLAGS='')  # one device: the batches are small
  assert call(*command, '--list').count('step 1') == 3
  assert call(*command, '--logs').count('==') == 3
  call(*command, '--delete', '--dry-run')
  assert call(*command, '--list').count('step 1') == 3
  # Called from another folder, it is about that folder's runs.
  assert 'no such config' in call(*command, '--list', cwd=tmp_path, code=1)
  call(*command, '--delete')
  assert not list(pathlib.Path(tmp_path / 'out').iterdir())
