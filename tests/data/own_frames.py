"""Folders of frames for tests: what a user might bring."""

import pathlib

import numpy as np
import PIL.Image

from stp_jax.data import synthetic


def film(index, length, size=(20, 24), channels=1) -> np.ndarray:
  """uint8 `[T, H, W, C]` of shapes that move."""
  return synthetic.clip(0, index, length=length, height=size[0], width=size[1], channels=channels)


def png(path: pathlib.Path, frame: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  PIL.Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(path)


def clips(root: pathlib.Path, lengths, *, size=(20, 24), channels=1, name='frame{}.png') -> list:
  """A folder a clip; returns their frames."""
  made = [film(i, n, size, channels) for i, n in enumerate(lengths)]
  for i, frames in enumerate(made):
    for t, frame in enumerate(frames):
      png(root / f'clip{i + 1}' / name.format(t), frame)
  return made


def whole(store) -> dict[str, np.ndarray]:
  """Frames of a store by source file, its clips joined."""
  found = {}
  for i, clip in enumerate(store.clips):
    found.setdefault(clip.source.rpartition('[')[0], []).append(store.frames(i))
  return {k: np.concatenate(v) for k, v in found.items()}
