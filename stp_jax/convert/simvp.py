"""SimVP, its translators: `enc.enc.0.conv.conv.weight` is backbone/enc/enc_0/conv/conv/kernel."""

from stp_jax.convert import rules

_LISTS = ('enc', 'dec', 'conv', 'fc', 'layers', 'pws')


def key(path: rules.Path) -> str:
  """Names follow PyTorch but for the lists (`dec.dec.0.conv.conv.0`, `gating_unit.fc.2`)."""
  return rules.spell(path, _LISTS)


FAMILY = rules.Family(
    'simvp', key,
    buffers=(r'.*\.num_batches_tracked', r'.*\.relative_position_index', r'.*\.attn_mask'),
    # TAU's squeeze and excite: linear layers there, 1 x 1 convolutions here.
    # MogaNet's factors per channel: [1, C, 1, 1] there; other blocks have [C] under these names.
    layouts=((r'.*\.fc\.\d\.weight', 'linear'), (r'.*\.(layer_scale_\d|sigma)', 'planes')))
