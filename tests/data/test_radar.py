"""Radar rain: files of KNMI and BoM (made here in their layout, and real ones), gaps, splits."""

import numpy as np
import pytest

from stp_jax import prepare as cli
from stp_jax.data import clip_writer, radar, radar_files, resize
from stp_jax.data.clip_store import StoreError, assert_disjoint
from tests.data.knmi_files import field as _field
from tests.data.knmi_files import write as _knmi

netCDF4 = pytest.importorskip('netCDF4')


def _bom(folder, time, *, size=(6, 6), south_first=False, seed=0):
  """A file in BoM's layout; returns its pixels, north first."""
  end = np.datetime64(time, 's').astype(np.int64)
  raw = _field(seed, size).astype(np.int16)
  raw[0, 0] = -1
  y = np.arange(size[0])[::-1] * 0.5
  with netCDF4.Dataset(folder / f'66_{int(end)}.nc', 'w') as file:
    for name, count in zip('yx', size):
      file.createDimension(name, count)
    file.createVariable('y', 'f8', ('y',))[:] = y[::-1] if south_first else y
    file.createVariable('x', 'f8', ('x',))[:] = np.arange(size[1]) * 0.5
    for name, value in (('valid_time', end), ('start_time', end - 600)):
      file.createVariable(name, 'i8', ())[...] = value
    rain = file.createVariable('precipitation', 'i2', ('y', 'x'), fill_value=np.int16(-1))
    rain.set_auto_maskandscale(False)
    rain.scale_factor, rain.add_offset = 0.05, 0.0
    rain[:] = raw[::-1] if south_first else raw
  return raw


def _series(folder, make, count, minutes, start='2010-08-26T00:00', skip=()):
  folder.mkdir()
  times = [np.datetime64(start, 'm') + np.timedelta64(i * minutes, 'm') for i in range(count)]
  return [make(folder, t, seed=i) for i, t in enumerate(times) if i not in skip]


def test_native_integers_times_and_splits_in_order(tmp_path):
  fields = _series(tmp_path / 'in', _knmi, 10, 5)
  store = radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='time:0.6,0.2,0.2',
                        window=2)
  stream = store.streams['frames']
  assert (stream.shape, stream.dtype, stream.scale, stream.units, stream.missing) == (
      (8, 12, 1), 'uint16', 0.01, 'mm', 65535)
  assert [(c.split, c.length, c.time) for c in store.clips] == [
      ('train', 6, '2010-08-26T00:00'), ('validation', 2, '2010-08-26T00:30'),
      ('test', 2, '2010-08-26T00:40')]
  np.testing.assert_array_equal(
      np.concatenate([store.frames(i) for i in range(3)])[..., 0], fields)
  assert store.meta['normalisation'] == {'divisor': 5.0, 'maximum': 5.0}  # 60 mm/h
  assert_disjoint([store], ['train'])
  assert str(store.clips[1].times(store.cadence_hours)[1]) == '2010-08-26T00:35'
  assert np.isnan(store.physical(store.frames(0))[0, 0, -1, 0])


def test_a_gap_ends_a_clip_and_an_unreadable_file_is_one(tmp_path, capsys):
  _series(tmp_path / 'in', _knmi, 8, 5, skip=(3,))
  bad = sorted((tmp_path / 'in').iterdir())[-2]
  bad.write_bytes(b'no radar')
  with pytest.raises(StoreError, match=rf'{bad.name}: unreadable.*--on-bad skip'):
    radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train')
  store = radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train', on_bad='skip')
  assert [c.length for c in store.clips] == [3, 2, 1]
  said = capsys.readouterr()
  assert 'gaps: 2, 2 maps' in said.out and 'files skipped: 1' in said.out
  assert f'skipped: {tmp_path}' in said.err


def test_bom_is_stored_alike_north_first(tmp_path):
  for name, south_first in (('a', False), ('b', True)):
    fields = _series(tmp_path / name, lambda *a, s=south_first, **k: _bom(*a, south_first=s, **k),
                     2, 10)
    store = radar.prepare(in_dir=tmp_path / name, out=tmp_path / f's{name}', split='train')
    raw = store.frames(0)[..., 0]
    np.testing.assert_array_equal(raw[:, 1:], np.array(fields)[:, 1:])
    assert raw[0, 0, 0] == 65535 and store.streams['frames'].scale == 0.05
    assert round(store.cadence_hours * 60) == 10 and store.meta['normalisation']['divisor'] == 10


