"""Forecasts of a split as one array a split, also of clips that end where the forecast begins.

    python -m stp_jax.predict --checkpoint=RUN --store=STORE --split=hidden --format=npy --out=OUT

writes OUT/video_arrays_result_hidden.npy `[N, t_out, H, W, C]` and OUT/dir_arrays_hidden.json, the
N names in the same order. Frames of 8 or 16 bits of full scale are clipped to 0..1 and cut off to
whole numbers, as the course's program writes them (which lets what lies outside wrap round); all
others are float32 in physical units. Memory holds one batch.
"""

import collections
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from tqdm import tqdm

from stp_jax import checkpoint, files, tasks
from stp_jax.data import spec as data_spec
from stp_jax.data.clip_store import ClipStore
from stp_jax.typing import Batch

Window = collections.namedtuple('Window', 'clip start truth name')
_SHOWN = 8


def windows(store: ClipStore, splits: Sequence[str], t_in: int, t_out: int
            ) -> tuple[list[Window], list[str]]:
  """Windows that do not overlap, of every clip of these splits, and the clips that are too short.

  A clip of at least t_in, but less than t_in + t_out frames gives one window without truth: its
  last t_in frames.
  """
  found, short, named = [], [], collections.Counter()
  # Names below the folder of the split, where that is what all of them lie in.
  tops = {_name(c).partition('/')[:2] for c in store.clips if c.split in splits}
  below = ''.join(*tops) if len(tops) == 1 and ('/' in next(iter(tops))) else ''
  for i, clip in enumerate(store.clips):
    if clip.split not in splits:
      continue
    name = _name(clip).removeprefix(below)
    if clip.length < t_in:
      short.append(name)
    starts = range(0, clip.length - t_in - t_out + 1, t_in + t_out)
    truth = bool(starts)
    for start in starts or ([clip.length - t_in] if clip.length >= t_in else []):
      named[name] += 1
      again = f'-{named[name]}' if named[name] > 1 else ''
      found.append(Window(i, start, truth, name + again))
  return found, short


def _name(clip) -> str:
  source = str(clip.source)
  return source.rpartition('[')[0] or source


def checked(store: ClipStore, splits: Sequence[str], t_in: int, t_out: int, limit: int = 0
            ) -> list[Window]:
  """`windows`, at most `limit` of them, evenly spread; says which clips are too short.

  Raises:
    ValueError: no split of this name, or no clip of t_in frames in it.
  """
  unknown = [s for s in splits if s not in store.splits]
  if unknown:
    raise ValueError(f'{store.path}: no split {" ".join(unknown)}; choose --split from '
                     f'{" ".join(store.splits)}')
  found, short = windows(store, splits, t_in, t_out)
  if not found:
    longest = max((c.length for c in store.clips if c.split in splits), default=0)
    raise ValueError(f'{store.path}: no clip of {t_in} frames in split {"+".join(splits)}; the '
                     f'longest has {longest}')
  if short:
    more = ' ...' if len(short) > _SHOWN else ''
    print(f'left out: {len(short)} clips shorter than {t_in} frames: '
          f'{" ".join(short[:_SHOWN])}{more}', file=sys.stderr)
  if limit and limit < len(found):
    found = [found[k] for k in np.linspace(0, len(found) - 1, limit).round().astype(int)]
  return found


def batches(store: ClipStore, chosen: Sequence[Window], t_in: int, t_out: int, size: int
            ) -> Iterator[tuple[Batch, list[Window]]]:
  """Batches of `size` (the last one filled by repeats) and the windows that they are of.

  Frames that are not there repeat the last one: no forecast looks at them.
  """
  for first in range(0, len(chosen), size):
    mine = list(chosen[first:first + size])
    frames = []
    for w in mine:
      given = store.frames(w.clip, w.start, t_in + t_out if w.truth else t_in)
      frames.append(given if w.truth else np.concatenate([given, given[-1:].repeat(t_out, 0)]))
    frames = np.stack([*frames, *[frames[-1]] * (size - len(mine))])
    yield dict(frames=frames, forcings=np.zeros((*frames.shape[:2], 0), np.float32)), mine


def task_of(loaded: checkpoint.Loaded, store: ClipStore):
  """The task of a run on a store's frames alone.

  Raises:
    ValueError: frames of another kind than the run's, or a run that reads forcings or domains.
  """
  task = tasks.build(loaded.config, loaded.spec)
  if loaded.config.data.domains or task.required_columns:
    why = 'learnt several domains' if loaded.config.data.domains else (
        f'reads {" ".join(task.required_columns)}: give --issue-time')
    raise ValueError(f'{loaded.path}: arrays are of runs on frames alone, and this one {why}')
  spec = data_spec.for_stores(loaded.spec, [store], (), str(loaded.path))
  task = tasks.build(loaded.config, spec.with_columns((), {}))
  loaded.check(task)
  return task


def coded(forecast: np.ndarray, spec: data_spec.DataSpec) -> np.ndarray:
  """Physical values as they are written: see the module."""
  kind = np.dtype(spec.dtype)
  if spec.units != 'of full scale' or kind not in (np.uint8, np.uint16):
    return np.asarray(forecast, np.float32)
  value = np.nan_to_num(np.asarray(forecast, np.float32), nan=0.0)
  return (np.clip(value, 0, 1) * np.float32(np.iinfo(kind).max)).astype(kind)


def write(loaded: checkpoint.Loaded, store: ClipStore, splits: Sequence[str], out, *, limit: int = 0
          ) -> list[pathlib.Path]:
  """Forecasts `splits` and writes the arrays and names; returns the arrays' paths.

  Raises:
    ValueError: see `checked` and `task_of`.
  """
  out, task = pathlib.Path(out), task_of(loaded, store)
  chosen = {s: checked(store, [s], task.t_in, task.t_out, limit) for s in splits}
  out.mkdir(parents=True, exist_ok=True)
  compiled, size = jax.jit(task.predict), loaded.config.data.eval_batch_size
  written = []
  for split, mine in chosen.items():
    path = out / f'video_arrays_result_{split}.npy'
    partial = path.with_name(f'.{path.name}.partial')
    shape = (len(mine), task.t_out, *task.spec.shape)
    dtype = coded(np.zeros((), np.float32), task.spec).dtype
    try:
      array = np.lib.format.open_memmap(partial, 'w+', dtype=dtype, shape=shape)
      done = 0
      with tqdm(total=len(mine), desc=f'predict {split}', unit='clip') as bar:
        for batch, there in batches(store, mine, task.t_in, task.t_out, size):
          forecast = np.asarray(compiled(loaded.variables, batch))
          array[done:done + len(there)] = coded(forecast[:len(there)], task.spec)
          done += len(there)
          bar.update(len(there))
      array.flush()
      del array
      names = out / f'dir_arrays_{split}.json'
      files.write_text(names, json.dumps([w.name for w in mine]) + '\n')
      os.replace(partial, path)
    finally:
      partial.unlink(missing_ok=True)
    written.append(path)
  return written
