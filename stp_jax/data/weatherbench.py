"""WeatherBench: global weather, hourly NetCDF of ERA5 at 5.625 to 1.40625 degrees, 12 -> 12.

`weather_5_625deg/<long name>/<long name>*.nc` (`weather/`, or the folder of them itself), years in
any number of files:

  python -m stp_jax.prepare weatherbench --in DIR --out STORE                      2 m temperature
  python -m stp_jax.prepare weatherbench --in DIR --out STORE --variables uv10     both winds
  python -m stp_jax.prepare weatherbench --in DIR --out STORE --variables mv \\
      --train 1979..2015 --step 6                       r, t, u, v at 150, 500 and 850 hPa

Short names: t2m u10 v10 uv10 tcc tp r t z u v mv, joined by +; `t@850` is a level, plain r the last
level, as published. A model sees (value - mean) / deviation, of each field over the training years.
One field is stored in its units. Several are stored standardised, each by its own mean and
deviation, which stand in the store's `grid` under `fields` with names and units.

Published years: train 2010 to 2015, validation 2016, test 2017 and 2018. OpenSTL drops the last
hour of each split and its last window: `--ends upstream`. It standardises each split by itself, and
selects on the test split; here never. Data: Rasp et al. 2020, doi:10.1029/2020MS002203.
"""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from stp_jax.data import samples, splits
from stp_jax.data.clip_store import ClipStore, StoreError, Stream
from stp_jax.data.samples import Sample
from stp_jax.data.weather_fields import Series, fields

OPTIONS = {
    'variables': (str, 't2m', 'short names, joined by +'),
    'train': (str, '2010..2015', 'years (or date ranges) of training'),
    'validation': (str, '2016', 'of the split validation'),
    'test': (str, '2017..2018', 'of the split test'),
    'step': (int, 1, 'of so many hours one is kept'),
    'ends': (str, 'whole', 'whole, or upstream: without the last hour and window of each split'),
    'window': (int, 24, 'frames of a window, input and target')}
_CLIP_BYTES = 64 << 20
_BLOCK = 256  # frames read at a time for the statistics
_SPLITS = ('train', 'validation', 'test')


