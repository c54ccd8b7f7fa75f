"""Miniatures of published data sets: their layouts to the letter, a few small frames in them.

Each function writes one below `root` and returns what a test compares with.
"""

import io
import struct

import h5py
import numpy as np
import PIL.Image

from tests.data import tfrecord_bytes


def noise(seed, *shape, high=256) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def smooth(seed, height, width) -> np.ndarray:
  """uint8 `[H, W, 3]` that survives JPEG."""
  rng = np.random.default_rng(seed)
  small = PIL.Image.fromarray(rng.integers(0, 256, (3, 4, 3)).astype(np.uint8))
  return np.asarray(small.resize((width, height), PIL.Image.Resampling.BICUBIC))


def picture(path, frame: np.ndarray, **options) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  PIL.Image.fromarray(frame).save(path, **options)


def taxibj(root, train=5, test=2):
  rng = np.random.default_rng(0)
  arrays = {f'{x}_{s}': rng.uniform(-1, 1, (n, 4, 2, 32, 32)) for s, n in (
      ('train', train), ('test', test)) for x in 'XY'}
  (root / 'taxibj').mkdir(parents=True)
  np.savez(root / 'taxibj' / 'dataset.npz', **arrays)
  return arrays


def kth(root, size=(30, 40), actions=('boxing', 'jogging'), persons=(1, 16, 17, 25), frames=None):
  """Frames 3..40 and 50..79 of each film; RGB whose channels differ."""
  numbers = frames or [*range(3, 41), *range(50, 80)]
  made = {}
  for a, action in enumerate(actions):
    for person in persons:
      name = f'{action}/person{person:02d}_{action}_d1_uncomp'
      made[name] = noise(100 * a + person, len(numbers), *size, 3)
      for number, frame in zip(numbers, made[name]):
        picture(root / 'kth' / name / f'image_{number:04d}.png', frame)
  return numbers, made


def bair(root, films=(3, 2), length=30):
  made = {}
  for split, count in zip(('train', 'test'), films):
    folder = root / 'softmotion30_44k' / split
    folder.mkdir(parents=True)
    records = []
    for i in range(count):
      film = noise(len(made), length, 64, 64, 3)
      features = {}
      for t, frame in enumerate(film):
        features[f'{t}/image_aux1/encoded'] = [frame.tobytes()]
        features[f'{t}/image_main/encoded'] = [(255 - frame).tobytes()]
        features[f'{t}/action'] = [0.0, 1.0, 2.0, 3.0]
      records.append(tfrecord_bytes.record(tfrecord_bytes.example(features)))
      made[split, i] = film
    (folder / 'traj_0_to_255.tfrecords').write_bytes(b''.join(records))
  return made


def human(root, size=20, rows=((('A', 1), ('A', 6), ('B', 1)), (('B', 26),)), last=61):
  made = {}
  for film in sorted({name for split in rows for name, _ in split}):
    for number in range(1, last + 1, 5):
      made[film, number] = smooth(hash((film, number)) % 1000, size, size)
      picture(root / 'human' / 'images' / f'S1_{film}.55011271_{number:06d}.jpg',
              made[film, number], quality=98, subsampling=0)
  for split, listed in zip(('train', 'test'), rows):
    (root / 'human' / f'{split}.txt').write_text(''.join(
        f'images/S1_{name}.55011271_,{begin},{begin + 70}\n' for name, begin in listed))
  return made


def hickle(path, value, version=5) -> None:
  """As hickle 2 (`data_0`) or 5 (`data`) writes an array, or a list of texts."""
  key = 'data' if version >= 4 else 'data_0'
  with h5py.File(path, 'w') as file:
    if isinstance(value, np.ndarray):
      file[key] = value
    elif version >= 4:
      first = {}
      for i, text in enumerate(value):  # its characters; the same text again is a reference
        if text in first:
          file.create_dataset(f'{key}/data{i}', data=first[text], dtype=h5py.ref_dtype)
        else:
          first[text] = file.create_dataset(
              f'{key}/data{i}', data=np.array([[c.encode() for c in text]])).ref
    else:
      file[key] = np.array([v.encode() for v in value])


def seq(path, frames, extra=8) -> None:
  """A Norpix sequence of JPEGs, as Caltech's."""
  header = bytearray(1024)
  header[:4] = struct.pack('<I', 0xFEED)
  header[548:552] = struct.pack('<I', frames[0].shape[1])
  header[552:556] = struct.pack('<I', frames[0].shape[0])
  header[572:576] = struct.pack('<i', len(frames))
  body = b''
  for frame in frames:
    buffer = io.BytesIO()
    PIL.Image.fromarray(frame).save(buffer, 'JPEG', quality=98, subsampling=0)
    data = buffer.getvalue()
    body += struct.pack('<I', len(data) + 4) + data + bytes(extra)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(bytes(header) + body)


