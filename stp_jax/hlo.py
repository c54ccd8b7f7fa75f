"""Where a compiled program talks to other devices: collectives inside loops, and outside."""

import re

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute',
               'collective-broadcast')
_HEAD = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$')
_CALLED = re.compile(
    r'(?:body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)')
_LISTED = re.compile(r'(?:branch_computations|called_computations|calls)=\{([^}]*)\}')
_COLLECTIVE = re.compile(rf'= (.*?) ({"|".join(COLLECTIVES)})(?:-start)?\(')
_SHAPE = re.compile(r'\w+\[[\d,]*\]')
_NAME = re.compile(r'op_name="([^"]*)"')


def _computations(text: str) -> dict[str, list[str]]:
  found, current = {}, None
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head and not line.startswith(' '):
      current = found.setdefault(head[1], [])
    elif current is not None:
      current.append(line)
  return found


def _calls(line: str) -> list[str]:
  return _CALLED.findall(line) + [
      name.strip().lstrip('%') for part in _LISTED.findall(line) for name in part.split(',')]


def collectives(text: str) -> tuple[list[str], list[str]]:
  """`(inside loops, outside)`: a line 'kind shapes: name of the operation' for each collective.

  Args:
    text: of a compiled module, `compiled.as_text()`.
  """
  parts = _computations(text)
  looped, queue = set(), [
      name for lines in parts.values() for line in lines if ' while(' in line
      for name in _calls(line)]
  while queue:
    name = queue.pop()
    if name not in looped:
      looped.add(name)
      queue += [n for line in parts.get(name, ()) for n in _calls(line)]
  inside, outside = [], []
  for name, lines in parts.items():
    for line in lines:
      kind = _COLLECTIVE.search(line)
      if kind:
        operation = _NAME.search(line)
        shapes = ' '.join(_SHAPE.findall(kind[1]))
        (inside if name in looped else outside).append(
            f'{kind[2]} {shapes}: {operation[1] if operation else line.strip()[:80]}')
  return inside, outside
