"""LPIPS, a perceptual distance of frames (Zhang et al. 2018, arXiv:1801.03924): AlexNet, v0.1.

Differences of AlexNet's five feature maps, each vector of channels brought to length 1, weighted by
the linear heads of version 0.1 and averaged over positions. 0 for equal frames; less is better.
The weights are yours to supply, once (nothing is downloaded): see `stp_jax.convert.lpips`.
"""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.data import archives
from stp_jax.models.layers.conv import convolution
from stp_jax.typing import Array

# (kernel size, stride, padding, channels, max-pooled first) of AlexNet's convolutions.
LAYERS = ((11, 4, 2, 64, False), (5, 1, 2, 192, True), (3, 1, 1, 384, True), (3, 1, 1, 256, False),
          (3, 1, 1, 256, False))
SMALLEST = 31  # pixels: below, a feature map would be empty
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
_EPSILON = 1e-10

Weights = Mapping[str, Array]


class WeightsError(ValueError):
  """Weights that are not there, or not these; one line with the cure."""


def shapes() -> dict[str, tuple[int, ...]]:
  """The arrays of the weights: `conv<i>/kernel`, `conv<i>/bias`, `head<i>`, i = 1 to 5."""
  result, inputs = {}, 3
  for i, (size, _, _, features, _) in enumerate(LAYERS, 1):
    result |= {f'conv{i}/kernel': (size, size, inputs, features), f'conv{i}/bias': (features,),
               f'head{i}': (features,)}
    inputs = features
  return result


def load(path: str | os.PathLike | None) -> dict[str, np.ndarray]:
  """Weights from an `.npz` of `stp_jax.convert lpips`.

  Raises:
    WeightsError: no path, no such file, or another content.
  """
  make = ('python -m stp_jax.convert lpips --alexnet=alexnet-owt-7be5be79.pth --heads=alex.pth '
          '--out=lpips.npz')
  if not path:
    raise WeightsError(f'LPIPS needs the weights of AlexNet and of its heads, which you supply: '
                       f'{make}')
  if not os.path.isfile(path):
    raise WeightsError(f'{path}: no such file; LPIPS needs its weights: {make}')
  try:
    archives.check_npz(path)
    with np.load(path, allow_pickle=False) as file:
      weights = dict(file)
  except archives.ERRORS as error:
    raise WeightsError(f'{path}: not an .npz of arrays; make it by {make}') from error
  for name, shape in shapes().items():
    if name not in weights or weights[name].shape != shape:
      there = list(weights[name].shape) if name in weights else 'missing'
      raise WeightsError(f'{path}: {name} is {there}, expected {list(shape)}; make it by {make}')
  return {name: weights[name].astype(np.float32) for name in shapes()}


def _features(weights: Weights, x: Array) -> list[Array]:
  """AlexNet's maps behind each ReLU, of `[N, H, W, 3]`."""
  maps = []
  for i, (_, stride, padding, _, pooled) in enumerate(LAYERS, 1):
    if pooled:
      x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), 'VALID')
    x = jax.nn.relu(weights[f'conv{i}/bias'] + convolution(
        x, jnp.asarray(weights[f'conv{i}/kernel']), stride=stride, padding=((padding,) * 2,) * 2))
    maps.append(x)
  return maps


def lpips(
    weights: Weights, prediction: Array, truth: Array, valid: Array | None = None, *,
    protocol: str = 'standard',
) -> Array:
  """LPIPS per frame, float32 `[B, T]`.

  Args:
    weights: of `load`.
    prediction, truth: `[B, T, H, W, C]` in 0..1, C = 1 (repeated) or 3 (RGB), sides of at least 31.
    valid: pixels to compare, broadcastable to the frames; others count as equal (black in both).
    protocol: standard: the network sees 2 x - 1, in -1..1 as it was trained. upstream: 510 x - 1,
      as GS2PM's tables were made: frames were scaled to 0..255 twice, so that nearly all that the
      network sees lies far outside its range.

  Raises:
    ValueError: another shape or protocol.
  """
  if protocol not in ('standard', 'upstream'):
    raise ValueError(f'lpips protocol {protocol!r}: standard or upstream')
  *_, height, width, channels = prediction.shape
  if prediction.shape != truth.shape or prediction.ndim != 5 or channels not in (1, 3):
    raise ValueError(f'lpips: {prediction.shape} and {truth.shape}; both [B, T, H, W, 1 or 3]')
  if min(height, width) < SMALLEST:
    raise ValueError(f'lpips: frames of {height}x{width}; at least {SMALLEST}x{SMALLEST}')
  gain = 2.0 if protocol == 'standard' else 510.0

  def seen(x):
    x = x.astype(jnp.float32)
    x = x if valid is None else jnp.where(valid, x, 0)
    x = jnp.broadcast_to(x, (*x.shape[:-1], 3)).reshape(-1, height, width, 3)
    return _features(weights, (gain * x - 1 - _SHIFT) / _SCALE)

  total = 0.0
  for i, (a, b) in enumerate(zip(seen(prediction), seen(truth)), 1):
    difference = jnp.square(_unit(a) - _unit(b)) @ jnp.asarray(weights[f'head{i}'])
    total += difference.mean((1, 2))
  return total.reshape(prediction.shape[:2])


def _unit(x: Array) -> Array:
  # The floor keeps the root's gradient finite where no feature answers.
  length = jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-30))
  return x / (length + _EPSILON)
