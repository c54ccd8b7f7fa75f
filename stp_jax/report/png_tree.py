"""Forecasts as folders of PNG frames, the layout that GS2PM writes, and a GIF a sample.

    <root>/<dataset>/<domain>/<name>/sample<k>/{input,output,ground_truth}<i>.png
                                               /sample<k>.gif

k and i count from 1. Values are clipped to 0..1 and rounded (upstream casts 255 * x as it is: what
lies outside wraps round to specks). A missing value (NaN) is black. Needs Pillow (extra `plots`).
"""

import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping

import numpy as np
import PIL.Image

PARTS = ('input', 'output', 'ground_truth')
_GAP = 4  # pixels between truth and forecast
_SMALLEST = 128  # pixels: smaller frames are enlarged in the GIF


def to_uint8(frames: np.ndarray) -> np.ndarray:
  """Values in 0..1 as 0..255; what lies outside is clipped, NaN is 0."""
  frames = np.nan_to_num(np.asarray(frames, np.float32), nan=0.0, posinf=1.0, neginf=0.0)
  return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)


def image(frame: np.ndarray) -> PIL.Image.Image:
  """A picture of uint8 `[H, W, 1 or 3]`."""
  return PIL.Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)


def write_gif(
    path: pathlib.Path, sample: Mapping[str, np.ndarray], frames_per_second: float = 5.0,
) -> pathlib.Path:
  """The truth at the left, at the right the input and then the forecast under a white line.

  Args:
    sample: uint8 `[T, H, W, C]`: `input`, `output` and, where there is one, `ground_truth`.
  """
  given, forecast = sample['input'], sample['output']
  right = np.concatenate([given, forecast])
  left = np.concatenate([given, sample['ground_truth']]) if 'ground_truth' in sample else None
  factor = -(-_SMALLEST // min(right.shape[1:3]))
  pictures = []
  for t, frame in enumerate(right):
    pair = [frame] if left is None else [left[t], np.full(
        (frame.shape[0], -(-_GAP // factor), frame.shape[2]), 64, np.uint8), frame]
    picture = np.concatenate(pair, 1).repeat(factor, 0).repeat(factor, 1)
    bar = np.full((_GAP, *picture.shape[1:]), 64, np.uint8)
    if t >= len(given):  # what is forecast
      bar[:, -frame.shape[1] * factor:] = 255
    pictures.append(image(np.concatenate([bar, picture])))
  pictures[0].save(path, format='GIF', save_all=True, append_images=pictures[1:], loop=0,
                   duration=round(1000 / frames_per_second))
  return path


def write_tree(
    root: str | os.PathLike, samples: Iterable[Mapping[str, np.ndarray]], *, dataset: str,
    name: str, domain: str = '', first: int = 1, gif: bool = True, frames_per_second: float = 5.0,
) -> list[pathlib.Path]:
  """Writes samples one by one, each whole or not at all; one that is there is replaced.

  Args:
    root: such as `save_results`.
    samples: `input`, `output` and optionally `ground_truth`, each `[T, H, W, C]`, C = 1 or 3, in
      0..1. An iterator is read as it is written: memory holds one sample.
    dataset, name, domain: of the folders; an empty domain has none. first: k of the first sample.

  Returns:
    The samples' folders.

  Raises:
    ValueError: names the sample whose arrays do not fit.
  """
  parent = pathlib.Path(root, *filter(None, (dataset, domain, name)))
  parent.mkdir(parents=True, exist_ok=True)
  written = []
  for k, sample in enumerate(samples, first):
    folder = parent / f'sample{k}'
    parts = {part: to_uint8(sample[part]) for part in PARTS if part in sample}
    shapes = {part: value.shape for part, value in parts.items()}
    if ({'input', 'output'} - set(parts) or any(len(s) != 4 or s[3] not in (1, 3)
                                                for s in shapes.values())
        or len({s[1:] for s in shapes.values()}) > 1
        or shapes.get('ground_truth', shapes['output']) != shapes['output']):
      raise ValueError(f'{folder}: {shapes}; input, output and ground_truth are [T, H, W, 1 or 3] '
                       'of one size, the last two of one length')
    partial = parent / f'.sample{k}.partial'
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for part, frames in parts.items():
      for i, frame in enumerate(frames, 1):
        image(frame).save(partial / f'{part}{i}.png')
    if gif:
      write_gif(partial / f'sample{k}.gif', parts, frames_per_second)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    written.append(folder)
  return written
