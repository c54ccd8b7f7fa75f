"""Writes TFRecord files and tf.train.Example messages for the tests."""

import struct

import numpy as np

from stp_jax.data import tfrecord

NAMES = ('Year', 'F107', 'R', 'Day', 'Hour', 'Month', 'Date', 'Kp', 'Ap', 'Dst', 'PlasmaSpeed',
         'FieldMagnitude', 'SigmaB', 'ProtonDensity', 'FlowPressure', 'ElectricField',
         'MagnetosonicMach')


def varint(value: int) -> bytes:
  value &= (1 << 64) - 1
  out = bytearray()
  while value > 127:
    out.append(value & 127 | 128)
    value >>= 7
  return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
  return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict) -> bytes:
  """bytes, float or int lists by name."""
  entries = b''
  for name, values in features.items():
    if values and isinstance(values[0], bytes):
      feature = field(1, b''.join(field(1, v) for v in values))
    elif values and isinstance(values[0], int):
      feature = field(3, field(1, b''.join(map(varint, values))))
    else:
      feature = field(2, field(1, np.asarray(values, '<f4').tobytes()))
    entries += field(1, field(1, name.encode()) + field(2, feature))
  return field(1, entries)


def head(size: int) -> bytes:
  packed = struct.pack('<Q', size)
  return packed + struct.pack('<I', tfrecord.masked(tfrecord.crc32c(packed)))


def record(payload: bytes) -> bytes:
  return head(len(payload)) + payload + struct.pack('<I', tfrecord.masked(tfrecord.crc32c(payload)))


def sequence(first: str, length: int, seed: int = 0, hours: float = 2.0) -> dict:
  """Features of one iono_electron record whose clock runs on."""
  random = np.random.default_rng(seed)
  features = {}
  for t in range(length):
    moment = np.datetime64(first, 'm') + np.timedelta64(round(60 * hours * t), 'm')
    day = moment.astype('M8[D]')
    date = day.item()
    values = dict.fromkeys(NAMES, 0.0) | {n: float(random.uniform(0, 90)) for n in NAMES}
    values |= dict(Year=date.year, Month=date.month, Date=date.day, Day=date.timetuple().tm_yday,
                   Hour=float((moment - day) / np.timedelta64(1, 'h')))
    features |= {f'{t}/{n}': [float(v)] for n, v in values.items()}
    features[f'{t}/Map'] = [random.integers(0, 2500, (72, 72)).astype('<u2').tobytes()]
  return features
