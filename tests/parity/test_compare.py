"""A wrong number makes a case FAIL, a right one does not: the rules and the command line."""

import copy
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.parity import __main__ as command
from stp_jax.parity import case as cases
from stp_jax.parity import compare, runtime

_SPEC = dict(
    group='made', case='one', kind='model', model='made', variant=None, precision='float32',
    config={}, n_params=7, values=dict(list=[1.0, 2.0], one=3.0),
    compare=[
        dict(output='y', mode='eval', abs_tol=1e-4),
        dict(output='relative', mode='eval', abs_tol=1e-12, rel_tol=0.01),
        dict(output='most', mode='eval', abs_tol=1e-4, fraction=0.75),
        dict(output='index', mode=None, abs_tol='exact'),
        dict(output='z', mode='eval', abs_tol=1e-6, reference='output64/z'),
        dict(output='buffers/*', mode='train', abs_tol=1e-5),
        dict(output='*', file='weights_after.npz', mode=None, abs_tol=1e-5)],
    compare_values=[dict(pointer='/values/list', abs_tol=1e-6),
                    dict(pointer='/values/one', abs_tol=1e-6)],
    loss=dict(formula='', mode='eval', value=0.5, abs_tol=1e-5),
    grads=dict(mode='eval', wrt='parameters', norms='grad_norm', norm_rel_tol=1e-3, norm_floor=1e-6,
               arrays=['a'], array_rel_tol=1e-3, zero=['still'], none=['gone'],
               roundoff_only=['noise']))
_GRADS = {'a': np.array([3.0, 4.0]), 'b': np.array([10.0]), 'still': np.zeros(2),
          'noise': np.array([1e-9])}


@pytest.fixture
def case(tmp_path):
  folder = tmp_path / 'made' / 'one'
  folder.mkdir(parents=True)
  (folder / 'case.json').write_text(json.dumps(_SPEC))
  np.savez(folder / 'io.npz', **{
      'output/y': np.arange(4.0), 'output/relative': np.array([100.0, 1.0]),
      'output/most': np.zeros(4), 'output/index': np.arange(3), 'output/z': np.zeros(2) + 5,
      'output64/z': np.zeros(2), 'output/buffers/a': np.ones(2), 'output/buffers/b': np.ones(3)})
  np.savez(folder / 'weights_after.npz', w=np.ones((2, 2)))
  norms = {f'grad_norm/{k}': np.linalg.norm(v) for k, v in _GRADS.items()} | {'grad_norm/gone': 0.0}
  np.savez(folder / 'grads.npz', **norms, **{'grad/a': _GRADS['a']})
  return cases.Case(folder)


def _right():
  return cases.Result(
      outputs={'y': np.arange(4.0), 'relative': np.array([100.5, 1.0]),
               'most': np.array([0, 0, 0, 9.0]), 'index': np.arange(3), 'z': np.zeros(2),
               'buffers/a': np.ones(2), 'buffers/b': np.ones(3)},
      files={'weights_after.npz': {'w': np.ones((2, 2))}},
      values={'/values/list': [1.0, 2.0], '/values/one': 3.0}, loss=0.5,
      grads=copy.deepcopy(_GRADS), n_params=7)


def test_right_numbers_pass(case):
  verdict = compare.check(case, _right())
  assert verdict.ok, verdict.failures
  assert verdict.max_dy == 9.0 and verdict.max_rel_grad == 0.0


def _set(**changes):
  def change(result):
    for name, value in changes.items():
      setattr(result, name, value)
  return change


def _put(part, key, value):
  def change(result):
    getattr(result, part)[key] = value
  return change


def _drop(part, key):
  return lambda result: getattr(result, part).pop(key)


@pytest.mark.parametrize('change,reason', [
    (_put('outputs', 'y', np.array([0, 1, 2, 3.001])), 'y: 1 of 4 off'),
    (_put('outputs', 'y', np.array([0, 1, 2, np.nan])), 'y: 1 of 4 off'),
    (_put('outputs', 'y', np.arange(5.0)), r'y: shape \(5,\), expected \(4,\)'),
    (_drop('outputs', 'y'), 'y: not computed'),
    (_put('outputs', 'relative', np.array([101.5, 1.0])), 'relative: 1 of 2 off'),
    (_put('outputs', 'most', np.array([0, 0, 9.0, 9.0])), 'most: 2 of 4 off'),
    (_put('outputs', 'index', np.array([0, 1, 3])), 'index: 1 of 3 differ, exact asked'),
    (_put('outputs', 'z', np.zeros(2) + 5), 'z: 2 of 2 off'),
    (_put('outputs', 'buffers/b', np.zeros(3)), 'buffers/b: 3 of 3 off'),
    (_drop('outputs', 'buffers/b'), 'buffers/b: not computed'),
    (_put('files', 'weights_after.npz', {'w': np.zeros((2, 2))}), 'w: 4 of 4 off'),
    (_set(files={}), 'w: not computed'),
    (_put('values', '/values/list', [1.0, 2.1]), '/values/list: 1 of 2 off'),
    (_drop('values', '/values/one'), '/values/one: not computed'),
    (_set(loss=0.501), 'loss: 1 of 1 off'), (_set(loss=None), 'loss: not computed'),
    (_put('grads', 'b', np.array([10.02])), 'gradient norm of b: 10.02, expected 10'),
    (_put('grads', 'b', np.array([np.nan])), 'gradient norm of b: nan'),
    (_drop('grads', 'b'), 'gradient of b: not computed'),
    (_put('grads', 'a', np.array([4.0, 3.0])), 'gradient a: off by 1 of 4'),
    (_put('grads', 'a', np.array([[3.0, 4.0]])), r'gradient a: shape \(1, 2\)'),
    (_put('grads', 'still', np.array([1e-3, 0])), 'gradient norm of still'),
    (_put('grads', 'gone', np.array([1e-3])), 'gradient norm of gone'),
    (_set(n_params=8), '8 parameters, expected 7'),
    (_set(n_params=None), '0 parameters, expected 7'),
    (_set(notes=['latest.pth: differs']), 'latest.pth: differs')])
