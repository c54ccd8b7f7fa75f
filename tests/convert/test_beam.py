"""Beam networks: told by their keys, converted, written back."""

import functools

import jax
import numpy as np
import pytest

from stp_jax import checkpoint
from stp_jax.convert import __main__ as command
from stp_jax.convert import beam, infer, rules
from stp_jax.models.beam import build

_NARROW = dict(widths=(4, 8, 12, 16), image_depths=(1, 2, 1, 1), depths=(2, 1, 1, 1),
               hidden=(8, 6), beams=5, n_layer=2, d_state=3, d_conv=3)
# Published network -> our fields, frames.
_CASES = dict(
    mambafuser=(dict(name='mambafusion', anchors=(2, 2)), 3),
    mambafuser_v1=(dict(name='mambafusion', channel_swap=False, tfm_weights='sum',
                        anchors=(8, 8)), 2),
    mamba_30to5=(dict(name='mambafusion', channel_swap=False, tfm_weights='sum', anchors=(8, 8),
                      steps=5), 2),
    transfuser_tii=(dict(name='transfuser', anchors=(8, 8)), 1))


@functools.cache
def _weights(variant):
  """A state_dict of random numbers, as upstream's trainer would have written it."""
  fields, frames = _CASES[variant]
  own = {} if 'mamba' in variant else dict(d_state=16, d_conv=4)
  model = build({**_NARROW, **own, **fields})
  batch = {s: np.zeros((1, frames, 32, 32, c), np.float32)
           for s, c in dict(image=3, lidar=1, radar=2).items()}
  batch['gps'] = np.zeros((1, 2, 2), np.float32)
  template = jax.eval_shape(model.init, jax.random.key(0), batch)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)
  return model, rules.complete(beam.FAMILY, rules.to_torch(beam.FAMILY, variables), (32, 32))


@pytest.mark.parametrize('variant', beam.VARIANTS)
def test_a_file_tells_which_network_it_is_and_how_large(variant):
  model, weights = _weights(variant)
  assert beam.variant_of(weights) == variant
  assert infer.model_of(weights) == _CASES[variant][0]['name']
  found = beam.network_fields(weights)
  quirks = beam.variant_fields(variant)
  assert quirks.items() <= found.items()
  for field, value in found.items():
    if field not in ('align', 'residual'):
      assert getattr(model, field) == value, field
  assert beam.fields(weights)['data.t_in'] == _CASES[variant][1]


@pytest.mark.parametrize('variant', ['mamba_30to5', 'transfuser_tii'])
def test_a_checkpoint_becomes_a_run_and_a_checkpoint_again(tmp_path, capsys, variant):
  _, weights = _weights(variant)
  fields, frames = _CASES[variant]
  np.savez(tmp_path / 'w.npz', **{f'module.{k}': v for k, v in weights.items()})
  run, back = str(tmp_path / 'run'), str(tmp_path / 'back.npz')
  assert command.main([str(tmp_path / 'w.npz'), f'--out={run}', '--frame=32x32']) == 0, (
      capsys.readouterr().err)
  loaded = checkpoint.load(run)
  assert loaded.config.model.name == fields['name']
  assert (loaded.config.data.t_in, loaded.config.data.t_out) == (frames, fields.get('steps', 1))
  assert loaded.spec.streams['image']['shape'] == [32, 32, 3]
  assert command.main(['--to-torch', f'--checkpoint={run}', f'--out={back}']) == 0
  with np.load(back) as again:
    assert set(again.files) == weights.keys()
    for key, value in weights.items():
      np.testing.assert_array_equal(again[key], value)


def test_layers_of_a_stack_are_named_one_by_one():
  _, weights = _weights('mambafuser')
  key = 'encoder.mambafusion2.mambablocks.1.forward_mamba.A_log'
  assert weights[key].shape == (16, 3)
  model, batch = _weights('mambafuser')[0], {'gps': np.zeros((1, 2, 2), np.float32)}
  batch |= {s: np.zeros((1, 3, 32, 32, c), np.float32)
            for s, c in dict(image=3, lidar=1, radar=2).items()}
  template = jax.eval_shape(model.init, jax.random.key(0), batch)
  with pytest.raises(rules.ConversionError, match=f'missing: {key}$'):
    rules.to_flax(beam.FAMILY, {k: v for k, v in weights.items() if k != key}, template)


def test_other_weights_are_nobodys():
  assert beam.variant_of({'conv1.weight': np.zeros(1)}) is None
  assert beam.fields({'conv1.weight': np.zeros(1)}) == {}
