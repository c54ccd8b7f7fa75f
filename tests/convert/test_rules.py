"""Names and layouts, both ways; total or fail."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax import convert, models
from stp_jax.convert import rules

torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")

_MODELS = {
    'convlstm': dict(name='convlstm', fusion='none', patch=2,
                     backbone=dict(features=(3, 5), kernel_size=3, layer_norm=True)),
    'gsta': dict(name='simvp', fusion='none', backbone=dict(hid_S=4, hid_T=12, N_S=2, N_T=2,
                                                            mlp_ratio=2.0, translator='gsta')),
    'tau': dict(name='simvp', fusion='none', backbone=dict(hid_S=4, hid_T=12, N_S=4, N_T=3,
                                                           mlp_ratio=2.0, translator='tau'))}


def _template(name):
  model = models.build(_MODELS[name], shape=(8, 8, 1), t_in=2, t_out=2)
  frames = np.zeros((1, 4, 8, 8, 1), np.float32)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), frames))


def _filled(template, seed=0):
  """Random numbers of the template's shapes."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)


@pytest.mark.parametrize('name', _MODELS)
def test_there_and_back_is_bit_equal(name):
  template, family = _template(name), convert.family_of(_MODELS[name]['name'])
  variables = _filled(template)
  weights = rules.to_torch(family, variables)
  extra = {'cell_list.1.conv_o.0.weight': np.ones((5, 2, 3, 3), np.float32)}
  extra = extra if name == 'convlstm' else {
      'hid.enc.0.block.norm1.num_batches_tracked': np.array(7)}
  again, unused = rules.to_flax(family, weights | extra, template)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  assert jax.tree.structure(again) == jax.tree.structure(variables)
  assert unused.keys() == extra.keys()
  back = rules.to_torch(family, again, unused)
  assert back.keys() == weights.keys() | extra.keys()
  for key, value in (weights | extra).items():
    np.testing.assert_array_equal(back[key], value)
    assert back[key].dtype == value.dtype


def test_names_and_layouts_are_torchs():
  weights = rules.to_torch(convert.family_of('convlstm'), _filled(_template('convlstm')))
  assert weights['cell_list.1.conv_x.0.weight'].shape == (20, 3, 3, 3)
  assert weights['cell_list.1.conv_h.1.bias'].shape == (20, 4, 4)
  assert weights['conv_last.weight'].shape == (4, 5, 1, 1)
  weights = rules.to_torch(convert.family_of('simvp'), _filled(_template('tau')))
  assert weights['dec.dec.0.conv.conv.0.weight'].shape == (16, 4, 3, 3)
  assert weights['hid.enc.1.block.attn.spatial_gating_unit.conv_spatial.weight'].shape == (
      12, 1, 7, 7)
  assert weights['hid.enc.1.block.attn.spatial_gating_unit.fc.0.weight'].shape == (3, 12)
  assert weights['hid.enc.1.block.norm1.running_var'].shape == (12,)


def test_unused_tensors_count_but_buffers_do_not():
  family = convert.family_of('simvp')
  params = {'w': np.zeros((2, 3))}
  unused = {'some.weight': np.zeros(5), 'a.num_batches_tracked': np.zeros(())}
  assert rules.parameter_count(family, params, unused) == 11


def _message(name, change):
  template, family = _template(name), convert.family_of(_MODELS[name]['name'])
  weights = rules.to_torch(family, _filled(template))
  change(weights)
  with pytest.raises(rules.ConversionError) as error:
    rules.to_flax(family, weights, template)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_a_missing_key_is_named():
  message = _message('convlstm', lambda w: w.pop('conv_last.weight'))
  assert message == 'convlstm: the weights do not fit: missing: conv_last.weight'


def test_a_left_over_key_is_named():
  message = _message('gsta', lambda w: w.update({'hid.enc.7.reduction.weight': np.zeros(1)}))
  assert message == 'simvp: the weights do not fit: nothing uses: hid.enc.7.reduction.weight'


def test_a_wrong_shape_is_named():
  message = _message('gsta', lambda w: w.update({'dec.readout.weight': np.zeros((2, 4, 1, 1))}))
  assert message == ('simvp: the weights do not fit: wrong shape: dec.readout.weight (2, 4, 1, 1) '
                     'for backbone/dec/readout/kernel (1, 1, 4, 1)')


def test_a_long_list_is_shortened():
  def change(weights):
    for key in list(weights):
      weights[f'net.{key}'] = weights.pop(key)
  message = _message('gsta', change)
  assert 'and 7' in message and len(message) < 500


def test_a_scalar_where_a_kernel_belongs_is_a_wrong_shape():
  assert 'wrong shape' in _message('gsta', lambda w: w.update({'dec.readout.weight': np.ones(())}))


@settings(deadline=None, max_examples=15)
@given(i=st.integers(1, 4), o=st.integers(1, 4), k=st.integers(1, 4),
       layout=st.sampled_from(
           ['conv', 'transposed', 'linear', 'pointwise', 'volume', 'planes', 'same']))
def test_layouts_invert(i, o, k, layout):
  shapes = {'linear': ((o, i), (i, o)), 'pointwise': ((o, i, 1, 1), (i, o)),
            'volume': ((o, i, k), (i, k, o)), 'conv': ((o, i, k, k), (k, k, i, o)),
            'transposed': ((i, o, k, k), (k, k, i, o)), 'same': ((o, i), (o, i)),
            'planes': ((1, o, 1, 1), (1, 1, 1, o)) if k > 1 else ((o,), (o,))}
  theirs, ours = shapes[layout]
  array = np.random.default_rng(0).normal(size=theirs)
  found = rules.from_torch(layout, array, ours)
  assert found.shape == ours
  np.testing.assert_array_equal(rules.into_torch(layout, found), array)


def test_transposed_convolutions_are_flipped():
  """The layout is the one that jax.lax.conv_transpose needs to equal ConvTranspose2d."""
  x = np.random.default_rng(1).normal(size=(1, 3, 5, 6)).astype(np.float32)
  module = torch.nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1, bias=False)
  weight = module.weight.detach().numpy()
  kernel = rules.from_torch('transposed', weight, (4, 4, 3, 2))
  ours = jax.lax.conv_transpose(
      x.transpose(0, 2, 3, 1), kernel, (2, 2), ((2, 2), (2, 2)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  theirs = module(torch.tensor(x)).detach().numpy()
  np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), theirs, atol=1e-5)


def test_a_linear_layer_may_be_a_1x1_convolution():
  array = np.arange(6.0).reshape(2, 3)
  found = rules.from_torch('linear', array, (1, 1, 3, 2))
  np.testing.assert_array_equal(found[0, 0], array.T)
  np.testing.assert_array_equal(rules.into_torch('linear', found), array)


def test_numbers_in_names_stay_unless_the_module_is_a_list():
  path = ('enc', 'enc_0', 'proj_1', 'kernel')
  assert rules.spell(path, ('enc',)) == 'enc.enc.0.proj_1.weight'
  assert rules.spell(('norm', 'layer_scale_1')) == 'norm.layer_scale_1'


def test_an_unknown_model_lists_the_known():
  with pytest.raises(rules.ConversionError, match=r'known: convlstm .*simvp'):
    convert.family_of('transformer')
