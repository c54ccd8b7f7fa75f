"""Own frames of every kind of file: arrays, HDF5, NetCDF, videos, GeoTIFF, and their values."""

import re
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest

from stp_jax import prepare as cli
from stp_jax.data import folder, folder_layout, folder_maps
from stp_jax.data.clip_store import StoreError, assert_disjoint
from tests.data import own_frames
from tests.data.own_frames import whole


@pytest.mark.parametrize('layout', ['NTHWC', 'NTCHW', 'TNHW', 'NTHW', 'THW', 'THWC', 'TCHW'])
def test_arrays_in_every_layout(tmp_path, layout, capsys):
  channels = 3 if 'C' in layout else 1
  frames = np.stack([own_frames.film(i, 12, channels=channels) for i in range(5)])
  letters = layout if channels > 1 else f'{layout}C'
  array = (np.einsum(f'NTHWC->{letters}', frames) if 'N' in layout else
           np.einsum(f'THWC->{letters}', frames[0]))
  np.save(tmp_path / 'a.npy', array if channels > 1 else array[..., 0])
  store = folder.prepare(in_dir=tmp_path / 'a.npy', out=tmp_path / 's', split='train')
  assert f'arrays: {layout}, guessed from uint8' in capsys.readouterr().out
  got = whole(store)
  assert len(got) == (5 if 'N' in layout else 1)
  for one, expected in zip(got.values(), frames):
    np.testing.assert_array_equal(one, expected)


def test_a_layout_that_is_told(tmp_path):
  np.savez(tmp_path / 'a.npz', x=np.zeros((3, 6, 9, 5), np.uint8), y=np.zeros(3))
  store = folder.prepare(in_dir=tmp_path / 'a.npz', out=tmp_path / 's', layout='hwtc')
  assert store.streams['frames'].shape == (3, 6, 5) and store.meta['frames'] == 9
  with pytest.raises(StoreError, match='has 4 axes'):
    folder.prepare(in_dir=tmp_path / 'a.npz', out=tmp_path / 't', layout='THW')
  with pytest.raises(ValueError, match='letters of N T H W C'):
    folder.prepare(in_dir=tmp_path / 'a.npz', out=tmp_path / 't', layout='HWQT')
  np.savez(tmp_path / 'a.npz', x=np.zeros((3, 6, 9, 5)), y=np.zeros((3, 4, 5)))
  with pytest.raises(StoreError, match=r'--variable: x float64\[3, 6, 9, 5\], y float64'):
    folder.prepare(in_dir=tmp_path / 'a.npz', out=tmp_path / 't')
  with pytest.raises(StoreError, match='cannot be told'):
    folder_layout.guess(np.zeros((2, 3, 40, 50, 60)), 'a')


def _floats():
  rng = np.random.default_rng(0)
  values = rng.uniform(250, 310, (40, 8, 10)).astype(np.float32)
  values[3, 2, 1] = np.nan
  return values


def test_floats_become_codes_over_their_range(tmp_path, capsys):
  values = _floats()
  np.save(tmp_path / 'a.npy', values)
  store = folder.prepare(in_dir=tmp_path / 'a.npy', out=tmp_path / 's')
  stream = store.streams['frames']
  assert (stream.dtype, stream.missing) == ('uint16', 65535)
  assert 'stored as uint16' in capsys.readouterr().out
  got = np.concatenate([store.physical(store.frames(i)) for i in range(len(store.clips))])[..., 0]
  np.testing.assert_allclose(got, values, atol=0.0006)  # NaN stays NaN
  norm = store.meta['normalisation']
  assert norm['shift'] == pytest.approx(np.nanmin(values)) and norm['divisor'] < 60
  row = store.meta['card']['statistics']
  assert next(iter(row.values()))['mean'] == pytest.approx(np.nanmean(values), abs=0.01)
  kept = folder.prepare(in_dir=tmp_path / 'a.npy', out=tmp_path / 't', keep_float=True, size='4x5')
  assert kept.streams['frames'].dtype == 'float32' and kept.streams['frames'].shape == (4, 5, 1)
  told = folder.prepare(in_dir=tmp_path / 'a.npy', out=tmp_path / 'u', range='240,320')
  assert told.meta['normalisation'] == dict(shift=240.0, divisor=80.0)


def test_values_outside_the_stated_range(tmp_path, capsys):
  np.save(tmp_path / 'a.npy', _floats())
  command = ['folder', '--in', str(tmp_path / 'a.npy'), '--out', str(tmp_path / 's')]
  assert cli.main([*command, '--range', '260,300']) == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert 'a.npy frame 0 and others: ' in error and 'of 3200 values lie outside --range' in error
  assert 'they go from 250.' in error and not (tmp_path / 's').exists()


