"""The list of promises that are broken on purpose keeps up with the code."""

import ast

import pytest

from tests.broken_promises import _ROOT, BREAKS


@pytest.mark.parametrize('name', BREAKS)
def test_what_breaks_a_promise_is_still_in_the_code(name):
  path, old, new, test = BREAKS[name]
  text = (_ROOT / path).read_text()
  assert text.count(old) == 1 and new != old
  if path.endswith('.py'):  # a copy that does not parse would fail any test
    ast.parse(text.replace(old, new))
  file, function = test.partition('[')[0].split('::')
  assert f'def {function}(' in (_ROOT / file).read_text()
