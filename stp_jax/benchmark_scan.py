"""What the methods of the selective scan cost: `python -m stp_jax.benchmark selective_scan`.

Forward and backward pass of all methods, taking turns in this one process, for several lengths L;
with gate, skip and softplus, as in a Mamba block. Times are medians of wall-clock time; a ratio is
the median over rounds of a method's time to that of the first method in the same round, so that
other work on the machine hardly shows in it. Every measured call follows one of the same method:
what another one has left in the caches does not count. `temporary_mib` is what the compiled
gradient needs beside arguments and results.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.measure import seconds_per_call, temporary_mib
from stp_jax.models.ops.selective_scan import METHODS, scan_tokens

# `associative` takes a gigabyte and a minute; name it to see it.
_METHODS = ('sequential', 'recompute', 'chunked')


def _inputs(batch: int, length: int, features: int, states: int, dtype: str) -> dict[str, Any]:
  """Arguments of the size that a Mamba block makes at its start."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
  sequence = (batch, length, features)
  decay = -np.broadcast_to(np.arange(1, states + 1, dtype=np.float32), (features, states))
  return dict(
      u=draw(*sequence), delta=draw(*sequence), A=jnp.asarray(decay),
      B=draw(batch, length, states), C=draw(batch, length, states), D=jnp.ones(features),
      z=draw(*sequence), delta_bias=jnp.full(features, -4.0))


def _seconds(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
  """Seconds of every second call of those in a row."""
  twice = {(name, i): f for name, f in functions.items() for i in range(2)}
  return {name: times for (name, i), times in seconds_per_call(twice, rounds).items() if i}


def rows(
    length: int, methods: Sequence[str] = _METHODS, *, batch: int = 2, features: int = 512,
    states: int = 16, dtype: str = 'float32', chunk: int | None = None, rounds: int = 5,
) -> list[dict[str, Any]]:
  """A row per method at one length; ratios are to the first method."""
  inputs = _inputs(batch, length, features, states, dtype)
  weight = jnp.asarray(np.random.default_rng(1).standard_normal(inputs['u'].shape), jnp.float32)
  found, both, forward, results = [], {}, {}, {}
  for method in methods:
    apply = lambda inputs, m=method: scan_tokens(**inputs, softplus=True, method=m, chunk=chunk)
    loss = lambda inputs, f=apply: jnp.sum(f(inputs)[0].astype(jnp.float32) * weight)
    start = time.perf_counter()
    gradient = jax.jit(jax.value_and_grad(loss)).lower(inputs).compile()
    compile_s = time.perf_counter() - start
    plain = jax.jit(apply).lower(inputs).compile()
    results[method] = gradient(inputs)[1]
    both[method] = lambda f=gradient: f(inputs)
    forward[method] = lambda f=plain: f(inputs)
    found.append(dict(length=length, method=method, compile_s=round(compile_s, 2),
                      temporary_mib=temporary_mib(gradient)))
  seconds, forward_s = _seconds(both, rounds), _seconds(forward, rounds)
  first = methods[0]
  for row in found:
    times = seconds[row['method']]
    gap = max(
        float(jnp.max(jnp.abs(a.astype(jnp.float32) - b)) / jnp.max(jnp.abs(b)))
        for a, b in zip(*(jax.tree.leaves(results[m]) for m in (row['method'], first))))
    mib = row['temporary_mib'], found[0]['temporary_mib']
    row |= dict(
        forward_ms=round(1e3 * statistics.median(forward_s[row['method']]), 2),
        both_ms=round(1e3 * statistics.median(times), 2),
        time_ratio=round(statistics.median(a / b for a, b in zip(times, seconds[first])), 3),
        memory_ratio=None if None in mib else round(mib[0] / max(mib[1], 1e-9), 3),
        gradient_difference=float(f'{gap:.1e}'))
  return found


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
  """Measures, prints a table or JSON, and returns what it printed."""
  parser = argparse.ArgumentParser(
      prog='python -m stp_jax.benchmark selective_scan', description=__doc__)
  parser.add_argument('--length', default='64,320,962', help='lengths, joined by commas')
  parser.add_argument('--method', default=','.join(_METHODS),
                      help=f'of {", ".join(METHODS)}; ratios are to the first')
  parser.add_argument('--batch', type=int, default=2)
  parser.add_argument('--features', type=int, default=512)
  parser.add_argument('--states', type=int, default=16)
  parser.add_argument('--chunk', type=int, help='steps of a chunk; about sqrt(L) if not given')
  parser.add_argument('--dtype', default='float32', help='of sequences: float32 or bfloat16')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--json', action='store_true', help='one JSON object instead of a table')
  args = parser.parse_args(argv)
  methods = args.method.split(',')
  if unknown := set(methods) - set(METHODS):
    parser.error(f'--method {sorted(unknown)[0]}: of {", ".join(METHODS)}')
  if not all(n.isdigit() and int(n) for n in args.length.split(',')):
    parser.error(f'--length {args.length}: numbers of steps, joined by commas')
  result: dict[str, Any] = dict(
      device=str(jax.devices()[0].device_kind), platform=jax.default_backend(),
      jax=jax.__version__, batch=args.batch, features=args.features, states=args.states,
      dtype=args.dtype, rows=[])
  table = not args.json
  if table:
    print('  '.join(f'{k}={v}' for k, v in result.items() if k != 'rows'))
  for length in map(int, args.length.split(',')):
    new = rows(length, methods, batch=args.batch, features=args.features, states=args.states,
               dtype=args.dtype, chunk=args.chunk, rounds=args.rounds)
    if table:
      if not result['rows']:
        print('  '.join(f'{k:>12}' for k in new[0]))
      for row in new:
        print('  '.join(f'{row[k]!s:>{max(12, len(k))}}' for k in row), flush=True)
    result['rows'] += new
  if args.json:
    print(json.dumps(result))
  return result