@pytest.mark.parametrize('array, message', [
    (np.zeros((0, 8, 9)), r'a.npy: an empty array \[0, 8, 9\]'),
    (np.zeros((12, 0, 9)), r'a.npy: an empty array'),
    (np.zeros((12, 8, 9), complex), r'a.npy: values of type complex128; .*convert them'),
    (np.zeros((12, 8, 9), 'M8[s]'), r'a.npy: values of type datetime64')])
def test_arrays_that_are_no_frames(tmp_path, capsys, array, message):
  np.save(tmp_path / 'a.npy', array)
  assert cli.main(['folder', '--in', str(tmp_path / 'a.npy'), '--out', str(tmp_path / 's')]) == 1
  error, = [x for x in capsys.readouterr().err.splitlines() if x.startswith('prepare ')]
  assert re.search(message, error) and not list(tmp_path.glob('s*'))


def test_a_damaged_npz_is_skipped_where_that_is_asked_for(tmp_path):
  for i in range(4):
    np.savez(tmp_path / f'{i}.npz', own_frames.film(i, 12)[..., 0])
  data = (tmp_path / '2.npz').read_bytes()
  (tmp_path / '2.npz').write_bytes(data[:200])
  with pytest.raises(StoreError, match=r'2.npz: a damaged archive .*--on-bad skip'):
    folder.prepare(in_dir=tmp_path, out=tmp_path / 's')
  store = folder.prepare(in_dir=tmp_path, out=tmp_path / 's', on_bad='skip', split='train')
  assert [c.length for c in store.clips] == [12] * 3
  assert store.meta['card']['facts']['frames or files skipped'] == 1


def test_an_npz_damaged_in_its_middle_is_skipped_where_that_is_asked_for(tmp_path):
  """Its header is whole: what is wrong shows when the array is read."""
  random = np.random.default_rng(0)
  for i in range(3):
    np.savez_compressed(tmp_path / f'{i}.npz', random.integers(0, 50, (12, 40, 40), np.int32))
  path = tmp_path / '2.npz'
  data = path.read_bytes()
  for at in range(len(data) // 4, len(data), 500):
    path.write_bytes(data[:at] + b'\xff' * 40 + data[at + 40:])
    try:
      np.load(path)['arr_0']
    except zlib.error:
      break
    except zipfile.BadZipFile:
      pass
  with pytest.raises(StoreError, match=r'2.npz: unreadable \(Error -3 .*--on-bad skip'):
    folder.prepare(in_dir=tmp_path, out=tmp_path / 's')
  store = folder.prepare(in_dir=tmp_path, out=tmp_path / 's', on_bad='skip', split='train')
  assert [c.length for c in store.clips] == [12] * 2


def test_a_netcdf_without_frames_lists_what_is_there(tmp_path):
  xarray = pytest.importorskip('xarray')
  xarray.Dataset(dict(height=(('station',), np.arange(5.0)))).to_netcdf(tmp_path / 'a.nc')
  with pytest.raises(StoreError, match=r"no variable of frames in it; there are: height\['st"):
    folder.prepare(in_dir=tmp_path / 'a.nc', out=tmp_path / 's')


def test_frames_that_are_too_small_are_said_to_be(tmp_path, capsys):
  np.save(tmp_path / 'a.npy', own_frames.film(0, 12, (9, 30))[..., 0])
  folder.prepare(in_dir=tmp_path / 'a.npy', out=tmp_path / 's', split='train')
  assert 'models take 16 x 16 pixels or more: enlarge with --size' in capsys.readouterr().out


def test_an_unreadable_file_among_frames_is_a_gap(tmp_path):
  frames = own_frames.film(0, 9)
  for t, frame in enumerate(frames):
    np.save(tmp_path / f'{t}.npy', frame[..., 0])
  (tmp_path / '4.npy').write_bytes(b'')
  with pytest.raises(StoreError, match=r'4\.npy: unreadable'):
    folder.prepare(in_dir=tmp_path, out=tmp_path / 's', pattern='*.npy')
  store = folder.prepare(in_dir=tmp_path, out=tmp_path / 's', on_bad='skip', split='train')
  assert [c.length for c in store.clips] == [4, 4]
  assert store.meta['card']['facts']['frames or files skipped'] == 1
  np.testing.assert_array_equal(store.frames(1), frames[5:])


def test_integers_keep_their_steps(tmp_path):
  values = np.random.default_rng(0).integers(-300, 300, (12, 8, 10)).astype(np.int16)
  values[0, 0, 0] = -999
  np.save(tmp_path / 'a.npy', values)
  store = folder.prepare(in_dir=tmp_path / 'a.npy', out=tmp_path / 's', missing='-999',
                         split='train')
  assert store.streams['frames'].scale == 1
  np.testing.assert_array_equal(store.physical(store.frames(0))[..., 0],
                                np.where(values == -999, np.nan, values))


def test_hdf5_by_variable_with_times_from_names_and_a_gap(tmp_path, capsys):
  h5py = pytest.importorskip('h5py')
  (tmp_path / 'in').mkdir()
  rng = np.random.default_rng(0)
  fields = rng.integers(0, 500, (26, 8, 10)).astype(np.uint16)
  fields[:, -1] = 65535
  for i, field in enumerate(fields):
    minutes = 5 * i + (20 if i > 14 else 0)  # a gap of four maps
    name = f'R_20100826{minutes // 60:02}{minutes % 60:02}.h5'
    with h5py.File(tmp_path / 'in' / name, 'w') as file:
      file['image1/image_data'], file['image1/x'] = field, np.zeros((3, 4))
  with pytest.raises(StoreError, match=r'choose with --variable: image1/image_data uint16\[8, 10'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's')
  with pytest.raises(StoreError, match=r'no array rain; there are: image1/image_data'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', variable='rain')
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', variable='image_data',
                         missing='65535', window=4)
  assert store.cadence_hours == pytest.approx(1 / 12)
  assert [(c.split, c.length, c.time) for c in store.clips] == [
      ('train', 15, '2010-08-26T00:00'), ('train', 3, '2010-08-26T01:35'),
      ('validation', 4, '2010-08-26T01:50'), ('test', 4, '2010-08-26T02:10')]
  np.testing.assert_array_equal(whole(store)['in'][..., 0], fields)
  stream = store.streams['frames']
  assert (stream.dtype, stream.scale, stream.missing) == ('uint16', 1, 65535)
  assert store.meta['normalisation'] == dict(shift=0.0, divisor=fields[:, :-1].max())
  assert 'gaps: 1, 4 frames' in capsys.readouterr().out
  assert_disjoint([store], ['train'])
  plain = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 't', variable='image_data',
                         missing='65535', times='none')
  assert all(c.time is None for c in plain.clips)


