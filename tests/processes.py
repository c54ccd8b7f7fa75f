"""Real processes for tests: started together, always ended, with ports of their own."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def free_port() -> int:
  """A port that nobody has now."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def environment(devices: int, **more) -> dict[str, str]:
  """Of a process with so many fake CPU devices."""
  return {
      **os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'agg',
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices} '
                   '--xla_backend_optimization_level=0',
      'STP_HEARTBEAT_SECONDS': '20', **{k: str(v) for k, v in more.items()}}


class Group:
  """Processes of one run, each leader of a process group: none outlives the test."""

  def __init__(self, commands, folder, devices: int = 1, **more):
    self.logs, self.processes, self._files = [], [], []
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for i, command in enumerate(commands):
      log = folder / f'process{i}-{time.time_ns()}.txt'
      self.logs.append(log)
      self._files.append(log.open('w'))
      self.processes.append(subprocess.Popen(
          command, cwd=ROOT, env=environment(devices, **more), stdout=self._files[-1],
          stderr=subprocess.STDOUT, start_new_session=True))

  def __enter__(self):
    return self

  def wait(self, timeout: float = 300) -> list[int]:
    """Exit codes; the first that fails ends the others, as `srun --kill-on-bad-exit` does."""
    deadline, failed = time.time() + timeout, None
    while any(p.poll() is None for p in self.processes):
      codes = [p.poll() for p in self.processes]
      if failed is None and any(c not in (None, 0, 75) for c in codes):
        failed = time.time()
      if (failed and time.time() > failed + 5) or time.time() > deadline:
        self.kill()
        assert time.time() < deadline, self.text()
      time.sleep(0.05)
    return [p.returncode for p in self.processes]

  def done(self, timeout: float = 300) -> None:
    """Waits; every process must end well."""
    codes = self.wait(timeout)
    assert codes == [0] * len(codes), f'{codes}\n{self.text()}'

  def text(self) -> str:
    for file in self._files:
      file.flush()
    return '\n'.join(f'== {log.name}\n{log.read_text()[-4000:]}' for log in self.logs)

  def kill(self, which=None, number=signal.SIGKILL) -> None:
    """A signal to the given processes (default all) and all they started."""
    for i, process in enumerate(self.processes):
      if which is None or i in which:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, number)

  def __exit__(self, *_):
    self.kill()
    for process in self.processes:
      process.wait()
    for file in self._files:
      file.close()


def main(arguments, folder, processes: int = 1, devices: int = 1, module: str = 'stp_jax.main',
         **more) -> Group:
  """`python -m MODULE arguments` on so many processes with so many devices each."""
  command = [sys.executable, '-m', module, *arguments]
  if processes == 1:
    return Group([command], folder, devices, **more)
  port = free_port()
  return Group(
      [[*command, f'--coordinator=127.0.0.1:{port}', f'--processes={processes}', f'--process={i}']
       for i in range(processes)], folder, devices, **more)
