"""What the Channel Mixer Layer does, on small numbers, as a table and as a picture.

  python -m stp_jax.report.explain_mixer [--out DIR] [--channels 4] [--size 6]

Plane k of the input is filled with k, so every number of the output tells which channel it came
from: each pixel has become a tile of its channels. The second example has other values in every
pixel and shows where they go.
"""

import argparse
import math
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from stp_jax.models import fusion

# The worked example of the Channel Mixer's Figure 2: electron content, latitude, longitude, sun.
EXAMPLE = np.array([
    [[.82, .75], [.21, .13]], [[.59, .59], [.27, .27]], [[.45, .88], [.45, .88]],
    [[.34, .34], [.34, .34]]])
EXAMPLE_NAMES = ('TEC', 'latitude', 'longitude', 'sun')


def mixed(planes: np.ndarray) -> np.ndarray:
  """`[C, H, H]` planes -> the mixed planes, `[C, H, H]`, by the layer that the models use.

  Raises:
    ValueError: C is no perfect square, or the planes do not divide into tiles.
  """
  channels, size, _ = planes.shape
  side = math.isqrt(channels)
  if side**2 != channels:
    raise ValueError(f'--channels={channels}: choose a perfect square (1, 4, 9, 16 ...)')
  if size % side:
    raise ValueError(
        f'--size={size}: choose a multiple of {side}, so that the {side}x{side} tiles of '
        f'{channels} channels do not wrap around the rows')
  return np.moveaxis(np.asarray(fusion.mix(np.moveaxis(planes, 0, -1), channels)), -1, 0)


def _table(titles: Sequence[str], planes: np.ndarray) -> str:
  """Planes side by side, at most 100 columns wide."""
  whole = np.allclose(planes, np.round(planes))
  cell = (lambda v: f'{v:.0f}') if whole else (lambda v: f'{v:.2f}'.removeprefix('0'))
  width = max(len(cell(v)) for v in planes.flat)
  blocks = []
  for title, plane in zip(titles, planes):
    rows = [' '.join(cell(v).rjust(width) for v in row) for row in plane]
    size = max(len(title), len(rows[0]))
    blocks.append([title.ljust(size), *(r.ljust(size) for r in rows)])
  per_line = max(1, 100 // (len(blocks[0][0]) + 4))
  return '\n\n'.join(
      '\n'.join('    '.join(parts).rstrip() for parts in zip(*blocks[i:i + per_line]))
      for i in range(0, len(blocks), per_line))


def text(planes: np.ndarray, names: Sequence[str]) -> str:
  """Input and output planes as tables."""
  count = len(planes)
  return '\n'.join([
      'input', '', _table(names, planes), '', 'mixed', '',
      _table([f'mixed {i}' for i in range(count)], mixed(planes)), '',
      f'The network sees {count + 1} planes: {names[0]} as it is, then the {count} mixed ones.'])


def picture(path: pathlib.Path, planes: np.ndarray, names: Sequence[str]) -> pathlib.Path:
  """Input above, mixed planes below. A colour is a channel; a number is the value in that cell."""
  from stp_jax.report import style
  count, size, _ = planes.shape
  origin = np.broadcast_to(np.arange(count)[:, None, None], planes.shape)
  lines = -(-count // 8)
  columns = -(-count // lines)
  figure = style.figure(1.75 * columns, 2.1 * 2 * lines + 0.7)
  grid = figure.subplots(2 * lines, columns, squeeze=False)
  whole = np.allclose(planes, np.round(planes))
  colours = style.matplotlib.colormaps['tab10' if count <= 10 else 'tab20']
  for part, (values, source, titles) in enumerate((
      (planes, origin, names),
      (mixed(planes), mixed(origin), [f'mixed {i}' for i in range(count)]))):
    for k in range(lines * columns):
      axes = grid[part * lines + k // columns, k % columns]
      if k >= count:
        axes.set_axis_off()
        continue
      paint = colours(source[k].astype(int) % colours.N)
      paint[..., 3] = 0.45
      axes.imshow(paint, interpolation='nearest')
      for (y, x), value in np.ndenumerate(values[k]) if size <= 12 else ():
        shown = f'{value:.0f}' if whole else f'{value:.2f}'.removeprefix('0')
        axes.text(x, y, shown, ha='center', va='center', fontsize=max(5, 13 - size))
      axes.set_xticks(np.arange(size + 1) - 0.5, [])
      axes.set_yticks(np.arange(size + 1) - 0.5, [])
      axes.grid(color='white', linewidth=0.8)
      axes.tick_params(length=0)
      axes.set_title(titles[k], fontsize=9)
  figure.suptitle(
      f'Channel Mixer Layer: {count} planes (above), mixed (below); a colour is a channel',
      fontsize=10 if columns > 3 else 8)
  figure.savefig(path, bbox_inches='tight', pad_inches=0.1)
  return path


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the tables, writes the pictures; a bad number is one line and exit code 1."""
  parser = argparse.ArgumentParser(
      prog='python -m stp_jax.report.explain_mixer', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--out', default='runs/explain_mixer', help='folder of the pictures')
  parser.add_argument('--channels', type=int, default=4, help='planes, the image included: n x n')
  parser.add_argument('--size', type=int, default=6, help='rows and columns, a multiple of n')
  args = parser.parse_args(argv)
  cases = []
  try:
    if args.channels < 1 or args.size < 1:
      raise ValueError('--channels and --size must be at least 1')
    planes = np.arange(1.0, args.channels + 1)[:, None, None] * np.ones((args.size, args.size))
    cases.append(('tiles', planes, [f'plane {i + 1}' for i in range(args.channels)]))
    cases.append(('worked_example', EXAMPLE, EXAMPLE_NAMES))
    print('\n\n'.join(
        f'--- {name.replace("_", " ")} ---\n{text(*case)}' for name, *case in cases))
  except ValueError as error:
    print(f'explain_mixer: {error}', file=sys.stderr)
    return 1
  try:
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, *case in cases:
      print(picture(out / f'mixer_{name}.png', *case))
  except ImportError as error:
    if (error.name or '').split('.')[0] != 'matplotlib':
      raise
    print("no pictures: matplotlib is missing; pip install 'stp_jax[plots]'")
  return 0


if __name__ == '__main__':
  sys.exit(main())
