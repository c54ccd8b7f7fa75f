"""The Channel Mixer Layer's data set `iono_electron` (Zenodo 13165939): TFRecords -> clip store.

Layout: `train/*` and `test/*`, every file an uncompressed TFRecord, every record one sequence of
TEC maps every 2 h with 17 scalars each, under keys `<frame>/<Name>`. A record becomes a clip.

Decisions:
  * Upstream selects its best checkpoint on the test folder. Here the last 10 % of the training
    records are the split validation; `--validation 0` leaves them in training, as upstream has it.
  * Values are kept as they are; the maps' last row repeats nothing in particular and is padding.
  * Drivers are those of the hourly OMNI file, whose value for an hour is available when the hour is
    over; Kp and ap there repeat a 3-hour value (available at the end of its interval), F10.7 and R
    a daily one (end of the day).
  * `known`, the newest value available at a frame's time, is looked up inside the record. Where it
    has none (the first frames), the record's first value stands in; the card counts such frames.
  * A record whose dates do not run on at the cadence gets no clock: it is split by its source only.
"""

import pathlib

import numpy as np
from tqdm import tqdm

from stp_jax.data import card as cards
from stp_jax.data import tfrecord, zenodo
from stp_jax.data.clip_store import ClipStore, Forcing, StoreError, Stream
from stp_jax.data.clip_writer import StoreWriter

OPTIONS = {
    'validation': (float, 0.1, 'share of the training records, the last ones, for validation'),
    'cadence': (float, 2.0, 'hours between frames'),
    'window': (int, 24, 'frames of a window; the data card counts clips that are shorter'),
    'download': (bool, False, 'fetch and unpack Zenodo record 13165939 first, into --in'),
    'archive': (str, None, 'with --download: another server with the API of Zenodo records')}
FILES = 'runs/downloads/iono_electron'  # where fetched files are kept without --in
_SIDE = 72
# upstream's name: ours, units. None: calendar, known ahead.
_SCALARS = {
    'Year': ('year', None), 'F107': ('f107', 'sfu'), 'R': ('r', '1'), 'Day': ('day', None),
    'Hour': ('hour', None), 'Month': ('month', None), 'Date': ('date', None),
    'Kp': ('kp', 'Kp x 10'), 'Ap': ('ap', 'nT'), 'Dst': ('dst', 'nT'),
    'PlasmaSpeed': ('plasma_speed', 'km/s'), 'FieldMagnitude': ('field_magnitude', 'nT'),
    'SigmaB': ('sigma_b', 'nT'), 'ProtonDensity': ('proton_density', '1/cm3'),
    'FlowPressure': ('flow_pressure', 'nPa'), 'ElectricField': ('electric_field', 'mV/m'),
    'MagnetosonicMach': ('magnetosonic_mach', '1')}
_NAMES = [ours for ours, _ in _SCALARS.values()]
_PERIOD = {'f107': 24, 'r': 24, 'kp': 3, 'ap': 3}  # hours a value covers; the others: one