def _netcdf(path, start=0, count=20, monthly=False):
  xarray = pytest.importorskip('xarray')
  pytest.importorskip('netCDF4')
  hours = np.datetime64('2020-01-01T00', 'ns') + (6 * (start + np.arange(count))).astype('m8[h]')
  months = (np.datetime64('2020-01') + np.arange(count)).astype('M8[ns]')
  rng = np.random.default_rng(start)
  values = rng.uniform(-20, 20, (1, count, 6, 8)).astype(np.float32)
  dims = ('level', 'time', 'lat', 'lon')
  xarray.Dataset(
      dict(t2m=(dims, values, dict(units='K')), other=(dims, values)),
      dict(time=months if monthly else hours, lat=np.linspace(50, 40, 6),
           lon=np.linspace(0, 14, 8))).to_netcdf(path)
  return values[0]


def test_netcdf_time_grid_and_units(tmp_path, capsys):
  (tmp_path / 'in').mkdir()
  one, two = _netcdf(tmp_path / 'in' / 'b.nc', 0), _netcdf(tmp_path / 'in' / 'a.nc', 22)
  with pytest.raises(StoreError, match=r'no variable rain; there are: t2m\['):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', variable='rain')
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', variable='t2m', window=4,
                         size='3x4')
  text = capsys.readouterr().out
  assert 'gaps: 1, 2 frames' in text and 'T: time' not in text and 'time: T' in text
  assert store.streams['frames'].units == 'K' and store.cadence_hours == 6
  assert store.clips[0].time == '2020-01-01T00:00'  # by time, not by name
  assert store.clips[0].length == 20 and len(store.clips) == 4
  np.testing.assert_allclose(store.meta['grid']['latitude'], [49, 45, 41])
  np.testing.assert_allclose(store.meta['grid']['longitude'], [1, 5, 9, 13])
  full = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 't', variable='t2m', window=4)
  got = np.concatenate([full.physical(full.frames(i)) for i in range(len(full.clips))])[..., 0]
  np.testing.assert_allclose(got, np.concatenate([one, two]), atol=0.001)
  _netcdf(tmp_path / 'in' / 'c.nc', 10)
  with pytest.raises(StoreError, match='keep each time once'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 'u', variable='t2m')


