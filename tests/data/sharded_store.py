"""A store of three tiny shards, whose frames all differ."""

import os

import numpy as np
import pytest

from stp_jax.data import clip_writer
from stp_jax.data.clip_store import Forcing, Stream
from stp_jax.data.clip_writer import StoreWriter

SETUP = dict(name='s', streams={'frames': Stream((2, 3, 1), 'uint16')}, cadence_hours=2.0,
             recipe={'a': 1}, forcings=(Forcing('kp'),))
SPLITS = ('train', 'validation', 'test')


def write(path, clips=6):
  """A store of shards of two clips each; clip i has 3 + i frames, all of them different."""
  rng = np.random.default_rng(0)
  with pytest.MonkeyPatch.context() as patch, StoreWriter(path, **SETUP) as writer:
    patch.setattr(clip_writer, '_SHARD_BYTES', 4100)
    patch.setattr(os, 'fsync', lambda file: None)  # dozens of stores on a busy disk
    for i in range(clips):
      frames = rng.integers(0, 9000, (3 + i, 2, 3, 1)).astype(np.uint16)
      forcings = rng.random((3 + i, 1)).astype(np.float32)
      if not writer.has(f'c{i}'):
        writer.add(f'c{i}', {'frames': frames}, split=SPLITS[i % 3], source=f'f{i}',
                   time=f'2012-01-0{i + 1}T00:00', forcings=forcings)
    return writer.finish()
