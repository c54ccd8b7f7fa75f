"""UNet: `enc.0.3.weight` is backbone/enc_0/conv_3/kernel, `enc.0.4` its batch norm."""

from stp_jax.convert import rules


def key(path: rules.Path) -> str:
  """A stage is one list in PyTorch; here its items also say what they are (`conv_3`, `norm_4`)."""
  number = path[-2].rpartition('_')[2]
  return rules.spell((*path[:-2], number, path[-1]), ('enc', 'us', 'dec'))


FAMILY = rules.Family('unet', key, layouts=((r'us\.\d+\.0\.weight', 'transposed'),))
