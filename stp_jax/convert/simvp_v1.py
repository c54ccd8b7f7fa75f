"""The first SimVP: `dec.dec.0.conv.conv.weight` is backbone/dec/dec_0/conv/conv/kernel."""

from stp_jax.convert import rules


def key(path: rules.Path) -> str:
  """Names follow PyTorch but for the lists of stages, blocks and kernels."""
  return rules.spell(path, ('enc', 'dec', 'layers'))


# Every second stage of the decoder doubles the size, the first one too, for N_S is even.
FAMILY = rules.Family(
    'simvp_v1', key, layouts=((r'dec\.dec\.\d*[02468]\.conv\.conv\.weight', 'transposed'),))