def test_crop_block_and_size(tmp_path):
  fields = _series(tmp_path / 'in', _knmi, 2, 5)
  store = radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train', block=2,
                        crop='2:8,4:12')
  mm = store.physical(store.frames(0))[0, ..., 0]
  assert mm.shape == (3, 4) and np.isnan(mm[:, -1]).all()
  part = fields[0][2:8, 4:10].astype(float).reshape(3, 2, 3, 2).mean((1, 3)) * 0.01
  np.testing.assert_allclose(mm[:, :3], part, atol=0.0011)
  # Pixels know where they are: 2 km wide, from row 2 and column 4 of the file's.
  grid = store.meta['grid']
  assert grid['x'] == [5, 7, 9, 11] and grid['y'] == [-3653, -3655, -3657]
  assert (grid['xy_units'], grid['pixel_km']) == ('km', 2) and '+proj=stere' in grid['projection']
  sized = radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 't', split='train', size='16x24')
  assert sized.frames(0).shape == (2, 16, 24, 1)
  raw = np.full((1, 4, 4, 1), 65535, np.uint16)
  raw[:, :, :2] = 100
  halved = resize.frames(raw, (2, 2), 65535)[0, ..., 0]
  assert (halved[:, 0] == 100).all() and (halved[:, 1] == 65535).all()


def test_reflectivity(tmp_path):
  fields = _series(tmp_path / 'in', _knmi, 2, 5)
  store = radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train', values='dbz')
  dbz = store.physical(store.frames(0))[0, ..., 0]
  rate = fields[0][:, :-2] * 0.01 * 12  # mm/h
  with np.errstate(divide='ignore'):
    expected = np.clip(10 * np.log10(200 * rate**1.6), 0, 70)
  np.testing.assert_allclose(dbz[:, :-2], expected, atol=0.006)
  assert np.isnan(dbz[:, -2:]).all() and store.meta['normalisation']['divisor'] == 70


def test_packed_means(tmp_path):
  rain = np.random.default_rng(0).random((6, 8, 8)).astype(np.float16)
  rain[0, 0, 0] = np.nan
  times = np.datetime64('2020-10-31T00:00', 's').astype(np.int64) + 600 * np.arange(6)
  np.savez(tmp_path / 'bom_8.npz', mm_per_10min=rain, valid_time_unix=times)
  store = radar.prepare(in_dir=tmp_path / 'bom_8.npz', out=tmp_path / 's', split='train')
  assert store.name == 'radar_bom' and store.clips[0].time == '2020-10-31T00:00'
  np.testing.assert_allclose(store.physical(store.frames(0))[..., 0], rain, atol=0.0011)


def test_long_series_are_cut_and_a_killed_run_continues(tmp_path, monkeypatch):
  _series(tmp_path / 'in', _knmi, 7, 5)
  monkeypatch.setattr(radar, '_CLIP_BYTES', 3 * 8 * 12 * 2)
  monkeypatch.setattr(clip_writer, '_SHARD_BYTES', 1)
  options = dict(in_dir=tmp_path / 'in', split='train', window=2)
  read = radar_files.read

  def dying(path, network, pixels=True):
    if pixels and '0025' in path.name:
      raise KeyboardInterrupt
    return read(path, network, pixels)
  with monkeypatch.context() as patch:
    patch.setattr(radar_files, 'read', dying)
    with pytest.raises(KeyboardInterrupt):
      radar.prepare(out=tmp_path / 'a', **options)
  resumed = radar.prepare(out=tmp_path / 'a', **options)
  whole = radar.prepare(out=tmp_path / 'b', **options)
  assert [c.length for c in whole.clips] == [3, 3, 1] and list(resumed.clips) == list(whole.clips)
  np.testing.assert_array_equal(resumed.frames(1), whole.frames(1))


