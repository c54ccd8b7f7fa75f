"""ConvLSTMNet and ESCL: `layers.b0l1.conv.weight` is backbone/b0l1/conv/kernel."""

from stp_jax.convert import rules


def key(path: rules.Path) -> str:
  """Upstream keeps all cells and the read-out in one dictionary; a tensor-train cell has lists."""
  return f'layers.{rules.spell(path, ("layers", "layers_"))}'


FAMILIES = {name: rules.Family(name, key) for name in ('convlstmnet', 'escl')}
