"""Weights of the perceptual distance LPIPS: torchvision's AlexNet and the heads of version 0.1.

    python -m stp_jax.convert lpips --alexnet=alexnet-owt-7be5be79.pth --heads=alex.pth \\
        --out=lpips.npz

Both files are yours to supply; nothing is downloaded. The heads are `weights/v0.1/alex.pth` of the
authors' package (richzhang/PerceptualSimilarity, BSD-2). See `stp_jax.metrics.lpips`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from stp_jax import files
from stp_jax.convert import torch_checkpoint
from stp_jax.convert.rules import ConversionError
from stp_jax.metrics import lpips

# Places of the convolutions in torchvision's list of layers.
_PLACES = (0, 3, 6, 8, 10)


def to_ours(
    alexnet: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """The arrays that `metrics.lpips.load` reads.

  Args:
    alexnet: `features.0.weight` ... of torchvision; its classifier is not used.
    heads: `lin0.model.1.weight` ... [1, C, 1, 1].

  Raises:
    ConversionError: a tensor that is missing or has another shape.
  """
  result = {}
  names = {f'conv{i}/kernel': (alexnet, f'features.{p}.weight') for i, p in enumerate(_PLACES, 1)}
  names |= {f'conv{i}/bias': (alexnet, f'features.{p}.bias') for i, p in enumerate(_PLACES, 1)}
  names |= {f'head{i}': (heads, f'lin{i - 1}.model.1.weight') for i in range(1, 6)}
  for name, shape in lpips.shapes().items():
    weights, key = names[name]
    if key not in weights:
      which = 'heads of LPIPS v0.1' if name.startswith('head') else "torchvision's AlexNet"
      raise ConversionError(f'no {key}: not the {which} (its first key is '
                            f'{next(iter(weights), "none")})')
    array = np.asarray(weights[key], np.float32)
    array = array.transpose(2, 3, 1, 0) if name.endswith('kernel') else array
    array = array.reshape(-1) if name.startswith('head') else array
    if array.shape != shape:
      raise ConversionError(f'{key}: {list(array.shape)}, AlexNet has {list(shape)}')
    result[name] = array
  return result


def main(argv: Sequence[str]) -> int:
  """`lpips --alexnet FILE --heads FILE --out FILE.npz`; a bad input is one line and exit code 1."""
  parser = argparse.ArgumentParser(
      prog='python -m stp_jax.convert lpips', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--alexnet', required=True, help="torchvision's AlexNet, .pth or .npz")
  parser.add_argument('--heads', required=True, help='the linear heads, .pth or .npz')
  parser.add_argument('--out', required=True, help='.npz to write')
  args = parser.parse_args(argv)
  try:
    if not args.out.endswith('.npz'):
      raise ConversionError(f'--out={args.out}: name an .npz file')
    read = [torch_checkpoint.load(p).weights for p in (args.alexnet, args.heads)]
    try:
      arrays = to_ours(*read)
    except ConversionError as error:
      raise ConversionError(f'{args.alexnet}, {args.heads}: {error}') from error
    with files.whole(args.out) as partial, partial.open('wb') as file:
      np.savez(file, **arrays)
  except (ValueError, OSError, ImportError) as error:
    print(f'convert: {str(error).splitlines()[0]}', file=sys.stderr)
    return 1
  print(f'{args.out}: weights of LPIPS (AlexNet, v0.1)')
  return 0
