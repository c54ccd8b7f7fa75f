"""The .Z decoder against an encoder drawn here, which the system's gzip must accept too."""

import io
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.data import ionex_file, unix_compress
from tests.data import ionex_text


def _groups(codes: list[int], width: int) -> bytes:
  """Codes of one width; the last group of eight is filled up."""
  bits = sum(code << (width * i) for i, code in enumerate(codes))
  return bits.to_bytes(width * -(-len(codes) // 8), 'little')


def compress(data: bytes, most: int = 16, clear_at: int | None = None) -> bytes:
  """LZW as the Unix program writes it; `clear_at`: the table is cleared after so many codes."""
  out = bytearray(unix_compress.MAGIC + bytes([most | 0x80]))
  table = {bytes([i]): i for i in range(256)}
  free, width, codes, prefix, written = 257, 9, [], b'', 0
  pieces = [data[i:i + 1] for i in range(len(data))]
  for piece in [*pieces, None]:
    if piece is not None and prefix + piece in table:
      prefix += piece
      continue
    if prefix:
      codes.append(table[prefix])
      written += 1
    if piece is None:
      break
    if clear_at and written % clear_at == 0:
      codes.append(256)
      out += _groups(codes, width)
      table = {bytes([i]): i for i in range(256)}
      free, width, codes, prefix = 257, 9, [], piece
      continue
    if free < 1 << most:
      table[prefix + piece] = free
      free += 1
      # the decoder is one entry behind: it widens before it reads the code after this one
      if free > 1 << width and width < most:
        out += _groups(codes, width)
        codes, width = [], width + 1
    prefix = piece
  if codes:
    bits = sum(code << (width * i) for i, code in enumerate(codes))
    out += bits.to_bytes(-(-len(codes) * width // 8), 'little')
  return bytes(out)


def _decode(packed: bytes) -> bytes:
  return unix_compress.open_compressed(io.BytesIO(packed)).read()


TEXT = ionex_text.text().encode()
CASES = {
    'one byte': (b'a', {}), 'a run': (b'a' * 5000, {}), 'text': (TEXT, {}),
    'several widths': (bytes(i * i % 251 for i in range(60000)) + TEXT * 4, {}),
    'a full table': (TEXT * 3, dict(most=10)), 'twelve bits': (TEXT * 4, dict(most=12)),
    'cleared': (TEXT, dict(clear_at=700)), 'cleared often': (TEXT, dict(clear_at=8))}


@pytest.mark.parametrize('case', CASES)
def test_decodes_what_the_encoder_packed(case):
  data, options = CASES[case]
  assert _decode(compress(data, **options)) == data


@pytest.mark.parametrize('case', CASES)
def test_the_encoder_writes_what_gzip_reads(case, tmp_path):
  if not shutil.which('gzip'):
    pytest.skip('no gzip program here to judge the test encoder')
  data, options = CASES[case]
  packed = compress(data, **options)
  done = subprocess.run(['gzip', '-dc'], input=packed, capture_output=True, check=True)
  assert done.stdout == data


def test_an_ionex_file_with_suffix_z(tmp_path):
  path = tmp_path / 'codg3230.12i.Z'
  path.write_bytes(compress(TEXT))
  assert len(ionex_file.read(path).epochs) == 13


@pytest.mark.parametrize('packed', [b'\x1f\x9d', b'\x1f\x9d\xff', b'\x1f\x9d\x89', b'\x1f\x8b\x90'])
def test_bad_headers(packed):
  with pytest.raises(ValueError, match='compress'):
    _decode(packed)


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=400))
def test_noise_never_crashes(noise):
  try:
    _decode(b'\x1f\x9d\x90' + noise)
  except ValueError as error:
    assert 'damaged' in str(error)


@settings(max_examples=100, deadline=2000)
@given(st.binary(max_size=2000), st.integers(10, 16))
def test_round_trip(data, most):
  assert _decode(compress(data, most)) == data
