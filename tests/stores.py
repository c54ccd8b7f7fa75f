"""Tiny clip stores for tests: smooth moving maps with a daily cycle, real calendars, drivers."""

import numpy as np

from stp_jax.data import train_batches
from stp_jax.data.clip_store import ClipStore, Forcing, Stream
from stp_jax.data.clip_writer import StoreWriter

FORCINGS = (
    Forcing('year', 'yr', True), Forcing('f107', 'sfu'), Forcing('r'), Forcing('day', 'd', True),
    Forcing('hour', 'h', True), Forcing('month', known_ahead=True), Forcing('date', 'd', True),
    Forcing('kp'), Forcing('ap'))


def columns(times: np.ndarray, rng: np.random.Generator):
  """values, known, delay `[T, 9]`: F10.7 is daily and known at the end of its day."""
  day = times.astype('datetime64[D]')
  month = times.astype('datetime64[M]')
  hour = (times - day).astype('timedelta64[m]').astype(float) / 60
  flux = 100 + 10 * np.sin(day.astype(int) / 5)
  yesterday = 100 + 10 * np.sin((day.astype(int) - 1) / 5)
  kp = 10 * rng.integers(0, 9, len(times))
  zero = np.zeros(len(times))
  values = np.stack([
      times.astype('datetime64[Y]').astype(int) + 1970.0, flux, zero + 50,
      (day - times.astype('datetime64[Y]').astype('datetime64[D]')).astype(int) + 1.0, hour,
      month.astype(int) % 12 + 1.0, (day - month.astype('datetime64[D]')).astype(int) + 1.0,
      kp, kp / 2.0], 1)
  known, delay = values.copy(), np.zeros_like(values)
  known[:, 1], delay[:, 1] = yesterday, 24 - hour
  return values, known, delay


def make(path, *, days=(6, 4, 4), size=16, splits=('train', 'validation', 'test'), seed=0,
         cadence=2.0, start='2012-01-01', padding=1, holes=0) -> ClipStore:
  """A store of `len(days)` clips, a gap of ten days between them."""
  rng = np.random.default_rng(seed)
  rows = size - padding
  grid = dict(latitude=np.linspace(80, -80, rows).tolist(),
              longitude=np.linspace(-180, 180, size, endpoint=False).tolist(), rows=rows)
  writer = StoreWriter(
      path, name='tiny', streams={'frames': Stream((size, size, 1), 'uint16', 'TECU', .1,
                                                   missing=65535)},
      cadence_hours=cadence, recipe=dict(days=list(days), size=size, seed=seed, start=start),
      forcings=FORCINGS, normalisation=dict(divisor=200.0, maximum=200.0), grid=grid,
      licence='made for tests', description='SIMULATED')
  begin = np.datetime64(start, 'm')
  phase = np.linspace(0, 2 * np.pi, size, endpoint=False)
  for i, (length, split) in enumerate(zip(days, splits)):
    count = round(length * 24 / cadence)
    times = begin + (np.arange(count) * cadence * 60).astype('timedelta64[m]')
    hour = (times - times.astype('datetime64[D]')).astype(float) / 60
    wave = np.cos(phase[None, None, :] - 2 * np.pi * (hour[:, None, None] - 12) / 24)
    level = 30 + 5 * rng.standard_normal((count, 1, 1)).cumsum(0) / 10
    maps = level * (1 + .5 * wave) * np.cos(np.linspace(-1.2, 1.2, size))[None, :, None]
    raw = np.clip(np.round(maps * 10), 1, 2000).astype(np.uint16)[..., None]
    raw.reshape(-1)[rng.integers(0, raw.size, holes)] = 65535
    values, known, delay = columns(times, rng)
    writer.add(f'clip{i}', {'frames': raw}, split=split, source=f'file{i}', time=str(times[0]),
               forcings=values, known=known, delay=delay)
    begin = times[-1].astype('datetime64[D]').astype('datetime64[m]') + np.timedelta64(11, 'D')
  return writer.finish()


def check_batch_shapes(task, stores) -> None:
  """What a task says of a training batch is what its loader delivers."""
  data = task.config.data
  found = task.sources(stores, data.train_splits, data.stride)
  batch = next(train_batches.train_iterator(found, task.spec, data, data.t_in, 0))
  told = task.batch_shapes(data.batch_size)
  assert told.keys() <= batch.keys()
  for name, shape in told.items():
    assert (batch[name].shape, batch[name].dtype) == (shape.shape, shape.dtype), name
