"""Makes drivers.csv.gz from CelesTrak's SW-All.txt: `python extract.py SW-All.txt[.gz]`.

Kept: the years below with 41 days either side (81-day means), observed daily F10.7 (unadjusted for
the distance of the Sun) and the eight 3-hourly ap of each day. Column positions follow the FORMAT
line in the file's own header.
"""

import argparse
import datetime
import gzip
import pathlib

YEARS = (2000, 2002, 2003, 2004, 2005, 2009, 2011, 2012, 2013, 2019)
MARGIN = datetime.timedelta(days=41)
_AP_COLUMN, _AP_WIDTH, _F107_OBSERVED = 46, 4, slice(113, 118)


def extract(source: pathlib.Path) -> str:
  """CSV text: date,f107,ap0..ap21 (the hour at which each 3-hour interval begins)."""
  with (gzip.open(source, 'rt') if source.suffix == '.gz' else source.open()) as file:
    text = file.read()
  observed = text.split('BEGIN OBSERVED')[1].split('END OBSERVED')[0].strip('\n')
  spans = [(datetime.date(y, 1, 1) - MARGIN, datetime.date(y, 12, 31) + MARGIN) for y in YEARS]
  rows = ['date,f107,' + ','.join(f'ap{h:02d}' for h in range(0, 24, 3))]
  for line in observed.splitlines():
    day = datetime.date(int(line[:4]), int(line[5:7]), int(line[8:10]))
    if any(first <= day <= last for first, last in spans):
      ap = [int(line[_AP_COLUMN + _AP_WIDTH * i:][:_AP_WIDTH]) for i in range(8)]
      rows.append(','.join([str(day), f'{float(line[_F107_OBSERVED]):.1f}', *map(str, ap)]))
  return '\n'.join(rows) + '\n'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('source', type=pathlib.Path)
  table = extract(parser.parse_args().source)
  # mtime=0: the same input gives the same bytes.
  pathlib.Path(__file__).with_name('drivers.csv.gz').write_bytes(
      gzip.compress(table.encode(), mtime=0))


if __name__ == '__main__':
  main()
