"""UNet: its passes, its channels, its batch statistics."""

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.models.unet import UNet

FIELDS = dict(features=(2, 3))


def _run(variables, frames, t_in, train=False, **fields):
  model = UNet(**FIELDS, **fields)
  return jax.jit(lambda v, f: model.apply(
      v, f, jnp.ones(f.shape[:2]), t_in=t_in, train=train, mutable=['batch_stats']))(
          variables, frames)


def test_passes_and_channels():
  frames = jnp.asarray(np.random.default_rng(0).random((2, 8, 6, 4, 2)), jnp.float32)
  variables = UNet(**FIELDS).init(jax.random.key(0), frames, jnp.ones((2, 8)), t_in=3)
  (every, context, terms), _ = _run(variables, frames, 3)
  assert every.shape == (2, 5, 6, 4, 2) and context is None and not terms
  assert float(every.min()) >= 0 and float(every.max()) > 0
  # A pass reads what the last one made; its last frame is left out here.
  (first, *_), _ = _run(variables, frames[:, :6], 3)
  (second, *_), _ = _run(variables, jnp.concatenate([first, frames[:, :3]], 1), 3)
  np.testing.assert_allclose(every, jnp.concatenate([first, second], 1)[:, :5], atol=1e-6)
  # Channels are examples of their own, also in the statistics of a batch.
  apart = jnp.concatenate([frames[..., :1], frames[..., 1:]])
  (single, *_), stats = _run(variables, apart[:, :6], 3, train=True)
  (joint, *_), same = _run(variables, frames[:, :6], 3, train=True)
  np.testing.assert_allclose(single, jnp.concatenate([joint[..., :1], joint[..., 1:]]), atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stats, same)
  # Statistics move once a pass.
  _, twice = _run(variables, frames, 3, train=True)
  moved = lambda v: v['batch_stats']['embed']['norm_1']['mean']
  assert not np.allclose(moved(twice), moved(same))


def test_a_pass_may_emit_another_number_of_frames():
  frames = jnp.asarray(np.random.default_rng(0).random((1, 7, 4, 4, 1)), jnp.float32)
  model = UNet(**FIELDS, outputs=2)
  variables = model.init(jax.random.key(0), frames, jnp.ones((1, 7)), t_in=3)
  assert variables['params']['out']['conv_3']['kernel'].shape == (3, 3, 2, 2)
  (every, *_), _ = _run(variables, frames, 3, outputs=2)
  (first, *_), _ = _run(variables, frames[:, :5], 3, outputs=2)
  read = jnp.concatenate([frames[:, 2:3], first], 1)  # the newest three
  (second, *_), _ = _run(variables, jnp.concatenate([read, first], 1), 3, outputs=2)
  np.testing.assert_allclose(every, jnp.concatenate([first, second], 1), atol=1e-6)
