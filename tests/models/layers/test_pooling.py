import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models.layers.pooling import halve


@pytest.mark.parametrize('axes, shape', [((1, 2), (2, 4, 6, 3)), ((1, 2, 3), (1, 5, 4, 6, 2)),
                                         ((-3, -2), (1, 3, 4, 6, 2))])
def test_it_is_torchs_max_pool_and_so_is_its_gradient(axes, shape):
  torch = pytest.importorskip('torch')
  # Few values: some are equal.
  x = np.random.default_rng(0).integers(0, 3, shape).astype(np.float32)
  kernel = [2 if i in {a % len(shape) for a in axes} else 1 for i in range(1, len(shape) - 1)]
  tensor = torch.tensor(x, requires_grad=True)
  pool = torch.nn.functional.max_pool2d if len(shape) == 4 else torch.nn.functional.max_pool3d
  y = pool(tensor.movedim(-1, 1), kernel).movedim(1, -1)
  weight = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
  (y * torch.tensor(weight)).sum().backward()
  ours, pull = jax.vjp(lambda x: halve(x, axes), jnp.asarray(x))
  np.testing.assert_array_equal(ours, y.detach())
  np.testing.assert_allclose(
      pull(jnp.asarray(weight))[0].sum(), tensor.grad.sum(), rtol=1e-5)
  np.testing.assert_array_equal(pull(jnp.asarray(weight))[0] != 0, tensor.grad != 0)
