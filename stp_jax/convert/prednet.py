"""PredNet: `A.2.weight` is backbone/A_1/kernel: every second item of PyTorch's list is an
activation."""

from stp_jax.convert import rules


def key(path: rules.Path) -> str:
  """The gates' lists hold convolutions only."""
  name, _, layer = path[0].partition('_')
  if name in ('A', 'Ahat'):
    path = (f'{name}_{2 * int(layer)}', *path[1:])
  return rules.spell(path, ('i', 'f', 'c', 'o', 'A', 'Ahat'))


FAMILY = rules.Family('prednet', key)
