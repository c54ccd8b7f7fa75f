"""A bare file of any model becomes a run without a config, and the same file again."""

import jax
import numpy as np
import pytest

from stp_jax import checkpoint, models
from stp_jax.convert import FAMILIES, infer, rules
from stp_jax.convert import __main__ as command
from stp_jax.models.simvp import translators

_NET = dict(features=(4, 4), kernel_size=3)
# name -> model config, (H, W, C), forcings, further arguments of the command.
_CASES = {
    'convlstm': (dict(name='convlstm', patch=2, fusion='mix',
                      backbone=dict(features=(3, 5), kernel_size=3, layer_norm=True)),
                 (12, 12, 1), 3, ()),
    'predrnn': (dict(name='predrnn', patch=2, backbone=_NET), (16, 24, 3), 0, ()),
    'predrnnpp': (dict(name='predrnnpp', patch=4, fusion='concatenate', backbone=_NET),
                  (16, 16, 1), 8, ()),
    'predrnnv2': (dict(name='predrnnv2', patch=1, backbone=dict(_NET, layer_norm=True)),
                  (8, 12, 1), 0, ()),
    'mim': (dict(name='mim', patch=2, backbone=dict(_NET, kernel_size=5)), (16, 12, 1), 0, ()),
    'e3dlstm': (dict(name='e3dlstm', patch=2, fusion='mix', backbone=dict(features=(3, 3))),
                (12, 12, 1), 8, ()),
    'mau': (dict(name='mau', backbone=dict(_NET, sr_size=4, head='pointwise')),
            (8, 16, 1), 0, ()),
    'mau_fork': (dict(name='mau', backbone=dict(_NET, sr_size=2, head='transposed')),
                 (8, 12, 1), 0, ()),
    'prednet': (dict(name='prednet', backbone=dict(features=(4, 6), kernel_size=3,
                                                   ahat_kernel_size=(5, 3, 3))),
                (16, 12, 3), 0, ()),
    'phydnet': (dict(name='phydnet', backbone=dict(features=32, hidden=(8, 32), kernel_size=5)),
                (16, 16, 1), 0, ()),
    'crevnet': (dict(name='crevnet', backbone=dict(layers=2)), (64, 64, 1), 0, ()),
    'dmvfn': (dict(name='dmvfn', backbone=dict(
        features=(16, 8), scales=(2, 1), routing_features=6)), (16, 16, 1), 0,
        ('--config.model.backbone.scales=(2, 1)',)),
    'unet': (dict(name='unet', backbone=dict(features=(2, 3))), (16, 18, 3), 0, ()),
    'motionrnn': (dict(name='motionrnn', patch=2, backbone=dict(features=(4, 4),
                                                                kernel_size=(5, 3))),
                  (8, 12, 1), 0, ()),
    'trajgru': (dict(name='trajgru', backbone=dict(
        features=(3, 4), stems=(2, 3), kernels=(5, 1), links=(2, 1), back_kernels=(5, 3),
        back_links=(1, 2), widths=(3, 2), flow_features=4, outputs=1)), (16, 12, 3), 0, ()),
    'convlstmnet': (dict(name='convlstmnet', patch=2, backbone=dict(
        features=(3, 2, 2), layers=(1, 2, 1), skip=1, kernel_size=5)), (8, 12, 1), 0, ()),
    'escl': (dict(name='escl', backbone=dict(features=(3, 2), layers=(1, 1), skip=None)),
             (8, 12, 1), 0, ('--config.model.name=escl',)),
    'lmc': (dict(name='lmc', backbone=dict(
        features=(3, 4), layers=2, motion=(2, 2, 3, 4), memory_size=5, attention=3)),
            (16, 32, 1), 0, ()),
    'ed_convgru': (dict(name='ed_convgru', backbone=dict(
        features=(3, 4), stems=(2, 5), widths=(4, 3), kernel_size=3, inputs=2)),
        (8, 12, 3), 0, ()),
    'ed_convlstm': (dict(name='ed_convlstm', backbone=dict(
        features=(3,), stems=(2,), widths=(4,), kernel_size=1, output='upstream')),
        (8, 12, 1), 0, ()),
    'gs2pm': (dict(name='gs2pm', backbone=dict(
        hid_S=4, hid_T=16, N_S=2, N_T=4, mlp_ratio=2.5, prompt_size=3)), (12, 16, 3), 0, ()),
    'ms2p_v1': (dict(name='ms2p_v1', backbone=dict(
        hid_S=4, hid_T=16, N_S=2, N_T=3, mlp_ratio=1.5, attention='upstream')),
        (8, 12, 1), 0, ())} | {
    f'simvp_{name}': (
        dict(name='simvp', fusion='mix' if name == 'tau' else 'none', backbone=dict(
            translator=name, hid_S=8, hid_T=24, N_S=4, N_T=2, mlp_ratio=2.7,
            spatio_kernel_enc=5)), (32, 32, 1), 3 if name == 'tau' else 0, ('--frame=32x32',))
    for name in translators.names()}


