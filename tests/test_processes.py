"""Real processes on this machine: the numbers of one process, shares, stops, kills, resumes."""

import json
import pathlib
import random
import re
import signal
import sys
import textwrap
import time

import jax
import numpy as np
import pytest

from stp_jax import checkpoint_health, cluster, evaluate, sharding, train
from stp_jax import config as config_files
from stp_jax.data import pipeline, train_batches
from stp_jax.data import spec as data_spec
from tests import processes, stores

pytestmark = pytest.mark.xdist_group('processes')
WORDS = 'configs/iono_mixer.py:smoke,model=convlstm,channels=4,batch_size=4'
# An epoch is five batches of four windows and one window over: the order crosses epochs.
FIELDS = dict(checkpoint_every=2, log_every=1, eval_every=4)


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return stores.make(tmp_path_factory.mktemp('store') / 's')


@pytest.fixture
def four_devices(monkeypatch):
  """This process uses four of its eight devices."""
  mesh = sharding.make_mesh(4, 1, devices=jax.devices()[:4])
  monkeypatch.setattr(sharding, 'make_mesh', lambda *_, **__: mesh)


def arguments(store, workdir, steps, *more, words=''):
  # 39 test windows in batches of 5: on four devices the batch is 8 and the last one has 7.
  return [f'--config={WORDS},steps={steps}{words}', f'--store={store.path}',
          f'--workdir={workdir}', '--config.data.eval_batch_size=5', '--config.data.eval_stride=1',
          *(f'--config.{k}={v}' for k, v in FIELDS.items()), *more]


def rows(workdir, key):
  lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  found = [json.loads(line) for line in lines]
  return [(r['step'], r[key]) for r in found if key in r]


def same(a, b, tolerance):
  assert [s for s, _ in a] == [s for s, _ in b]
  # Losses of a thousandth: float32's rounding, which training amplifies, shows in the 1e-8 digit.
  np.testing.assert_allclose([v for _, v in a], [v for _, v in b], rtol=tolerance, atol=1e-7)


def scores(workdir):
  card = json.loads((pathlib.Path(workdir) / 'report' / 'scores.json').read_text())
  return card['splits']['test']


def numbers(tree):
  if isinstance(tree, dict):
    return [n for k in sorted(tree) for n in numbers(tree[k])]
  if isinstance(tree, list):
    return [n for v in tree for n in numbers(v)]
  return [tree] if isinstance(tree, (int, float)) else []


def configured(store, steps, **fields):
  overrides = {k: str(v) for k, v in {
      **FIELDS, 'data.eval_batch_size': 5, 'data.eval_stride': 1, **fields}.items()}
  config = config_files.load(f'{WORDS},steps={steps}', overrides)
  config.data.stores = (str(store.path),)
  return config


def wait_for_step(workdir, step, group, timeout=200):
  deadline = time.time() + timeout
  while time.time() < deadline and group.processes[0].poll() is None:
    if any(s >= step for s in checkpoint_health.steps(workdir)):
      return
    time.sleep(0.02)
  raise AssertionError(f'no step {step}: {group.text()}')


