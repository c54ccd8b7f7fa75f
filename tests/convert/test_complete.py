"""What `--to-torch` writes for a run trained here has exactly the tensors that upstream has."""

import json
import pathlib

import numpy as np
import pytest

from stp_jax.convert import FAMILIES, infer, moments, rules

_PARITY = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'parity'
_UPSTREAMS = ('DrHoisu/Channel_Mixer_Layer', 'chengtan9907/OpenSTL', 'miaomiaoToday/GS2PM')


def _cases(group):
  for path in sorted((_PARITY / group).glob('*/case.json')):
    spec = json.loads(path.read_text())
    if spec['model'] in FAMILIES and spec['upstream'].split('@')[0] in _UPSTREAMS:
      with np.load(path.with_name('weights.npz')) as arrays:
        yield spec, dict(arrays)


@pytest.mark.parametrize('group', sorted(FAMILIES))
def test_dead_tensors_have_upstreams_names_and_shapes(group):
  if not (_PARITY / group).is_dir():
    pytest.skip('../shared/parity is not here: this test reads the weights that upstream has')
  found = 0
  for spec, weights in _cases(group):
    family, config = FAMILIES[spec['model']], spec['config']
    frame = tuple(config['in_shape'][-2:]) if 'in_shape' in config else (config['H'], config['W'])
    live = {k: v for k, v in weights.items()
            if not rules.matches(family.unused + family.buffers, k)}
    whole = dict(family.constants) | rules.complete(family, live, frame)
    # Some cases hold PyTorch's counters as float32.
    form = lambda k, v: (v.shape, None if k.endswith('num_batches_tracked') else v.dtype)
    shapes = {k: form(k, v) for k, v in weights.items()}
    assert {k: form(k, v) for k, v in whole.items()} == shapes, spec['case']
    for key, value in whole.items():
      if key.endswith(('relative_position_index', 'attn_mask')):
        np.testing.assert_array_equal(value, weights[key])
    assert infer.model_of(live) == {'escl': 'convlstmnet'}.get(spec['model'], spec['model'])
    names = moments.parameter_names(family, weights)
    assert sum(weights[n].size for n in names) == spec['n_params'], spec['case']
    found += 1
  assert found
