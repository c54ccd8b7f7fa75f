"""Runs of thousands of steps: memory, threads and files stay where they were; saving stays off the
step's path. `python -m pytest -m soak tests/test_long_runs.py -n 0 -s` prints the numbers."""

import json
import pathlib
import statistics
import threading
import time

import jax
import numpy as np
import pytest

from stp_jax import checkpoint, sharding, train
from stp_jax import config as config_files
from tests import stores

pytestmark = pytest.mark.xdist_group('long_runs')
STEPS = 5000


def _resident() -> float:
  """MiB of this process in memory now."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * 4096 / 2 ** 20


@pytest.mark.soak
def test_five_thousand_steps_grow_nothing(tmp_path, monkeypatch):
  store = stores.make(tmp_path / 's')
  mesh = sharding.make_mesh(1, 1, devices=jax.devices()[:1])
  monkeypatch.setattr(sharding, 'make_mesh', lambda *_, **__: mesh)
  config = config_files.load(
      f'configs/iono_mixer.py:smoke,model=convlstm,channels=4,t_in=2,t_out=2,steps={STEPS}',
      dict(log_every='50', checkpoint_every='100', eval_every='500'))
  config.data.stores = (str(store.path),)
  samples, stalls, durations, last = [], [], [], [time.perf_counter()]
  real_save, real_device = checkpoint.save, train.pipeline.to_device

  def save(*args, **kwargs):
    begin = time.perf_counter()
    result = real_save(*args, **kwargs)
    stalls.append(time.perf_counter() - begin)
    return result

  def to_device(*args):
    now = time.perf_counter()
    durations.append(now - last[0])
    last[0] = now
    if len(durations) % 250 == 0:
      files = len(list(pathlib.Path('/proc/self/fd').iterdir()))
      samples.append((_resident(), threading.active_count(), files))
    return real_device(*args)

  monkeypatch.setattr(train.checkpoint, 'save', save)
  monkeypatch.setattr(train.pipeline, 'to_device', to_device)
  train.train(config, tmp_path / 'run')
  resident, threads, files = map(np.array, zip(*samples))
  numbers = dict(
      resident_mib=resident.round(1).tolist(), threads=threads.tolist(), files=files.tolist(),
      stall_ms_median=round(1e3 * statistics.median(stalls), 1),
      stall_ms_worst=round(1e3 * max(stalls), 1),
      step_ms_median=round(1e3 * statistics.median(durations), 2))
  print(json.dumps(numbers))
  # After the first thousand steps (compiling, first evaluation, first checkpoints).
  settled = resident[4:]
  assert abs(settled - settled[0]).max() < 0.05 * settled[0], numbers
  assert max(threads[4:]) <= threads[4] + 2 and max(files[4:]) <= files[4] + 4, numbers
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert len([x for x in lines if '"loss"' in x]) == STEPS
