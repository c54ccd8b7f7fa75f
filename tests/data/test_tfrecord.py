"""TFRecord framing, CRC-32C and tf.train.Example, against independent arithmetic and noise."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import tfrecord
from stp_jax.data.clip_store import StoreError
from tests.data import tfrecord_bytes


def _slow_crc(data: bytes) -> int:
  value = 0xffffffff
  for byte in data:
    value ^= byte
    for _ in range(8):
      value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
  return value ^ 0xffffffff


def test_crc32c_check_value_and_rfc_3720_vectors():
  assert tfrecord.crc32c(b'123456789') == 0xe3069283
  assert tfrecord.crc32c(bytes(32)) == 0x8a9136aa
  assert tfrecord.crc32c(b'\xff' * 32) == 0x62a8ab43
  assert tfrecord.crc32c(bytes(range(32))) == 0x46dd794e
  assert tfrecord.crc32c(b'') == 0


@pytest.mark.parametrize('size', [1, 1023, 1024, 1025, 2048, 5000])
def test_crc32c_lanes_agree_with_bits(size):
  data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
  assert tfrecord.crc32c(data) == _slow_crc(data)


def test_records_and_counting(tmp_path):
  path = tmp_path / 'a'
  payloads = [b'', b'x', b'abc' * 5000]
  path.write_bytes(b''.join(map(tfrecord_bytes.record, payloads)))
  assert list(tfrecord.records(path)) == payloads
  assert len(list(tfrecord.records(path, payload=False))) == 3


def test_examples_of_all_kinds():
  features = {'a/b': [1.5, -2.0], 'n': [3, -4, 1 << 62], 's': [b'xy', b''], 'none': []}
  got = tfrecord.example(tfrecord_bytes.example(features))
  np.testing.assert_array_equal(got['a/b'], np.float32([1.5, -2]))
  np.testing.assert_array_equal(got['n'], [3, -4, 1 << 62])
  assert got['s'] == [b'xy', b''] and len(got['none']) == 0


def test_unpacked_numbers_are_read_too():
  floats = tfrecord_bytes.field(2, b''.join(b'\x0d' + struct.pack('<f', v) for v in (1, 2)))
  ints = tfrecord_bytes.field(3, b'\x08\x05\x08\x07')
  entry = lambda name, feature: tfrecord_bytes.field(
      1, tfrecord_bytes.field(1, name) + tfrecord_bytes.field(2, feature))
  got = tfrecord.example(tfrecord_bytes.field(1, entry(b'f', floats) + entry(b'i', ints)))
  assert got['f'].tolist() == [1, 2] and got['i'].tolist() == [5, 7]


@pytest.mark.parametrize('change, message', [
    (lambda b: b[:5], 'a record 0: the file ends inside'),
    (lambda b: b[:-1], 'record 1: the file ends inside'),
    (lambda b: b[:20] + b'?' + b[21:], 'record 0: damaged: the data'),
    (lambda b: b'\xff' + b[1:], 'record 0: no TFRecord file, or damaged'),
    (lambda b: b'\x1f\x8b' + b[2:], 'gzip-packed: unpack'),
    (lambda b: tfrecord_bytes.head(1 << 60) + b, 'at most'),
    (lambda b: tfrecord_bytes.head(1 << 20) + b, 'ends inside the record')])
@pytest.mark.parametrize('payload', [True, False])
def test_damaged_files(tmp_path, change, message, payload):
  whole = tfrecord_bytes.record(b'hello, hello') + tfrecord_bytes.record(b'again')
  path = tmp_path / 'a'
  path.write_bytes(change(whole))
  if 'the data' in message and not payload:
    pytest.skip('counting does not read the data')
  with pytest.raises(StoreError, match=message) as caught:
    list(tfrecord.records(path, payload))
  assert str(path) in str(caught.value)


_WHOLE = b''.join(map(tfrecord_bytes.record, [b'one' * 9, b'two', b'']))


@settings(max_examples=300, deadline=2000)
@given(st.integers(0, len(_WHOLE)), st.lists(
    st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255)), max_size=3))
def test_damage_is_an_error_or_the_same_records(tmp_path_factory, cut, flips):
  changed = bytearray(_WHOLE)
  for at, byte in flips:
    changed[at] = byte
  path = tmp_path_factory.getbasetemp() / 'a.tfrecord'
  path.write_bytes(bytes(changed[:cut]))
  got = []
  try:
    for payload in tfrecord.records(path):
      got.append(payload)
  except StoreError as error:
    assert f'record {len(got)}' in str(error)
  assert got == [b'one' * 9, b'two', b''][:len(got)]


_EXAMPLE = tfrecord_bytes.example({'0/Year': [2000.0], '0/Map': [b'ab'], 'n': [1, 300]})


@settings(max_examples=500, deadline=2000)
@given(st.one_of(st.binary(max_size=200), st.builds(
    lambda cut, at, byte: _EXAMPLE[:at] + bytes([byte]) + _EXAMPLE[at + 1:cut],
    st.integers(0, len(_EXAMPLE)), st.integers(0, len(_EXAMPLE) - 1), st.integers(0, 255))))
def test_noise_is_a_value_error_or_a_dictionary(noise):
  try:
    assert isinstance(tfrecord.example(noise), dict)
  except ValueError:
    pass
