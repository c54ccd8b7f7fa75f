"""Moving MNIST with noise on what a forecast is made from, in training only: 10 -> 10.

  python -m stp_jax.prepare noisy_mnist --in MNIST --out STORE --noise missing

Three kinds, on the first `--inputs` frames of a training clip, as OpenSTL has them: `perceptual`: a
box of 24x24 at a random place of each frame is black; `missing`: each frame is black with
probability 0.2; `dynamic`: N(0, 0.2) is added to the velocity at each step. Validation and test
clips are clean, and the clips of `moving_mnist` of the same seed (so are the digits, paths and
targets of training clips, but for `dynamic`). Noise follows from (seed, index) alone.
"""

import numpy as np

from stp_jax.data import moving_mnist
from stp_jax.data.clip_store import ClipStore

NOISES = ('perceptual', 'missing', 'dynamic')
OPTIONS = dict(
    moving_mnist.OPTIONS,
    noise=(str, 'perceptual', f'one of {" ".join(NOISES)}'),
    inputs=(int, 10, 'first frames of a clip, that are noisy'))
_BOX, _MISSING, _SPREAD = 24, 0.2, 0.2


def prepare(
    *, noise: str = 'perceptual', inputs: int = 10, seed: int = 0, length: int = 20,
    motion: str = 'clamp', **options,
) -> ClipStore:
  """As `moving_mnist.prepare`, with noise.

  Raises:
    ValueError: an unknown noise, more noisy frames than a clip has, or dynamic with mirror.
  """
  if noise not in NOISES or not 0 < inputs <= length:
    raise ValueError(f'--noise {noise} ({" ".join(NOISES)}), --inputs {inputs} (1 to --length)')
  if noise == 'dynamic' and motion != 'clamp':
    raise ValueError('--noise dynamic: with --motion clamp only')
  rng_of = lambda index: np.random.default_rng((seed, index, 1))

  def draw(frames: np.ndarray, split: str, index: int) -> np.ndarray:
    if split != 'train' or noise == 'dynamic':
      return frames
    rng = rng_of(index)
    for frame in frames[:inputs]:
      if noise == 'missing':
        frame *= np.uint8(rng.uniform() >= _MISSING)
      else:
        room = np.maximum(np.array(frame.shape[:2]) - _BOX, 0)
        row, column = rng.integers(room + 1)
        frame[row:row + _BOX, column:column + _BOX] = 0
    return frames

  def jitter(split: str, index: int) -> np.ndarray | None:
    if split != 'train' or noise != 'dynamic':
      return None
    steps = np.zeros((length, 2))
    steps[:inputs] = rng_of(index).normal(0, _SPREAD, (inputs, 2))
    return steps

  kind = moving_mnist.Kind(
      'noisy_mnist', recipe=dict(noise=noise, inputs=inputs), draw=draw, jitter=jitter,
      description=f'Moving MNIST, {noise} noise on the first {inputs} frames in training.',
      notes=(f'{noise} noise on the first {inputs} frames of training clips',))
  return moving_mnist.make(kind, seed=seed, length=length, motion=motion, **options)
