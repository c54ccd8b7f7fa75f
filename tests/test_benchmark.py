"""Operation counts against published ones; the benchmark runs and prints what it promises."""

import json

import jax
import jax.numpy as jnp
import pytest

from stp_jax import benchmark, benchmark_table, measure
from stp_jax.models import build
from stp_jax.models.layers.transposed import transposed_convolution


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


def test_multiply_adds_of_a_transposed_convolution():
  x, w = jnp.ones((1, 6, 5, 3)), jnp.ones((3, 3, 3, 7))
  spread = lambda x: transposed_convolution(x, w, stride=2, padding=1, output_padding=1)
  assert measure.multiply_adds(spread, x) == 6 * 5 * 3 * 9 * 7  # each input meets the whole kernel


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


def test_the_table_counts_and_prints_one_document(capsys):
  words = [f'--config=configs/iono_mixer.py:model={m},fusion=mix,channels=4,scale=paper'
           for m in ('convlstm', 'tau')]
  benchmark.main(['--table', '--count-only', '--json', *words])
  rows = json.loads(capsys.readouterr().out)['configurations']
  assert [(r['parameters'], r['live'], r['unused']) for r in rows] == [
      (15902720, 12494848, 3407872), (48240129, 48240129, 0)]
  assert rows[0]['gmacs'] == pytest.approx(239, rel=0.002) and rows[0]['shape'] == [72, 72, 1]
  benchmark.main(['--table', '--count-only', words[0]])
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 3 and '15,902,720 | 12,494,848 | 3,407,872' in lines[2]
  assert len({len(line) for line in lines}) == 1
  assert len(benchmark_table.TABLES['channel_mixer']) == 63


def test_the_table_measures_and_goes_on_after_what_does_not_fit(capsys):
  words = 'configs/video.py:model=convlstm,smoke,size=8,t_in=2,t_out=2'
  benchmark.main(['--table', '--json', '--rounds=1', '--batch=1', f'--config={words}'])
  row, = json.loads(capsys.readouterr().out)['configurations']
  assert all(row[k] > 0 for k in (
      'live', 'gmacs', 'infer_samples_per_s', 'train_samples_per_s', 'infer_mib', 'train_mib'))

  def fail(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory\nlong story')

  row, = benchmark_table.rows({'big': words}, fail)
  assert row['error'] == 'RESOURCE_EXHAUSTED: out of memory' and row['live'] > 0


def test_parts(capsys):
  row = benchmark.conv_scan_row(features=2, layers=1, t_in=2, t_out=1, side=8, rounds=1)
  assert row['ratio'] > 0 and row['relative_difference'] < 1e-5
  row = benchmark.loader_row(frames=4, side=8, windows=50)
  assert row['windows_per_s'] > 0
  with pytest.raises(SystemExit):
    benchmark.main(['--parts=disk'])
  assert 'disk' in capsys.readouterr().err
  assert benchmark._table([dict(a=1, b=2), dict(a=10, b=None)]) == 'a  1  10\nb  2  None'


def test_the_sizes_of_gs2pm(capsys):
  """Parameters as instantiated, multiply-adds of one forecast at 128 x 128 as measured upstream."""
  benchmark.main(['--table=gs2pm', '--count-only', '--json'])
  rows = {r['configuration']: r for r in json.loads(capsys.readouterr().out)['configurations']}
  assert {k: r['parameters'] for k, r in rows.items()} == dict(
      small=10379779, medium=99899395, large=441917059, large_readme=339305731)
  for name, gmacs in dict(small=30.49, medium=144.48, large_readme=431.63).items():
    assert rows[name]['gmacs'] == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.slow
def test_rematerialisation_gives_memory_against_time(capsys):
  benchmark.main(['--remat=configs/gs2pm.py:smoke,size=16,t_in=2,t_out=2', '--rounds=1', '--json'])
  rows = json.loads(capsys.readouterr().out)['remat']
  assert list(rows) == ['none', 'full', 'dots'] and rows['none']['memory'] == 1
  assert all(r['temporary_mib'] > 0 and r['time'] > 0 for r in rows.values())
  with pytest.raises(ValueError, match='has no field remat'):
    benchmark.main(['--remat=configs/video.py:smoke'])