def _weights(name):
  """A state_dict of random numbers, unused tensors included, as upstream would write it."""
  config, shape, forcings, _ = _CASES[name]
  model = models.build(dict(config, mix='upstream'), shape=shape, forcings=forcings, t_in=3,
                       t_out=2)
  h, w, _ = shape
  planes = np.zeros((1, 5, h, w, forcings), np.float32) if forcings else None
  template = jax.eval_shape(lambda: model.init(
      jax.random.key(0), np.zeros((1, 5, *shape), np.float32), planes))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template)
  family = FAMILIES[config['name']]
  live = rules.to_torch(family, variables)
  return rules.complete(family, live, shape[:2]), live


@pytest.mark.parametrize('name', _CASES)
def test_a_bare_file_needs_no_config(tmp_path, capsys, name):
  config, shape, forcings, more = _CASES[name]
  weights, live = _weights(name)
  rng = np.random.default_rng(1)
  for key in weights.keys() - live.keys():  # whatever nobody reads must come back as well
    weights[key] = rng.integers(1, 9, weights[key].shape).astype(weights[key].dtype)
  np.savez(tmp_path / 'w.npz', **weights)
  run, back = str(tmp_path / 'run'), str(tmp_path / 'back.npz')
  frame = () if infer.frame_size(config['name'], weights) else (f'--frame={shape[0]}x{shape[1]}',)
  assert command.main([str(tmp_path / 'w.npz'), f'--out={run}', *more, *frame]) == 0, (
      capsys.readouterr().err)
  loaded = checkpoint.load(run)
  assert loaded.spec.shape == shape and len(loaded.spec.channels) == 1 + forcings
  assert loaded.config.model.name == config['name']
  assert loaded.config.model.fusion == config.get('fusion', 'none')
  if 'patch' in config:
    assert loaded.config.model.patch == config['patch']
  found = loaded.config.model.backbone
  for key, value in config['backbone'].items():
    if key == 'translator':
      value = {'mlp': 'mlpmixer'}.get(value, value)
    if name in ('simvp_incepu', 'simvp_convmixer') and key == 'mlp_ratio':
      continue  # they have no MLP
    if key in ('mlp_ratio',):
      assert int(24 * found[key]) == int(24 * value)
    elif isinstance(found[key], tuple) and not isinstance(value, tuple):
      assert set(found[key]) == {value}
    else:
      assert found[key] == value
  if config['name'] == 'simvp':
    assert loaded.config.data.t_in == 3
  assert command.main(['--to-torch', f'--checkpoint={run}', f'--out={back}']) == 0
  with np.load(back) as again:
    assert set(again.files) == weights.keys()
    for key, value in weights.items():
      np.testing.assert_array_equal(again[key], value)
      assert again[key].dtype == value.dtype


# Told by their files in the round trips of their own tests.
_ROUND_TRIPS = {'gs2pm_predrnn', 'gs2pm_predrnnpp', 'gs2pm_mim', 'gs2pm_e3dlstm', 'simvp_v1',
                'peephole_convlstm'}


def test_every_family_is_told_by_its_keys():
  assert {_CASES[n][0]['name'] for n in _CASES} == FAMILIES.keys() - _ROUND_TRIPS
  for name, (config, *_) in _CASES.items():
    # An ESCL has the tensors of a ConvLSTMNet.
    told = {'escl': 'convlstmnet'}.get(config['name'], config['name'])
    assert infer.model_of(_weights(name)[1]) == told


def test_keys_of_no_model_are_one_line(tmp_path, capsys):
  np.savez(tmp_path / 'w.npz', nothing=np.ones(1))
  assert command.main([str(tmp_path / 'w.npz'), f'--out={tmp_path / "run"}']) == 1
  assert 'keys of no model known here (nothing ...); known: convlstm' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_the_width_tells_the_fusion():
  assert infer.fusion(1, 1) == ('none', 1) and infer.fusion(3, 3) == ('none', 3)
  assert infer.fusion(1, 9) == ('concatenate', 9) and infer.fusion(1, 10) == ('mix', 9)
  assert infer.fusion(1, 2) == ('concatenate', 2)