def prepare(
    *, in_dir, out, variables: str = 't2m', train: str = '2010..2015', validation: str = '2016',
    test: str = '2017..2018', step: int = 1, ends: str = 'whole', window: int = 24,
) -> ClipStore:
  """Writes the store and prints its card; see OPTIONS and the module. A rerun goes on.

  Frames are float32 `[lat, lon, fields]`; NaN where there is no value.

  Raises:
    StoreError: names the folder, file, variable or level that is missing, or what differs.
    ValueError: an option that cannot be read, or years without data.
  """
  if ends not in ('whole', 'upstream') or step < 1 or window < 2:
    raise ValueError(f'--ends {ends} (whole, upstream), --step {step} (1 and more), --window '
                     f'{window} (2 and more)')
  wanted = fields(variables)
  base = samples.root(
      in_dir, ['weather_5_625deg', 'weather_2_8125deg', 'weather_1_40625deg', 'weather',
               'weatherbench'], sorted({f'{name}/*.nc' for f in wanted for name in f.folders}),
      f'<long name>/*.nc of {" ".join(f.short for f in wanted)}, such as '
      f'{wanted[0].folders[0]}/{wanted[0].folders[0]}_2010_5.625deg.nc')
  series = Series(base, wanted)
  cadence = series.hours * step
  ranges = dict(train=train, validation=validation, test=test)
  parts = {}
  for name, text in ranges.items():
    inside = np.zeros(len(series.times), bool)
    for begin, end in splits.ranges(text, name) if text else ():
      inside |= (series.times >= begin) & (series.times < end)
    found = np.flatnonzero(inside)
    if text and not len(found):
      if name != 'train':
        continue  # said on the card
      raise ValueError(f'--train {text}: no frame lies in it; the data go from {series.times[0]} '
                       f'to {series.times[-1]}')
    parts[name] = found[:-1:step] if ends == 'upstream' else found[::step]
    for other in parts:
      if other != name and np.intersect1d(parts[other], parts[name]).size:
        raise ValueError(f'--{name} {text}: overlaps with the split {other}')
  if ends == 'upstream':
    parts = {k: v[:-1] for k, v in parts.items()}
  recipe = dict(importer='weatherbench', version=1, variables=variables, ranges=ranges, step=step,
                ends=ends, window=window, files=samples.fingerprint(base, series.paths))
  mean, deviation = _statistics(series, parts['train'])
  alone = len(wanted) == 1
  told = [dict(name=f.short, units=series.units[i], mean=float(mean[i]), std=float(deviation[i]))
          for i, f in enumerate(wanted)]
  grid = dict(latitude=series.latitude, longitude=series.longitude, rows=len(series.latitude),
              fields=told)
  scaling = dict(shift=told[0]['mean'], divisor=told[0]['std']) if alone else {}
  scaling['signed'] = True  # less the mean, here or in the store itself
  shape = (len(series.latitude), len(series.longitude), len(wanted))
  return samples.write(
      out, _read(series, parts, window, step, None if alone else (mean, deviation), shape),
      name='weatherbench', recipe=recipe, normalisation=scaling, grid=grid, window=window,
      stream=Stream(shape, 'float32', series.units[0] if alone else 'standard deviations'),
      cadence_hours=cadence, licence='ERA5: Copernicus; WeatherBench: CC BY 4.0',
      description=f'WeatherBench {" ".join(f.short for f in wanted)}',
      facts={'cadence': f'{cadence:g} h', 'fields': ', '.join(
          f'{t["name"]} [{t["units"]}] mean {t["mean"]:.6g}, deviation {t["std"]:.6g}'
          for t in told), 'files': len(series.paths)},
      notes=[f'no frame in {k} {v}' for k, v in ranges.items() if v and k not in parts])


def _statistics(series: Series, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation `[fields]` over time and grid, float64, without weights, as published."""
  total = squares = count = 0
  base = None  # sums of what is near zero stay exact
  for start in tqdm(range(0, len(frames), _BLOCK), desc='statistics', unit='block'):
    value = series.read(frames[start:start + _BLOCK]).astype(np.float64)
    if base is None:
      base = np.nan_to_num(np.nanmean(value, (0, 1, 2)))
    value -= base
    total = total + np.nansum(value, (0, 1, 2))
    squares = squares + np.nansum(value ** 2, (0, 1, 2))
    count = count + np.isfinite(value).sum((0, 1, 2))
  if not np.all(count):
    raise StoreError(f'{series.paths[0].parent}: a field without any value in the training years')
  mean = total / count
  deviation = np.sqrt(np.maximum(squares / count - mean ** 2, 0))
  if not np.all(deviation > 0):
    raise StoreError(f'{series.paths[0].parent}: a field that is the same everywhere in training')
  return mean + base, deviation


def _read(series: Series, parts: dict[str, np.ndarray], window: int, step: int, scaling, shape
          ) -> Iterator[Sample]:
  longest = max(2 * window, _CLIP_BYTES // (4 * int(np.prod(shape))))
  for split in _SPLITS:
    frames = parts.get(split, np.zeros(0, int))
    if not len(frames):
      continue
    minutes = round(60 * step * series.hours)
    gaps = np.flatnonzero(np.diff(series.times[frames]).astype(int) != minutes) + 1
    for run in np.split(frames, gaps):
      # Pieces share window - 1 frames, so that no window is lost where a long run is cut.
      for start in range(0, max(1, len(run) - window + 1), longest - window + 1):
        piece = run[start:start + longest]
        first, last = series.times[piece[0]], series.times[piece[-1]]

        def read(piece=piece):
          value = series.read(piece)
          return value if scaling is None else (
              (value - scaling[0]) / scaling[1]).astype(np.float32)
        yield Sample(f'{first}..{last}', split, read, str(first))
