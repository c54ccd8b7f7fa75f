"""GS2PM's border and mask by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.gs2pm.prompt_mask import BorderPrompt, patch_mask


def test_patches_that_stay():
  mask = np.asarray(patch_mask(jax.random.key(0), 128, 128, patch=16, ratio=0.6))
  tokens = mask.reshape(8, 16, 8, 16)[:, 0, :, 0]
  assert tokens.sum() == 39 and set(np.unique(mask)) == {0, 1}  # ceil(0.6 * 64)
  np.testing.assert_array_equal(mask, tokens.repeat(16, 0).repeat(16, 1))
  cut = np.asarray(patch_mask(jax.random.key(1), 10, 7, patch=4, ratio=0.5))
  assert cut.shape == (10, 7) and cut[::4, ::4].sum() == 3
  many = np.asarray(patch_mask(jax.random.key(2), 16, 16, patch=2, ratio=0.3, samples=3))
  assert many.shape == (3, 16, 16) and (many.sum((1, 2)) == 4 * 20).all()
  assert (many[0] != many[1]).any() and (many[1] != many[2]).any()
  for ratio in (0, 1):
    assert (np.asarray(patch_mask(jax.random.key(3), 8, 8, patch=4, ratio=ratio)) == ratio).all()
  with pytest.raises(ValueError, match='mask_ratio 60'):
    patch_mask(jax.random.key(0), 8, 8, patch=2, ratio=60)


def test_the_border_leaves_the_middle_alone():
  x = jnp.zeros((2, 3, 12, 16, 3))
  y, variables = BorderPrompt().init_with_output(jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, variables['params']) == dict(
      pad_up=(1, 3, 16, 3), pad_down=(1, 3, 16, 3), pad_left=(1, 6, 3, 3), pad_right=(1, 6, 3, 3))
  assert (y[:, :, 3:9, 3:13] == 0).all() and (y != 0).mean() == pytest.approx(132 / 192)
  np.testing.assert_array_equal(y[0, 0, :3], variables['params']['pad_up'][0])
  np.testing.assert_array_equal(y[1, 2, 3:9, 13:], variables['params']['pad_right'][0])
  with pytest.raises(ValueError, match='prompt_size 7 does not fit into frames of 12 x 16'):
    BorderPrompt(7).init(jax.random.key(0), x)
