"""Schedules and optimizers against torch.optim, step by step, and their properties."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax import optimizers

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")


def _torch_one_cycle(steps, lr, name='adam', **kwargs):
  parameter = torch.nn.Parameter(torch.zeros(1))
  if name == 'adam':
    optimizer = torch.optim.Adam([parameter], lr=lr)
  else:
    optimizer = torch.optim.SGD([parameter], lr=lr, momentum=0.9)
  schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, **kwargs)
  rates, moments = [], []
  for k in range(steps):
    group = optimizer.param_groups[0]
    rates.append(group['lr'])
    moments.append(group['betas'][0] if name == 'adam' else group['momentum'])
    optimizer.step()
    if k + 1 < steps:
      schedule.step()
  return np.array(rates), np.array(moments)


def _values(config, steps, steps_per_epoch=0):
  _, schedule = optimizers.make(config, steps, steps_per_epoch)
  found = jax.jit(jax.vmap(schedule))(jnp.arange(steps))
  return np.asarray(found['learning_rate']), np.asarray(found['b1'])


@settings(deadline=None, max_examples=12)
@given(steps=st.integers(1, 400), pct=st.floats(0.05, 0.95), final=st.floats(1.0, 1e5))
def test_one_cycle_is_torchs(steps, pct, final):
  if pct * steps == 1:
    return  # PyTorch divides by zero
  rates, moments = _torch_one_cycle(steps, 1e-3, pct_start=pct, final_div_factor=final)
  config = dict(learning_rate=1e-3, pct_start=pct, final_div_factor=final)
  with jax.enable_x64(True):
    found = _values(config, steps)
  np.testing.assert_allclose(found[0], rates, rtol=1e-9, atol=1e-15)
  np.testing.assert_allclose(found[1], moments, rtol=1e-12)


@pytest.mark.parametrize('steps', [10, 1000, 300_000])
def test_one_cycle_in_float32_keeps_the_last_tiny_rates(steps):
  picked = np.unique(np.concatenate(
      [np.arange(0, steps, max(steps // 50, 1)), np.arange(steps - 5, steps)]))
  _, schedule = optimizers.make(dict(learning_rate=1e-3), steps)
  found = jax.vmap(schedule)(jnp.asarray(picked))['learning_rate']
  with jax.enable_x64(True):
    exact = np.asarray(jax.vmap(schedule)(jnp.asarray(picked))['learning_rate'])
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, exact, rtol=2e-6)


@pytest.mark.parametrize('schedule', ['onecycle', 'cosine', 'tanh', 'step', 'multistep',
                                      'constant'])
def test_a_step_past_the_end_holds_the_last_value(schedule):
  _, at = optimizers.make(dict(schedule=schedule, milestones=(2, 4)), 12, 2)
  assert at(11) == at(12) == at(100)


@settings(deadline=None, max_examples=12)
@given(epochs=st.integers(1, 30), per_epoch=st.integers(1, 40), warm=st.integers(0, 5),
       kind=st.sampled_from(['cosine', 'tanh', 'step', 'constant']))
def test_by_epoch_is_constant_within_an_epoch_and_bounded(epochs, per_epoch, warm, kind):
  config = dict(schedule=kind, warmup_epochs=min(warm, epochs), decay_epochs=3.0)
  rates, _ = _values(config, epochs * per_epoch, per_epoch)
  rates = rates.reshape(epochs, per_epoch)
  assert (rates == rates[:, :1]).all()
  assert (rates <= 1e-3 * 1.000001).all() and (rates > 0).all()
  if warm and epochs > 1:
    assert rates[0, 0] == pytest.approx(1e-5)


def test_without_by_epoch_the_rate_moves_every_step():
  rates, _ = _values(dict(schedule='cosine', by_epoch=False), 40, 10)
  assert (np.diff(rates) < 0).all()
  np.testing.assert_allclose(
      rates, 1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + np.cos(math.pi * np.arange(40) / 40)), rtol=1e-5)


def test_multistep_decays_at_each_milestone():
  rates, _ = _values(dict(schedule='multistep', milestones=(1, 3), decay_rate=0.1), 8, 2)
  np.testing.assert_allclose(rates, 1e-3 * np.repeat([1, .1, .1, .01], 2), rtol=1e-6)


def _compare(make_torch, config, steps=25, clip=0.0, scheduler=None):
  """Trains 3 tensors on a fixed random quadratic with both; returns the largest difference."""
  rng = np.random.default_rng(0)
  start = {'w': rng.normal(size=(4, 3)), 'scale': rng.normal(size=(3,)),
           'v': {'bias': rng.normal(size=(2, 2))}}
  start = jax.tree.map(lambda x: x.astype(np.float32), start)
  pulls = rng.normal(size=(steps, 4, 3)).astype(np.float32)

  def loss_of(params, pull, square):
    return (square(params['w'] - pull).sum() + 3 * square(params['scale']).sum()
            + square(params['v']['bias'] - 0.2).sum())

  ours, (tx, _) = start, optimizers.make(config, steps, 5)
  state = tx.init(ours)

  @jax.jit
  def step(params, state, pull):
    grads = jax.grad(loss_of)(params, pull, jnp.square)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  theirs = jax.tree.map(lambda x: torch.nn.Parameter(torch.tensor(x)), start)
  leaves = [theirs['w'], theirs['scale'], theirs['v']['bias']]
  optimizer = make_torch(leaves)
  schedule = scheduler(optimizer) if scheduler else None
  gap = 0.0
  for k in range(steps):
    ours, state = step(ours, state, pulls[k])
    optimizer.zero_grad()
    loss_of(theirs, torch.tensor(pulls[k]), torch.square).backward()
    if clip:
      torch.nn.utils.clip_grad_norm_(leaves, clip)
    optimizer.step()
    if schedule and k + 1 < steps:
      schedule.step()
    gap = max(gap, max(float(np.abs(a - b.detach().numpy()).max()) for a, b in zip(
        jax.tree.leaves(ours), [theirs['scale'], theirs['v']['bias'], theirs['w']])))
  return gap


def _cycle(optimizer):
  return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=25)


@pytest.mark.parametrize('name,decay,clip', [
    ('adam', 0.0, 0.0), ('adam', 0.1, 0.0), ('adamw', 0.1, 0.0), ('adam', 0.0, 1.0),
    ('sgd', 0.01, 0.5)])
def test_updates_are_torchs(name, decay, clip):
  makers = {
      'adam': lambda p: torch.optim.Adam(p, 0.05, weight_decay=decay),
      'adamw': lambda p: torch.optim.AdamW(p, 0.05, weight_decay=decay),
      'sgd': lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=decay)}
  config = dict(name=name, learning_rate=0.05, weight_decay=decay, skip_decay_1d=False,
                clip_norm=clip)
  assert _compare(makers[name], config, clip=clip, scheduler=_cycle) < 2e-6


def test_the_cycled_b1_matters():
  config = dict(learning_rate=0.05, cycle_momentum=False)
  assert _compare(lambda p: torch.optim.Adam(p, 0.05), config, scheduler=_cycle) > 1e-3


def test_constant_rate_and_decay_mask_are_torchs():
  groups = lambda p: torch.optim.AdamW(
      [{'params': [p[0]], 'weight_decay': 0.3}, {'params': p[1:], 'weight_decay': 0.0}], 0.02)
  config = dict(name='adamw', learning_rate=0.02, schedule='constant', weight_decay=0.3)
  assert _compare(groups, config) < 2e-6


def test_decay_mask_skips_vectors_and_biases():
  params = {'kernel': jnp.zeros((3, 3)), 'bias': jnp.zeros((4, 4, 2)), 'scale': jnp.zeros(3)}
  assert optimizers.decay_mask(params) == {'kernel': True, 'bias': False, 'scale': False}
  # In a stack of three equal layers.
  stacked = {name: np.zeros((3, *np.shape(x))) for name, x in params.items()}
  assert optimizers.decay_mask(dict(stack=stacked, other=stacked)) == dict(
      stack=dict(kernel=True, bias=False, scale=False),
      other=dict(kernel=True, bias=False, scale=True))


def test_the_slow_are_clipped_with_all():
  with pytest.raises(ValueError, match=r'optimizer.slow.clip_norm: gradients are clipped all'):
    optimizers.make(dict(slow=dict(clip_norm=1.0)), 10, label=lambda path: 'slow')


def test_the_transformation_uses_the_schedule_that_is_logged():
  tx, schedule = optimizers.make(dict(name='sgd', momentum=0.0, cycle_momentum=False), 10)
  params = {'w': jnp.zeros(2)}
  state = tx.init(params)
  for k in range(10):
    updates, state = tx.update({'w': jnp.ones(2)}, state, params)
    np.testing.assert_allclose(updates['w'], -schedule(k)['learning_rate'], rtol=1e-6)


@pytest.mark.parametrize('config,message', [
    (dict(lr=1), 'unknown field lr'), (dict(name='lamb'), 'choose one of adam adamw sgd'),
    (dict(schedule='linear'), 'choose one of onecycle'),
    (dict(warmup_epochs=2), 'onecycle has its own warm-up')])
def test_errors_name_the_field(config, message):
  with pytest.raises(ValueError, match=message):
    optimizers.make(config, 10)
  with pytest.raises(ValueError, match='a run of 0 steps'):
    optimizers.make({}, 0)


def test_labels_freeze_and_slow_down():
  """Frozen parameters have no moments and never move; slow ones follow their own fields."""
  config = dict(learning_rate=1e-2, schedule='constant', slow=dict(learning_rate=1e-4))
  label = lambda path: {'a/kernel': 'main', 'b/kernel': 'slow'}.get(path, 'frozen')
  tx, _ = optimizers.make(config, 10, label=label)
  params = {k: {'kernel': jnp.ones((2, 2))} for k in 'abc'}
  state = tx.init(params)
  assert sum(x.size for x in jax.tree.leaves(state) if x.ndim) == 2 * 2 * 4
  updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
  step = {k: float(-v['kernel'][0, 0]) for k, v in updates.items()}
  np.testing.assert_allclose([step['a'], step['b'], step['c']], [1e-2, 1e-4, 0], rtol=1e-5)


def test_equal_labels_leave_the_state_plain():
  """A checkpoint of a run without groups has none, whoever asked."""
  params = {'a': jnp.ones(3)}
  one, two = (optimizers.make({}, 10, label=f)[0].init(params) for f in (None, lambda _: 'main'))
  assert jax.tree.structure(one) == jax.tree.structure(two)


def test_unknown_label_is_named():
  with pytest.raises(ValueError, match='a: label'):
    optimizers.make({}, 10, label=lambda _: 'fast')[0].init({'a': jnp.ones(3)})
