"""Processes of one run: joined by a launcher's variables, on TPU pods, or by explicit flags.

`join` must be called before anything asks jax for its devices. One process is no cluster: on a
laptop, or inside an allocation but outside `srun`, nothing is joined.
"""

import contextlib
import os
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from stp_jax import files

# A launcher requeues a job that exits with this code (EX_TEMPFAIL).
REQUEUE = 75
KINDS = ('auto', 'none', 'slurm', 'tpu')
_SLURM = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_STEP_NUM_TASKS', 'SLURM_PROCID')


class ClusterError(ValueError):
  """Flags or variables that do not describe a cluster."""


class Place(NamedTuple):
  """Where a process stands; `devices`: those of the node that are its own, None = all it sees."""
  coordinator: str
  processes: int
  process: int
  devices: tuple[int, ...] | None = None


def first_host(nodes: str) -> str:
  """The first host of a SLURM list: `gpu[007-009,12],login1` -> `gpu007`."""
  match = re.match(r'([^,\[]+)(?:\[(\w+))?', nodes)
  if not match:
    raise ClusterError(f'SLURM_STEP_NODELIST={nodes!r}: not a list of hosts')
  return match[1] + (match[2] or '')


def slurm(environment: Mapping[str, str]) -> Place | None:
  """The place that `srun` gave this process, or None where it started a single one."""
  if not all(environment.get(name) for name in _SLURM):
    return None
  try:
    job, count, process = (int(environment[n]) for n in (_SLURM[0], *_SLURM[2:]))
    on_node = int(re.match(r'\d*', environment.get('SLURM_STEP_TASKS_PER_NODE', '1'))[0] or 1)
    local = int(environment.get('SLURM_LOCALID', '0'))
  except ValueError as error:
    raise ClusterError(f'SLURM_*: {error}; start the processes by srun') from error
  if count < 2:
    return None
  # The same port on every node, and another one for the next job on the same nodes.
  port = environment.get('JAX_COORDINATOR_PORT') or 61440 + job % 4096
  seen = [d for d in environment.get('CUDA_VISIBLE_DEVICES', '').split(',') if d]
  # Several tasks that all see all GPUs of the node take one each; a task that sees one, or is
  # alone on its node, takes what it sees.
  share = (local,) if on_node > 1 and len(seen) >= on_node else None
  return Place(f'{first_host(environment["SLURM_STEP_NODELIST"])}:{port}', count, process, share)


def xpk(environment: Mapping[str, str]) -> Place | None:
  """The place of a GPU node that xpk names, or None where it named none, or one node."""
  names = 'JAX_COORDINATOR_ADDRESS', 'JAX_COORDINATOR_PORT', 'NNODES', 'NODE_RANK'
  if not all(environment.get(n) for n in names):
    return None
  host, port, count, process = (environment[n] for n in names)
  if not (port + count + process).isdigit():
    raise ClusterError(f'{" ".join(names[1:])}: {port} {count} {process} are no numbers')
  if int(count) < 2:
    return None
  return explicit(host if host.endswith(f':{port}') else f'{host}:{port}', int(count),
                  int(process))


def explicit(coordinator: str | None, processes: int | None, process: int | None) -> Place | None:
  """The place that flags name, or None where no flag was given.

  Raises:
    ClusterError: some of the three are missing, or no such process.
  """
  given = dict(coordinator=coordinator, processes=processes, process=process)
  missing = [f'--{k}' for k, v in given.items() if v in (None, '')]
  if len(missing) == 3:
    return None
  if missing:
    raise ClusterError(f'{" ".join(missing)} missing: --coordinator=HOST:PORT --processes=N '
                       '--process=I go together')
  if not re.fullmatch(r'\S+:\d+', coordinator):
    raise ClusterError(f'--coordinator={coordinator}: HOST:PORT of process 0')
  if not 0 <= process < processes:
    raise ClusterError(f'--process={process}: from 0 to {processes - 1}')
  return Place(coordinator, processes, process)


