"""Damaged checkpoints, full disks, hangs, steps that are not finite, workers left behind."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import pytest

from stp_jax import checkpoint, checkpoint_health, checkpoint_inspect, hooks, train, writers
from stp_jax import config as config_files
from stp_jax.models.recurrent import convlstm
from tests import processes, stores

pytestmark = pytest.mark.xdist_group('reliability')
CONFIG = 'configs/iono_mixer.py:smoke,model=convlstm,channels=4,batch_size=8'


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return stores.make(tmp_path_factory.mktemp('store') / 's')


def make_config(store, steps=4, **overrides):
  config = config_files.load(f'{CONFIG},steps={steps}', {k: str(v) for k, v in overrides.items()})
  config.data.stores = (str(store.path),)
  return config


@pytest.fixture(scope='module')
def trained(store, tmp_path_factory):
  """A complete run of four steps with checkpoints 2 and 4."""
  run = tmp_path_factory.mktemp('trained') / 'run'
  train.train(make_config(store), run)
  return run


@pytest.fixture
def run(trained, tmp_path):
  shutil.copytree(trained, tmp_path / 'run')
  return tmp_path / 'run'


def losses(run):
  rows = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  return [(r['step'], r['loss']) for r in rows if 'loss' in r]


def _truncate(path):
  data = path.read_bytes()
  path.write_bytes(data[:len(data) // 2])


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x10
  path.write_bytes(data)


@pytest.mark.parametrize('harm', [_truncate, _flip, pathlib.Path.unlink],
                         ids=['truncated', 'changed', 'missing'])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(store, trained, run, harm, capsys):
  files = sorted((p for p in (run / 'checkpoints' / '4').rglob('*') if p.is_file()),
                 key=lambda p: p.stat().st_size)
  harm(files[-1])
  state = train.train(make_config(store), run)
  said = capsys.readouterr().err
  assert f'checkpoint 4 is damaged: {files[-1]}' in said and 'continuing from step 2' in said
  assert int(state.step) == 4 and (run / 'damaged' / '4').is_dir()
  assert losses(run) == losses(trained)
  assert checkpoint_health.steps(run) == [2, 4] and not checkpoint_health.damage(run, 4)


def test_every_file_of_a_checkpoint_is_watched(run):
  """No file can be cut without being named, whatever Orbax does with it."""
  for path in [p for p in (run / 'checkpoints' / '4').rglob('*') if p.is_file()]:
    whole = path.read_bytes()
    if whole:
      path.write_bytes(whole[:-1])
      assert str(path) in checkpoint_health.damage(run, 4)
      path.write_bytes(whole)
  assert checkpoint_health.damage(run, 4) == ''


def _largest(run, step, item):
  return max((p for p in (run / 'checkpoints' / str(step) / item).rglob('*') if p.is_file()),
             key=lambda p: p.stat().st_size)


@pytest.mark.parametrize('item', ['train', 'model'])
def test_a_step_without_a_seal_is_read_through(store, trained, run, item, capsys):
  """Killed before the checksums were written: what lacks bytes is found all the same."""
  (run / 'checksums' / '4.json').unlink()
  assert checkpoint_health.damage(run, 4) == ''
  _truncate(_largest(run, 4, item))
  assert f'/{item} is unreadable' in checkpoint_health.damage(run, 4)
  train.train(make_config(store), run)
  assert 'continuing from step 2' in capsys.readouterr().err
  assert losses(run) == losses(trained)


@pytest.mark.parametrize('seal', ['', '[]', '{"a": [Infinity, 1]}', '[' * 100_000, '{"a": 1}'])
def test_a_damaged_seal_is_no_damage(run, seal):
  (run / 'checksums' / '4.json').write_text(seal)
  assert checkpoint_health.damage(run, 4) == ''


def test_a_step_asked_for_is_checked_too(run):
  _flip(_largest(run, 2, 'model'))
  with pytest.raises(checkpoint.CheckpointError, match=r'checkpoint 2 is damaged: .* was changed'):
    checkpoint.load(run, step=2)
  assert checkpoint.load(run).step == 4


@pytest.mark.parametrize('text, message', [
    ('[]', 'no whole checkpoint'), ('{"config": {}}', 'no spec in its info')])
def test_a_step_that_does_not_know_its_data_is_one_line(run, text, message):
  shutil.rmtree(run / 'checkpoints' / '2')
  (run / 'checksums' / '4.json').unlink()
  (run / 'checkpoints' / '4' / 'info' / 'metadata').write_text(text)
  with pytest.raises(checkpoint.CheckpointError, match=message):
    checkpoint.load(run)


def test_one_run_at_a_time_writes_a_folder(store, run):
  code = ('import fcntl, sys\nfile = open(sys.argv[1], "a")\nfcntl.lockf(file, fcntl.LOCK_EX)\n'
          'print("held", flush=True)\nsys.stdin.read()')
  with subprocess.Popen([sys.executable, '-c', code, str(run / '.lock')], text=True,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
    assert other.stdout.readline() == 'held\n'
    with pytest.raises(OSError, match=r'\.lock: held by another process'):
      train.train(make_config(store), run)
    other.kill()  # the lock dies with its holder
  train.train(make_config(store), run)


def test_a_full_disk_at_the_start_keeps_the_metrics(tmp_path):
  """The history of a run is never computed again: it is replaced whole or not at all."""
  path = tmp_path / 'metrics.jsonl'
  lines = [json.dumps(dict(step=k, loss=0.5)) for k in range(3000)]
  odd = ['5', 'null', '[]', '{"step": null}', '{"step": "3"}', '{"loss": 1}', '{"step": 7, "lo']
  path.write_bytes('\n'.join([*lines, *odd]).encode() + b'\xff\n')
  whole = path.read_bytes()
  code = ('import resource, signal, sys\nfrom stp_jax import writers\n'
          'resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))\n'
          'try:\n  writers.Writer(sys.argv[1], 5000)\n'
          'except OSError as error:\n  sys.exit(str(error))')
  done = subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=processes.ROOT, text=True,
                        capture_output=True, env=processes.environment(1), timeout=100)
  assert done.returncode == 1 and path.read_bytes() == whole
  assert str(path) in done.stderr and 'make room' in done.stderr
  assert len(done.stderr.splitlines()) == 1 and os.listdir(tmp_path) == ['metrics.jsonl']
  with writers.Writer(tmp_path, 2990) as writer:
    writer.write(2991, dict(loss=1.0))
  assert path.read_text().splitlines() == [*lines[:2991], '{"step": 2991, "loss": 1.0}']


def test_evaluation_reads_the_whole_one_and_changes_nothing(run, capsys):
  _truncate(max((p for p in (run / 'checkpoints' / '4').rglob('*') if p.is_file()),
                key=lambda p: p.stat().st_size))
  assert checkpoint.load(run).step == 2
  assert 'checkpoint 4 is damaged' in capsys.readouterr().err
  assert checkpoint_health.steps(run) == [2, 4] and not (run / 'damaged').exists()


def test_a_half_written_checkpoint_is_removed_and_named(store, run, capsys):
  half = run / 'checkpoints' / '4.orbax-checkpoint-tmp'
  (run / 'checkpoints' / '4').rename(half)
  train.train(make_config(store), run)
  said = capsys.readouterr().err
  assert f'{half}: half-written' in said and 'continuing from step 2' in said


def test_no_whole_checkpoint_is_an_error_not_a_new_beginning(store, run):
  for step in ('2', '4'):
    (run / 'checkpoints' / step / '_CHECKPOINT_METADATA').unlink()
  with pytest.raises(checkpoint.CheckpointError, match='every checkpoint is damaged'):
    train.train(make_config(store), run)
  assert sorted(p.name for p in (run / 'damaged').iterdir()) == ['2', '4']


def test_a_full_disk_keeps_the_checkpoint_before(store, run):
  """A limit on the size of files stands for a full disk: the same errors, at any moment."""
  def limited(size):
    code = textwrap.dedent(f'''
      import resource, sys
      from absl import flags
      flags.FLAGS.mark_as_parsed()
      sys.path.insert(0, {str(processes.ROOT)!r})
      from tests.test_reliability import make_config, train
      from stp_jax.data.clip_store import ClipStore
      if {size}:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
      config = make_config(ClipStore({str(store.path)!r}), 8)
      try:
        train.train(config, {str(run)!r})
      except ValueError as error:
        sys.exit('stp_jax: ' + str(error))
    ''')
    return subprocess.run([sys.executable, '-c', code], cwd=processes.ROOT, capture_output=True,
                          text=True, timeout=200,
                          # Cut off files must not stay in a cache that others use.
                          env=processes.environment(8, JAX_ENABLE_COMPILATION_CACHE='false'))
  before = losses(run)
  done = limited(20_000)  # the text files still fit, arrays do not
  assert done.returncode == 1, done.stdout + done.stderr
  line = [x for x in done.stderr.splitlines() if x.startswith('stp_jax: ')]
  assert len(line) == 1 and 'was not written' in line[0] and 'step 4 is there' in line[0], line
  assert checkpoint_health.steps(run) == [2, 4]
  state = train.train(make_config(store, 8), run)
  assert int(state.step) == 8 and losses(run)[:4] == before
  assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_inspect_tells_steps_shapes_config_and_versions(run, capsys):
  assert checkpoint_inspect.main(['inspect', str(run)]) == 0
  text = capsys.readouterr().out
  assert 'step        4' in text and f'jax {jax.__version__}' in text and 'sample 32' in text
  assert 'params/backbone/conv_last/kernel  float32[' in text
  assert '"t_out": 6' in text and 'uint16' in text
  _truncate(run / 'checkpoints' / '4' / 'model' / '_METADATA')
  found = checkpoint_inspect.read(run)
  assert found['step'] == 2 and '_METADATA has' in found['steps'][1]['damage']
  assert checkpoint_inspect.main(['inspect', str(run / 'nothing')]) == 1
  assert 'no checkpoint' in capsys.readouterr().err


def test_inspect_touches_no_accelerator(run):
  """A platform that does not exist is asked for, and never looked at."""
  done = subprocess.run(
      [sys.executable, '-m', 'stp_jax.checkpoint', 'inspect', str(run)], cwd=processes.ROOT,
      capture_output=True, text=True, timeout=200,
      env=processes.environment(1) | dict(JAX_PLATFORMS='cuda'))
  assert done.returncode == 0 and 'versions' in done.stdout, done.stderr


def test_a_module_that_overflows_is_named_with_step_and_samples(store, tmp_path, monkeypatch):
  real = convlstm.GateConv.__call__
  def broken(self, *args, **kwargs):
    return jax.tree.map(lambda x: x / 0.0 if 'cell_list_0' in self.path else x,
                        real(self, *args, **kwargs))
  monkeypatch.setattr(convlstm.GateConv, '__call__', broken)
  with pytest.raises(train.NonFiniteError, match=(
      r'step 2: 2 steps were not finite, more than max_skipped=1 .*samples of step 2: '
      r's clip 0 frame \d+ \(file0\), .*first bad module: backbone/cell_list_0$')):
    train.train(make_config(store, max_skipped=1, log_every=1), tmp_path)


def test_a_watchdog_dumps_every_stack(tmp_path):
  code = textwrap.dedent('''
    import threading, time
    from stp_jax import hooks
    def stuck_loader():
      time.sleep(60)
    threading.Thread(target=stuck_loader, daemon=True).start()
    with hooks.Watchdog(0.5 / 60):
      def stuck_before_the_first_step():
        time.sleep(1)
      stuck_before_the_first_step()
    with hooks.Watchdog(0.5 / 60) as dog:
      for _ in range(4):
        dog.alive()
        time.sleep(.2)   # steps that end in time
      print('alive so far', flush=True)
      def stuck_step():
        time.sleep(1.5)
      stuck_step()
  ''')
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=100,
                        cwd=processes.ROOT, env=processes.environment(1))
  assert done.returncode == 0 and 'alive so far' in done.stdout
  assert 'stuck_step' in done.stderr and 'stuck_loader' in done.stderr
  assert 'stuck_before_the_first_step' in done.stderr
  assert done.stderr.count('Timeout') >= 1
  with hooks.Watchdog(0) as dog:  # off
    dog.alive()


def test_workers_die_with_their_parent(tmp_path):
  """kill -9 of the process that reads leaves no reader behind."""
  code = textwrap.dedent('''
    import time
    from stp_jax.data import ordered_pool
    if __name__ == '__main__':
      found = ordered_pool.ordered(time.sleep, [(0.5,)] * 64, 2)
      next(found)
      time.sleep(100)
  ''')
  path = tmp_path / 'parent.py'
  path.write_text(code)
  with processes.Group([[sys.executable, str(path)]], tmp_path, 1) as group:
    parent = group.processes[0].pid
    deadline = time.time() + 60
    children = []
    while len(children) < 3 and time.time() < deadline:  # two workers, one resource tracker
      time.sleep(0.1)
      listed = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(parent)], capture_output=True,
                              text=True).stdout
      children = [int(p) for p in listed.split()]
    assert len(children) >= 3, group.text()
    time.sleep(5)
    os.kill(parent, signal.SIGKILL)
    there = lambda pid: pathlib.Path(f'/proc/{pid}').exists() and ' Z ' not in pathlib.Path(
        f'/proc/{pid}/stat').read_text()
    deadline = time.time() + 20
    while any(map(there, children)) and time.time() < deadline:
      time.sleep(0.1)
    assert not any(map(there, children))


def test_what_is_skipped_is_counted_once():
  from stp_jax import trouble
  seen = trouble.Skipped()
  seen.see([(5, dict(skipped=2.0)), (6, dict(skipped=3.0))], before=2)
  seen.see([(7, dict(skipped=3.0)), (8, dict(skipped=4.0))], before=2)
  assert seen.steps == [6, 8] and seen.count == 4
