"""Own files that differ from each other: packings, grids, times, and arrays with time last."""

import re

import numpy as np
import pytest

from stp_jax import prepare as cli
from stp_jax.data import (
    folder,
    folder_clips,
    folder_layout,
    folder_packed,
    folder_packing,
    folder_times,
)
from stp_jax.data.clip_store import StoreError
from tests.data import own_frames

_LAT, _LON = np.linspace(50, 45, 6), np.arange(8.0)


def _field(seed=0, count=4):
  return np.random.default_rng(seed).integers(0, 500, (count, 6, 8)) / 10.0


def _packed(path, values, start, scale=0.1, offset=0.0, fill=-32767, lat=_LAT, lon=_LON,
            times=None, **attributes):
  """A NetCDF of int16 by a packing of its own; NaN is `fill`."""
  xarray = pytest.importorskip('xarray')
  pytest.importorskip('netCDF4')
  raw = np.where(np.isnan(values), fill, np.rint((np.nan_to_num(values) - offset) / scale))
  hours = np.datetime64('2020-01-01T00', 'ns') + (start + np.arange(len(values))).astype('m8[h]')
  path.parent.mkdir(parents=True, exist_ok=True)
  xarray.Dataset(
      dict(t2m=(('time', 'latitude', 'longitude'), raw.astype(np.int16), {
          'scale_factor': scale, 'add_offset': offset, '_FillValue': np.int16(fill),
          'units': 'K', **attributes})),
      dict(time=hours if times is None else times, latitude=lat, longitude=lon)).to_netcdf(path)


def _physical(store):
  return np.concatenate([store.physical(store.frames(i)) for i in range(len(store.clips))])[..., 0]


def test_every_netcdf_is_decoded_by_its_own_packing(tmp_path, capsys):
  one, two = _field(0), _field(1)
  one[0, 0, 0] = two[1, 2, 3] = np.nan
  _packed(tmp_path / 'in' / 'a.nc', one, 0)
  _packed(tmp_path / 'in' / 'b.nc', two, 4, 0.05, 25.0, fill=-999)
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train')
  np.testing.assert_allclose(_physical(store), np.concatenate([one, two]), atol=1e-3)
  text = capsys.readouterr().out
  assert 'packed in 2 ways (a.nc: scale_factor 0.1' in text and 'b.nc: scale_factor 0.05' in text
  assert 'values: int16 of the files' in text and store.clips[0].length == 8
  kept = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 't', split='train', keep_float=True)
  np.testing.assert_allclose(_physical(kept), np.concatenate([one, two]), atol=1e-5)
  # A value that is told to mean none replaces what files say, before it is decoded.
  told = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 'u', split='train',
                        missing='-32767')
  assert np.isnan(_physical(told)).sum() == 1


def test_every_hdf5_is_decoded_by_its_own_packing(tmp_path):
  h5py = pytest.importorskip('h5py')
  values = _field()
  for i, value in enumerate(values):
    with h5py.File(tmp_path / f'R_2020010100{i}0.h5', 'w') as file:
      scale = 0.1 if i % 2 else 0.05
      rain = file.create_dataset('rain', data=np.rint(value / scale).astype(np.uint16))
      rain[0, 0] = rain.attrs['_FillValue'] = 65535 - i % 2
      rain.attrs['scale_factor'] = scale
  store = folder.prepare(in_dir=tmp_path, out=tmp_path / 's', split='train')
  values[:, 0, 0] = np.nan
  np.testing.assert_allclose(_physical(store), values, atol=1e-3)


def test_files_of_one_packing_keep_their_integers(tmp_path):
  values = _field(0, 8)
  for i in (0, 4):
    _packed(tmp_path / 'in' / f'{i}.nc', values[i:i + 4], i)
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train')
  assert store.streams['frames'].scale == 0.1 and 'files' not in store.meta['card']['facts']
  np.testing.assert_allclose(_physical(store), values, atol=1e-5)


def test_what_attributes_say_of_values():
  attributes = {'_FillValue': np.int8(-1), 'missing_value': [np.int8(-2)], '_Unsigned': 'true'}
  packed = folder_packed.of(attributes, np.dtype(np.int8))
  frame = packed(np.array([[0, 127, -128, -1, -2]], np.int8))
  told = folder_packing.packing(packed.told(attributes))
  np.testing.assert_array_equal(told.decoded(frame), [[0, 127, 128, np.nan, np.nan]])
  assert folder_packing.packing({'_FillValue': np.nan}) == folder_packing.Packing()


@pytest.mark.parametrize('axis', [1, 2])
def test_a_grid_that_is_reversed_is_turned(tmp_path, axis):
  one, two = _field(0), _field(1)
  _packed(tmp_path / 'in' / 'a.nc', one, 0)
  turned = dict(lat=_LAT[::-1]) if axis == 1 else dict(lon=_LON[::-1])
  _packed(tmp_path / 'in' / 'b.nc', np.flip(two, axis), 4, **turned)
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train')
  np.testing.assert_allclose(_physical(store), np.concatenate([one, two]), atol=1e-3)
  assert store.meta['grid']['latitude'][0] == 50 and store.meta['grid']['longitude'][0] == 0