def on_tpu_pod(environment: Mapping[str, str]) -> bool:
  """Whether this host is one of several of a TPU slice, as far as the environment says."""
  return (',' in environment.get('TPU_WORKER_HOSTNAMES', '')
          or bool(environment.get('MEGASCALE_COORDINATOR_ADDRESS')))


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None,
         kind: str = 'auto') -> int:
  """Joins this process to the others of its run; returns how many there are.

  Args:
    coordinator, processes, process: explicit place, all or none. kind: one of KINDS; auto: the
      flags, then SLURM, nodes of xpk, a TPU pod that the environment names, else alone.

  Raises:
    ClusterError: incomplete flags, or `kind` names what is not there.
  """
  if kind not in KINDS:
    raise ClusterError(f'--cluster={kind}: one of {" ".join(KINDS)}')
  place = explicit(coordinator, processes, process)
  if place is None and kind in ('auto', 'slurm'):
    place = slurm(os.environ)
    if place is None and kind == 'slurm' and 'SLURM_PROCID' not in os.environ:
      raise ClusterError('--cluster=slurm: no SLURM variables; start the processes by srun')
  if place is None and kind == 'auto':
    place = xpk(os.environ)
  # A process that waits for a dead one ends itself. At the end of a run all wait for the first,
  # which draws the report.
  patience = dict(heartbeat_timeout_seconds=int(os.environ.get('STP_HEARTBEAT_SECONDS', '100')),
                  shutdown_timeout_seconds=3600)
  if place is not None:
    jax.distributed.initialize(
        place.coordinator, place.processes, place.process, local_device_ids=place.devices,
        cluster_detection_method='deactivate', **patience)
  elif kind == 'tpu' or (kind == 'auto' and on_tpu_pod(os.environ)):
    jax.distributed.initialize(**patience)  # the hosts are found by the TPU runtime
  return jax.process_count() if jax.distributed.is_initialized() else 1


def leave(code: int) -> None:
  """Ends this process because it failed, at once, if it is one of several; else does nothing.

  The usual way out waits for the other processes, which may be waiting for this one.
  """
  if not jax.distributed.is_initialized():
    return
  sys.stdout.flush()
  sys.stderr.flush()
  if jax.process_index() == 0:
    time.sleep(2)  # others that fail in the same way say so before their coordinator is gone
  os._exit(code)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
  """What may be cut short by SIGTERM, as it is done again after a requeue; leaves with REQUEUE.

  Of several processes each ends by the signal itself, since one may stand in a collective, waiting
  for another that has gone; jax's coordinator would keep the signal to itself.
  """
  def stop(*_):
    sys.exit(REQUEUE)
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  previous = signal.signal(
      signal.SIGTERM, signal.SIG_DFL if jax.distributed.is_initialized() else stop)
  try:
    yield
  finally:
    # None: a handler that was not set from Python.
    signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


class StopRequest:
  """Whether this run was asked to stop: SIGTERM to any of its processes; a context manager.

  All processes stop after the same step, or those that go on would wait for the others forever.
  """

  def __init__(self, signals: Sequence[int] = (signal.SIGTERM,)):
    self.received, self._signals, self._previous = False, signals, {}
    # With several processes jax's coordinator hears the signal and agrees with all on the step; a
    # handler of Python's would take the signal away from it.
    self._alone = jax.process_count() == 1

  def __enter__(self):
    if self._alone and threading.current_thread() is threading.main_thread():
      self._previous = {s: signal.signal(s, self._set) for s in self._signals}
    return self

  def _set(self, *_):
    self.received = True

  def wanted(self, step: int) -> bool:
    """Whether to save and stop now, after `step`; every process must ask after every step."""
    if self._alone:
      return self.received
    return multihost_utils.reached_preemption_sync_point(step)

  def __exit__(self, *_):
    for number, handler in self._previous.items():
      signal.signal(number, handler)


def made_once(
    path: str | os.PathLike, make: Callable[[], Mapping[str, np.ndarray] | None],
) -> dict[str, np.ndarray] | None:
  """The arrays of an `.npz`; where it is not there, those of `make()`, kept for the next time.

  Of several processes the first one writes. Nothing is written where `make` gives None.
  """
  path = pathlib.Path(path)
  if path.exists():
    with np.load(path) as kept:
      return dict(kept)
  made = make()
  if made is None:
    return None
  if jax.process_index() == 0:
    with files.whole(path) as partial, partial.open('wb') as file:
      np.savez_compressed(file, **made)
  return dict(made)
