"""MotionRNN: `motion_gru.0.transient.conv_u.weight` is backbone/motion_gru_0/transient/conv_u."""

from stp_jax.convert import rules


def key(path: rules.Path) -> str:
  """Names follow PyTorch but for the lists of cells."""
  return rules.spell(path, ('cell_list', 'motion_gru'))


FAMILY = rules.Family('motionrnn', key, layouts=((r'.*\.deconv\.weight', 'transposed'),))
