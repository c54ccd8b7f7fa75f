"""Tiny stores of beams: four sensors that all show one number, the bearing, from which the beam
follows. Written directly, without files of scenes."""

import numpy as np

from stp_jax import config as config_files
from stp_jax.data.clip_store import ClipStore, Forcing, Stream
from stp_jax.data.clip_writer import StoreWriter

CONFIG = 'configs/beam_fusion.py'


def make(path, *, size=16, t_in=2, steps=1, samples=(8, 4, 4), leave_out=(), labels=True,
         splits=('train', 'validation', 'test')) -> ClipStore:
  """One clip a split, a sample at every frame from the t_in-th on."""
  streams = dict(
      image=Stream((size, size, 3), 'uint8'), lidar=Stream((size, size, 1), 'uint8', scale=0.2),
      radar=Stream((size, size, 2), 'uint16', scale=1 / 65535),
      window=Stream((1, 1, t_in), 'int16', missing=-1),
      beam=Stream((1, 1, steps), 'int16', missing=-1), gps=Stream((1, 2, 2), 'float32', 'm'))
  streams = {k: v for k, v in streams.items() if k not in leave_out}
  rng = np.random.default_rng(0)
  with StoreWriter(
      path, name='beams', streams=streams, cadence_hours=0.1 / 3600, recipe=dict(size=size),
      forcings=(Forcing('scenario', '1', True), Forcing('row', '1', True)),
      grid=dict(beams=64), description='SIMULATED', licence='free') as writer:
    for i, (split, count) in enumerate(zip(splits, samples)):
      n = count + t_in - 1
      beam = rng.integers(0, 64, n)
      column = beam * size // 64
      frames = dict(
          image=rng.integers(0, 60, (n, size, size, 3)).astype(np.uint8),
          lidar=np.zeros((n, size, size, 1), np.uint8),
          radar=rng.integers(0, 9000, (n, size, size, 2)).astype(np.uint16),
          window=np.full((n, 1, 1, t_in), -1, np.int16),
          beam=np.full((n, 1, 1, steps), -1, np.int16),
          gps=np.full((n, 1, 2, 2), np.nan, np.float32))
      for t in range(n):
        frames['image'][t, :, column[t]] = 250
        frames['lidar'][t, :, column[t]] = 5
        frames['radar'][t, :, column[t]] = 60000
        if t >= t_in - 1:
          frames['window'][t, 0, 0] = range(t_in - 1, -1, -1)
          frames['beam'][t] = beam[t] if labels else -1
          angle = np.deg2rad((beam[t] / 63 - 0.5) * 90)
          frames['gps'][t] = 20 * np.array([np.cos(angle), np.sin(angle)])
      columns = np.stack([np.full(n, 31 + i), np.arange(n)], 1).astype(np.float32)
      writer.add(split, {k: frames[k] for k in streams}, split=split, source=split,
                 forcings=columns)
    return writer.finish()


def config(store, words='', **overrides):
  """A config of the smallest network on `store`."""
  made = config_files.load(f'{CONFIG}:smoke{"," if words else ""}{words}')
  with made.unlocked():
    made.data.stores, made.data.t_in = (str(store.path),), 2
    made.data.batch_size = made.data.eval_batch_size = 8
    made.model.backbone.update(widths=(4, 4), depths=(1, 1), image_depths=(1, 1),
                               anchors=(2, 2), d_state=2, hidden=(8, 8), ffm='none', tfm='off')
    made.steps, made.checkpoint_every, made.log_every = 2, 2, 1
    made.task.rebuild.features = 8
  config_files.override(made, overrides)
  return made
