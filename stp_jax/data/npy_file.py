"""Arrays of .npy files that nobody vouches for."""

import tokenize
import warnings

import numpy as np

# What NumPy's reader of headers lets through besides ValueError: it takes a damaged header for one
# of Python 2 and hands it to Python's tokenizer.
HEADER_ERRORS = (tokenize.TokenError, SyntaxError, OverflowError, MemoryError, RecursionError,
                 TypeError)


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
