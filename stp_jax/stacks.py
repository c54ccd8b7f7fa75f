"""Stacks of equal layers: parameters of `nn.scan` whose first axis counts the layers."""

from collections.abc import Sequence

# What the modules under such a scan are called: GS2PM's translator, the beam networks' fusions.
NAMES = ('stack', 'blocks', 'mambablocks')


def is_stacked(path: Sequence[str]) -> bool:
  """Whether a parameter at this path, such as ('translator', 'stack', 'gamma'), is of a stack."""
  return not set(NAMES).isdisjoint(path)
