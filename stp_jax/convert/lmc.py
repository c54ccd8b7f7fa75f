"""LMC: `memory.motion_matching_encoder.3.weight` is backbone/memory/motion_matching_encoder/item_3.
"""

from stp_jax.convert import rules


def key(path: rules.Path) -> str:
  """Lists of layers and activations, whose items carry their numbers; `embedder` has no names."""
  if path[1].startswith('embedder_'):
    path = (path[0], 'embedder', f'item_{2 * int(path[1][-1])}', path[-1])
  parts = [p.rpartition('_')[2] if p.startswith('item_') else p for p in path]
  return rules.spell(tuple(parts), ('convlstm_list',))


FAMILY = rules.Family(
    'lmc', key, layouts=((r'decoder\.\d+\.weight|memory\.embedder\.\d+\.weight', 'transposed'),))
