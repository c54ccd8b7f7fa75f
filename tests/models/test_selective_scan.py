"""Every method is the same function with the same gradients; `recompute` holds no B L D N array."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.models.ops.selective_scan import (
    METHODS,
    default_chunk,
    scan_tokens,
    selective_scan,
)


def arguments(batch=2, features=4, length=7, states=3, b_kind=1, c_kind=1, optional=(), seed=0):
  """Float64 arguments; kinds: 0 constant, 1 plain, otherwise that many groups."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.standard_normal(shape)
  shapes = {0: (features, states), 1: (batch, states, length)}
  kind = lambda n: draw(*shapes.get(n, (batch, n, states, length)))
  sizes = dict(D=(features,), z=(batch, features, length), delta_bias=(features,),
               initial_state=(batch, features, states))
  return dict(
      u=draw(batch, features, length), delta=draw(batch, features, length),
      A=-np.exp(draw(features, states)), B=kind(b_kind), C=kind(c_kind),
      **{name: draw(*sizes[name]) for name in optional})


def loop(u, delta, A, B, C, D=None, z=None, delta_bias=None, initial_state=None, softplus=False):
  """The definition, step by step, in numpy."""
  full = lambda b: (
      b[None, ..., None] if b.ndim == 2
      else np.repeat(b.reshape(len(b), -1, *b.shape[-2:]), len(A) // (b.size // (
          len(b) * b.shape[-1] * b.shape[-2])), 1))
  B, C = full(B), full(C)
  delta = delta if delta_bias is None else delta + delta_bias[:, None]
  if softplus:
    delta = np.where(delta > 20, delta, np.log1p(np.exp(np.minimum(delta, 20))))
  h = np.zeros((len(u), *A.shape)) if initial_state is None else initial_state
  y = np.zeros_like(u)
  at = lambda b, t: b[..., t if b.shape[-1] > 1 else 0]
  for t in range(u.shape[-1]):
    step = delta[..., t, None]
    h = np.exp(step * A) * h + step * at(B, t) * u[..., t, None]
    y[..., t] = np.sum(h * at(C, t), -1)
  y = y if D is None else y + D[:, None] * u
  return y if z is None else y * z / (1 + np.exp(-z)), h


def outputs_and_gradients(given, seed=1, **fields):
  """y, last state, and the gradients of a loss of both in all arguments."""
  rng = np.random.default_rng(seed)

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(given):
    y, last = selective_scan(**given, **fields)
    weights = rng.standard_normal(y.shape), rng.standard_normal(last.shape)
    return jnp.sum(y * weights[0]) + jnp.sum(last * weights[1]), (y, last)

  (_, out), grads = run(given)
  return out, grads


def assert_close(a, b, tolerance):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert x.dtype == y.dtype and x.shape == y.shape
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    assert np.max(np.abs(x - y)) <= tolerance * (1 + np.max(np.abs(y)))


@given(
    method=st.sampled_from(('recompute', 'recompute', 'chunked', 'associative')),
    batch=st.integers(1, 2), length=st.integers(1, 9), chunk=st.integers(1, 10),
    states=st.integers(1, 3), b_kind=st.sampled_from((0, 1, 2)), c_kind=st.sampled_from((0, 1, 4)),
    softplus=st.booleans(),
    optional=st.sets(st.sampled_from(('D', 'z', 'delta_bias', 'initial_state'))))
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
def test_methods_agree_in_outputs_and_gradients(
    method, batch, length, chunk, states, b_kind, c_kind, softplus, optional):
  given = arguments(batch, 4, length, states, b_kind, c_kind, sorted(optional))
  with jax.enable_x64(True):
    reference = outputs_and_gradients(given, softplus=softplus, method='sequential')
    found = outputs_and_gradients(given, softplus=softplus, method=method, chunk=chunk)
    assert_close(reference[0], jax.tree.map(jnp.asarray, loop(**given, softplus=softplus)), 1e-12)
    assert_close(found, reference, 1e-11)


EVERYTHING = ('D', 'z', 'delta_bias', 'initial_state')


@pytest.mark.parametrize('b_kind, c_kind', [(1, 0), (0, 1), (2, 4)])
def test_recompute_with_everything_and_a_cut_chunk(b_kind, c_kind):
  given = arguments(2, 4, 11, 3, b_kind, c_kind, EVERYTHING)
  with jax.enable_x64(True):
    reference = outputs_and_gradients(given, softplus=True, method='sequential')
    found = outputs_and_gradients(given, softplus=True, method='recompute', chunk=4)
    assert_close(found, reference, 1e-12)
    assert set(found[1]) == set(given)
    assert all(np.any(g != 0) for g in found[1].values())


def test_softplus_is_the_identity_above_20_with_a_finite_slope():
  given = {k: jnp.asarray(v, jnp.float32) for k, v in arguments(length=3).items()}
  given['delta'] = jnp.asarray([[[-200., 19.9, 1000.]] * 4] * 2, jnp.float32)
  for method in ('recompute', 'chunked'):
    out, grads = outputs_and_gradients(given, softplus=True, method=method, chunk=2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((out, grads)))


def test_a_scan_continues_from_its_last_state():
  whole = arguments(length=9)
  with jax.enable_x64(True):
    expected = selective_scan(**whole, method='recompute')
    cut = lambda at: {k: v[..., at] if v.shape[-1] == 9 else v for k, v in whole.items()}
    first, state = selective_scan(**cut(slice(0, 5)), method='recompute')
    second, last = selective_scan(
        **cut(slice(5, 9)), initial_state=state, method='sequential')
    assert_close((jnp.concatenate([first, second], -1), last), expected, 1e-13)