def test_a_wrong_number_fails(case, change, reason):
  result = _right()
  change(result)
  verdict = compare.check(case, result)
  assert len(verdict.failures) == 1
  assert re.search(reason, verdict.failures[0]), verdict.failures


@pytest.mark.parametrize('change', [
    _put('grads', 'noise', np.array([99.0])),  # analytically zero: any rounding is allowed
    _put('grads', 'b', np.array([10.009])),
    _put('grads', 'still', np.array([1e-6, 0])),  # below floor * the largest norm
    _put('outputs', 'y', np.arange(4.0) + 9e-5)])
def test_what_the_rules_allow_passes(case, change):
  result = _right()
  change(result)
  assert compare.check(case, result).ok


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 30), bad=st.integers(0, 30), fraction=st.floats(0.5, 1.0))
def test_fraction_counts_elements(size, bad, fraction):
  bad = min(bad, size)
  y = np.zeros(size)
  y[:bad] = 1
  verdict = compare.Verdict()
  compare.check_array(verdict, 'y', y, np.zeros(size), dict(abs_tol=0.5, fraction=fraction))
  assert verdict.ok == (bad <= (1 - fraction) * size + 1e-9)


class _Family:
  """Stands in for a family module; `made/two` crashes."""
  GROUPS = ('made',)

  @staticmethod
  def run(case):
    if case.spec['case'] == 'two':
      raise RuntimeError('no such\nthing')
    if case.spec['case'] == 'three':
      raise cases.Unsupported('model of glass')
    return _right()


@pytest.fixture
def tree(case, monkeypatch):
  """A tree of two cases of a claimed group and one of another."""
  monkeypatch.setattr(runtime, 'families', lambda: {'made': _Family})
  root = case.folder.parent.parent
  for name in ('made/two', 'made/three', 'other/one'):
    folder = root / name
    folder.mkdir(parents=True)
    group, one = name.split('/')
    (folder / 'case.json').write_text(json.dumps(_SPEC | dict(group=group, case=one)))
  return root


def _lines(capsys):
  return capsys.readouterr().out.strip().splitlines()


def test_a_case_prints_its_line_and_the_count(tree, capsys):
  assert command.main([str(tree / 'made' / 'one')]) == 0
  first, last = _lines(capsys)
  assert first.split() == ['made/one', '9.0e+00', '0.0e+00', 'ok']
  assert last == '1 passed, 0 failed'


def test_a_crash_is_a_fail_line(tree, capsys):
  assert command.main([str(tree / 'made')]) == 1
  lines = _lines(capsys)
  assert any(
      x.startswith('made/two ') and x.endswith('FAIL RuntimeError: no such') for x in lines)
  assert any(x.endswith('FAIL not built: model of glass') for x in lines)
  assert lines[-1] == '1 passed, 2 failed'
  with pytest.raises(RuntimeError):
    command.main([str(tree / 'made' / 'two'), '--verbose'])


def test_unclaimed_groups_fail_only_when_they_are_named(tree, capsys):
  command.main([str(tree)])
  lines = _lines(capsys)
  assert 'unclaimed: other (1 cases)' in lines and lines[-1] == '1 passed, 2 failed'
  assert command.main([str(tree / 'other'), str(tree / 'made' / 'one')]) == 1
  lines = _lines(capsys)
  assert lines[0].endswith('FAIL no module of stp_jax.parity claims the group other')
  assert lines[-1] == '1 passed, 1 failed'


def test_a_folder_without_cases_fails(tmp_path, capsys):
  assert command.main([str(tmp_path)]) == 1
  lines = _lines(capsys)
  assert 'no case.json' in lines[0] and lines[-1] == '0 passed, 1 failed'


def test_a_damaged_case_fails_in_one_line(tree, capsys):
  (tree / 'made' / 'one' / 'case.json').write_text('{')
  assert command.main([str(tree / 'made' / 'one')]) == 1
  assert _lines(capsys)[-1] == '0 passed, 1 failed'


def test_the_families_import_no_torch():
  code = ('import sys; from stp_jax.parity import runtime; runtime.families(); '
          'sys.exit("torch" in sys.modules)')
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