def test_zarr(tmp_path, capsys):
  xarray = pytest.importorskip('xarray')
  pytest.importorskip('zarr')
  values = np.random.default_rng(0).uniform(0, 9, (14, 6, 8)).astype(np.float32)
  times = np.datetime64('2020-01-01T00', 'ns') + np.arange(14).astype('m8[h]')
  xarray.Dataset(dict(rain=(('time', 'y', 'x'), values, dict(units='mm/h')), more=('time', times)),
                 dict(time=times)).to_zarr(tmp_path / 'a.zarr', consolidated=False)
  store = folder.prepare(in_dir=tmp_path / 'a.zarr', out=tmp_path / 's', split='train')
  assert 'time: T, y: H, x: W of rain' in capsys.readouterr().out
  assert store.name == 'a' and store.cadence_hours == 1
  np.testing.assert_allclose(store.physical(store.frames(0))[..., 0], values, atol=1e-3)


def test_months_have_no_clock(tmp_path, capsys):
  _netcdf(tmp_path / 'a.nc', monthly=True)
  store = folder.prepare(in_dir=tmp_path / 'a.nc', out=tmp_path / 's', variable='t2m', window=4)
  assert 'months or years apart' in capsys.readouterr().out and store.clips[0].time is None


def test_gif_and_videos(tmp_path, monkeypatch):
  frames = own_frames.film(0, 12, channels=3)
  pictures = [PIL.Image.fromarray(f) for f in frames]
  (tmp_path / 'in').mkdir()
  pictures[0].save(tmp_path / 'in' / 'a.gif', save_all=True, append_images=pictures[1:],
                   duration=40)
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train')
  assert abs(store.frames(0).astype(int) - frames).mean() < 4  # 256 colours
  (tmp_path / 'in' / 'b.mp4').write_bytes(b'')
  for name in ('av', 'imageio_ffmpeg'):
    monkeypatch.setitem(__import__('sys').modules, name, None)
  with pytest.raises(StoreError, match=r'videos needs PyAV: pip install "stp_jax\[video\]"'):
    folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 't')


def test_a_video(tmp_path):
  av = pytest.importorskip('av')
  frames = own_frames.film(0, 12, (32, 48), channels=3)
  with av.open(str(tmp_path / 'a.mp4'), 'w') as file:
    stream = file.add_stream('mpeg4', rate=10)
    stream.width, stream.height, stream.pix_fmt = 48, 32, 'yuv420p'
    for frame in frames:
      file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
    file.mux(stream.encode())
  store = folder.prepare(in_dir=tmp_path / 'a.mp4', out=tmp_path / 's', split='train')
  assert store.frames(0).shape == frames.shape
  assert abs(store.frames(0).astype(int) - frames).mean() < 20


def test_geotiff(tmp_path):
  rasterio = pytest.importorskip('rasterio')
  values = np.random.default_rng(0).uniform(0, 9, (3, 6, 8)).astype(np.float32)
  for i, value in enumerate(values):
    with rasterio.open(tmp_path / f'x{i}.tif', 'w', driver='GTiff', width=8, height=6, count=1,
                       dtype='float32', crs='EPSG:4326',
                       transform=rasterio.Affine(2, 0, 0, 0, -2, 50)) as file:
      file.write(value, 1)
  store = folder.prepare(in_dir=tmp_path, out=tmp_path / 's', split='train')
  np.testing.assert_allclose(store.physical(store.frames(0))[..., 0], values, atol=1e-3)
  assert store.meta['grid']['latitude'][0] == 49 and store.meta['grid']['longitude'][-1] == 15


def test_what_pysteps_reads(tmp_path, monkeypatch):
  """A stand-in with the interface of pysteps' importers."""
  import types
  def importer(path):
    if path.endswith('3.x'):
      raise OSError('broken')
    value = np.full((6, 8), float(path[-3]))
    value[0, 0] = np.nan
    return value, None, dict(unit='mm/h')
  io = types.SimpleNamespace(get_method=lambda name, kind: importer)
  for i in range(6):
    (tmp_path / f'r2020010100{i}{i}.x').write_bytes(b'')
  with pytest.raises(StoreError, match='--pysteps needs pysteps: pip install pysteps'):
    monkeypatch.setitem(__import__('sys').modules, 'pysteps', None)
    folder_maps.pysteps(tmp_path, [], 'x', None)
  monkeypatch.setitem(__import__('sys').modules, 'pysteps', types.SimpleNamespace(io=io))
  store = folder.prepare(in_dir=tmp_path, out=tmp_path / 's', pysteps='x', on_bad='skip',
                         split='train', pattern='*.x')
  assert [(c.length, c.time) for c in store.clips] == [
      (3, '2020-01-01T00:00'), (2, '2020-01-01T00:44')]
  assert store.streams['frames'].units == 'mm/h'
  assert np.isnan(store.physical(store.frames(0))[:, 0, 0, 0]).all()