def _sequence(payload: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
  """Maps uint16 `[n, 72, 72]` and scalars float32 `[n, 17]` of one record."""
  try:
    features = tfrecord.example(payload)
  except ValueError as error:
    raise StoreError(f'{where}: no tf.train.Example ({error})') from error
  length = 0
  while len(features.get(f'{length}/Year', ())):
    length += 1
  for key in features:
    frame = key.split('/')[0]
    if frame.isdecimal() and int(frame) >= length:
      raise StoreError(f'{where}: has {key} but no {length}/Year')
  if not length:
    raise StoreError(f'{where}: no frame (the key 0/Year is missing)')
  if 2 * _SIDE**2 * length > len(payload):  # before anything of that size is made
    raise StoreError(f'{where}: {length} frames do not fit into {len(payload)} bytes: Map is '
                     'missing somewhere')
  maps = np.empty((length, _SIDE, _SIDE), np.uint16)
  scalars = np.empty((length, len(_SCALARS)), np.float32)
  for t in range(length):
    for column, name in enumerate(_SCALARS):
      value = features.get(f'{t}/{name}', ())
      if len(value) != 1:
        raise StoreError(f'{where}: {t}/{name} has {len(value)} values, one belongs there')
      if not (isinstance(value, np.ndarray) and np.isfinite(value[0])):
        raise StoreError(f'{where}: {t}/{name} is no finite number')
      scalars[t, column] = value[0]
    value = features.get(f'{t}/Map', ())
    if len(value) != 1 or not isinstance(value, list) or len(value[0]) != 2 * _SIDE**2:
      raise StoreError(f'{where}: {t}/Map must be one string of {_SIDE} x {_SIDE} uint16')
    maps[t] = np.frombuffer(value[0], '<u2').reshape(_SIDE, _SIDE)
  return maps, scalars


def _clock(scalars: np.ndarray, cadence: float) -> str | None:
  """ISO time of the first frame, None unless all dates are real and run on at the cadence."""
  column = lambda name: scalars[:, _NAMES.index(name)].astype(np.float64)
  try:
    days = np.array([f'{int(y):04d}-{int(m):02d}-{int(d):02d}' for y, m, d in zip(
        column('year'), column('month'), column('date'))], 'datetime64[D]')
  except ValueError:
    return None
  minutes = days.astype('datetime64[m]').astype(np.int64) + np.round(60 * column('hour'))
  if not (np.diff(minutes) == round(60 * cadence)).all():
    return None
  return str(np.int64(minutes[0]).astype('datetime64[m]'))


def _availability(scalars: np.ndarray, cadence: float) -> tuple[np.ndarray, np.ndarray, int]:
  """Delay [h] `[n, 17]`, known values `[n, 17]`, and the frames for which some had to stand in."""
  hour = scalars[:, _NAMES.index('hour')].astype(np.float64)
  delay, known = np.zeros(scalars.shape), scalars.copy()
  lacking = np.zeros(len(scalars), bool)
  reach = int(np.ceil(24 / cadence)) + 1
  times = np.arange(len(scalars)) * cadence
  for column, (name, units) in enumerate(_SCALARS.values()):
    if units is None:
      continue
    period = _PERIOD.get(name, 1)
    delay[:, column] = period - hour % period
    published = times + delay[:, column]
    newest = np.full(len(times), -1)
    for back in range(min(reach, len(times) - 1), 0, -1):
      older = np.arange(len(times) - back)
      good = published[older] <= times[back:]
      newest[back:] = np.where(good, older, newest[back:])
    lacking |= newest < 0
    known[:, column] = scalars[np.maximum(newest, 0), column]
  return delay, known, int(lacking.sum())


def _files(in_dir) -> dict[str, list[pathlib.Path]]:
  if in_dir is None:
    raise StoreError('--in: name the folder that holds train/ and test/')
  folder = pathlib.Path(in_dir)
  for inside in ('iono_electron', 'files', 'files/iono_electron', 'files/data/iono_electron'):
    if not (folder / 'train').is_dir() and (folder / inside / 'train').is_dir():
      folder = folder / inside
  found = {k: sorted(p for p in (folder / k).glob('*') if p.is_file()) for k in ('train', 'test')}
  if not found['train'] or not found['test']:
    raise StoreError(f'{folder}: files are expected in train/ and test/; unpack iono_electron.zip '
                     'and name its folder')
  return found


def prepare(
    *, in_dir=None, out=None, validation: float = 0.1, cadence: float = 2.0, window: int = 24,
    download: bool = False, archive: str | None = None,
) -> ClipStore:
  """Writes the store and prints its data card; see OPTIONS and the module.

  Stream `frames`: uint16 `[72, 72, 1]` in 0.1 TECU, no missing value; 17 forcings as upstream.

  Raises:
    StoreError: names file, record (from 0) and key.
    ValueError: an option out of range.
  """
  if not 0 <= validation < 1:
    raise ValueError(f'--validation {validation:g}: a share from 0 to below 1')
  if not 0 < cadence <= 24:
    raise ValueError(f'--cadence {cadence:g}: hours, above 0 and at most 24')
  if download:
    in_dir, out = in_dir or FILES, out or 'runs/stores/iono_electron'
    zenodo.download(zenodo.IONO_ELECTRON, in_dir, base=archive)
  elif out is None:
    raise ValueError('--out: name the clip store to write')
  files = _files(in_dir)
  recipe = dict(
      importer='iono_electron', version=1, options=dict(validation=validation, cadence=cadence),
      files={k: cards.checksums(v) for k, v in files.items()})
  if done := cards.already_made(out, recipe):
    return done
  counts = {p: sum(1 for _ in tfrecord.records(p, payload=False))
            for paths in files.values() for p in paths}
  trained = sum(counts[p] for p in files['train'])
  # At least one, so that no run selects its checkpoint on nothing; but never the only one.
  held = min(max(1, round(validation * trained)), trained - 1) if validation else 0
  statistics, spans, facts = cards.Statistics(0.1), [], dict(unclocked=0, stand_in=0)
  stream = Stream((_SIDE, _SIDE, 1), 'uint16', 'TECU', 0.1)
  latitude = [float(v) for v in np.arange(87.5, -88, -2.5)]
  with StoreWriter(
      out, name='iono_electron', streams=dict(frames=stream), cadence_hours=cadence, recipe=recipe,
      forcings=[Forcing(n, u or '1', u is None) for n, u in _SCALARS.values()],
      normalisation=dict(divisor=200.0, maximum=200.0),
      grid=dict(latitude=latitude, longitude=[float(v) for v in range(-180, 180, 5)],
                rows=len(latitude), columns=_SIDE),
      licence='see Zenodo record 13165939; maps: CODE (AIUB), scalars: NASA OMNI',
      description='iono_electron of the Channel Mixer Layer, vertical TEC') as writer:
    bar = tqdm(total=sum(counts.values()), desc='reading', unit='record')
    for folder, paths in files.items():
      seen = 0
      for path in paths:
        for number, payload in enumerate(tfrecord.records(path)):
          source = f'{folder}/{path.name}#{number}'
          maps, scalars = _sequence(payload, f'{path} record {number}')
          split = 'validation' if folder == 'train' and seen >= trained - held else folder
          time = _clock(scalars, cadence)
          delay, known, stand_in = _availability(scalars, cadence)
          spans.append(dict(split=split, length=len(maps), time=time))
          facts['unclocked'] += time is None
          facts['stand_in'] += stand_in
          statistics.add(maps[:, :-1])
          if not writer.has(source):
            writer.add(source, dict(frames=maps[..., None]), split=split, source=source, time=time,
                       forcings=scalars, known=known, delay=delay)
          seen += 1
          bar.update()
    bar.close()
    clocks = sorted(s['time'] for s in spans if s['time'])
    card = dict(name='iono_electron', **cards.clips(spans, window))
    if clocks:
      card |= dict(first=clocks[0], last=max(_ends(spans, cadence)))
    card['facts'] = {
        'cadence': f'{cadence:g} h', 'files': sum(map(len, files.values())),
        'records without a running clock': facts['unclocked']}
    card['statistics'] = {'TEC [TECU]': statistics.result()}
    card['notes'] = [
        f'{facts["stand_in"]} frames begin a record before any driver was published: its first '
        'values stand in for the newest known ones',
        *(f'split {k}: no window of {window} frames' for k, v in card['splits'].items()
          if not v['windows'])]
    store = writer.finish(card)
  print(cards.text(card))
  return store


def _ends(spans: list[dict], cadence: float) -> list[str]:
  return [str(np.datetime64(s['time'], 'm') + round((s['length'] - 1) * cadence * 60))
          for s in spans if s['time']]
