"""A thumbnail sheet of a store: some frames of some clips, to see what was read. Needs Pillow."""

import pathlib

import numpy as np

from stp_jax.data import resize
from stp_jax.data.clip_store import ClipStore

_ROWS, _COLUMNS = 8, 8
_SIDE = 96  # of a thumbnail's longer side, in pixels
_GAP, _LABEL = 4, 14
_BACK, _INK, _NONE = (255, 255, 255), (40, 40, 40), (190, 60, 190)


def shown(store: ClipStore, frames: np.ndarray) -> np.ndarray:
  """uint8 `[T, H, W, 3]` of raw frames: colours as they are, else channel 0 in grey, holes pink."""
  values = store.physical(frames)
  normal = store.meta['normalisation']
  values = (values - normal.get('shift', 0.0)) / normal.get('divisor', 1.0)
  colour = values.shape[-1] == 3 and store.streams['frames'].units == 'of full scale'
  values = values if colour else values[..., :1]
  missing = ~np.isfinite(values)
  grey = np.rint(255 * np.clip(np.where(missing, 0, values), 0, 1)).astype(np.uint8)
  grey = np.broadcast_to(grey, (*grey.shape[:3], 3))
  return np.where(missing.any(-1, keepdims=True), np.array(_NONE, np.uint8), grey)


def write(path: pathlib.Path, store: ClipStore) -> pathlib.Path:
  """Writes the sheet: a row a clip, of clips spread over the store and every split."""
  image = resize.pillow()
  import PIL.ImageDraw
  height, width, _ = store.streams['frames'].shape
  factor = _SIDE / max(height, width)
  size = max(1, round(width * factor)), max(1, round(height * factor))
  filter_ = image.Resampling.BILINEAR if factor < 1 else image.Resampling.NEAREST
  clips = _picked(store)
  across = min(_COLUMNS, max(c.length for _, c in clips))
  sheet = image.new('RGB', (max(420, across * (size[0] + _GAP) + _GAP),
                            _LABEL + _GAP + len(clips) * (size[1] + _GAP + _LABEL)), _BACK)
  draw = PIL.ImageDraw.Draw(sheet)
  draw.text((_GAP, 1), f'{store.name}: {store.meta["frames"]} frames of {height} x {width}, '
            f'{len(store.clips)} clips', fill=_INK)
  for row, (number, clip) in enumerate(clips):
    top = _LABEL + _GAP + row * (size[1] + _GAP + _LABEL)
    chosen = np.unique(np.linspace(0, clip.length - 1, across).round().astype(int))
    told = f'{clip.split}  {clip.source}  {clip.time or ""}  frames {" ".join(map(str, chosen))}'
    draw.text((_GAP, top), told.encode('ascii', 'replace').decode(), fill=_INK)
    for column, t in enumerate(chosen.tolist()):
      one = image.fromarray(shown(store, store.frames(number, t, 1))[0])
      sheet.paste(one.resize(size, filter_), (_GAP + column * (size[0] + _GAP), top + _LABEL))
  sheet.save(path)
  return path


def _picked(store: ClipStore) -> list[tuple[int, object]]:
  """(number, clip) of at most `_ROWS` clips, in their order, some of every split."""
  by_split: dict[str, list[int]] = {}
  for i, clip in enumerate(store.clips):
    by_split.setdefault(clip.split, []).append(i)
  share = max(1, _ROWS // len(by_split))
  picked = set()
  for numbers in by_split.values():
    places = np.linspace(0, len(numbers) - 1, min(share, len(numbers))).round().astype(int)
    picked.update(numbers[p] for p in places)
  return [(i, store.clips[i]) for i in sorted(picked)][:_ROWS]
