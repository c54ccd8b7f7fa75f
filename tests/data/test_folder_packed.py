"""Packed values of one's own files: unsigned bytes, and all that stands for no value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import folder, folder_packed


def _file(path, values, **attributes):
  netCDF4 = pytest.importorskip('netCDF4')
  pytest.importorskip('xarray')
  with netCDF4.Dataset(path, 'w', format='NETCDF3_CLASSIC') as file:
    for name, size in zip('tyx', values.shape):
      file.createDimension(name, size)
    fill = attributes.pop('_FillValue', None)
    field = file.createVariable('z', values.dtype, ('t', 'y', 'x'), fill_value=fill)
    field.set_auto_maskandscale(False)
    field.setncatts(attributes)
    field[:] = values


def _ramp(dtype, count=6):
  return (np.arange(count * 6 * 8) % 251).reshape(count, 6, 8).astype(dtype)


@pytest.mark.parametrize('suffix', ['nc', 'h5'])
def test_unsigned_bytes_of_files_that_have_only_signed_ones(tmp_path, suffix):
  values = _ramp(np.uint8)
  values[0, 0, 0] = 255
  told = dict(_Unsigned='true', scale_factor=0.5, add_offset=-30.0, _FillValue=np.int8(-1))
  path = tmp_path / f'a.{suffix}'
  if suffix == 'nc':
    _file(path, values.view(np.int8), **told)
  else:
    with pytest.importorskip('h5py').File(path, 'w') as file:
      file['z'] = values.view(np.int8)
      file['z'].attrs.update(told)
  store = folder.prepare(in_dir=path, out=tmp_path / 's', split='train', window=2, layout='THW')
  stream = store.streams['frames']
  assert (stream.dtype, stream.missing) == ('uint8', 255)
  expected = np.where(values == 255, np.nan, values * 0.5 - 30)
  np.testing.assert_array_equal(store.physical(store.frames(0))[..., 0], expected)


@pytest.mark.parametrize('suffix', ['nc', 'h5'])
def test_all_that_stands_for_none(tmp_path, capsys, suffix):
  """Two codes, several of one attribute, and what lies outside the valid range."""
  values = _ramp(np.int16)
  none = [-99, -98, -97, 300, -5]
  values[1, 2, :5] = none
  told = dict(scale_factor=0.1, _FillValue=np.int16(-99), valid_min=np.int16(0), units='mm',
              missing_value=np.array([-98, -97], np.int16), valid_max=np.int16(260))
  path = tmp_path / f'a.{suffix}'
  if suffix == 'nc':
    _file(path, values, **told)
  else:
    with pytest.importorskip('h5py').File(path, 'w') as file:
      file['z'] = values
      file['z'].attrs.update(told)
  store = folder.prepare(in_dir=path, out=tmp_path / 's', split='train', window=2, layout='THW')
  expected = np.where(np.isin(values, none), np.nan, values * 0.1)
  np.testing.assert_allclose(store.physical(store.frames(0))[..., 0], expected, atol=1e-5)
  assert 'no value: -99, -98, -97, what lies outside 0 to 260 as stored' in capsys.readouterr().out
  # What the user says of it holds instead.
  other = folder.prepare(in_dir=path, out=tmp_path / 't', split='train', window=2,
                         layout='THW', missing='300')
  expected = np.where(values == 300, np.nan, values * 0.1)
  np.testing.assert_allclose(other.physical(other.frames(0))[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize('scale', [0.01, -0.01])
def test_limits_in_units_and_of_floats(scale):
  attributes = dict(scale_factor=np.float32(scale), add_offset=np.float32(1), valid_range=(
      np.array([0.0, 2.0], np.float32)))
  packed = folder_packed.of(attributes, np.int16)
  assert packed(np.array([-101, -100, 0, 100, 101], np.int16)).tolist() == [
      packed.missing, -100, 0, 100, packed.missing]
  of = folder_packed.of(dict(valid_max=0.1, missing_value=-9.0), np.float32)
  got = of(np.array([0.1, 0.2, -9, np.nan], np.float32))
  np.testing.assert_array_equal(got, np.array([0.1, -9, -9, np.nan], np.float32))
  assert np.isnan(folder_packed.of(dict(valid_max=1.0), np.float32)(np.float32([2.0])))[0]


@pytest.mark.parametrize('attributes', [
    {}, dict(missing_value='none'), dict(_FillValue=np.nan), dict(_Unsigned='maybe'),
    dict(missing_value=1e20), dict(valid_range=np.array([-32768, 32767], np.int16)),
    dict(valid_range=np.zeros(0)), dict(valid_range=np.array([np.nan, np.nan]))])
def test_attributes_that_say_nothing(attributes):
  packed = folder_packed.of(attributes, np.int16)
  assert packed == folder_packed.Packed('int16')


_CODES = st.lists(st.integers(-128, 127), max_size=3)


@settings(max_examples=60, deadline=None)
@given(_CODES, _CODES, st.tuples(st.integers(-128, 127), st.integers(-128, 127)).map(sorted),
       st.booleans(), st.booleans())
def test_every_byte(fill, more, limits, limited, unsigned):
  every = np.arange(-128, 128).astype(np.int8)
  attributes = dict(_FillValue=np.array(fill[:1], np.int8), missing_value=np.array(more, np.int8))
  if unsigned:
    attributes['_Unsigned'] = b'true'
    limits = sorted(np.array(limits, np.int8).view(np.uint8).tolist())
  if limited:
    attributes['valid_range'] = np.array(limits, np.uint8 if unsigned else np.int8)
  packed = folder_packed.of(attributes, np.int8)
  got = packed(every)
  true = every.view(np.uint8) if unsigned else every
  wrong = np.isin(every, [*fill[:1], *more])
  if limited:
    wrong |= (true < limits[0]) | (true > limits[1])
  assert got.dtype == true.dtype
  missing = np.zeros(256, bool) if packed.missing is None else got == packed.missing
  np.testing.assert_array_equal(missing, wrong)
  np.testing.assert_array_equal(got[~wrong], true[~wrong])
