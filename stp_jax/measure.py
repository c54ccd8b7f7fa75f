"""Operations, time and memory of a function."""

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from stp_jax.models.layers.conv import convolution_method


def multiply_adds(function: Callable, *args) -> int:
  """Multiply-additions of the convolutions and matrix products in one call of `function`.

  Counted as fvcore does: no norms, activations or element-wise work; a depthwise convolution by its
  taps; a loop by its length, or once where the length is not known. `args` may be
  jax.ShapeDtypeStruct.
  """
  # The rewritten convolutions pad kernels and spell depthwise ones out: count the plain form.
  with convolution_method('native'):
    jaxpr = jax.make_jaxpr(function)(*args)
  return _count(jaxpr.jaxpr)


def _count(jaxpr) -> int:
  return sum(_equation(e) for e in jaxpr.eqns)


def _equation(e) -> int:
  name, params = e.primitive.name, e.params
  if name == 'conv_general_dilated':
    kernel = e.invars[1].aval.shape
    outputs = params['dimension_numbers'].rhs_spec[0]
    # A transposed convolution spreads its input: the zeros in between are not multiplied.
    spread = math.prod(params['lhs_dilation'])
    return math.prod(e.outvars[0].aval.shape) * math.prod(kernel) // kernel[outputs] // spread
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    shape = e.invars[0].aval.shape
    return math.prod(e.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
  if name == 'cond':
    return max(_count(b.jaxpr) for b in params['branches'])
  inner = [
      v for p in params.values() for v in (p if isinstance(p, (tuple, list)) else (p,))
      if hasattr(v, 'eqns') or hasattr(v, 'jaxpr')]
  total = sum(_count(getattr(v, 'jaxpr', v)) for v in inner)
  return total * params['length'] if name == 'scan' else total


def peak_mib() -> float:
  """Most memory this process has held so far, MiB."""
  # Linux counts kilobytes, macOS bytes.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (2 ** 20 if sys.platform == 'darwin' else 2 ** 10)


def seconds_per_call(
    functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
  """Seconds of every call, the functions taking turns; one unmeasured call of each first."""
  times = {name: [] for name in functions}
  for i in range(rounds + 1):
    for name, function in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function())
      if i:
        times[name].append(time.perf_counter() - start)
  return times


def temporary_mib(compiled) -> float | None:
  """What a compiled function needs beside arguments and results, MiB."""
  analysis = compiled.memory_analysis()  # None where a backend does not say
  return None if analysis is None else round(analysis.temp_size_in_bytes / 2 ** 20, 3)


def program_mib(compiled) -> float | None:
  """What a compiled function holds at its peak, arguments and results included, MiB."""
  m = compiled.memory_analysis()
  if m is None:
    return None
  total = (m.temp_size_in_bytes + m.argument_size_in_bytes + m.output_size_in_bytes
           - m.alias_size_in_bytes)
  return round(total / 2 ** 20, 1)