@pytest.mark.parametrize('change, message', [
    (dict(lon=_LON + 180), r'b.nc: columns lie at 180 to 187, those of a.nc at 0 to 7: another gr'),
    (dict(lat=_LAT[::-1] + 0.2), r'b.nc: rows lie at 45.2 to 50.2, those of a.nc at 50 to 45'),
    (dict(units='degC'), r'b.nc: values in degC, but a.nc has K'),
    (dict(lon=_LON + 360), '')])
def test_another_grid_is_refused(tmp_path, capsys, change, message):
  _packed(tmp_path / 'in' / 'a.nc', _field(0), 0)
  _packed(tmp_path / 'in' / 'b.nc', _field(1), 4, **change)
  command = ['folder', '--in', str(tmp_path / 'in'), '--out', str(tmp_path / 's'), '--split',
             'train']
  assert cli.main(command) == bool(message)
  assert re.search(message, capsys.readouterr().err) and bool(message) != (tmp_path / 's').exists()


def test_a_file_that_tells_no_coordinates_is_named(tmp_path, capsys):
  xarray = pytest.importorskip('xarray')
  _packed(tmp_path / 'in' / 'a.nc', _field(0), 0)
  xarray.Dataset(dict(t2m=(('time', 'latitude', 'longitude'), _field(1)))).to_netcdf(
      tmp_path / 'in' / 'b.nc')
  folder.prepare(in_dir=tmp_path / 'in', check=True)
  text = capsys.readouterr().out
  assert '1 files tell no coordinates (b.nc)' in text
  assert '1 of 2 clips have no times (b.nc)' in text


def test_geotiffs_that_differ(tmp_path):
  rasterio = pytest.importorskip('rasterio')
  values = _field(0, 3)
  for i, value in enumerate(values):
    south = i == 1
    scale = 0.05 if i else 0.1
    transform = rasterio.Affine(2, 0, 0, 0, 2, 38) if south else rasterio.Affine(
        2, 0, 20 if i == 2 else 0, 0, -2, 50)
    with rasterio.open(tmp_path / f'x{i}.tif', 'w', driver='GTiff', width=8, height=6, count=1,
                       dtype='int16', crs='EPSG:4326', transform=transform) as file:
      file.write(np.rint(value[::-1] if south else value).astype(np.int16), 1)
      file.scales = [scale]
  with pytest.raises(StoreError, match=r'x2\.tif: columns lie at 21 to 35, those of x0'):
    folder.prepare(in_dir=tmp_path, out=tmp_path / 's', split='train')
  store = folder.prepare(in_dir=tmp_path, out=tmp_path / 's', split='train', pattern='x[01].tif')
  np.testing.assert_allclose(
      _physical(store), np.rint(values[:2]) * np.array([0.1, 0.05])[:, None, None], atol=1e-3)


@pytest.mark.parametrize('order', [range(7, -1, -1), (3, 1, 0, 2, 7, 6, 4, 5)])
def test_frames_come_in_order_of_time(tmp_path, order):
  values = _field(0, 8)
  hours = np.datetime64('2020-01-01T00', 'ns') + np.arange(8).astype('m8[h]')
  order = list(order)
  _packed(tmp_path / 'a.nc', values[order], 0, times=hours[order])
  store = folder.prepare(in_dir=tmp_path / 'a.nc', out=tmp_path / 's', split='train')
  assert [(c.length, c.time) for c in store.clips] == [(8, '2020-01-01T00:00')]
  np.testing.assert_allclose(_physical(store), values, atol=1e-3)


def test_a_time_that_is_there_twice_is_refused(tmp_path):
  hours = np.datetime64('2020-01-01T00', 'ns') + np.array([0, 1, 2, 1]).astype('m8[h]')
  _packed(tmp_path / 'a.nc', _field(), 0, times=hours)
  with pytest.raises(StoreError, match=r'a.nc: frames 1 and 3 have one time, 2020-01-01T01:00:00'):
    folder.prepare(in_dir=tmp_path / 'a.nc', out=tmp_path / 's')


def _images(root, name, times):
  frames = own_frames.film(0, len(times), (16, 16))
  for time, frame in zip(times, frames):
    text = str(np.datetime64(time, 's')).replace(':', '').replace('-', '')
    own_frames.png(root / name / f'r_{text}.png', frame)


def _minutes(start, count, step=5):
  return np.datetime64('2020-01-01T00:00:00') + (start + step * np.arange(count)).astype('m8[m]')


@pytest.mark.parametrize('extra, note', [
    ('dated', ''), ('undated', 'no clock: 1 of 3 clips have no times (x)')])
