"""The laws of the two time loops, on step modules small enough to know by heart."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax.models import rollout

FUSE = lambda image, forcing: image if forcing is None else jnp.concatenate([image, forcing], -1)


class Affine(nn.Module):
  """prediction = w * (sum of the input's channels) + t, the carry counts steps."""
  channels: int = 1

  def initial_carry(self, frame, steps):
    return jnp.zeros((), jnp.int32)

  @nn.compact
  def __call__(self, carry, frame, t):
    w = self.param('w', nn.initializers.constant(0.5), ())
    y = w * jnp.sum(frame, -1, keepdims=True) + t
    return carry + 1, jnp.tile(y, self.channels), {'seen': frame[:, 0, 0, 0]}


class Zero(Affine):
  """Predicts no correction."""

  @nn.compact
  def __call__(self, carry, frame, t):
    return carry + 1, jnp.zeros((*frame.shape[:-1], self.channels)), {}


class Frames(nn.Module):
  step: nn.Module
  combine: str = 'none'
  lag: int = 1
  remat: bool = False
  unroll: int = 1

  def __call__(self, frames, forcings, use_true, carry=None):
    return rollout.rollout_frames(
        self.step, frames, forcings, use_true, fuse=FUSE, combine=self.combine, lag=self.lag,
        remat=self.remat, unroll=self.unroll, carry=carry)


def _frames(b=2, t=6, channels=1, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(b, t, 2, 3, channels)), jnp.float32)


def _run(module, *args):
  return module.apply(module.init(jax.random.key(0), *args), *args)


def test_scan_equals_the_loop_written_out():
  frames, forcings = _frames(), _frames(channels=2, seed=1)
  use = jnp.asarray([[1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 0, 1]])
  predictions, terms, carry = _run(Frames(Affine()), frames, forcings, use)
  expected, seen, previous = [], [], None
  for t in range(5):
    fed = frames[:, t] if t == 0 else jnp.where(
        use[:, t, None, None, None] > 0, frames[:, t], previous)
    # The true forcings of time t go with a generated image too.
    previous = 0.5 * (fed + jnp.sum(forcings[:, t], -1, keepdims=True)) + t
    expected.append(previous)
    seen.append(fed[:, 0, 0, 0])
  np.testing.assert_allclose(predictions, jnp.stack(expected, 1), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(terms['seen'], jnp.mean(jnp.stack(seen), 0), rtol=1e-5)
  assert carry == 5


@pytest.mark.parametrize('change', [dict(remat=True), dict(unroll=3)])
def test_remat_and_unroll_change_nothing(change):
  frames, use = _frames(), jnp.zeros((2, 6))
  def value(**fields):
    return jax.value_and_grad(
        lambda w: jnp.sum(Frames(Affine(), **fields).apply(
            {'params': {'step': {'w': w}}}, frames, None, use)[0] ** 2))(0.7)
  np.testing.assert_allclose(value(), value(**change), rtol=1e-6)


def test_step_zero_is_true_and_a_carry_can_be_handed_on():
  frames = _frames()
  all_off, all_but_first = jnp.zeros((2, 6)), jnp.zeros((2, 6)).at[:, 0].set(1)
  a, b = (_run(Frames(Affine()), frames, None, u)[0] for u in (all_off, all_but_first))
  np.testing.assert_array_equal(a, b)
  assert _run(Frames(Affine()), frames, None, all_off, jnp.asarray(7))[2] == 12


@pytest.mark.parametrize('combine, lag', [('none', 1), ('residual', 1), ('gated', 1),
                                          ('residual', 3)])
def test_nan_in_an_unused_frame_reaches_neither_values_nor_gradients(combine, lag):
  frames, forcings = _frames(), _frames(seed=1)
  use = jnp.asarray([[1, 1, 1, 0, 0, 0]] * 2)
  module = Frames(Affine(2 if combine == 'gated' else 1), combine, lag)
  params = module.init(jax.random.key(0), frames, forcings, use)

  def loss(params, frames):
    return jnp.sum(module.apply(params, frames, forcings, use)[0] ** 2)

  clean = jax.value_and_grad(loss)(params, frames)
  spoilt = jax.value_and_grad(loss)(params, frames.at[:, 3:].set(jnp.nan))
  assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), clean, spoilt))
  assert np.isnan(loss(params, frames.at[:, 2].set(jnp.nan)))


def test_teacher_forcing_sees_every_frame():
  frames = _frames()
  predictions, *_ = _run(Frames(Affine()), frames, None, jnp.ones((2, 6)))
  steps = jnp.arange(5)[None, :, None, None, None]
  np.testing.assert_allclose(predictions, 0.5 * frames[:, :-1] + steps, rtol=1e-6)


@pytest.mark.parametrize('lag', [1, 2, 3])
def test_residual_of_nothing_is_persistence(lag):
  """Within the input the frame `lag` ago (the last one while there is none), then repetition."""
  frames, t_in = _frames(t=9), 4
  use = jnp.broadcast_to(jnp.arange(9) < t_in, (2, 9))
  predictions, *_ = _run(Frames(Zero(), 'residual', lag), frames, None, use)
  images = list(np.moveaxis(np.asarray(frames[:, :t_in]), 1, 0))
  for t in range(t_in, 9):
    images.append(images[t - lag])
  expected = [images[t + 1 - lag] if t + 1 >= lag else images[t] for t in range(8)]
  np.testing.assert_array_equal(predictions, np.stack(expected, 1))