def test_two_processes_stopped_and_continued_on_one(store, tmp_path, monkeypatch, four_devices):
  """Two processes, SIGTERM to one of them; on by one process: the numbers of an unbroken run."""
  steps = 400
  with processes.main(arguments(store, tmp_path / 'cut', steps), tmp_path / 'logs', 2, 2,
                      module='tests.traced_main', STP_TRACE=tmp_path / 'read') as group:
    wait_for_step(tmp_path / 'cut', 2, group)
    group.kill([1], signal.SIGTERM)
    codes = group.wait()
    assert codes == [75, 75], f'{codes} {group.text()}'
  saved = checkpoint_health.steps(tmp_path / 'cut')[-1]
  done = rows(tmp_path / 'cut', 'loss')
  # Saved at once: the last step that was taken is the one that was saved.
  assert done[-1][0] == saved < steps - 20
  # The unbroken run, as far as is worth comparing; the schedule is that of all steps.
  class Enough(Exception):
    pass
  real = train.checkpoint.save
  def save(*args, step, **kwargs):
    result = real(*args, step=step, **kwargs)
    if step >= saved + 6:
      raise Enough
    return result
  monkeypatch.setattr(train.checkpoint, 'save', save)
  config = configured(store, steps)
  for workdir in ('whole', 'cut'):
    with pytest.raises(Enough):
      train.train(config, tmp_path / workdir)
  assert len(rows(tmp_path / 'cut', 'loss')) >= saved + 6
  same(rows(tmp_path / 'whole', 'loss'), rows(tmp_path / 'cut', 'loss'), 1e-5)
  # What two processes computed is what one does, validation scores too.
  before = lambda found: [r for r in found if r[0] <= saved]
  for key in ('loss', 'validation/rmse', 'validation/gain'):
    same(before(rows(tmp_path / 'whole', key)), before(rows(tmp_path / 'cut', key)), 1e-6)
  # Each process read its own half of every batch: in order, and nothing of the other's.
  parts = [[tuple(json.loads(line)) for line in p.read_text().splitlines()]
           for p in sorted(tmp_path.glob('read-*'))]
  assert len(parts) == 2
  train_clip = [[w for w in part if w[0] == 0] for part in parts]
  taken = min(map(len, train_clip))
  assert taken >= 2 * saved and abs(len(train_clip[0]) - len(train_clip[1])) <= 2
  spec = data_spec.make([store], config.data, ['train'])
  found = pipeline.sources([store], spec, ['train'], 10, config.data.stride)
  order = [tuple(found[0]._windows[j].tolist()) for k in range(saved)
           for _, j in train_batches.sample_ids(found, config.data, config.seed, 4 * k)]
  read = sorted(map(tuple, train_clip), key=lambda p: p[:2] != tuple(order[:2]))
  assert list(read[0][:2 * saved]) == [o for i, o in enumerate(order) if i % 4 < 2]
  assert list(read[1][:2 * saved]) == [o for i, o in enumerate(order) if i % 4 >= 2]


@pytest.mark.parametrize('count', [2, pytest.param(4, marks=pytest.mark.soak)])
def test_scores_of_several_processes_are_those_of_one(store, tmp_path, count, four_devices):
  """`evaluate` on processes: an uneven last batch counts every window once."""
  config = configured(store, 2)
  train.train(config, tmp_path / 'run')
  one = evaluate.evaluate(tmp_path / 'run', out=tmp_path / 'one')['splits']['test']
  with processes.main([f'--checkpoint={tmp_path / "run"}', f'--out={tmp_path / "many"}'],
                      tmp_path / 'logs', count, 3, module='stp_jax.evaluate') as group:
    group.done()
  many = json.loads((tmp_path / 'many' / 'scores.json').read_text())['splits']['test']
  windows = len(store.windows(['test'], 10))
  assert many['windows'] == one['windows'] == windows and windows % (3 * count)
  np.testing.assert_allclose(numbers(many), numbers(one), rtol=1e-6, atol=1e-9)


def test_a_process_reads_its_rows_and_no_others(store):
  config = configured(store, 2)
  spec = data_spec.make([store], config.data, ['train'])
  found = pipeline.sources([store], spec, ['train'], 10)
  count = []

  class Counting:
    store = found[0].store
    __len__ = lambda self: len(found[0])

    def __getitem__(self, index):
      count.append(index)
      return found[0][index]

  half = sharding.batch_sharding(sharding.make_mesh(2, 1, devices=jax.devices()[:2]))
  class OfSecond:  # what the second of two processes sees of the batch's sharding
    def addressable_devices_indices_map(self, shape):
      places = half.addressable_devices_indices_map(shape)
      return {d: p for d, p in places.items() if d == jax.devices()[1]}
  make = lambda source, where: train_batches.train_iterator(
      [source], spec, config.data, 4, 0, where)
  whole, mine = make(found[0], None), make(Counting(), OfSecond())
  for _ in range(7):  # across the end of an epoch
    np.testing.assert_array_equal(next(mine)['frames'], next(whole)['frames'][2:])
  assert len(count) == 14


def test_a_process_that_fails_or_is_stopped_does_not_wait_for_the_others(tmp_path):
  code = textwrap.dedent('''
    import signal, sys, time
    from stp_jax import cluster
    cluster.join(sys.argv[1], 3, int(sys.argv[2]))
    print('joined', flush=True)
    if sys.argv[2] == '1':
      cluster.leave(1)
    if sys.argv[2] == '2':
      with cluster.stoppable():
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
    time.sleep(60)
  ''')
  place = f'127.0.0.1:{processes.free_port()}'
  with processes.Group([[sys.executable, '-c', code, place, str(i)] for i in range(3)],
                       tmp_path) as group:
    ended = group.processes[1].wait(50), group.processes[2].wait(50)
    assert ended == (1, -signal.SIGTERM) and group.processes[0].poll() is None, group.text()


