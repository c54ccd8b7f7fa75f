"""How a case is run: float64 where it asks, full matmul precision, cheap compiles, no traceback."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax

from stp_jax.parity.case import Case, Unsupported
from stp_jax.parity.compare import Verdict, check

# One module per family; each has GROUPS and run(case) -> Result.
FAMILIES = (
    'recurrent', 'simvp', 'video_models', 'crevnet', 'dmvfn', 'fusion', 'metrics', 'schedule',
    'iono_data', 'gs2pm', 'gs2pm_recurrent', 'gs2pm_models', 'stpred', 'convrnn', 'mamba')


def families() -> dict[str, ModuleType]:
  """Group -> the module that claims it."""
  modules = [importlib.import_module(f'stp_jax.parity.{name}') for name in FAMILIES]
  return {group: module for module in modules for group in module.GROUPS}


@contextlib.contextmanager
def precision(double: bool) -> Iterator[None]:
  """Float64 where asked, and products never in less than float32."""
  with jax.enable_x64(double), jax.default_matmul_precision('highest'):
    yield


def compiled(function: Callable) -> Callable:
  """`jax.jit` that compiles a small case in half the time, and runs it slower than need be."""
  return jax.jit(function, compiler_options={'xla_backend_optimization_level': 0})


def run_case(case: Case, module: Any, verbose: bool = False) -> Verdict:
  """Runs and compares a case; whatever goes wrong in it is a failure with a reason in one line."""
  try:
    with precision(case.double):
      result = module.run(case)
    return check(case, result)
  except Unsupported as error:
    return Verdict([f'not built: {error}'])
  except Exception as error:
    if verbose:
      raise
    lines = str(error).strip().splitlines() or ['']
    return Verdict([f'{type(error).__name__}: {lines[0][:300]}'])
