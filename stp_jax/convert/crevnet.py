"""CrevNet: `encoder.stack.0.bottleneck_block.0.weight` is backbone/encoder/stack_0/..."""

from stp_jax.convert import rules


def key(path: rules.Path) -> str:
  """Names follow PyTorch; the 1x1 of an attention gate is item 0 of a list with its sigmoid."""
  if path[-2].startswith('att_'):
    path = (*path[:-1], '0', path[-1])
  return rules.spell(path, ('stack', 'bottleneck_block', 'convlstm', 'att'))


FAMILY = rules.Family('crevnet', key)
