"""The head: torch's recurrent unit, its names and shapes."""

import jax
import numpy as np
import pytest

from stp_jax.convert import beam, rules
from stp_jax.models.beam.heads import Head


def test_coming_steps_are_a_torch_gru_with_changes_added_up():
  torch = pytest.importorskip('torch', reason="needs pip install 'stp_jax[test]'")
  torch.manual_seed(0)
  nn = torch.nn
  reference = nn.ModuleDict(dict(
      join=nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 4)),
      decoder=nn.GRUCell(4, 4), output=nn.Linear(4, 4)))
  fused = torch.randn(2, 5)
  h, x, expected = reference['join'](fused), torch.zeros(2, 4), []
  for _ in range(3):
    h = reference['decoder'](x, h)
    x = x + reference['output'](h)
    expected.append(x)
  head = Head((6, 3), 4, 3)
  family = rules.Family('head', lambda p: beam.key(('head', *p)), layouts=beam.LAYOUTS)
  template = jax.eval_shape(lambda: head.init(jax.random.key(0), fused.numpy()))
  weights = {k: v.detach().numpy() for k, v in reference.state_dict().items()}
  variables, unused = rules.to_flax(family, weights, template)
  assert not unused
  found = head.apply(variables, fused.numpy())
  np.testing.assert_allclose(found, torch.stack(expected, 1).detach(), atol=1e-6)
