"""The axis alphabet and the few shared types.

Every shape in a docstring is written in these letters:

  B  examples in a batch            T  time steps of a window (input and forecast together)
  H  rows (latitude, north first)   W  columns (longitude, west first)
  C  channels of a frame            F  forcings as stored, one scalar per frame
  A  forcings as fed to a model, one plane per frame (A for auxiliary channels)
  P  patch side in pixels           h, w  H / P, W / P
  L  sequence length, D features, N state size (selective scan)

Arrays are channels last (`[B, T, H, W, C]`), convolution kernels `[k, k, in, out]`.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import numpy as np

Array = jax.Array | np.ndarray
Batch = Mapping[str, Array]
PyTree = Any
Variables = Mapping[str, PyTree]


@flax.struct.dataclass
class Output:
  """What every forecast model returns.

  Attributes:
    prediction: `[B, T_out, H, W, C]`, the frames after the input, in the units of the input.
    context: `[B, K, H, W, C]`, one-step predictions of the last K input frames, K = T_in - 1 for
      most recurrent models; None for models that predict whole chunks.
    terms: per-example auxiliary losses `[B]`, by name; the config weights them.
  """
  prediction: Array
  context: Array | None = None
  terms: Mapping[str, Array] = flax.struct.field(default_factory=dict)
