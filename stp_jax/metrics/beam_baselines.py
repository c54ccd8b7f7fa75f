"""What a beam network must beat: a head that knows only the positions, habit, and chance."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stp_jax.data import beam_windows, deepsense_features
from stp_jax.typing import Array

# Scenarios have a number each; others share the place of none.
_SCENARIOS = (31, 32, 33, 34)
_HIDDEN, _STEPS, _RATE = 64, 600, 1e-2
_SAMPLES = 4096  # to fit on, spread evenly


def position_features(sources: Sequence[beam_windows.BeamSource]
                      ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Positions (angle and metres, both fixes) and the scenario as ones and zeros.

  Returns:
    float32 `[N, 6 + scenarios]`, beams `[N, K]`, scenarios `[N]`.
  """
  rows = [item for source in sources for item in map(source.position, range(len(source)))]
  scenario = np.array([r['scenario'] for r in rows])
  ones = scenario[:, None] == np.array(_SCENARIOS)
  metres = np.stack([r['gps'] for r in rows])
  angle = np.asarray(deepsense_features.gps_angle(jnp.asarray(metres), scenario))
  features = np.concatenate([metres.reshape(len(rows), -1) / 50, angle, ones], 1)
  return features.astype(np.float32), np.stack([r['beam'] for r in rows]), scenario


def fit(sources: Sequence[beam_windows.BeamSource], beams: int = 64, seed: int = 0
        ) -> dict[str, np.ndarray]:
  """The tables of both baselines from training samples: a small perceptron, and counts.

  Returns:
    `w0, b0, ...` of the perceptron, `mean`, `spread` of its inputs, `counts`
    `[1 + scenarios, beams]` of the soft labels, all scenarios first.
  """
  step = -(-sum(map(len, sources)) // _SAMPLES)
  features, beam, scenario = position_features([s.only(range(0, len(s), step)) for s in sources])
  known = beam[:, 0] >= 0
  features, scenario = features[known], scenario[known]
  labels = np.asarray(deepsense_features.soft_labels(jnp.asarray(beam[known, 0]), beams=beams))
  counts = np.stack([labels.sum(0), *(labels[scenario == s].sum(0) for s in _SCENARIOS)])
  mean, spread = features.mean(0), features.std(0) + 1e-6
  sizes = (features.shape[1], _HIDDEN, _HIDDEN, beams)
  keys = jax.random.split(jax.random.key(seed), len(sizes) - 1)
  params = {}
  for i, (key, a, b) in enumerate(zip(keys, sizes, sizes[1:])):
    params |= {f'w{i}': jax.random.normal(key, (a, b)) * a ** -0.5, f'b{i}': jnp.zeros(b)}
  optimizer = optax.adamw(optax.cosine_decay_schedule(_RATE, _STEPS), weight_decay=1e-2)
  target = labels / labels.sum(1, keepdims=True)

  @jax.jit
  def train(params, x, target):
    def step(carry, _):
      params, state = carry
      grads = jax.grad(lambda p: optax.softmax_cross_entropy(_perceptron(p, x), target).mean())(
          params)
      updates, state = optimizer.update(grads, state, params)
      return (optax.apply_updates(params, updates), state), None
    return jax.lax.scan(step, (params, optimizer.init(params)), None, _STEPS)[0][0]

  params = train(params, (features - mean) / spread, target)
  return dict(jax.tree.map(np.asarray, params), mean=mean, spread=spread, counts=counts)


def _perceptron(params, x: Array) -> Array:
  for i in range(2):
    x = jax.nn.relu(x @ params[f'w{i}'] + params[f'b{i}'])
  return x @ params['w2'] + params['b2']


def logits(fitted: dict[str, np.ndarray], features: np.ndarray, scenario: np.ndarray
           ) -> dict[str, np.ndarray]:
  """Logits `[N, beams]` of the baselines `positions only` and `most frequent beams`."""
  x = (features - fitted['mean']) / fitted['spread']
  place = np.array([_SCENARIOS.index(s) + 1 if s in _SCENARIOS else 0 for s in scenario])
  counts = fitted['counts'][place]
  # A scenario that training did not see: what is frequent everywhere.
  counts = np.where(counts.sum(1, keepdims=True) > 0, counts, fitted['counts'][:1])
  return {'positions only': np.asarray(_perceptron(fitted, x)), 'most frequent beams': counts}


def random_logits(count: int, beams: int, draws: int = 64, seed: int = 0) -> np.ndarray:
  """Float32 `[draws, count, beams]` of no information: their mean score is chance."""
  return np.random.default_rng(seed).random((draws, count, beams), np.float32)


