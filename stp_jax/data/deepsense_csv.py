"""The CSV files of DeepSense6G's beam challenge: rows, and rows of longer windows made from them.

A row names T camera, radar and lidar files, the base station's position, the user's first two
positions, and what is to be predicted: K beams of 64 (`12` or `12_13_15_16_18`), none in the test
set. Beams count from 1 in the file and from 0 everywhere else.
"""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Sequence

BEAMS = 64
SENSORS = ('rgb', 'radar', 'lidar')
_REQUIRED = ('unit1_rgb_1', 'unit1_radar_1', 'unit1_lidar_1', 'unit1_loc', 'unit2_loc_1',
             'unit2_loc_2')
_STEM = re.compile(r'(.*?)(\d+)(?:_(\d\d)_(\d\d)_(\d\d)(?:\.\d+)?)?')


@dataclasses.dataclass(frozen=True)
class Row:
  """A sample: the paths are those of the CSV, from `root`.

  Attributes:
    where: 'file row n' for messages; the first row below the header is row 1.
    index: of the CSV, which the submission repeats.
    frames: (camera, radar, lidar) path of each of T frames.
    adaptation: whether it is of the adaptation set.
    station, fixes: position files of unit 1 and, twice, of unit 2.
    power, beams: file of received power and beam (0 to 63) per predicted step; () without labels.
  """
  root: pathlib.Path
  where: str
  index: int
  scenario: int
  frames: tuple[tuple[str, str, str], ...]
  station: str
  fixes: tuple[str, str]
  power: tuple[str, ...]
  beams: tuple[int, ...]
  adaptation: bool = False


class CsvError(ValueError):
  """A table or row that cannot be used; names the file, the row and the cure."""


def frame_number(path: str) -> tuple[str, int | None, int | None]:
  """What a file name says: prefix, number, second of the day (image_BS1_4855_16_30_41.jpg)."""
  stem = pathlib.PurePosixPath(path).stem
  found = _STEM.fullmatch(stem)
  if not found:
    return stem, None, None
  prefix, number, *clock = found.groups()
  if clock[0] is None:
    return prefix, int(number), None
  hours, minutes, seconds = map(int, clock)
  return prefix, int(number), 3600 * hours + 60 * minutes + seconds


def _count(names: Sequence[str], prefix: str) -> int:
  count = 0
  while f'{prefix}_{count + 1}' in names:
    count += 1
  return count


def _beams(text: str, where: str) -> tuple[int, ...]:
  try:
    beams = tuple(int(word) - 1 for word in text.split('_'))
  except ValueError:
    beams = (-1,)
  if not all(0 <= b < BEAMS for b in beams):
    raise CsvError(f'{where}: unit1_beam is {text!r}, expected a beam from 1 to {BEAMS} (several '
                   'joined by _); correct or remove the row')
  return beams


def read(path: pathlib.Path, root: pathlib.Path) -> list[Row]:
  """The rows of a CSV whose paths start at `root`.

  Raises:
    CsvError: a column or value that is missing or wrong, no row at all.
  """
  with path.open(newline='', encoding='utf-8-sig') as file:
    table = csv.DictReader(file)
    names = table.fieldnames or []
    if missing := [n for n in _REQUIRED if n not in names]:
      raise CsvError(f'{path}: no column {", ".join(missing)}; give the CSV of the beam challenge')
    length, *others = (_count(names, f'unit1_{s}') for s in SENSORS)
    if any(o != length for o in others):
      raise CsvError(f'{path}: {length} columns unit1_rgb, but {others[0]} unit1_radar and '
                     f'{others[1]} unit1_lidar; they must be as many')
    rows = [_row(path, root, number, row, length) for number, row in enumerate(table, 1)]
  if not rows:
    raise CsvError(f'{path}: no row below the header; remove the file or copy it again')
  return rows


