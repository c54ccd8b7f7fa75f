"""The Channel Mixer Layer: its worked examples, its inverse, its errors."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.models import fusion
from stp_jax.models.layers.patches import patchify


def _planes(*planes):
  return jnp.stack([jnp.asarray(p, jnp.float32) for p in planes], -1)


def test_figure_2_of_the_paper():
  tec, lat = [[.82, .75], [.21, .13]], [[.59, .59], [.27, .27]]
  lon, sun = [[.45, .88], [.45, .88]], [[.34, .34], [.34, .34]]
  frame = _planes(tec, lat, lon, sun)
  expected = [tec, [[.82, .59], [.45, .34]], [[.75, .59], [.88, .34]], [[.21, .27], [.45, .34]],
              [[.13, .27], [.88, .34]]]
  fused = fusion.Fusion('mix', 1, 3)(frame[..., :1], frame[..., 1:])
  np.testing.assert_array_equal(fused, _planes(*expected))


def test_constant_planes_become_tiles():
  for c in (2, 3):
    frame = jnp.broadcast_to(jnp.arange(1, c * c + 1), (6, 6, c * c))
    tile = np.arange(1, c * c + 1).reshape(c, c)
    expected = np.tile(tile, (6 // c, 6 // c))[..., None]
    np.testing.assert_array_equal(
        fusion.mix(frame, c * c), np.broadcast_to(expected, frame.shape))


@pytest.mark.parametrize('side, c', [(12, 2), (12, 3), (16, 4)])
def test_closed_form(side, c):
  """specs: mixed[k, y, x] = in[i c + j, h, v] with R = k H + y."""
  channels = c * c
  frame = np.random.default_rng(0).normal(size=(side, side, channels))
  k, y, x = np.indices((channels, side, side))
  rows = k * side + y
  r, i, q, j = rows // c, rows % c, x // c, x % c
  expected = frame[r // c, (r % c) * (side // c) + q, i * c + j]
  np.testing.assert_array_equal(fusion.mix(frame, channels), np.moveaxis(expected, 0, -1))


def test_sixteen_channels_on_eighteen_patches_wrap():
  # 18 // 4 = 4 tiles in a row of 18: the fifth tile begins in the same row and ends in the next.
  index = fusion.permutation(18, 16, 4)
  assert sorted(index) == list(range(18 * 18 * 256))
  flat = np.arange(18 * 18 * 256)
  blocks = flat.reshape(-1, 4, 4, 4).swapaxes(1, 2)
  np.testing.assert_array_equal(index, blocks.reshape(-1))
  np.testing.assert_array_equal(index[:20], [*range(4), *range(16, 20), *range(32, 36),
                                             *range(48, 52), *range(4, 8)])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_inverse_round_trip(s, patch, tiles):
  side, channels = s * tiles, s * s
  frame = np.random.default_rng(side).normal(size=(2, side, side, patch * patch * channels))
  mixed = fusion.mix(frame, channels)
  np.testing.assert_array_equal(fusion.unmix(mixed, channels), frame)
  index = fusion.permutation(side, channels, patch)
  inverse = fusion.inverse_permutation(side, channels, patch)
  np.testing.assert_array_equal(index[inverse], np.arange(index.size))
  first = np.moveaxis(mixed, -1, 1).reshape(2, -1)
  np.testing.assert_array_equal(first, frame.reshape(2, -1)[:, index])
  np.testing.assert_array_equal(first[:, inverse], frame.reshape(2, -1))


def test_patched_channels_keep_their_pixel():
  frame = jnp.arange(8 * 8 * 4.).reshape(8, 8, 4)
  fuse = fusion.Fusion('concatenate', 1, 3, 2)
  joined = fuse(patchify(frame[..., :1], 2), patchify(frame[..., 1:], 2))
  np.testing.assert_array_equal(joined, patchify(frame, 2))
  assert joined.shape[-1] == fuse.features == 16
  fuse = fusion.Fusion('mix', 1, 3, 2)
  mixed = fuse(patchify(frame[..., :1], 2), patchify(frame[..., 1:], 2))
  np.testing.assert_array_equal(mixed[..., :4], patchify(frame, 2)[..., ::4])
  np.testing.assert_array_equal(mixed[..., 4:], fusion.mix(patchify(frame, 2), 4))
  assert mixed.shape[-1] == fuse.features == 20


def test_strict_wants_a_square_count_and_upstream_does_not():
  with pytest.raises(ValueError, match=r'= 5, not a perfect square.*upstream'):
    fusion.Fusion('mix', 1, 4)
  fuse = fusion.Fusion('mix', 1, 4, mode='upstream')
  fused = fuse(jnp.zeros((12, 12, 1)), jnp.arange(12 * 12 * 4.).reshape(12, 12, 4))
  assert fused.shape == (12, 12, fuse.features) == (12, 12, 6)


def test_errors():
  with pytest.raises(ValueError, match='square frames'):
    fusion.Fusion('mix', 1, 3)(jnp.zeros((4, 6, 1)), jnp.zeros((4, 6, 3)))
  with pytest.raises(ValueError, match='multiple of 4'):
    fusion.mix(np.zeros((3, 3, 16)), 16)
  with pytest.raises(ValueError, match='none concatenate mix'):
    fusion.Fusion('blend')
  with pytest.raises(ValueError, match='strict or upstream'):
    fusion.Fusion('mix', mode='loose')
  with pytest.raises(ValueError, match='got none'):
    fusion.Fusion('concatenate', 1, 3)(jnp.zeros((4, 4, 1)), None)


@pytest.mark.parametrize('size, patch, forcings, multiple, expected', [
    ((72, 72), 4, 15, 1, (72, 72)),  # the published wrap stays
    ((72, 72), 1, 8, 4, (72, 72)), ((59, 83), 4, 3, 1, (88, 88)), ((16, 20), 2, 8, 1, (24, 24)),
    ((16, 17), 1, 3, 4, (20, 20))])
def test_padding_finds_the_least_side_that_mixes(size, patch, forcings, multiple, expected):
  fuse = fusion.Fusion('mix', 1, forcings, patch)
  assert fuse.padded(*size, multiple) == expected
  h, w = (n // patch for n in expected)
  fuse(jnp.zeros((h, w, patch ** 2)), jnp.zeros((h, w, patch ** 2 * forcings)))
  assert fusion.Fusion('none', 1, 0, patch).padded(59, 83) == (60, 84) or patch == 1