def test_one_process_that_is_stopped_outside_of_training_asks_for_a_requeue():
  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(SystemExit) as error, cluster.stoppable():
    signal.raise_signal(signal.SIGTERM)
  assert error.value.code == cluster.REQUEUE and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_the_order_does_not_depend_on_loader_workers(store):
  config = configured(store, 2)
  spec = data_spec.make([store], config.data, ['train'])
  found = pipeline.sources([store], spec, ['train'], 10)
  plain = train_batches.train_iterator(found, spec, config.data, 4, 0)
  config.data.workers = 2
  other = train_batches.train_iterator(found, spec, config.data, 4, 0)
  other.seek(8)
  next(plain), next(plain)
  for _ in range(3):
    np.testing.assert_array_equal(next(plain)['frames'], next(other)['frames'])
  assert plain.position == other.position == 20
  other.close()


@pytest.mark.soak
@pytest.mark.parametrize('count, devices', [(1, 4), (2, 2), (4, 1)])
def test_twenty_kills_lose_no_step(store, tmp_path, count, devices):
  """kill -9 of one process or of all, at random moments, until the run is complete."""
  steps, draw = 120, random.Random(count)
  with processes.main(arguments(store, tmp_path / 'whole', steps, '--noevaluate'),
                      tmp_path / 'logs', count, devices) as group:
    group.done()
  kills, lost = 0, 0
  for _ in range(200):
    before = (checkpoint_health.steps(tmp_path / 'cut') or [0])[-1]
    if kills >= 20:
      break
    with processes.main(arguments(store, tmp_path / 'cut', steps, '--noevaluate'),
                        tmp_path / 'logs', count, devices) as group:
      time.sleep(draw.uniform(3, 14))
      if all(p.poll() is None for p in group.processes):
        group.kill(draw.choice([None, [draw.randrange(count)]]))
        kills += 1
      group.wait()
    after = (checkpoint_health.steps(tmp_path / 'cut') or [0])[-1]
    assert after >= before, 'a kill lost a finished checkpoint'
    lost += after == before
    if after == steps:  # complete too early: once more, from the beginning
      (tmp_path / 'cut').rename(tmp_path / f'complete{kills}')
  if not (tmp_path / 'cut').exists():
    (tmp_path / 'cut').mkdir()
  with processes.main(arguments(store, tmp_path / 'cut', steps, '--noevaluate'),
                      tmp_path / 'logs', count, devices) as group:
    group.done()
  assert kills == 20
  for run in (tmp_path / 'cut', *tmp_path.glob('complete*')):
    assert rows(tmp_path / 'whole', 'loss') == rows(run, 'loss')  # bit for bit


@pytest.mark.soak
def test_any_topology_continues_any_other(store, tmp_path):
  """One run, killed and moved from machine to machine: 1x4, 2x2, 4x1, 1x1, 2x1, 1x2."""
  steps = 60
  places = [(1, 4), (2, 2), (4, 1), (1, 1), (2, 1), (1, 2)]
  with processes.main(arguments(store, tmp_path / 'whole', steps, words=''),
                      tmp_path / 'logs', 1, 4) as group:
    group.done()
  for i, (count, devices) in enumerate(places):
    with processes.main(arguments(store, tmp_path / 'cut', steps), tmp_path / 'logs', count,
                        devices) as group:
      if i + 1 < len(places):
        wait_for_step(tmp_path / 'cut', 8 * (i + 1), group)
        group.kill()
        group.wait()
      else:
        group.done()
  same(rows(tmp_path / 'whole', 'loss'), rows(tmp_path / 'cut', 'loss'), 1e-5)
  np.testing.assert_allclose(
      numbers(scores(tmp_path / 'whole')), numbers(scores(tmp_path / 'cut')), rtol=1e-4, atol=1e-6)


@pytest.mark.soak
def test_a_bad_module_is_named_on_several_processes(store, tmp_path):
  """A learning rate that throws parameters to 1e37: the same sentence from one and two processes,
  whose parameters are sharded over both."""
  told = []
  for count in (1, 2):
    with processes.main(
        arguments(store, tmp_path / f'run{count}', 8, '--config.optimizer.learning_rate=1e38',
                  '--config.max_skipped=0', '--config.mesh.data=1', '--config.mesh.fsdp=4'),
        tmp_path / f'logs{count}', count, 4 // count) as group:
      assert all(c == 1 for c in group.wait()), group.text()
    told.append(re.findall(r'step \d+: 1 steps were not finite.*', group.logs[0].read_text())[0])
  assert told[0] == told[1]
  assert re.search(r'samples of step \d+: s clip 0 .*first bad module: \w+/\w+', told[0]), told
