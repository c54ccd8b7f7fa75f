"""Writes and reads 200,000 generated clips in two domains; prints what memory that took, in MiB.

  python -m tests.data.soak_domains FOLDER [CLIPS]
"""

import json
import pathlib
import sys

import grain
import numpy as np

from stp_jax.data import domains
from stp_jax.data.clip_store import Stream
from stp_jax.data.clip_writer import StoreWriter

_LENGTH = 4


def memory(kind: str) -> float:
  """VmRSS, VmHWM (its peak) or RssAnon (without the pages of mapped files) of this process, MiB."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{kind}:'):
      return int(line.split()[1]) / 1024
  raise ValueError(kind)


def write(path: pathlib.Path, clips: int, stream: Stream, divisor: float) -> None:
  """A store of generated clips, each of four frames."""
  high = np.iinfo(stream.dtype).max
  with StoreWriter(path, name=path.name, streams={'frames': stream}, cadence_hours=1.0,
                   recipe=dict(clips=clips), normalisation=dict(divisor=divisor)) as writer:
    for i in range(clips):
      frames = np.full((_LENGTH, *stream.shape), i % high, stream.dtype)
      writer.add(str(i), {'frames': frames}, split='train', source=f'{path.name}/train/sample{i}')
    writer.finish()


def main(folder: str, clips: int = 200_000) -> dict[str, float]:
  """Peak growth of memory in each part."""
  base = pathlib.Path(folder)
  streams = dict(grey=(Stream((8, 8, 1), 'uint8', '1', 1 / 255), 1.0),
                 rain=(Stream((6, 8, 1), 'uint16', 'mm', 0.01, missing=65535), 655.34))
  grown, before = {}, memory('VmHWM')

  def step(name):
    nonlocal before
    grown[name], before = round(memory('VmHWM') - before, 1), memory('VmHWM')

  for name, (stream, divisor) in streams.items():
    write(base / name, clips // 2, stream, divisor)
  step('writing')
  named = domains.open_domains(f'grey:{base / "grey"}+rain:{base / "rain"}')
  spec = domains.data_spec(named, size=(8, 8), channels=3)
  found = domains.sources(named, spec, ('train',), _LENGTH)
  step('opening')
  mixed = grain.MapDataset.mix(
      [grain.MapDataset.source(s).seed(0).shuffle().repeat() for s in found],
      domains.weights(found))
  iterator = iter(mixed.to_iter_dataset(
      grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)).batch(64))
  seen = np.zeros(2, int)
  for i in range(clips // 64):
    batch = next(iterator)
    seen += np.bincount(batch['domain'], minlength=2)
    if i == clips // 640:  # a tenth: whatever is opened once is open
      step('reading the first tenth')
      anonymous = memory('RssAnon')
  step('reading the rest')
  grown['reading the rest, without mapped files'] = round(memory('RssAnon') - anonymous, 1)
  mapped = sum(f.stat().st_size for f in base.glob('*/frames-*.npy'))
  grown['frames on disk'] = round(mapped / 2**20, 1)
  grown['windows read'] = int(seen.sum())
  return grown


if __name__ == '__main__':
  print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:])), indent=1))
