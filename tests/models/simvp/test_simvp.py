"""SimVP: published sizes, stochastic depth, TAU's regularisation, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models import build
from stp_jax.models.simvp.simvp import SimVP
from stp_jax.models.simvp.translators.metaformer import drop_path_rates
from stp_jax.models.simvp.translators.tau import differential_divergence

TINY = dict(hid_S=4, hid_T=6, N_S=2, N_T=2, mlp_ratio=2.0)


def _counts(fields, fusion='none', forcings=0):
  model = build(
      dict(name='simvp', fusion=fusion, backbone=fields), shape=(72, 72, 1), forcings=forcings,
      t_in=12, t_out=12)
  planes = jnp.zeros((1, 24, 72, 72, forcings)) if forcings else None
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 12, 72, 72, 1)), planes)
  return sum(x.size for x in jax.tree.leaves(shapes['params']))


# One channel; then concatenated and mixed: 3, 8 and 15 forcings.
PUBLISHED = dict(
    gsta=(50527745, 50529473, 50530049, 50532353, 50532929, 50536385, 50536961),
    tau=(48237825, 48239553, 48240129, 48242433, 48243009, 48246465, 48247041))


@pytest.mark.parametrize('translator', PUBLISHED)
def test_published_parameter_counts(translator):
  fusions = [('none', 0), *((f, n) for n in (3, 8, 15) for f in ('concatenate', 'mix'))]
  assert [_counts(dict(translator=translator), *f) for f in fusions] == [*PUBLISHED[translator]]


def test_drop_path_rates_and_their_published_floor():
  np.testing.assert_allclose(drop_path_rates(0.3, 0.0, 4), [0, 0.1, 0.2, 0.3])
  assert drop_path_rates(0.0, 0.0, 3) == [0, 0, 0]
  # Upstream drops paths also at drop_path=0, but never in the last block.
  np.testing.assert_allclose(drop_path_rates(0.0, 0.01, 3), [0.01, 0.005, 0])


def test_stochastic_depth_and_dropout_act_in_training_only():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 8, 8, 1)), jnp.float32)
  module = SimVP(**TINY, drop_path=0.5, drop=0.3, layer_scale_init=1.0)
  variables = jax.jit(module.init)(jax.random.key(0), x)
  assert variables['params']['hid']['enc_0']['block']['layer_scale_1'][0] == 1

  @jax.jit
  def train(key):
    return module.apply(variables, x, True, rngs={'dropout': key}, mutable='batch_stats')[0][0]

  a, b, again = train(jax.random.key(1)), train(jax.random.key(2)), train(jax.random.key(1))
  np.testing.assert_array_equal(a, again)
  assert not np.allclose(a, b)
  # In evaluation no generator is asked for: this would raise.
  jax.eval_shape(lambda: module.apply(variables, x))


def test_without_dropping_training_needs_no_generator():
  x = jnp.ones((1, 2, 8, 8, 1))
  module = SimVP(**TINY)
  variables = module.init(jax.random.key(0), x)
  jax.eval_shape(lambda: module.apply(variables, x, True, mutable='batch_stats'))


def test_differential_divergence():
  rng = np.random.default_rng(0)
  prediction, target = rng.random((2, 2, 4, 3, 3, 1)).astype(np.float32)
  p, q = (np.exp(np.diff(f, axis=1).reshape(2, 3, 9) / 0.1) for f in (prediction, target))
  p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
  np.testing.assert_allclose(
      differential_divergence(prediction, target), (p * np.log(p / q)).mean((1, 2)), rtol=1e-3)
  np.testing.assert_allclose(differential_divergence(target, target), 0, atol=1e-6)
  # One change from frame to frame is not regularised, as upstream.
  np.testing.assert_array_equal(differential_divergence(prediction[:, :2], target[:, :2]), [0, 0])


def test_tau_reports_its_divergence_in_training_where_the_truth_is_given():
  frames = jnp.asarray(np.random.default_rng(0).random((2, 5, 8, 8, 1)), jnp.float32)
  def run(translator, train, frames=frames):
    model = build(dict(name='simvp', backbone=dict(TINY, translator=translator)),
                  shape=(8, 8, 1), t_in=2, t_out=3)
    return model.init_with_output(jax.random.key(0), frames, train=train)[0]

  for translator, train, names in (
      ('gsta', True, []), ('tau', False, []), ('tau', True, ['diff_div'])):
    output = jax.eval_shape(lambda t=translator, train=train: run(t, train))
    assert list(output.terms) == names
  holes = frames.at[:, 3, 2].set(jnp.nan)
  output = jax.jit(lambda f: run('tau', True, f))(holes)
  target = jnp.where(jnp.isnan(holes[:, 2:]), output.prediction, holes[:, 2:])
  np.testing.assert_allclose(
      output.terms['diff_div'], differential_divergence(output.prediction, target), rtol=1e-5)
  assert bool(jnp.all(output.terms['diff_div'] > 0))


@pytest.mark.parametrize('fields, size, message', [
    (dict(N_S=3), 8, 'even'), (dict(N_T=1), 8, 'at least 2'), (dict(N_S=4), 6, 'divide by 4'),
    (dict(translator='rnn'), 8, 'gsta'), (dict(hid_S=3), 8, 'groups')])
def test_errors(fields, size, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
        SimVP(**{**TINY, **fields}).init, jax.random.key(0), jnp.zeros((1, 2, size, size, 1)))
