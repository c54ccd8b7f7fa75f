"""GS2PM's files: stacks of layers there and back to the bit, sizes from shapes."""

import jax
import numpy as np
import pytest

from stp_jax.convert import FAMILIES, gs2pm, infer, rules
from stp_jax.models.gs2pm import GS2PM, MS2P

_SMALL = dict(hid_S=4, N_S=2)
_CASES = [
    ('gs2pm', dict(channels=3, hid_T=16, N_T=5, mlp_ratio=2.5, prompt_size=3), (2, 12, 16)),
    ('gs2pm', dict(channels=1, hid_T=8, N_T=3, spatio_kernel_enc=5, prompt_size=2), (2, 8, 8)),
    ('gs2pm', dict(channels=1, hid_T=16, N_T=2, N_S=4, prompt_size=0), (3, 8, 8)),
    ('ms2p_v1', dict(channels=3, hid_T=16, N_T=4, spatio_kernel_dec=5), (3, 8, 8))]


def _template(name, fields, shape):
  module = dict(gs2pm=GS2PM, ms2p_v1=MS2P)[name](**(_SMALL | fields))
  t, h, w = shape
  return jax.eval_shape(
      module.init, jax.random.key(0), np.zeros((1, t, h, w, fields['channels']), np.float32))


def _filled(template):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)


@pytest.mark.parametrize('name, fields, shape', _CASES)
def test_there_and_back_is_bit_equal(name, fields, shape):
  template, family = _template(name, fields, shape), FAMILIES[name]
  variables = _filled(template)
  weights = rules.to_torch(family, variables)
  again, unused = rules.to_flax(family, weights, template)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  assert jax.tree.structure(again) == jax.tree.structure(variables) and not unused
  count = sum(x.size for x in jax.tree.leaves(template['params']))
  assert rules.parameter_count(family, template['params'], {}) == count


@pytest.mark.parametrize('name, fields, shape', _CASES)
def test_shapes_tell_the_sizes(name, fields, shape):
  weights = rules.to_torch(FAMILIES[name], _filled(_template(name, fields, shape)))
  assert infer.model_of(weights) == name
  found = infer.fields(name, weights)
  frames, *frame = shape
  assert found['data.t_in'] == found['data.t_out'] == frames
  for key, value in (_SMALL | fields).items():
    if key != 'channels':
      assert found[f'model.backbone.{key}'] == value, key
  assert infer.channels(name, weights) == (fields['channels'],) * 2
  has_border = name == 'gs2pm' and fields['prompt_size']
  assert infer.frame_size(name, weights) == (tuple(frame) if has_border else None)


def test_names_and_layouts_are_torchs():
  name, fields, shape = _CASES[0]
  weights = rules.to_torch(FAMILIES[name], _filled(_template(name, fields, shape)))
  shapes = {
      'translator.enc.0.block.conv1.weight': (8, 8, 1, 1), 'translator.enc.0.reduction.bias': (16,),
      'translator.enc.1.block.pos_embed.weight': (16, 1, 3, 3),
      'translator.enc.3.block.attn.qkv.weight': (48, 16), 'translator.enc.3.block.gamma_2': (16,),
      'translator.enc.4.block.mlp.fc1.weight': (40, 16, 1, 1), 'prompt.pad_up': (1, 3, 3, 16),
      'prompt.pad_left': (1, 3, 6, 3), 'dec.dec.0.conv.conv.0.weight': (16, 4, 3, 3)}
  assert {k: weights[k].shape for k in shapes} == shapes
  assert not any(k.startswith('translator.enc.5') for k in weights)


def test_a_layer_of_a_stack_that_is_missing_is_named():
  name, fields, shape = _CASES[0]
  template = _template(name, fields, shape)
  weights = rules.to_torch(FAMILIES[name], _filled(template))
  del weights['translator.enc.2.block.gamma_1']
  with pytest.raises(rules.ConversionError, match=r'missing: translator\.enc\.2\.block\.gamma_1$'):
    rules.to_flax(FAMILIES[name], weights, template)
  weights['translator.enc.2.block.gamma_1'] = np.ones(3, np.float32)
  with pytest.raises(rules.ConversionError, match=r'gamma_1 \(3,\) for .*stack/gamma_1 \(16,\)'):
    rules.to_flax(FAMILIES[name], weights, template)


def test_a_file_of_another_model_tells_nothing():
  assert infer.fields('gs2pm', {'x': np.ones(1)}) == {}
  with pytest.raises(KeyError):
    gs2pm.channels('gs2pm', {})