def _floats(folder, values, fill=np.nan, scale=None, **attributes):
  """A file of BoM whose rain is float, in mm, or in units of a scale."""
  _bom(folder, '2010-08-26T00:00', size=values.shape)
  path, = folder.iterdir()
  with netCDF4.Dataset(path, 'a') as file:
    file.renameVariable('precipitation', 'before')
    rain = file.createVariable('precipitation', 'f4', ('y', 'x'), fill_value=fill)
    rain.set_auto_maskandscale(False)
    rain.setncatts({**attributes, **({} if scale is None else dict(scale_factor=scale))})
    rain[:] = values
  return path


@pytest.mark.parametrize('scale', [None, 0.5])
def test_rain_in_floats(tmp_path, capsys, scale):
  """Drizzle is not dry, and what is missing is not either."""
  (tmp_path / 'in').mkdir()
  values = np.linspace(0, 2.9, 36).reshape(6, 6).astype(np.float32)
  values[0, :4] = np.nan, -9, 9e36, -1
  _floats(tmp_path / 'in', values, 9e36, scale, missing_value=np.float32([-9]))
  store = radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train', window=2)
  values[0, :4] = np.nan
  np.testing.assert_allclose(store.physical(store.frames(0))[0, ..., 0], values * (scale or 1),
                             atol=0.00101)
  assert 'note: floats of the files are kept in steps of 0.002 mm' in capsys.readouterr().out


def test_rain_that_16_bits_do_not_hold(tmp_path):
  (tmp_path / 'in').mkdir()
  _floats(tmp_path / 'in', np.full((6, 6), 1e9, np.float32))
  with pytest.raises(StoreError, match=r'nc: precipitation of 1e\+09 mm, more than 16 bits hold'):
    radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='train')


def _two_sizes(folder):
  _knmi(folder, '2010-08-26T00:10', size=(4, 4))


def _twice(folder):
  _knmi(folder, '2010-08-26T00:05').tofile(folder / 'x')
  (folder / 'copy.h5').write_bytes((folder / 'RAD_NL25_2010-08-26T0005.h5').read_bytes())


@pytest.mark.parametrize('spoil, options, message', [
    (_two_sizes, {}, r'4x4 pixels, but RAD_NL25_\S+ has 8x12'),
    (_twice, {}, r'two maps of 2010-08-26T00:05'),
    (lambda p: _bom(p, '2010-08-26'), {}, r'holds files of knmi and bom; choose with --network'),
    (lambda p: _knmi(p, '2010-08-26T00:10', formula='GEO=0.5*PV-32.0'), {}, r'GEO=a\*PV expected'),
    (lambda p: None, dict(crop='0:9,0:4'), r'--crop: ends at 9, 4, but RAD\S+ has 8x12'),
    (lambda p: None, dict(crop='3'), r'--crop 3: write ROW:ROW'),
    (lambda p: None, dict(network='bom'), r'no file of bom among its 2 files'),
    (lambda p: None, dict(block=9), r'--block 9: larger than the 8x12 pixels'),
    (lambda p: None, dict(values='mmh'), r'--values mmh')])
def test_bad_input_is_one_line(tmp_path, spoil, options, message):
  _series(tmp_path / 'in', _knmi, 2, 5)
  spoil(tmp_path / 'in')
  with pytest.raises(ValueError, match=message):
    radar.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', **options)
  assert not (tmp_path / 's').exists() and not list(tmp_path.glob('*.partial'))


@pytest.mark.parametrize('name, scale', [('knmi', 0.01), ('bom', 0.05)])
def test_real_files(realdata, tmp_path, name, scale):
  folder = tmp_path / 'in'
  folder.mkdir()
  for path in sorted((realdata / 'radar' / name).iterdir())[:3]:
    (folder / path.name).symlink_to(path)
  assert cli.main(['radar', '--in', str(folder), '--out', str(tmp_path / 'native'), '--split',
                   'train']) == 0
  store = radar.prepare(in_dir=folder, out=tmp_path / 's', split='train', size='128', values='dbz')
  native = radar.ClipStore(tmp_path / 'native')
  assert native.streams['frames'].scale == scale and native.clips[0].length == 3
  assert store.frames(0).shape == (3, 128, 128, 1)
  # Out of range of the two radars is missing, not dry: KNMI's composite is 3/4 such pixels.
  missing = np.isnan(native.physical(native.frames(0))).mean()
  assert 0.7 < missing < 0.8 if name == 'knmi' else missing < 0.01