def test_one_clip_does_not_hide_the_gaps_of_others(tmp_path, capsys, extra, note):
  for day in (0, 1):
    times = np.concatenate([_minutes(1440 * day, 4), _minutes(1440 * day + 300, 5)])
    _images(tmp_path / 'in', f'day{day}', times)
  if extra == 'dated':
    _images(tmp_path / 'in', 'x', _minutes(9000, 1))
  else:
    own_frames.png(tmp_path / 'in' / 'x' / 'shot.png', own_frames.film(0, 1, (16, 16))[0])
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train', window=3)
  assert [c.length for c in store.clips] == [4, 5, 4, 5, 1]
  assert (store.clips[0].time is None) == (extra == 'undated')
  text = capsys.readouterr().out
  assert note in text
  assert f'gaps: 2{"" if extra == "dated" else " in the times"}, 112 frames' in text


def test_seconds_have_gaps_without_a_clock(tmp_path, capsys):
  start = np.datetime64('2020-01-01T00:00:00')
  _images(tmp_path / 'in', 'a', start + np.array([0, 10, 20, 31, 41, 80, 90, 100]))
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train', window=3)
  assert [c.length for c in store.clips] == [5, 3]
  text = capsys.readouterr().out
  assert 'no clock: frames 10 s apart' in text and 'gaps: 1 in the times, 3 frames' in text


def test_parts_of_a_second_have_gaps_too(tmp_path, capsys):
  moments = 100 * np.array([0, 4, 8, 12, 40, 44, 48, 52])
  times = np.datetime64('2020-01-01', 'ns') + moments.astype('m8[ms]')
  _packed(tmp_path / 'a.nc', _field(0, 8), 0, times=times)
  store = folder.prepare(in_dir=tmp_path / 'a.nc', out=tmp_path / 's', split='train', window=3)
  assert [(c.length, c.time) for c in store.clips] == [(4, None)] * 2
  text = capsys.readouterr().out
  assert 'less than a second apart' in text and 'gaps: 1 in the times, 6 frames' in text


def test_months_have_gaps_without_a_clock():
  months = np.array(['2020-06', '2020-07', '2020-08', '2021-06', '2021-07', '2021-08'], 'M8[s]')
  assert folder_times.time_gaps(months) == {3: 9}
  whole = np.arange('2020-01', '2024-01', dtype='M8[M]').astype('M8[s]')
  assert folder_times.time_gaps(whole) == {}


def test_more_times_in_names():
  one = folder_clips.times_of(['r_202008252400.png'])
  assert one.astype(str).tolist() == ['2020-08-26T00:00:00']
  got = folder_clips.times_of(['202008252355', '202008252400', '202008260005'])
  assert np.diff(got).astype(int).tolist() == [300, 300]
  assert folder_clips.times_of(['202008252500']) is None
  assert folder_clips.times_of(['202008252400', '202008260000']) is None


def _moving(shape=(16, 16), count=9):
  """Rough frames that change little; `[T, H, W]`."""
  rng = np.random.default_rng(0)
  return rng.random(shape) + 0.01 * rng.random((count, *shape))


@pytest.mark.parametrize('letters, shape, count', [
    ('HWT', (16, 16), 9), ('THW', (12, 20), 12), ('NHWT', (16, 16), 9), ('NTHW', (12, 20), 12)])
def test_time_as_the_last_axis_is_seen(tmp_path, capsys, letters, shape, count):
  frames = _moving(shape, count)
  if 'N' in letters:
    frames = np.stack([np.roll(frames, 3 * i, 1) for i in range(5)])
    array = np.einsum(f'NTHW->{letters}', frames)
  else:
    array = np.einsum(f'THW->{letters}', frames)
  np.save(tmp_path / 'a.npy', array)
  store = folder.prepare(in_dir=tmp_path / 'a.npy', out=tmp_path / 's', split='train')
  assert f'arrays: {letters}, guessed' in capsys.readouterr().out
  np.testing.assert_allclose(_physical(store), frames.reshape(-1, *shape), atol=1e-3)


def test_time_that_cannot_be_told_is_asked_for():
  noise = np.random.default_rng(0).random((5, 16, 16, 9))
  with pytest.raises(StoreError, match='tell with --layout HWT or THW'):
    folder_layout.guess(noise[0], 'a')
  with pytest.raises(StoreError, match='tell with --layout NHWT, NTHW or THWC'):
    folder_layout.guess(noise, 'a')
  for index in range(4):  # time last, of shapes that move fast
    film = own_frames.film(index, 20, (64, 64))[..., 0]
    assert folder_layout.guess(film.transpose(1, 2, 0), 'a') == 'HWT'
  large = np.broadcast_to(_moving((80, 80), 1)[0][..., None], (80, 80, 300))
  assert folder_layout.guess(large, 'a') == 'HWT'
