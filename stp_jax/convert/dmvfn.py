"""DMVFN: `stu.0.conv0.0.0.weight` is backbone/stu_0/conv0_0/conv/kernel, `.1` its PReLU."""

from stp_jax.convert import rules

_LISTS = ('stu', 'conv0', 'convblock', 'conv1', 'convblock1', 'routing')


def key(path: rules.Path) -> str:
  """A convolution and its PReLU are items 0 and 1 of a list in PyTorch."""
  items = {'conv': '0', 'prelu': '1'}
  return rules.spell(tuple(items.get(part, part) for part in path), _LISTS)


# Where a training object's checkpoint carries the VGG19 of its loss along.
_VGG = r'.*vgg.*'

FAMILY = rules.Family(
    'dmvfn', key, buffers=(r'.*\.num_batches_tracked', _VGG),
    layouts=((r'stu\.\d+\.lastconv\.weight', 'transposed'),))