def _row(path, root, number, row, length) -> Row:
  where = f'{path} row {number}'

  def value(name):
    text = (row.get(name) or '').strip()
    if not text:
      raise CsvError(f'{where}: {name} is empty; fill it in or remove the row')
    return text

  frames = tuple(
      tuple(value(f'unit1_{s}_{t}') for s in SENSORS) for t in range(1, length + 1))
  found = re.search(r'scenario(\d+)', frames[-1][0])
  if not found:
    raise CsvError(f'{where}: unit1_rgb_{length} is {frames[-1][0]!r}, a path with the folder '
                   'scenarioNN is expected')
  beams = _beams(value('unit1_beam'), where) if row.get('unit1_beam') is not None else ()
  power = tuple(
      value(n) for n in row if n and re.fullmatch(r'unit1_pwr_60ghz(_\d+)?', n)) if beams else ()
  if len(power) not in (0, len(beams)):
    raise CsvError(f'{where}: {len(beams)} beams, but {len(power)} columns unit1_pwr_60ghz')
  index = (row.get('index') or '').strip()
  return Row(root, where, int(index) if index.isdecimal() else number - 1, int(found[1]), frames,
             value('unit1_loc'), (value('unit2_loc_1'), value('unit2_loc_2')), power, beams,
             'adaptation' in f'{root.name}/{path.name}'.lower())


def discover(in_dir, names: str = '') -> list[tuple[pathlib.Path, pathlib.Path]]:
  """(CSV, folder its paths start from) of every set in a folder or in its folders.

  Where a folder has a CSV `ml_challenge_*`, its others (per scenario) repeat those rows and are
  left out.

  Args:
    names: file names joined by '+' or ','; empty: all.

  Raises:
    CsvError: none is there.
  """
  if in_dir is None:
    raise CsvError('--in: name the folder that holds the scenario folders and their CSV')
  wanted = [n for n in re.split('[+,]', names) if n]
  found = []
  for folder in [pathlib.Path(in_dir), *sorted(pathlib.Path(in_dir).glob('*/'))]:
    files = sorted(folder.glob('*.csv'))
    whole = [f for f in files if f.name.startswith('ml_challenge_')]
    chosen = [f for f in files if f.name in wanted] if wanted else [
        f for f in whole or files if _is_table(f)]
    found += [(f, folder) for f in chosen]
  if not found:
    raise CsvError(f'{in_dir}: no CSV with the columns unit1_rgb_1, unit1_radar_1, ... in it or in '
                   f'its folders{f" named {names}" if names else ""}; name the folder Dataset or '
                   'one of its sets')
  return found


def _is_table(path: pathlib.Path) -> bool:
  with path.open(encoding='utf-8-sig', errors='replace') as file:
    return 'unit1_rgb_1' in file.readline()


def multistep(
    rows: Iterable[Row], length: int, steps: int, stride: int = 2, fixes: tuple[int, int] = (12, 6),
) -> tuple[list[Row], int]:
  """Rows of a longer window and several beams, from rows of one beam.

  A row that ends at frame number n becomes: frames n - (length - 1) stride, ..., n - stride, n; the
  user's positions at n - fixes[0] and n - fixes[1] (a shorter window: at its first two frames); the
  beams of this and the next steps - 1 rows, of which the last is less than 2 steps away. The beam
  is the row's own; upstream looked it up again in the power file and compared the numbers as text.

  Returns:
    The rows, and how many had to be left out since a frame, position or beam is not there.
  """
  groups: dict[tuple, list[Row]] = {}
  for row in rows:
    prefix, number, _ = frame_number(row.frames[-1][0])
    if number is not None and len(row.beams) == 1:
      folder = str(pathlib.PurePosixPath(row.frames[-1][0]).parent)
      groups.setdefault((row.root, folder, prefix), []).append(row)
  made, dropped = [], 0
  span = (length - 1) * stride
  if span < max(fixes):
    fixes = (span, span - stride)
  for group in groups.values():
    frames, places = {}, {}
    for row in group:
      numbers = [frame_number(f[0])[1] for f in row.frames]
      frames.update(zip(numbers, row.frames))
      places.update(zip(numbers, row.fixes))
    group = sorted(group, key=lambda r: frame_number(r.frames[-1][0])[1])
    ends = [frame_number(r.frames[-1][0])[1] for r in group]
    for i, (row, end) in enumerate(zip(group, ends)):
      wanted = range(end - span, end + 1, stride)
      ahead = group[i:i + steps]
      if (len(ahead) < steps or ends[i + steps - 1] - end >= 2 * steps
          or not all(n in frames for n in wanted) or not all(end - f in places for f in fixes)):
        dropped += 1
        continue
      made.append(dataclasses.replace(
          row, frames=tuple(frames[n] for n in wanted),
          fixes=tuple(places[end - f] for f in fixes), beams=tuple(r.beams[0] for r in ahead),
          power=tuple(p for r in ahead for p in r.power)))
  return made, dropped
