"""Full-size cases without a weights file: weights and inputs that a rule in the case makes."""

import zlib

import numpy as np

from stp_jax.parity.case import Case

_CHECK = 'check/weight/'


def _weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
  """A tensor from its name alone; small enough that a deep stack stays tame. First match wins."""
  r = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
  leaf = key.rpartition('.')[2]
  if leaf == 'num_batches_tracked':
    return np.zeros(shape)
  if leaf == 'running_var':
    return 1 + 0.1 * np.abs(r)
  if leaf == 'running_mean':
    return 0.05 * r
  if leaf == 'A_log':
    return np.log(np.arange(1, shape[-1] + 1)) + 0.02 * r
  if leaf == 'D':
    return 1 + 0.1 * r
  if leaf == 'pos_emb':
    return 0.02 * r
  if key.endswith('dt_proj.bias'):
    return -2 + 0.5 * r
  if '.ln1.' in key and 'mambablocks' in key:
    return 0.35 + 0.05 * r if leaf == 'weight' else r
  if '.ln' in key:
    return 1 + 0.1 * r if leaf == 'weight' else 0.02 * r
  if key.endswith('fc2.bias'):
    return 1 + 0.1 * r
  if leaf == 'bias':
    return 0.02 * r
  if len(shape) == 1:
    return (0.35 if '.bn2.' in key else 1.0) + 0.05 * r
  if key.endswith('conv1d.weight'):
    return 0.4 * r
  if len(shape) == 4:
    return r * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
  return r / np.sqrt(shape[1])


def generate_weights(case: Case) -> dict[str, np.ndarray]:
  """The state_dict of `state_dict_shapes`, float32 (counters int64)."""
  found = {}
  for key, shape in case.spec['state_dict_shapes'].items():
    kind = np.int64 if key.endswith('num_batches_tracked') else np.float32
    found[key] = np.asarray(_weight(key, tuple(shape))).astype(kind)
  return found


def generate_inputs(case: Case) -> dict[str, np.ndarray]:
  """image, lidar, radar `[T, B, C, H, W]` and gps, float32, from one stream in a fixed order."""
  c = case.config
  rng, size = np.random.RandomState(1), (c['seq_len'], c['batch'])
  image = rng.randint(0, 256, (*size, 3, *c['input_hw']))
  kept = rng.rand(*size, 1, *c['input_hw']) < 0.05
  counts = rng.randint(1, 6, (*size, 1, *c['input_hw']))
  radar = rng.rand(*size, 1 + c['add_velocity'], *c['input_hw'])
  gps = rng.uniform(-1, 1, (c['batch'], 2, 2))
  arrays = dict(image=image, lidar=kept * counts / 5, radar=radar, gps=gps)
  return {k: v.astype(np.float32) for k, v in arrays.items()}


def disagreements(case: Case, weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]
                  ) -> list[str]:
  """What does not match the sums and corners that the case keeps; empty when the rule is right."""
  notes = []
  for name, stored in case.io.items():
    if name.startswith(_CHECK):
      w = np.asarray(weights[name.removeprefix(_CHECK)], np.float64)
      same = np.allclose([w.sum(), np.abs(w).sum()], stored, rtol=1e-5, atol=1e-4)
    elif name.startswith('check/') and name.endswith('_crop'):
      x = inputs[name.removeprefix('check/').removesuffix('_crop')]
      same = np.array_equal(x[..., :stored.shape[-2], :stored.shape[-1]], stored)
    elif name == 'check/input_sums':
      sums = [inputs[k].astype(np.float64).sum() for k in ('image', 'lidar', 'radar')]
      same = np.allclose(sums, stored, rtol=1e-9)
    else:
      continue
    if not same:
      notes.append(f'{name}: what the rule generates differs')
  return notes
