"""ImageNet weights of ResNet-18 and -34, as torchvision and timm publish them, for a beam trunk.

    python -m stp_jax.convert resnet resnet34.pth --out=resnet34.npz

The file is yours to supply; nothing is downloaded. The `.npz` holds our arrays under their paths
(`params/layer1_0/conv1/kernel`); `models.beam.pretrained` puts them into a network.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence

import flax.traverse_util
import jax
import numpy as np

from stp_jax import files
from stp_jax.convert import rules, torch_checkpoint
from stp_jax.convert.shapes import Weights, numbers
from stp_jax.models.beam.resnet import ResNet

FAMILY = rules.Family(
    'resnet', lambda path: rules.spell(
        path, (*(f'layer{i}' for i in range(1, 9)), 'downsample')),
    unused=(r'fc\..*', r'classifier\..*', r'head\..*'))


def trunk_of(weights: Weights) -> ResNet:
  """The trunk that these shapes describe.

  Raises:
    ConversionError: no ResNet of basic blocks.
  """
  stages = numbers(weights, r'layer(\d+)\.')
  firsts = [weights.get(f'layer{i}.0.conv1.weight') for i in stages]
  if 'conv1.weight' not in weights or not stages or any(w is None for w in firsts):
    raise rules.ConversionError(
        f'not a ResNet of torchvision or timm (its first key is {next(iter(weights), "none")})')
  if 'layer1.0.conv3.weight' in weights:
    raise rules.ConversionError('a ResNet of bottleneck blocks; take ResNet-18 or -34')
  return ResNet(
      depths=tuple(len(numbers(weights, rf'layer{i}\.(\d+)\.conv1\.weight$')) for i in stages),
      widths=tuple(int(w.shape[0]) for w in firsts))


def to_variables(weights: Weights) -> dict[str, dict]:
  """{'params', 'batch_stats'} of the trunk; the classifier is left out.

  Raises:
    ConversionError: keys or shapes that do not fit.
  """
  trunk = trunk_of(weights)
  inputs = int(weights['conv1.weight'].shape[1])
  template = jax.eval_shape(
      lambda: trunk.init(jax.random.key(0), np.zeros((1, 32, 32, inputs), np.float32), False))
  return rules.to_flax(FAMILY, weights, template)[0]


def write(variables: Mapping[str, dict], out: str | pathlib.Path) -> None:
  """Variables as an `.npz`, complete or not at all."""
  flat = {'/'.join(k): np.asarray(v)
          for k, v in flax.traverse_util.flatten_dict(dict(variables)).items()}
  with files.whole(out) as partial, partial.open('wb') as file:
    np.savez(file, **flat)


def main(argv: Sequence[str]) -> int:
  """`resnet FILE --out FILE.npz`; a bad input is one line on stderr and exit code 1."""
  parser = argparse.ArgumentParser(
      prog='python -m stp_jax.convert resnet', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('source', help='.pth, .safetensors or .npz of torchvision or timm')
  parser.add_argument('--out', required=True, help='.npz to write')
  args = parser.parse_args(argv)
  try:
    if not args.out.endswith('.npz'):
      raise rules.ConversionError(f'--out={args.out}: name an .npz file')
    weights = torch_checkpoint.load(args.source).weights
    try:
      variables = to_variables(weights)
    except rules.ConversionError as error:
      raise rules.ConversionError(f'{args.source}: {error}') from error
    write(variables, args.out)
  except (ValueError, OSError, ImportError) as error:
    print(f'convert: {str(error).splitlines()[0]}', file=sys.stderr)
    return 1
  depths = trunk_of(weights).depths
  print(f'{args.out}: ResNet-{2 * sum(depths) + 2} trunk, '
        f'{rules.parameter_count(FAMILY, variables["params"], {})} parameters')
  return 0
