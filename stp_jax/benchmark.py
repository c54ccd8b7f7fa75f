"""How fast it is here: `python -m stp_jax.benchmark [--model=convlstm,simvp] [--json]`.

Per model: parameters, multiply-additions, compile times, samples per second in inference and
training, memory. Then the loader (windows per second from a warm memory map, before batching) and
`conv_scan`: the training gradient of a ConvLSTM inside `nn.scan` against the same gradient of an
unrolled Python loop, alternating in this one process. The ratio says whether a loop costs anything;
without the rewritten convolution (`models.layers.conv`) it is 20 to 50 on a CPU.
`--table` lists configurations instead, see `stp_jax.benchmark_table`; the word `selective_scan`
compares the methods of that operation, see `stp_jax.benchmark_scan`.
Times are medians; other work on the machine shows in them, but hardly in the ratio.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stp_jax import benchmark_remat, benchmark_scan, benchmark_table
from stp_jax import config as configs
from stp_jax.data.clip_store import ClipStore, Stream
from stp_jax.data.clip_writer import StoreWriter
from stp_jax.measure import multiply_adds, peak_mib, program_mib, seconds_per_call, temporary_mib
from stp_jax.models import Forecaster, build
from stp_jax.models.layers.conv import convolution_method
from stp_jax.models.layers.patches import patchify, unpatchify

PARTS = ('models', 'loader', 'conv_scan')
# A CPU-sized run of each, and its size in the Channel Mixer Layer's Table 1.
SMALL = dict(
    convlstm=dict(patch=4, backbone=dict(features=(64,) * 4)),
    simvp=dict(patch=1, backbone=dict(hid_S=16, hid_T=128, N_T=4)),
)
PAPER = dict(convlstm=dict(patch=4, backbone={}), simvp=dict(patch=1, backbone={}))


def model_row(
    name: str, model: Forecaster, *, shape: tuple[int, int, int], batch: int, rounds: int,
) -> dict[str, Any]:
  """Measures one forecaster with an Adam step; see the module for the columns."""
  total = model.t_in + model.t_out
  rng = np.random.default_rng(0)
  draw = lambda channels: jnp.asarray(
      rng.random((batch, total, *shape[:2], channels), np.float32))
  frames = draw(shape[2])
  forcings = draw(model.fusion.forcings) if model.fusion.forcings else None
  calendar = jnp.ones((batch, total, 2))
  variables = jax.jit(lambda: model.init(jax.random.key(0), frames, forcings))()
  params = variables.pop('params')
  optimizer = optax.adam(1e-4)

  def predict(params, rest, frames, forcings, calendar):
    return model.apply(
        {'params': params, **rest}, frames[:, :model.t_in], forcings, calendar=calendar).prediction

  def train(params, rest, opt_state, frames, forcings, calendar):
    def loss(params):
      output, new = model.apply(
          {'params': params, **rest}, frames, forcings, train=True, calendar=calendar,
          mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)})
      return jnp.mean((output.prediction - frames[:, model.t_in:]) ** 2), new
    grads, new = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), {**rest, **new}, opt_state

  data = frames, forcings, calendar
  one = [None if x is None else jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
         for x in data]
  macs = multiply_adds(predict, params, variables, *one)
  start = time.perf_counter()
  inference = jax.jit(predict).lower(params, variables, *data).compile()
  compiled = time.perf_counter()
  state = [params, variables, optimizer.init(params)]
  training = jax.jit(train, donate_argnums=(0, 1, 2)).lower(*state, *data).compile()
  compile_seconds = compiled - start, time.perf_counter() - compiled
  infer_seconds = statistics.median(seconds_per_call(
      {'infer': lambda: inference(params, variables, *data)}, rounds)['infer'])
  counted = sum(x.size for x in jax.tree.leaves(params))

  def step():
    state[:] = training(*state, *data)
    return state

  train_seconds = statistics.median(seconds_per_call({'train': step}, rounds)['train'])
  return dict(
      model=name, batch=batch, t_in=model.t_in, t_out=model.t_out, shape=list(shape),
      forcings=model.fusion.forcings, parameters=counted, gmacs=float(f'{macs / 1e9:.4g}'),
      compile_infer_s=round(compile_seconds[0], 2), compile_train_s=round(compile_seconds[1], 2),
      infer_samples_per_s=round(batch / infer_seconds, 3),
      train_samples_per_s=round(batch / train_seconds, 3),
      infer_mib=program_mib(inference), train_mib=program_mib(training),
      infer_temporary_mib=temporary_mib(inference), train_temporary_mib=temporary_mib(training),
      process_peak_mib=round(peak_mib(), 1))


def loader_row(
    frames: int = 24, side: int = 72, windows: int = 20000, folder: str | None = None,
) -> dict[str, Any]:
  """Windows per second copied out of a store of uint16 maps that is in the page cache."""
  with tempfile.TemporaryDirectory(dir=folder) as temporary:
    path = pathlib.Path(temporary) / 'store'
    stream = Stream((side, side, 1), 'uint16', 'TECU', 0.1, missing=65535)
    rng = np.random.default_rng(0)
    with StoreWriter(
        path, name='benchmark', streams={'frames': stream}, cadence_hours=2.0, recipe={}) as writer:
      for i in range(8):
        maps = rng.integers(0, 2000, (5 * frames, *stream.shape), np.uint16)
        writer.add(f'{i}', {'frames': maps}, split='train', source=f'{i}')
      writer.finish()
    store = ClipStore(path)
    index = store.windows(['train'], frames)
    for i in range(len(store.clips)):
      store.frames(i).sum()  # warm
    order = rng.integers(0, len(index), windows)
    start = time.perf_counter()
    for i in order:
      np.array(store.frames(*index[i], frames))
    seconds = time.perf_counter() - start
  return dict(
      frames=frames, side=side, windows_per_s=round(windows / seconds),
      mib_per_s=round(windows * frames * side * side * 2 / 2 ** 20 / seconds))


def conv_scan_row(
    features: int = 64, layers: int = 4, batch: int = 2, t_in: int = 12, t_out: int = 12,
    side: int = 72, rounds: int = 3,
) -> dict[str, Any]:
  """Ratio of the ConvLSTM gradient in a scan to that of a Python loop of native convolutions."""
  model = build(
      dict(name='convlstm', patch=4, backbone=dict(features=(features,) * layers)),
      shape=(side, side, 1), t_in=t_in, t_out=t_out)
  total = t_in + t_out
  frames = jnp.asarray(
      np.random.default_rng(0).random((batch, total, side, side, 1), np.float32))
  params = jax.jit(lambda: model.init(jax.random.key(0), frames))()['params']
  use_true = jnp.ones((batch, total))

  def scanned(params):
    output = model.apply({'params': params}, frames, use_true=use_true)
    predictions = jnp.concatenate([output.context, output.prediction], 1)
    return jnp.mean((predictions - frames[:, 1:]) ** 2)

  def unrolled(params):
    patched, backbone, predictions = patchify(frames, 4), model.backbone, []
    carry = backbone.initial_carry(patched[:, 0], total - 1)
    for t in range(total - 1):
      carry, prediction, _ = backbone.apply(
          {'params': params['backbone']}, carry, patched[:, t], t)
      predictions.append(prediction)
    return jnp.mean((unpatchify(jnp.stack(predictions, 1), 4) - frames[:, 1:]) ** 2)

  compiled, compile_s = {}, {}
  for name, function, method in (
      ('scan', scanned, 'auto'), ('unrolled', unrolled, 'native')):
    start = time.perf_counter()
    with convolution_method(method):
      compiled[name] = jax.jit(jax.grad(function)).lower(params).compile()
    compile_s[name] = round(time.perf_counter() - start, 1)
  results = {name: function(params) for name, function in compiled.items()}
  difference = max(
      float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
      for a, b in zip(*map(jax.tree.leaves, results.values())))
  seconds = seconds_per_call({n: (lambda f=f: f(params)) for n, f in compiled.items()}, rounds)
  scan, loop = seconds['scan'], seconds['unrolled']
  # Neighbouring calls met the same load: their ratio is steadier than that of the medians.
  ratios = [a / b for a, b in zip(scan, loop)]
  return dict(
      ratio=round(statistics.median(ratios), 3), scan_s=round(statistics.median(scan), 3),
      unrolled_s=round(statistics.median(loop), 3), relative_difference=difference,
      compile_scan_s=compile_s['scan'], compile_unrolled_s=compile_s['unrolled'])


def _table(rows: list[dict[str, Any]]) -> str:
  """Column names down, rows across: there are more columns than models."""
  names = list(rows[0])
  cells = [[n] + [str(r.get(n)) for r in rows] for n in names]
  widths = [max(len(line[i]) for line in cells) for i in range(len(rows) + 1)]
  return '\n'.join(
      '  '.join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in cells)


def _beams(configured: list, args: argparse.Namespace) -> dict[str, Any]:
  """Rows of beam networks: frames per second, memory, hours an epoch."""
  from stp_jax import benchmark_beam
  result = dict(device=str(jax.devices()[0].device_kind), jax=jax.__version__,
                beams=[benchmark_beam.row(c, args.rounds) for c in configured])
  print(json.dumps(result) if args.json else _table(result['beams']))
  return result


def main(argv: list[str] | None = None) -> dict[str, Any]:
  """Measures, prints a table or JSON, and returns what it printed."""
  argv = sys.argv[1:] if argv is None else argv
  if argv[:1] == ['selective_scan']:
    return benchmark_scan.main(argv[1:])
  parser = argparse.ArgumentParser(prog='python -m stp_jax.benchmark', description=__doc__)
  parser.add_argument('--model', default=','.join(SMALL), help='models, joined by commas')
  parser.add_argument('--config', action='append', default=[],
                      help='config file with words, instead of --model; may be repeated')
  parser.add_argument('--table', nargs='?', const='channel_mixer', default='',
                      help=f'published configurations: {" | ".join(benchmark_table.TABLES)}')
  parser.add_argument('--remat', default='', help='config file with words: its step under each '
                      'policy of rematerialisation, memory against time')
  parser.add_argument('--plan', nargs='?', const='step', default='', choices=['step', 'state'],
                      help='bytes a device of the published configurations, or of --config; '
                      'state: without compiling')
  parser.add_argument('--devices', default='1,8,64', help='with --plan: numbers of devices')
  parser.add_argument('--count-only', action='store_true', help='with --table: measure nothing')
  parser.add_argument('--parts', default=','.join(PARTS), help=f'of {", ".join(PARTS)}')
  parser.add_argument('--paper', action='store_true', help='the published sizes')
  parser.add_argument('--size', type=int, default=72, help='rows and columns of a frame')
  parser.add_argument('--batch', type=int, default=2)
  parser.add_argument('--t_in', type=int, default=12)
  parser.add_argument('--t_out', type=int, default=12)
  parser.add_argument('--dtype', default='float32', help='float32 or bfloat16')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--json', action='store_true', help='one JSON object instead of tables')
  args = parser.parse_args(argv)
  measure = lambda name, model, shape: model_row(
      name, model, shape=shape, batch=args.batch, rounds=args.rounds)
  if args.plan:
    from stp_jax import benchmark_plan
    try:
      return benchmark_plan.run(args.config, [int(n) for n in args.devices.split(',')],
                                args.plan == 'step', args.json)
    except ValueError as error:
      sys.exit(f'benchmark: {error}')
  if args.table:
    return benchmark_table.run(args.config, table=args.table, count_only=args.count_only,
                               as_json=args.json, measure=measure)
  if args.remat:
    return benchmark_remat.run(args.remat, rounds=args.rounds, as_json=args.json)
  parts = args.parts.split(',')
  if unknown := set(parts) - set(PARTS):
    parser.error(f'--parts {sorted(unknown)[0]}: of {", ".join(PARTS)}')
  shape, presets = (args.size, args.size, 1), PAPER if args.paper else SMALL
  configured = [configs.load(c) for c in args.config]
  if any(c.task.name in ('beam', 'rebuild') for c in configured):
    return _beams(configured, args)
  tasks = [benchmark_table.task_of(c) for c in configured]
  jobs = [(t.config.model.name, t.model(), t.spec.shape) for t in tasks] or [
      (name, build(dict(presets.get(name, {}), name=name), shape=shape, t_in=args.t_in,
                   t_out=args.t_out, dtype=args.dtype), shape)
      for name in args.model.split(',')]
  result: dict[str, Any] = dict(
      device=str(jax.devices()[0].device_kind), platform=jax.default_backend(),
      devices=jax.device_count(), jax=jax.__version__)
  if 'models' in parts:
    result['models'] = [measure(*job) for job in jobs]
  if 'loader' in parts:
    result['loader'] = loader_row(side=args.size)
  if 'conv_scan' in parts:
    result['conv_scan'] = conv_scan_row(side=args.size, rounds=args.rounds)
  if args.json:
    print(json.dumps(result))
    return result
  print(_table([{k: v for k, v in result.items() if k not in PARTS}]))
  for part in filter(result.__contains__, PARTS):
    rows = result[part] if isinstance(result[part], list) else [result[part]]
    print(f'\n{part}\n{_table(rows)}')
  return result


if __name__ == '__main__':
  main()
