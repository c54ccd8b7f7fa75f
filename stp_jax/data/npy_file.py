"""Arrays of .npy files that nobody vouches for."""

import io
import struct
import tokenize
import warnings

import numpy as np

# What NumPy's reader of headers lets through besides ValueError: it takes a damaged header for one
# of Python 2 and hands it to Python's tokenizer.
HEADER_ERRORS = (tokenize.TokenError, SyntaxError, OverflowError, MemoryError, RecursionError,
                 TypeError)
_MOST = 10_000  # characters that NumPy takes for a header


def read_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Shape, Fortran order and type that the array in an open file claims; reads its header alone.

  Raises:
    ValueError and HEADER_ERRORS: no array, one of an unknown version, a damaged header.
  """
  version = np.lib.format.read_magic(file)
  if version not in ((1, 0), (2, 0), (3, 0)):
    raise ValueError(f'version {version[0]}.{version[1]} of the format; 1.0 to 3.0 are read')
  kind = '<H' if version == (1, 0) else '<I'
  length = file.read(struct.calcsize(kind))
  if len(length) < struct.calcsize(kind):
    raise ValueError('it ends in its header')
  size, = struct.unpack(kind, length)
  if size > _MOST:  # NumPy reads it before it looks at its length
    raise ValueError(f'a header of {size:,} bytes; at most {_MOST:,} are read')
  rest = io.BytesIO(length + file.read(size))
  # 3.0 differs from 2.0 in the characters that names of fields may have.
  return (np.lib.format.read_array_header_1_0 if version == (1, 0)
          else np.lib.format.read_array_header_2_0)(rest)


def load(path, mmap_mode: str | None = 'r') -> np.ndarray:
  """A memory map of an .npy file, or the array; no pickles.

  Raises:
    OSError, EOFError: as NumPy. ValueError: anything else that is wrong with it.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', UserWarning)  # of headers that Python 2 wrote
      return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
  except HEADER_ERRORS as error:
    raise ValueError(f'a damaged header ({type(error).__name__})') from error
  except ValueError as error:  # some of NumPy's have several lines, of advice for other files
    raise ValueError((str(error).splitlines() or ['not an array'])[0]) from error