def _sizes(jaxpr):
  for e in jaxpr.eqns:
    yield from (math.prod(v.aval.shape) for v in e.outvars)
    for p in e.params.values():
      for inner in p if isinstance(p, (tuple, list)) else (p,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from _sizes(inner)


def _gradient(method, length=64, batch=2, features=16, states=8):
  given = arguments(batch, features, length, states, optional=('D', 'z', 'delta_bias'))
  given = {k: jnp.asarray(v, jnp.float32) for k, v in given.items()}
  loss = lambda given: jnp.sum(selective_scan(**given, softplus=True, method=method)[0])
  return jax.grad(loss), given, batch * length * features * states


def test_recompute_never_makes_an_array_of_all_states():
  for method, held in (('sequential', True), ('recompute', False)):
    gradient, given, everything = _gradient(method)
    largest = max(_sizes(jax.make_jaxpr(gradient)(given).jaxpr))
    assert (largest >= everything) == held
    if not held:  # L / K + 2 K states at most, and K is about sqrt(L)
      assert largest <= everything // 8


def test_recompute_needs_little_memory():
  temporary = {}
  for method in ('sequential', 'recompute'):
    gradient, given, everything = _gradient(method, 256, 1, 32, 16)
    compiled = jax.jit(gradient).lower(given).compile()
    temporary[method] = compiled.memory_analysis().temp_size_in_bytes
  assert temporary['recompute'] < 4 * everything
  assert temporary['recompute'] < 0.25 * temporary['sequential']


def test_bfloat16_sequences_keep_a_float32_state():
  given = {k: jnp.asarray(v, jnp.float32) for k, v in arguments(optional=EVERYTHING).items()}
  low = given | {k: given[k].astype(jnp.bfloat16) for k in ('u', 'delta', 'B', 'C', 'z')}
  for method in ('sequential', 'recompute'):
    (y, last), grads = outputs_and_gradients(low, softplus=True, method=method, chunk=3)
    assert y.dtype == jnp.bfloat16 and last.dtype == jnp.float32
    assert all(grads[k].dtype == low[k].dtype for k in low)
    (exact, _), exact_grads = outputs_and_gradients(given, softplus=True, method=method)
    np.testing.assert_allclose(np.asarray(y, np.float32), exact, atol=0.03 * np.abs(exact).max())
    for k, g in exact_grads.items():
      np.testing.assert_allclose(
          np.asarray(grads[k], np.float32), g, atol=0.05 * np.abs(g).max())


def test_vmap_and_a_sharded_batch_change_nothing():
  given = {k: jnp.asarray(v, jnp.float32)
           for k, v in arguments(8, 4, 18, optional=('z',)).items()}
  shared = given.pop('A')
  run = jax.jit(lambda given: jax.value_and_grad(
      lambda given: jnp.sum(selective_scan(A=shared, **given, method='recompute')[0] ** 2))(given))
  expected = run(given)

  def one(given):
    batched = jax.tree.map(lambda x: x[None], given)
    return jnp.sum(selective_scan(A=shared, **batched, method='recompute')[0] ** 2)

  values, grads = jax.jit(jax.vmap(jax.value_and_grad(one)))(given)
  assert_close((jnp.sum(values), grads), expected, 1e-5)
  mesh = jax.make_mesh((8,), ('data',))
  spread = jax.device_put(given, jax.NamedSharding(mesh, jax.P('data')))
  assert_close(run(spread), expected, 1e-5)
  text = run.lower(spread).compile().as_text()
  assert 'all-gather' not in text and 'all-to-all' not in text


def test_the_layout_of_tokens_is_the_same_scan():
  given = arguments(2, 4, 5, 3, 2, 0, EVERYTHING)
  tokens = {k: np.moveaxis(v, -1, 1) if k in ('u', 'delta', 'B', 'C', 'z') and v.ndim > 2 else v
            for k, v in given.items()}
  with jax.enable_x64(True):
    y, last = selective_scan(**given)
    other, other_last = scan_tokens(**tokens)
    assert_close((jnp.moveaxis(other, 1, 2), other_last), (y, last), 1e-15)


def test_chunks_are_about_the_root_and_divide_where_they_can():
  assert default_chunk(962) == 37 and 962 % 37 == 0
  assert default_chunk(1922) == 31 and default_chunk(1) == 1
  assert default_chunk(4096) == 64 and 20 < default_chunk(997) < 50  # a prime
  assert all(1 <= default_chunk(n) <= n for n in range(1, 200))


@pytest.mark.parametrize('change, message', [
    (dict(delta=np.zeros((2, 4, 8))), r'delta .* is \[2, 8, 4\]; it must be \[2, 7, 4\]'),
    (dict(B=np.zeros((2, 4, 3))), 'B .* it must be .* or '),
    (dict(C=np.zeros((2, 3, 3, 7))), '4 features do not divide into 3 groups'),
    (dict(initial_state=np.zeros((2, 3, 4))), 'initial_state'),
    (dict(D=np.zeros(3)), r'D .* is \[3\]'), (dict(u=np.zeros((4, 7))), 'u is'),
    (dict(u=np.zeros((2, 4, 0))), 'empty'), (dict(chunk=0), 'chunk 0'),
    (dict(method='fast'), f'one of {" ".join(METHODS)}')])
def test_errors_name_the_array(change, message):
  with pytest.raises(ValueError, match=message):
    selective_scan(**(arguments() | change))