def kitticaltech(root, version=5, extra=8, lengths=(13, 24), seq_frames=40):
  folder = root / 'kitti_hkl'
  folder.mkdir(parents=True)
  names = [f'city-2011_09_26_drive_{i:04d}' for i, n in enumerate(lengths) for _ in range(n)]
  kitti = noise(0, len(names), 128, 160, 3)
  hickle(folder / 'X_train.hkl', kitti, version)
  hickle(folder / 'sources_train.hkl', names, version)
  frames = [smooth(i, 96, 128) for i in range(seq_frames)]
  seq(root / 'caltech' / 'set06' / 'V000.seq', frames, extra)
  return kitti, frames


def weather(root, names=(('2m_temperature', 't2m', 'K'),), years=(2015, 2016, 2017), hours=30,
            levels=(), size=(4, 8), folder='weather_5_625deg', first='12-01T00'):
  """A file a year of each variable, `hours` hours from `first` of it."""
  import xarray
  made = {}
  latitude = np.linspace(-90 + 90 / size[0], 90 - 90 / size[0], size[0])
  longitude = np.arange(size[1]) * 360 / size[1]
  for v, (long, short, units) in enumerate(names):
    for year in years:
      time = np.datetime64(f'{year}-{first}', 'ns') + np.arange(hours) * np.timedelta64(1, 'h')
      shape = (hours, *([len(levels)] if levels else []), *size)
      value = (280 + 10 * v + np.random.default_rng(year + v).normal(0, 3, shape)).astype('f4')
      coords = dict(time=time, lat=latitude, lon=longitude) | (
          dict(level=list(levels)) if levels else {})
      dims = ('time', *(['level'] if levels else []), 'lat', 'lon')
      path = root / folder / long / f'{long}_{year}_5.625deg.nc'
      path.parent.mkdir(parents=True, exist_ok=True)
      xarray.DataArray(value, coords, dims, name=short, attrs=dict(units=units)).to_dataset(
          ).to_netcdf(path)
      made[short, year] = value
  return made


def sevir(root, events=10, size=24):
  types = ('vis', 'ir069', 'ir107', 'vil', 'lght')
  rows = ['id,file_name,file_index,img_type,time_utc']
  (root / 'sevir' / 'data' / 'vil' / '2019').mkdir(parents=True)
  vil = noise(0, events + 1, size, size, 49, high=255)
  with h5py.File(root / 'sevir/data/vil/2019/SEVIR_VIL_STORMEVENTS_2019_0101_0630.h5', 'w') as file:
    file['vil'] = vil
  vis = noise(1, events + 1, size, size, 49).astype(np.int16) * 40
  (root / 'sevir/data/vis/2019').mkdir(parents=True)
  with h5py.File(root / 'sevir/data/vis/2019/SEVIR_VIS_2019.h5', 'w') as file:
    file['vis'] = vis
  for i in range(events):
    files = dict(vil='vil/2019/SEVIR_VIL_STORMEVENTS_2019_0101_0630.h5',
                 vis='vis/2019/SEVIR_VIS_2019.h5')
    for kind in types:
      month = 5 if i % 2 else 7
      rows.append(f'S{800000 + i},{files.get(kind, f"{kind}/x.h5")},{i},{kind},'
                  f'2019-{month:02d}-{i + 1:02d} 12:00:00')
  rows.append(f'R{events},{files["vil"]},{events},vil,2019-05-01 12:00:00')  # no other kinds
  (root / 'sevir' / 'CATALOG.csv').write_text('\n'.join(rows) + '\n')
  return vil, vis


def hko7(root, size=20, frames=25):
  days = dict(train=('20090101', '20090102'), valid=('20120301',), test=('20150505',))
  made = {}
  for k, (name, listed) in enumerate(days.items()):
    lines = []
    for d, day in enumerate(listed):
      lines.append(f'{day}, {6500 + d}, 0.2, 0.5')
      for i in range(frames):
        if day == '20150505' and i == 21:
          continue  # a frame that the radar missed
        frame = noise(1000 * k + 100 * d + i, size, size)
        made[day, i] = frame
        picture(root / 'hko7/radarPNG' / day[:4] / day[4:6] / day[6:]
                / f'RAD{day[2:]}{i * 6 // 60:02d}{i * 6 % 60:02d}00.png', frame)
    (root / 'hko7' / f'hko7_rainy_{name}_days_statistics.txt').write_text('\n'.join(lines) + '\n')
  return made


def shanghai2020(root, examples=8, lists=True, size=20):
  base = root / 'shanghai2020'
  made = {}
  for e in range(examples):
    files = []
    for i in range(20):
      name = f'radar_{e:03d}_{i:02d}.png'
      made[e, i] = noise(100 * e + i, size, size)
      picture(base / 'train' / 'data' / name, made[e, i])
      files.append(name)
    folder = base / 'train' / 'examples' / f'{e:05d}'
    folder.mkdir(parents=True)
    (folder / f'{e:05d}-inputs-train.txt').write_text('\n'.join(files[:10]) + '\n')
    (folder / f'{e:05d}-targets-train.txt').write_text('\n'.join(files[10:]) + '\n')
  if lists:
    for name, ids in dict(train=range(0, 5), valid=range(5, 6), test=range(6, 8)).items():
      (base / f'Shanghai_2020_{name}_examples.txt').write_text(
          ''.join(f'train/examples/{e:05d}\n' for e in ids))
  return made
