"""The comparison of scan methods runs, and prints what it promises."""

import json

import pytest

from stp_jax import benchmark


def test_it_prints_ratios(capsys):
  words = ['selective_scan', '--length=9', '--features=4', '--states=2', '--batch=1', '--rounds=1',
           '--method=sequential,recompute']
  benchmark.main([*words, '--json'])
  first, second = json.loads(capsys.readouterr().out)['rows']
  assert first['time_ratio'] == first['memory_ratio'] == 1
  assert second['method'] == 'recompute' and second['gradient_difference'] < 1e-5
  assert all(second[k] > 0 for k in (
      'time_ratio', 'memory_ratio', 'forward_ms', 'both_ms', 'compile_s', 'temporary_mib'))


def test_unknown_words(capsys):
  for words in (['--method=fast'], ['--length=0'], ['--length=ten']):
    with pytest.raises(SystemExit):
      benchmark.main(['selective_scan', *words])
    assert words[0].partition('=')[2] in capsys.readouterr().err
