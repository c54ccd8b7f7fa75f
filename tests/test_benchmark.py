"""Operation counts against published ones; the benchmark runs and prints what it promises."""

import json

import jax
import jax.numpy as jnp
import pytest

from stp_jax import benchmark, measure
from stp_jax.models import build


@pytest.mark.parametrize('name, fields, fusion, forcings, t_out, published', [
    ('convlstm', dict(patch=4), 'none', 0, 48, 223),
    ('convlstm', dict(patch=4), 'mix', 15, 48, 286),
    ('simvp', {}, 'none', 0, 12, 23.32), ('simvp', dict(translator='tau'), 'mix', 15, 12, 23.11)])
def test_multiply_adds_of_the_published_models(name, fields, fusion, forcings, t_out, published):
  """Table 1 of the Channel Mixer Layer: 'Flops' in G, one example; SimVP one chunk."""
  model = build(dict(name=name, fusion=fusion, **fields), shape=(72, 72, 1), forcings=forcings,
                t_in=12, t_out=t_out)
  frames = jax.ShapeDtypeStruct((1, 12 + t_out, 72, 72, 1), jnp.float32)
  planes = jax.ShapeDtypeStruct((1, 12 + t_out, 72, 72, forcings), jnp.float32)
  planes = planes if forcings else None
  variables = jax.eval_shape(model.init, jax.random.key(0), frames, planes)
  count = measure.multiply_adds(model.apply, variables, frames, planes)
  assert count / 1e9 == pytest.approx(published, rel=0.02)


def test_multiply_adds_of_loops_and_branches():
  x = jnp.ones((3, 4))
  w = jnp.ones((4, 4))
  def loop(x):
    return jax.lax.scan(lambda c, _: (c @ w, None), x, length=5)[0]
  assert measure.multiply_adds(loop, x) == 5 * 3 * 4 * 4
  assert measure.multiply_adds(jax.jit(loop), x) == 5 * 3 * 4 * 4
  branch = lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x, lambda: x @ w)
  assert measure.multiply_adds(branch, x) == 3 * 4 * 4


def test_it_runs_and_prints_json(capsys, monkeypatch):
  monkeypatch.setattr(benchmark, 'SMALL', dict(
      convlstm=dict(patch=2, anchor='climatology', backbone=dict(features=(2,), kernel_size=3))))
  benchmark.main(['--size=8', '--t_in=2', '--t_out=2', '--rounds=1', '--json', '--model=convlstm',
                  '--parts=models'])
  printed = json.loads(capsys.readouterr().out)
  row = printed['models'][0]
  assert printed['platform'] == 'cpu' and row['model'] == 'convlstm'
  assert all(row[k] > 0 for k in (
      'parameters', 'gmacs', 'compile_train_s', 'infer_samples_per_s', 'train_samples_per_s',
      'process_peak_mib', 'train_temporary_mib'))


def test_parts(capsys):
  row = benchmark.conv_scan_row(features=2, layers=1, t_in=2, t_out=1, side=8, rounds=1)
  assert row['ratio'] > 0 and row['relative_difference'] < 1e-5
  row = benchmark.loader_row(frames=4, side=8, windows=50)
  assert row['windows_per_s'] > 0
  with pytest.raises(SystemExit):
    benchmark.main(['--parts=disk'])
  assert 'disk' in capsys.readouterr().err
  assert benchmark._table([dict(a=1, b=2), dict(a=10, b=None)]) == 'a  1  10\nb  2  None'
