"""What the core may import."""

import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Every module of the package but those that are about to read PyTorch's files.
_MODULES = sorted(
    '.'.join(p.relative_to(_ROOT).with_suffix('').parts).removesuffix('.__init__')
    for p in (_ROOT / 'stp_jax').rglob('*.py')
    if p.name != '__main__.py' and p.parent.name not in ('tables', 'report'))


def test_the_core_imports_neither_torch_nor_tensorflow():
  assert {'stp_jax.train', 'stp_jax.evaluate', 'stp_jax.predict', 'stp_jax.parity',
          'stp_jax.convert.runs'} <= set(_MODULES)
  code = (f'import importlib, sys\nfor name in {_MODULES}: importlib.import_module(name)\n'
          'found = {"torch", "tensorflow"} & set(sys.modules)\nassert not found, found')
  done = subprocess.run([sys.executable, '-c', code], cwd=_ROOT, capture_output=True, text=True,
                        timeout=600)
  assert done.returncode == 0, done.stderr