def test_gate_holds_or_lets_go():
  output = jnp.asarray([[0.25, 40.0], [0.25, -40.0], [0.0, 0.0]])
  got = rollout.combine_output('gated', output, jnp.full((3, 1), 8.0))
  np.testing.assert_allclose(got[:, 0], [8.25, 0.25, 4.0], rtol=1e-6)
  with pytest.raises(ValueError, match='none residual gated'):
    rollout.combine_output('sum', output, output)


class Chunk(nn.Module):
  """Adds one to the chunk and its forcings; counts its calls in `batch_stats`."""
  channels: int = 1

  @nn.compact
  def __call__(self, chunk, train):
    calls = self.variable('batch_stats', 'calls', jnp.zeros, ())
    w = self.param('w', nn.initializers.ones, ())
    if train and not self.is_initializing():
      calls.value += 1
    y = w * jnp.sum(chunk, -1, keepdims=True) + 1
    return jnp.tile(y, self.channels), {'first': chunk[:, 0, 0, 0, 0]}


class Chunks(nn.Module):
  network: nn.Module
  t_in: int
  t_out: int
  combine: str = 'none'
  lag: int = 1
  remat: bool = False

  def __call__(self, frames, forcings, train=False):
    return rollout.rollout_chunks(
        self.network, frames, forcings, t_in=self.t_in, t_out=self.t_out, fuse=FUSE,
        combine=self.combine, lag=self.lag, train=train, remat=self.remat)


@pytest.mark.parametrize('t_in, t_out', [(2, 2), (2, 5), (3, 2), (2, 6), (1, 3)])
@pytest.mark.parametrize('remat', [False, True])
def test_chunks_equal_the_loop_written_out(t_in, t_out, remat):
  total = t_in + t_out
  frames, forcings = _frames(t=total), _frames(t=total, channels=2, seed=1)
  module = Chunks(Chunk(), t_in, t_out, remat=remat)
  variables = module.init(jax.random.key(0), frames, forcings)
  (got, terms), new = module.apply(variables, frames, forcings, True, mutable='batch_stats')
  chunk, expected, firsts = frames[:, :t_in], [], []
  padded = jnp.concatenate([forcings] + [forcings[:, -1:]] * t_in, 1)
  chunks = -(-t_out // t_in)
  for i in range(chunks):
    fused = FUSE(chunk, padded[:, i * t_in:(i + 1) * t_in])
    firsts.append(fused[:, 0, 0, 0, 0])
    chunk = jnp.sum(fused, -1, keepdims=True) + 1
    expected.append(chunk)
  np.testing.assert_allclose(got, jnp.concatenate(expected, 1)[:, :t_out], rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(terms['first'], jnp.mean(jnp.stack(firsts), 0), rtol=1e-5)
  # Batch statistics once per chunk, in training only.
  assert new['batch_stats']['network']['calls'] == chunks
  _, new = module.apply(variables, frames, forcings, False, mutable='batch_stats')
  assert new.get('batch_stats', variables['batch_stats'])['network']['calls'] == 0
  # In evaluation the collection is frozen.
  plain, _ = module.apply(variables, frames, forcings)
  np.testing.assert_array_equal(plain, got)


def test_chunks_do_not_read_beyond_the_input_nor_forcings_they_do_not_need():
  frames, forcings = _frames(t=7), _frames(t=7, seed=1)
  module = Chunks(Chunk(), 2, 5)
  variables = module.init(jax.random.key(0), frames, forcings)
  expected, _ = module.apply(variables, frames, forcings)
  spoilt, _ = module.apply(
      variables, frames.at[:, 2:].set(jnp.nan), forcings.at[:, 6:].set(jnp.nan))
  # Chunk 2 (of frames 6, 7) reads forcings 4, 5: none of frame 6 is needed.
  np.testing.assert_array_equal(spoilt, expected)


@pytest.mark.parametrize('lag', [1, 2, 4])
def test_chunk_residual_repeats_the_last_lag_frames(lag):
  class Nothing(nn.Module):
    def __call__(self, chunk, train):
      return jnp.zeros_like(chunk), {}

  frames = _frames(t=10)
  got, _ = Chunks(Nothing(), 4, 6, 'residual', lag).apply({}, frames, None)
  expected = [frames[:, 4 - lag + i % lag] for i in range(6)] if lag != 3 else None
  np.testing.assert_array_equal(got, jnp.stack(expected, 1))


class Noise(nn.Module):
  """Predicts which examples and pixels dropout kept; serves both loops."""

  def initial_carry(self, frame, steps):
    return ()

  @nn.compact
  def __call__(self, *args):
    shape = jax.tree.leaves(args)[0].shape
    kept = nn.Dropout(0.5)(jnp.ones(shape), deterministic=False)
    return ((), kept, {}) if len(args) == 3 else (kept, {})


@pytest.mark.parametrize('module, more', [
    (Frames(Noise()), (jnp.ones((2, 6)),)), (Chunks(Noise(), 2, 4), (True,))])
def test_dropout_is_drawn_anew_at_every_step_and_repeats_with_its_key(module, more):
  frames = _frames()
  draw = lambda seed: module.apply({}, frames, None, *more, rngs={'dropout': jax.random.key(seed)})
  first = np.asarray(draw(0)[0])
  np.testing.assert_array_equal(first, draw(0)[0])
  assert not np.array_equal(first, draw(1)[0])
  assert not np.array_equal(first[:, :2], first[:, 2:4])


def test_float64_runs_stay_float64():
  with jax.enable_x64(True):
    frames = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 2, 2, 1)))
    module = Frames(Affine(), 'residual', 2)
    params = {'params': {'step': {'w': jnp.asarray(0.5, jnp.float64)}}}
    assert module.apply(params, frames, None, jnp.ones((1, 4)))[0].dtype == jnp.float64
